-- Modify "api_keys" table
ALTER TABLE "api_keys" ADD CONSTRAINT "api_keys_extra" CHECK (extra_requests BETWEEN 0 AND usage_count AND extra_tokens BETWEEN 0 AND token_count), ADD COLUMN "extra_requests" bigint NOT NULL DEFAULT 0, ADD COLUMN "extra_tokens" bigint NOT NULL DEFAULT 0;
-- Drop index "price_model_id_service_tier_min_context_tokens_effective_from" from table: "prices"
DROP INDEX "price_model_id_service_tier_min_context_tokens_effective_from";
-- Modify "prices" table
ALTER TABLE "prices" ADD COLUMN "superseded_at" timestamptz NULL;
-- Create index "price_model_id_service_tier_min_context_tokens_effective_from" to table: "prices"
CREATE UNIQUE INDEX "price_model_id_service_tier_min_context_tokens_effective_from" ON "prices" ("model_id", "service_tier", "min_context_tokens", "effective_from") WHERE superseded_at IS NULL;
-- Create index "price_model_id" to table: "prices"
CREATE INDEX "price_model_id" ON "prices" ("model_id");
-- Drop index "usage_api_key_id" from table: "usage_tracking"
DROP INDEX "usage_api_key_id";
-- Drop index "usage_model_id_api_key_id_price_id_grain_period_start" from table: "usage_tracking"
DROP INDEX "usage_model_id_api_key_id_price_id_grain_period_start";
-- Drop index "usage_price_id" from table: "usage_tracking"
DROP INDEX "usage_price_id";
-- Modify "usage_tracking" table
ALTER TABLE "usage_tracking" ADD COLUMN "latency_histogram" bytea NULL, ADD COLUMN "digest" bigint NULL;
-- Create index "usage_api_key_id_grain_period_start" to table: "usage_tracking"
CREATE INDEX "usage_api_key_id_grain_period_start" ON "usage_tracking" ("api_key_id", "grain", "period_start");
-- Create index "usage_price_id_api_key_id_grain_period_start" to table: "usage_tracking"
CREATE UNIQUE INDEX "usage_price_id_api_key_id_grain_period_start" ON "usage_tracking" ("price_id", "api_key_id", "grain", "period_start");
-- Create "usage_events" table
CREATE TABLE "usage_events" (
  "id" uuid NOT NULL,
  "request_id" character varying NOT NULL COLLATE "C",
  "at" timestamptz NOT NULL,
  "input_tokens" bigint NOT NULL DEFAULT 0,
  "output_tokens" bigint NOT NULL DEFAULT 0,
  "cache_read_tokens" bigint NOT NULL DEFAULT 0,
  "cache_write_tokens" bigint NOT NULL DEFAULT 0,
  "reasoning_tokens" bigint NOT NULL DEFAULT 0,
  "cost" bigint NULL,
  "cost_status" character varying NOT NULL COLLATE "C",
  "latency_ms" bigint NOT NULL DEFAULT 0,
  "success" boolean NOT NULL DEFAULT true,
  "error_class" character varying NOT NULL DEFAULT '' COLLATE "C",
  "http_status" bigint NOT NULL DEFAULT 0,
  "api_key_id" uuid NOT NULL,
  "model_id" uuid NOT NULL,
  "price_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "usage_events_cost" CHECK (cost BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_events_cost_status" CHECK (cost_status IN ('priced', 'unpriced', 'repriced') AND (cost IS NULL) = (cost_status = 'unpriced')),
  CONSTRAINT "usage_events_error_class" CHECK (length(error_class) <= 64),
  CONSTRAINT "usage_events_http_status" CHECK (http_status BETWEEN 0 AND 599),
  CONSTRAINT "usage_events_latency" CHECK (latency_ms >= 0),
  CONSTRAINT "usage_events_meters" CHECK (input_tokens BETWEEN 0 AND 9000000000000000000 AND output_tokens BETWEEN 0 AND 9000000000000000000 AND cache_read_tokens BETWEEN 0 AND 9000000000000000000 AND cache_write_tokens BETWEEN 0 AND 9000000000000000000 AND reasoning_tokens BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_events_request_id" CHECK (length(request_id) BETWEEN 1 AND 128)
) PARTITION BY RANGE ("id");
-- Create index "usageevent_api_key_id_id" to table: "usage_events"
CREATE INDEX "usageevent_api_key_id_id" ON "usage_events" ("api_key_id", "id");
-- Create index "usageevent_model_id_id" to table: "usage_events"
CREATE INDEX "usageevent_model_id_id" ON "usage_events" ("model_id", "id");
-- Create "usage_horizons" table
CREATE TABLE "usage_horizons" (
  "part" character varying NOT NULL COLLATE "C",
  "complete_from" timestamptz NOT NULL,
  PRIMARY KEY ("part"),
  CONSTRAINT "usage_horizons_part" CHECK (part IN ('events', 'quarters'))
);
-- Create "usage_totals" table
CREATE TABLE "usage_totals" (
  "id" uuid NOT NULL,
  "grain" character varying NOT NULL COLLATE "C",
  "period_start" timestamptz NOT NULL,
  "period_end" timestamptz NOT NULL,
  "request_count" bigint NOT NULL DEFAULT 0,
  "error_count" bigint NOT NULL DEFAULT 0,
  "unpriced_count" bigint NOT NULL DEFAULT 0,
  "input_tokens" bigint NOT NULL DEFAULT 0,
  "output_tokens" bigint NOT NULL DEFAULT 0,
  "cache_read_tokens" bigint NOT NULL DEFAULT 0,
  "cache_write_tokens" bigint NOT NULL DEFAULT 0,
  "reasoning_tokens" bigint NOT NULL DEFAULT 0,
  "total_cost" bigint NULL,
  "latency_ms_sum" bigint NOT NULL DEFAULT 0,
  "average_latency_ms" double precision NOT NULL DEFAULT 0,
  "latency_histogram" bytea NULL,
  "digest" bigint NULL,
  "model_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "usage_totals_models_usage_totals" FOREIGN KEY ("model_id") REFERENCES "models" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "usage_totals_cost" CHECK (total_cost BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_totals_counts" CHECK (request_count BETWEEN 0 AND 9000000000000000000 AND error_count BETWEEN 0 AND request_count AND unpriced_count BETWEEN 0 AND request_count),
  CONSTRAINT "usage_totals_grain" CHECK (grain IN ('quarter', 'day')),
  CONSTRAINT "usage_totals_latency" CHECK (latency_ms_sum BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_totals_meters" CHECK (input_tokens BETWEEN 0 AND 9000000000000000000 AND output_tokens BETWEEN 0 AND 9000000000000000000 AND cache_read_tokens BETWEEN 0 AND 9000000000000000000 AND cache_write_tokens BETWEEN 0 AND 9000000000000000000 AND reasoning_tokens BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_totals_period" CHECK (period_end > period_start)
);
-- Create index "usagetotal_model_id_grain_period_start" to table: "usage_totals"
CREATE UNIQUE INDEX "usagetotal_model_id_grain_period_start" ON "usage_totals" ("model_id", "grain", "period_start");
-- Fill "usage_totals" with the sums over keys and prices; the id of a row that is summed serves again
INSERT INTO "usage_totals" ("id", "grain", "period_start", "period_end", "request_count", "error_count", "unpriced_count", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "total_cost", "latency_ms_sum", "average_latency_ms", "model_id")
SELECT CAST(MIN(CAST("id" AS text)) AS uuid), "grain", "period_start", "period_end", SUM("request_count"), SUM("error_count"), SUM("unpriced_count"), SUM("input_tokens"), SUM("output_tokens"), SUM("cache_read_tokens"), SUM("cache_write_tokens"), SUM("reasoning_tokens"), SUM("total_cost"), SUM("latency_ms_sum"), COALESCE(CAST(SUM("latency_ms_sum") AS double precision) / NULLIF(SUM("request_count"), 0), 0), "model_id"
FROM "usage_tracking" GROUP BY "model_id", "grain", "period_start", "period_end";
-- What keys count beyond the ledger is what IncrementUsage has counted
UPDATE "api_keys" SET
  "extra_requests" = GREATEST(0, "usage_count" - COALESCE((SELECT SUM("request_count") FROM "usage_tracking" WHERE "api_key_id" = "api_keys"."id" AND "grain" = 'day'), 0)),
  "extra_tokens" = GREATEST(0, "token_count" - COALESCE((SELECT SUM("input_tokens" + "output_tokens" + "cache_read_tokens" + "cache_write_tokens" + "reasoning_tokens") FROM "usage_tracking" WHERE "api_key_id" = "api_keys"."id" AND "grain" = 'day'), 0));
-- What was recorded up to now has no events
INSERT INTO "usage_horizons" ("part", "complete_from") SELECT 'events', MAX("period_end") FROM "usage_tracking" WHERE "grain" = 'quarter' HAVING COUNT(*) > 0;
