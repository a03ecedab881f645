-- Create "share_policy" function: it keeps changes of consumers, access keys, budgets and dimensions waiting until the
-- transaction ends, and returns the number of changes so far. The second statement sees what the first one has waited for.
CREATE FUNCTION "share_policy"() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(1297313903); -- "MSpo"
  RETURN COALESCE((SELECT version FROM policy_version), 0);
END
$$;
GRANT EXECUTE ON FUNCTION "share_policy"() TO PUBLIC;
