-- Modify "providers" table
ALTER TABLE "providers" ADD CONSTRAINT "providers_cooling" CHECK (incidents BETWEEN 0 AND 1000000 AND (cooling_until IS NULL) = (cooling_reason = '')), ADD COLUMN "cooling_until" timestamptz NULL, ADD COLUMN "cooling_reason" character varying NOT NULL DEFAULT '' COLLATE "C", ADD COLUMN "incidents" bigint NOT NULL DEFAULT 0;
-- Create "quota_groups" table
CREATE TABLE "quota_groups" (
  "id" uuid NOT NULL,
  "created_at" timestamptz NOT NULL,
  "updated_at" timestamptz NOT NULL,
  "requests_per_minute" bigint NOT NULL DEFAULT 0,
  "tokens_per_minute" bigint NOT NULL DEFAULT 0,
  "requests_per_day" bigint NOT NULL DEFAULT 0,
  "tokens_per_day" bigint NOT NULL DEFAULT 0,
  "concurrency" bigint NOT NULL DEFAULT 0,
  "cost_per_day" bigint NOT NULL DEFAULT 0,
  "minute" timestamptz NULL,
  "requests_this_minute" bigint NOT NULL DEFAULT 0,
  "tokens_this_minute" bigint NOT NULL DEFAULT 0,
  "requests_today" bigint NOT NULL DEFAULT 0,
  "tokens_today" bigint NOT NULL DEFAULT 0,
  "cost_today" bigint NOT NULL DEFAULT 0,
  "last_reset" timestamptz NOT NULL,
  "observed" json NULL,
  "name" character varying NOT NULL COLLATE "C",
  "provider_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "quota_groups_providers_quota_groups" FOREIGN KEY ("provider_id") REFERENCES "providers" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "quota_groups_limits" CHECK (requests_per_minute BETWEEN 0 AND 9000000000000000000 AND tokens_per_minute BETWEEN 0 AND 9000000000000000000 AND requests_per_day BETWEEN 0 AND 9000000000000000000 AND tokens_per_day BETWEEN 0 AND 9000000000000000000 AND concurrency BETWEEN 0 AND 9000000000000000000 AND cost_per_day BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "quota_groups_name" CHECK (length(name) BETWEEN 1 AND 128),
  CONSTRAINT "quota_groups_windows" CHECK (requests_this_minute BETWEEN 0 AND 9000000000000000000 AND tokens_this_minute BETWEEN 0 AND 9000000000000000000 AND requests_today BETWEEN 0 AND 9000000000000000000 AND tokens_today BETWEEN 0 AND 9000000000000000000 AND cost_today BETWEEN 0 AND 9000000000000000000)
);
-- Create index "quotagroup_provider_id_name" to table: "quota_groups"
CREATE UNIQUE INDEX "quotagroup_provider_id_name" ON "quota_groups" ("provider_id", "name");
-- Modify "api_keys" table
ALTER TABLE "api_keys" DROP CONSTRAINT "api_keys_counters", ADD CONSTRAINT "api_keys_counters" CHECK (usage_count BETWEEN 0 AND 9000000000000000000 AND token_count BETWEEN 0 AND 9000000000000000000), DROP CONSTRAINT "api_keys_degraded", ADD CONSTRAINT "api_keys_degraded" CHECK (degraded = (degraded_until IS NOT NULL) AND (degraded OR degraded_by = '' AND degraded_at IS NULL)), ADD CONSTRAINT "api_keys_choice" CHECK (pass >= 0 AND weight BETWEEN 1 AND 1000 AND priority BETWEEN -1000 AND 1000), ADD CONSTRAINT "api_keys_failures" CHECK (failures BETWEEN 0 AND 1000000 AND (failed_at IS NULL) = (failure_class = '')), ADD CONSTRAINT "api_keys_limits" CHECK (requests_per_minute BETWEEN 0 AND 9000000000000000000 AND tokens_per_minute BETWEEN 0 AND 9000000000000000000 AND requests_per_day BETWEEN 0 AND 9000000000000000000 AND tokens_per_day BETWEEN 0 AND 9000000000000000000 AND concurrency BETWEEN 0 AND 9000000000000000000 AND cost_per_day BETWEEN 0 AND 9000000000000000000), ADD CONSTRAINT "api_keys_windows" CHECK (requests_this_minute BETWEEN 0 AND 9000000000000000000 AND tokens_this_minute BETWEEN 0 AND 9000000000000000000 AND requests_today BETWEEN 0 AND 9000000000000000000 AND tokens_today BETWEEN 0 AND 9000000000000000000 AND cost_today BETWEEN 0 AND 9000000000000000000), ADD COLUMN "requests_per_minute" bigint NOT NULL DEFAULT 0, ADD COLUMN "tokens_per_minute" bigint NOT NULL DEFAULT 0, ADD COLUMN "requests_per_day" bigint NOT NULL DEFAULT 0, ADD COLUMN "tokens_per_day" bigint NOT NULL DEFAULT 0, ADD COLUMN "concurrency" bigint NOT NULL DEFAULT 0, ADD COLUMN "cost_per_day" bigint NOT NULL DEFAULT 0, ADD COLUMN "minute" timestamptz NULL, ADD COLUMN "requests_this_minute" bigint NOT NULL DEFAULT 0, ADD COLUMN "tokens_this_minute" bigint NOT NULL DEFAULT 0, ADD COLUMN "cost_today" bigint NOT NULL DEFAULT 0, ADD COLUMN "observed" json NULL, ADD COLUMN "degraded_by" character varying NOT NULL DEFAULT '' COLLATE "C", ADD COLUMN "degraded_at" timestamptz NULL, ADD COLUMN "failures" bigint NOT NULL DEFAULT 0, ADD COLUMN "failure_class" character varying NOT NULL DEFAULT '' COLLATE "C", ADD COLUMN "failed_at" timestamptz NULL, ADD COLUMN "succeeded_at" timestamptz NULL, ADD COLUMN "pass" bigint NOT NULL DEFAULT 0, ADD COLUMN "weight" bigint NOT NULL DEFAULT 1, ADD COLUMN "priority" bigint NOT NULL DEFAULT 0, ADD COLUMN "allowed_models" json NULL, ADD COLUMN "denied_models" json NULL, ADD COLUMN "quota_group_id" uuid NULL, ADD
CONSTRAINT "api_keys_quota_groups_keys" FOREIGN KEY ("quota_group_id") REFERENCES "quota_groups" ("id") ON UPDATE NO ACTION ON DELETE SET NULL;
-- Create index "apikey_quota_group_id" to table: "api_keys"
CREATE INDEX "apikey_quota_group_id" ON "api_keys" ("quota_group_id");
-- Create "key_leases" table
CREATE TABLE "key_leases" (
  "id" uuid NOT NULL,
  "reserved_tokens" bigint NOT NULL DEFAULT 0,
  "reserved_cost" bigint NOT NULL DEFAULT 0,
  "pass" bigint NOT NULL DEFAULT 0,
  "probe" boolean NOT NULL DEFAULT false,
  "acquired_at" timestamptz NOT NULL,
  "expires_at" timestamptz NOT NULL,
  "api_key_id" uuid NOT NULL,
  "model_id" uuid NULL,
  "quota_group_id" uuid NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "key_leases_api_keys_leases" FOREIGN KEY ("api_key_id") REFERENCES "api_keys" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "key_leases_models_leases" FOREIGN KEY ("model_id") REFERENCES "models" ("id") ON UPDATE NO ACTION ON DELETE SET NULL,
  CONSTRAINT "key_leases_quota_groups_leases" FOREIGN KEY ("quota_group_id") REFERENCES "quota_groups" ("id") ON UPDATE NO ACTION ON DELETE SET NULL,
  CONSTRAINT "key_leases_reserved" CHECK (reserved_tokens BETWEEN 0 AND 9000000000000000000 AND reserved_cost BETWEEN 0 AND 9000000000000000000 AND pass BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "key_leases_times" CHECK (expires_at > acquired_at)
);
-- Create index "keylease_api_key_id_expires_at" to table: "key_leases"
CREATE INDEX "keylease_api_key_id_expires_at" ON "key_leases" ("api_key_id", "expires_at");
