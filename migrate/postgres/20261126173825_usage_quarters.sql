-- Rename "usage_tracking" to "usage_quarters": most of its rows are quarters
ALTER TABLE "usage_tracking" RENAME TO "usage_quarters";
ALTER TABLE "usage_quarters" RENAME CONSTRAINT "usage_tracking_pkey" TO "usage_quarters_pkey";
ALTER TABLE "usage_quarters" RENAME CONSTRAINT "usage_tracking_api_keys_usage" TO "usage_quarters_api_keys_usage_quarters";
ALTER TABLE "usage_quarters" RENAME CONSTRAINT "usage_tracking_models_usage" TO "usage_quarters_models_usage_quarters";
ALTER TABLE "usage_quarters" RENAME CONSTRAINT "usage_tracking_prices_usage" TO "usage_quarters_prices_usage_quarters";
ALTER TABLE "usage_quarters" RENAME CONSTRAINT "usage_tracking_cost" TO "usage_quarters_cost";
ALTER TABLE "usage_quarters" RENAME CONSTRAINT "usage_tracking_counts" TO "usage_quarters_counts";
ALTER TABLE "usage_quarters" RENAME CONSTRAINT "usage_tracking_latency" TO "usage_quarters_latency";
ALTER TABLE "usage_quarters" RENAME CONSTRAINT "usage_tracking_meters" TO "usage_quarters_meters";
ALTER TABLE "usage_quarters" RENAME CONSTRAINT "usage_tracking_period" TO "usage_quarters_period";
DROP INDEX "usage_price_id_api_key_id_grain_period_start";
DROP INDEX "usage_model_id_grain_period_start";
DROP INDEX "usage_api_key_id_grain_period_start";
DROP INDEX "usage_model_id_period_start";
-- Create "usage_tracking" table
CREATE TABLE "usage_tracking" (
  "id" uuid NOT NULL,
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
  "api_key_id" uuid NOT NULL,
  "model_id" uuid NOT NULL,
  "price_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "usage_tracking_api_keys_usage" FOREIGN KEY ("api_key_id") REFERENCES "api_keys" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "usage_tracking_models_usage" FOREIGN KEY ("model_id") REFERENCES "models" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "usage_tracking_prices_usage" FOREIGN KEY ("price_id") REFERENCES "prices" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "usage_tracking_cost" CHECK (total_cost BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_tracking_counts" CHECK (request_count BETWEEN 0 AND 9000000000000000000 AND error_count BETWEEN 0 AND request_count AND unpriced_count BETWEEN 0 AND request_count),
  CONSTRAINT "usage_tracking_latency" CHECK (latency_ms_sum BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_tracking_meters" CHECK (input_tokens BETWEEN 0 AND 9000000000000000000 AND output_tokens BETWEEN 0 AND 9000000000000000000 AND cache_read_tokens BETWEEN 0 AND 9000000000000000000 AND cache_write_tokens BETWEEN 0 AND 9000000000000000000 AND reasoning_tokens BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_tracking_period" CHECK (period_end > period_start)
);
-- Move the days to it, in the order in which they are read
INSERT INTO "usage_tracking" ("id", "period_start", "period_end", "request_count", "error_count", "unpriced_count", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "total_cost", "latency_ms_sum", "average_latency_ms", "latency_histogram", "digest", "api_key_id", "model_id", "price_id")
SELECT "id", "period_start", "period_end", "request_count", "error_count", "unpriced_count", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "total_cost", "latency_ms_sum", "average_latency_ms", "latency_histogram", "digest", "api_key_id", "model_id", "price_id" FROM "usage_quarters" WHERE "grain" = 'day' ORDER BY "model_id", "period_start";
DELETE FROM "usage_quarters" WHERE "grain" = 'day';
-- Modify "usage_quarters" table
ALTER TABLE "usage_quarters" DROP CONSTRAINT "usage_tracking_grain", DROP COLUMN "grain";
-- Create index "usage_model_id_period_start" to table: "usage_tracking"
CREATE INDEX "usage_model_id_period_start" ON "usage_tracking" ("model_id", "period_start");
-- Create index "usage_api_key_id_period_start" to table: "usage_tracking"
CREATE INDEX "usage_api_key_id_period_start" ON "usage_tracking" ("api_key_id", "period_start");
-- Create index "usage_price_id_api_key_id_period_start" to table: "usage_tracking"
CREATE UNIQUE INDEX "usage_price_id_api_key_id_period_start" ON "usage_tracking" ("price_id", "api_key_id", "period_start");
-- Create index "usagequarter_api_key_id_period_start" to table: "usage_quarters"
CREATE INDEX "usagequarter_api_key_id_period_start" ON "usage_quarters" ("api_key_id", "period_start");
-- Create index "usagequarter_model_id_period_start" to table: "usage_quarters"
CREATE INDEX "usagequarter_model_id_period_start" ON "usage_quarters" ("model_id", "period_start");
-- Create index "usagequarter_price_id_api_key_id_period_start" to table: "usage_quarters"
CREATE UNIQUE INDEX "usagequarter_price_id_api_key_id_period_start" ON "usage_quarters" ("price_id", "api_key_id", "period_start");
ANALYZE "usage_tracking", "usage_quarters";
-- Rename "usage_totals" to "usage_total_quarters": most of its rows are quarters
ALTER TABLE "usage_totals" RENAME TO "usage_total_quarters";
ALTER TABLE "usage_total_quarters" RENAME CONSTRAINT "usage_totals_pkey" TO "usage_total_quarters_pkey";
ALTER TABLE "usage_total_quarters" RENAME CONSTRAINT "usage_totals_models_usage_totals" TO "usage_total_quarters_models_usage_total_quarters";
ALTER TABLE "usage_total_quarters" RENAME CONSTRAINT "usage_totals_cost" TO "usage_total_quarters_cost";
ALTER TABLE "usage_total_quarters" RENAME CONSTRAINT "usage_totals_counts" TO "usage_total_quarters_counts";
ALTER TABLE "usage_total_quarters" RENAME CONSTRAINT "usage_totals_latency" TO "usage_total_quarters_latency";
ALTER TABLE "usage_total_quarters" RENAME CONSTRAINT "usage_totals_meters" TO "usage_total_quarters_meters";
ALTER TABLE "usage_total_quarters" RENAME CONSTRAINT "usage_totals_period" TO "usage_total_quarters_period";
DROP INDEX "usagetotal_model_id_grain_period_start";
DROP INDEX "usagetotal_model_id_period_start";
-- Create "usage_totals" table
CREATE TABLE "usage_totals" (
  "id" uuid NOT NULL,
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
  CONSTRAINT "usage_totals_latency" CHECK (latency_ms_sum BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_totals_meters" CHECK (input_tokens BETWEEN 0 AND 9000000000000000000 AND output_tokens BETWEEN 0 AND 9000000000000000000 AND cache_read_tokens BETWEEN 0 AND 9000000000000000000 AND cache_write_tokens BETWEEN 0 AND 9000000000000000000 AND reasoning_tokens BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_totals_period" CHECK (period_end > period_start)
);
-- Move the days to it, in the order in which they are read
INSERT INTO "usage_totals" ("id", "period_start", "period_end", "request_count", "error_count", "unpriced_count", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "total_cost", "latency_ms_sum", "average_latency_ms", "latency_histogram", "digest", "model_id")
SELECT "id", "period_start", "period_end", "request_count", "error_count", "unpriced_count", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "total_cost", "latency_ms_sum", "average_latency_ms", "latency_histogram", "digest", "model_id" FROM "usage_total_quarters" WHERE "grain" = 'day' ORDER BY "model_id", "period_start";
DELETE FROM "usage_total_quarters" WHERE "grain" = 'day';
-- Modify "usage_total_quarters" table
ALTER TABLE "usage_total_quarters" DROP CONSTRAINT "usage_totals_grain", DROP COLUMN "grain";
-- Create index "usagetotal_model_id_period_start" to table: "usage_totals"
CREATE UNIQUE INDEX "usagetotal_model_id_period_start" ON "usage_totals" ("model_id", "period_start");
-- Create index "usagetotalquarter_model_id_period_start" to table: "usage_total_quarters"
CREATE UNIQUE INDEX "usagetotalquarter_model_id_period_start" ON "usage_total_quarters" ("model_id", "period_start");
ANALYZE "usage_totals", "usage_total_quarters";
