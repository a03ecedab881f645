-- Modify "prices" table
ALTER TABLE "prices" ADD COLUMN "cost_per_1m_input" bigint NULL, ADD COLUMN "cost_per_1m_output" bigint NULL, ADD COLUMN "cost_per_1m_cache_read" bigint NULL, ADD COLUMN "cost_per_1m_cache_write" bigint NULL, ADD COLUMN "cost_per_1m_reasoning" bigint NULL;
-- A rate that was not known was not in the JSON
UPDATE "prices" SET "cost_per_1m_input" = ("rates"->>'input')::bigint, "cost_per_1m_output" = ("rates"->>'output')::bigint, "cost_per_1m_cache_read" = ("rates"->>'cache_read')::bigint, "cost_per_1m_cache_write" = ("rates"->>'cache_write')::bigint, "cost_per_1m_reasoning" = ("rates"->>'reasoning')::bigint;
-- Modify "prices" table
ALTER TABLE "prices" ADD CONSTRAINT "prices_rates" CHECK (cost_per_1m_input BETWEEN 0 AND 9000000000000000000 AND cost_per_1m_output BETWEEN 0 AND 9000000000000000000 AND cost_per_1m_cache_read BETWEEN 0 AND 9000000000000000000 AND cost_per_1m_cache_write BETWEEN 0 AND 9000000000000000000 AND cost_per_1m_reasoning BETWEEN 0 AND 9000000000000000000), DROP COLUMN "rates";
