-- The functions run with the rights of their owner: who records and prunes need not own the tables, nor be allowed to
-- make any. Each asks for the right to do the same by rows, and takes nothing from its caller but days and a number.

-- Create "usage_events_make_partitions" function: it makes the partitions of usage_events that UTC days lack, and returns
-- how many. A partition is a day; with 40 partitions there already, a calendar month, and with 52, a year, as far as
-- nothing of it is taken. What looks into all partitions costs no more then, however many days have events.
CREATE OR REPLACE FUNCTION "usage_events_make_partitions"(days date[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  -- The lock for making partitions ("MSpt").
  making CONSTANT bigint := 1297313908;
  wanted date;
  parts  bigint;   -- how many there are
  there  boolean;  -- one takes the day
  after  date;     -- the end of the last one before the day
  before date;     -- the begin of the first one after it
  width  text;
  since  date;
  until  date;
  name   text;
  made   bigint := 0;
  locked boolean := false;
BEGIN
  IF NOT has_table_privilege(COALESCE(NULLIF(current_setting('role'), 'none'), session_user), 'usage_events', 'INSERT') THEN
    RAISE insufficient_privilege USING MESSAGE = 'permission denied: INSERT on table usage_events';
  END IF;
  FOREACH wanted IN ARRAY days LOOP
    IF wanted IS NULL OR wanted NOT BETWEEN DATE '1970-01-01' AND DATE '9999-12-31' THEN
      RAISE invalid_parameter_value USING MESSAGE = 'not a day from 1970 to 9999';
    END IF;
    LOOP
      -- It asks the catalogue, because functions of names answer from what the connection remembers. A default partition
      -- has no bounds.
      SELECT count(*), COALESCE(bool_or(begins <= wanted AND wanted < ends), false),
             max(ends) FILTER (WHERE ends <= wanted), min(begins) FILTER (WHERE begins > wanted)
      INTO parts, there, after, before
      FROM (
        SELECT DATE '1970-01-01' + CAST(CAST(CAST('x0000' || "from" AS bit(64)) AS bigint) / 86400000 AS integer) AS begins,
               DATE '1970-01-01' + CAST(CAST(CAST('x0000' || "to" AS bit(64)) AS bigint) / 86400000 AS integer) AS ends
        FROM (
          SELECT replace(substring(bounds FROM 'FROM \(''([^'']{13})'), '-', '') AS "from",
                 replace(substring(bounds FROM 'TO \(''([^'']{13})'), '-', '') AS "to"
          FROM (
            SELECT pg_get_expr(c.relpartbound, c.oid) AS bounds FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
            WHERE i.inhparent = CAST('usage_events' AS regclass)
          ) AS p
        ) AS p
      ) AS p;
      EXIT WHEN there OR locked;
      PERFORM pg_advisory_xact_lock(making); -- and look again: another one may have been faster
      locked := true;
    END LOOP;
    CONTINUE WHEN there;
    width := CASE WHEN parts < 40 THEN 'day' WHEN parts < 52 THEN 'month' ELSE 'year' END;
    since := GREATEST(CAST(date_trunc(width, CAST(wanted AS timestamp)) AS date), after);
    until := LEAST(CAST(date_trunc(width, CAST(wanted AS timestamp)) + CAST('1 ' || width AS interval) AS date), before);
    name := 'usage_events_' || to_char(since, 'YYYYMMDD');
    -- A table that is attached keeps nobody from recording; CREATE TABLE ... PARTITION OF would lock all of the events.
    EXECUTE format('CREATE TABLE %I (LIKE usage_events INCLUDING ALL)', name);
    EXECUTE format('CREATE UNIQUE INDEX %I ON %I (request_id)', name || '_request_id', name);
    -- An id begins with the milliseconds since 1970.
    EXECUTE format('ALTER TABLE usage_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name,
      lpad(to_hex((since - DATE '1970-01-01') * CAST(86400000 AS bigint)), 12, '0') || '70000000000000000000',
      lpad(to_hex((until - DATE '1970-01-01') * CAST(86400000 AS bigint)), 12, '0') || '70000000000000000000');
    made := made + 1;
  END LOOP;
  RETURN made;
END
$$;

-- Create "usage_events_drop_partition" function: it drops the partition of usage_events that has a number in pg_class, and
-- returns whether it was there. This takes a lock of all events, which the transaction should not hold for long: it comes
-- first, as with everybody who records.
CREATE OR REPLACE FUNCTION "usage_events_drop_partition"(part bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  name text;
BEGIN
  IF NOT has_table_privilege(COALESCE(NULLIF(current_setting('role'), 'none'), session_user), 'usage_events', 'DELETE') THEN
    RAISE insufficient_privilege USING MESSAGE = 'permission denied: DELETE on table usage_events';
  END IF;
  LOCK TABLE ONLY usage_events IN ACCESS EXCLUSIVE MODE;
  SELECT CAST(CAST(inhrelid AS regclass) AS text) INTO name FROM pg_inherits
  WHERE inhparent = CAST('usage_events' AS regclass) AND CAST(inhrelid AS bigint) = part;
  IF name IS NULL THEN
    RETURN false;
  END IF;
  EXECUTE 'DROP TABLE ' || name;
  RETURN true;
END
$$;

-- From here on they run with the rights of their owner, and find nothing in other schemas, nor temporary tables, which
-- callers could make.
DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION usage_events_make_partitions(date[]) SECURITY DEFINER SET search_path = %I, pg_temp', current_schema());
  EXECUTE format('ALTER FUNCTION usage_events_drop_partition(bigint) SECURITY DEFINER SET search_path = %I, pg_temp', current_schema());
END
$$;
GRANT EXECUTE ON FUNCTION "usage_events_make_partitions"(date[]), "usage_events_drop_partition"(bigint) TO PUBLIC;
