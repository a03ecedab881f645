-- Create "pool_states" table
CREATE TABLE "pool_states" (
  "id" uuid NOT NULL,
  "state" uuid NULL,
  "previous" uuid NULL,
  "provider_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "pool_states_providers_pool_state" FOREIGN KEY ("provider_id") REFERENCES "providers" ("id") ON UPDATE NO ACTION ON DELETE CASCADE
);
-- Create index "pool_states_provider_id_key" to table: "pool_states"
CREATE UNIQUE INDEX "pool_states_provider_id_key" ON "pool_states" ("provider_id");
-- Whoever changes keys, groups, leases or the incident of a provider takes the provider's pool, and no process goes on by
-- what it remembers of it. The registry's own batches have taken it before, and say so by a setting of their transaction.
CREATE FUNCTION "pool_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  pools uuid[];
BEGIN
  IF TG_RELID NOT IN ('providers'::regclass, 'api_keys'::regclass, 'quota_groups'::regclass, 'key_leases'::regclass) THEN
    RAISE 'pool_changed is not for table %', TG_TABLE_NAME; -- it has rights, and the columns can be anybody's
  END IF;
  IF TG_OP = 'TRUNCATE' THEN
    SELECT array_agg(id) INTO pools FROM providers;
  ELSIF TG_TABLE_NAME = 'providers' THEN
    pools := ARRAY[NEW.id];
  ELSIF TG_TABLE_NAME = 'key_leases' AND TG_OP = 'UPDATE' THEN
    SELECT array_agg(DISTINCT k.provider_id) INTO pools FROM api_keys AS k
      WHERE k.id IN (SELECT api_key_id FROM changed UNION SELECT api_key_id FROM was);
  ELSIF TG_TABLE_NAME = 'key_leases' THEN
    SELECT array_agg(DISTINCT k.provider_id) INTO pools FROM changed AS c JOIN api_keys AS k ON k.id = c.api_key_id;
  ELSIF TG_OP = 'UPDATE' THEN
    SELECT array_agg(provider_id) INTO pools FROM (SELECT provider_id FROM changed UNION SELECT provider_id FROM was) AS c;
  ELSE
    SELECT array_agg(DISTINCT provider_id) INTO pools FROM changed;
  END IF;
  FOR attempt IN 1..3 LOOP
    BEGIN
      INSERT INTO pool_states (id, provider_id) SELECT gen_random_uuid(), id FROM providers WHERE id = ANY (pools) ORDER BY id
        ON CONFLICT (provider_id) DO UPDATE SET state = NULL, previous = NULL;
      RETURN NULL;
    EXCEPTION WHEN foreign_key_violation THEN -- a provider was purged while its pool was waited for
      IF attempt = 3 THEN
        RAISE;
      END IF;
    END;
  END LOOP;
END
$$;
REVOKE EXECUTE ON FUNCTION "pool_changed"() FROM PUBLIC;
-- It runs with its owner's rights, on the tables beside it: a role that may change keys need not know of pool_states.
DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION pool_changed() SECURITY DEFINER SET search_path = %I, pg_temp', current_schema());
END
$$;
CREATE TRIGGER "pool_changed_insert" AFTER INSERT ON "api_keys" REFERENCING NEW TABLE AS changed FOR EACH STATEMENT
  WHEN (current_setting('modelscan.pools', true) IS DISTINCT FROM 'held') EXECUTE FUNCTION "pool_changed"();
CREATE TRIGGER "pool_changed_update" AFTER UPDATE ON "api_keys" REFERENCING OLD TABLE AS was NEW TABLE AS changed FOR EACH STATEMENT
  WHEN (current_setting('modelscan.pools', true) IS DISTINCT FROM 'held') EXECUTE FUNCTION "pool_changed"();
CREATE TRIGGER "pool_changed_delete" AFTER DELETE ON "api_keys" REFERENCING OLD TABLE AS changed FOR EACH STATEMENT
  WHEN (current_setting('modelscan.pools', true) IS DISTINCT FROM 'held') EXECUTE FUNCTION "pool_changed"();
CREATE TRIGGER "pool_changed_truncate" AFTER TRUNCATE ON "api_keys" FOR EACH STATEMENT EXECUTE FUNCTION "pool_changed"();
CREATE TRIGGER "pool_changed_insert" AFTER INSERT ON "quota_groups" REFERENCING NEW TABLE AS changed FOR EACH STATEMENT
  WHEN (current_setting('modelscan.pools', true) IS DISTINCT FROM 'held') EXECUTE FUNCTION "pool_changed"();
CREATE TRIGGER "pool_changed_update" AFTER UPDATE ON "quota_groups" REFERENCING OLD TABLE AS was NEW TABLE AS changed FOR EACH STATEMENT
  WHEN (current_setting('modelscan.pools', true) IS DISTINCT FROM 'held') EXECUTE FUNCTION "pool_changed"();
CREATE TRIGGER "pool_changed_delete" AFTER DELETE ON "quota_groups" REFERENCING OLD TABLE AS changed FOR EACH STATEMENT
  WHEN (current_setting('modelscan.pools', true) IS DISTINCT FROM 'held') EXECUTE FUNCTION "pool_changed"();
CREATE TRIGGER "pool_changed_truncate" AFTER TRUNCATE ON "quota_groups" FOR EACH STATEMENT EXECUTE FUNCTION "pool_changed"();
CREATE TRIGGER "pool_changed_insert" AFTER INSERT ON "key_leases" REFERENCING NEW TABLE AS changed FOR EACH STATEMENT
  WHEN (current_setting('modelscan.pools', true) IS DISTINCT FROM 'held') EXECUTE FUNCTION "pool_changed"();
CREATE TRIGGER "pool_changed_update" AFTER UPDATE ON "key_leases" REFERENCING OLD TABLE AS was NEW TABLE AS changed FOR EACH STATEMENT
  WHEN (current_setting('modelscan.pools', true) IS DISTINCT FROM 'held') EXECUTE FUNCTION "pool_changed"();
CREATE TRIGGER "pool_changed_delete" AFTER DELETE ON "key_leases" REFERENCING OLD TABLE AS changed FOR EACH STATEMENT
  WHEN (current_setting('modelscan.pools', true) IS DISTINCT FROM 'held') EXECUTE FUNCTION "pool_changed"();
CREATE TRIGGER "pool_changed_truncate" AFTER TRUNCATE ON "key_leases" FOR EACH STATEMENT EXECUTE FUNCTION "pool_changed"();
CREATE TRIGGER "pool_changed_update" AFTER UPDATE OF "cooling_until", "cooling_reason", "incidents" ON "providers" FOR EACH ROW
  WHEN (current_setting('modelscan.pools', true) IS DISTINCT FROM 'held') EXECUTE FUNCTION "pool_changed"();
