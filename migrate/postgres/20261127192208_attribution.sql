-- Modify "key_leases" table
ALTER TABLE "key_leases" ADD COLUMN "tags" text NULL COLLATE "C";
-- Modify "usage_events" table
ALTER TABLE "usage_events" ADD COLUMN "tags" text NULL COLLATE "C";
-- Create "dimensions" table
CREATE TABLE "dimensions" (
  "id" uuid NOT NULL,
  "created_at" timestamptz NOT NULL,
  "updated_at" timestamptz NOT NULL,
  "name" character varying NOT NULL COLLATE "C",
  "kind" character varying NOT NULL DEFAULT 'single' COLLATE "C",
  "parts" json NULL,
  "max_values" bigint NOT NULL DEFAULT 1000,
  "grain" character varying NOT NULL DEFAULT 'quarter' COLLATE "C",
  "since" timestamptz NOT NULL,
  "open_from" timestamptz NOT NULL,
  "retired_at" timestamptz NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "dimensions_kind" CHECK (kind IN ('single', 'multi', 'composite', 'consumer') AND grain IN ('quarter', 'day')),
  CONSTRAINT "dimensions_name" CHECK (length(name) BETWEEN 1 AND 64),
  CONSTRAINT "dimensions_times" CHECK (open_from >= since AND (retired_at IS NULL OR retired_at >= since)),
  CONSTRAINT "dimensions_values" CHECK (max_values BETWEEN 1 AND 10000)
);
-- Create index "dimensions_name_key" to table: "dimensions"
CREATE UNIQUE INDEX "dimensions_name_key" ON "dimensions" ("name");
-- Create "dimension_values" table
CREATE TABLE "dimension_values" (
  "id" uuid NOT NULL,
  "kind" character varying NOT NULL DEFAULT 'value' COLLATE "C",
  "name" character varying NOT NULL COLLATE "C",
  "since" timestamptz NOT NULL,
  "dimension_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "dimension_values_dimensions_dimension_values" FOREIGN KEY ("dimension_id") REFERENCES "dimensions" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "dimension_values_kind" CHECK (kind = 'value' AND name <> '' OR kind IN ('unassigned', 'other') AND name = ''),
  CONSTRAINT "dimension_values_name" CHECK (length(name) <= 512)
);
-- Create index "dimensionvalue_dimension_id_kind_name" to table: "dimension_values"
CREATE UNIQUE INDEX "dimensionvalue_dimension_id_kind_name" ON "dimension_values" ("dimension_id", "kind", "name");
-- Create "usage_by_value" table
CREATE TABLE "usage_by_value" (
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
  "estimated_count" bigint NOT NULL DEFAULT 0,
  "unknown_count" bigint NOT NULL DEFAULT 0,
  "retry_count" bigint NOT NULL DEFAULT 0,
  "ttft_ms_sum" bigint NOT NULL DEFAULT 0,
  "ttft_histogram" bytea NULL,
  "retry_cost" bigint NOT NULL DEFAULT 0,
  "provider_cost" bigint NOT NULL DEFAULT 0,
  "provider_cost_count" bigint NOT NULL DEFAULT 0,
  "compared_cost" bigint NOT NULL DEFAULT 0,
  "digest" bigint NULL,
  "value_id" uuid NOT NULL,
  "model_id" uuid NOT NULL,
  "price_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "usage_by_value_dimension_values_usage" FOREIGN KEY ("value_id") REFERENCES "dimension_values" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "usage_by_value_models_usage_by_value" FOREIGN KEY ("model_id") REFERENCES "models" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "usage_by_value_prices_usage_by_value" FOREIGN KEY ("price_id") REFERENCES "prices" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "usage_by_value_cost" CHECK (total_cost BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_by_value_counts" CHECK (request_count BETWEEN 0 AND 9000000000000000000 AND error_count BETWEEN 0 AND request_count AND unpriced_count BETWEEN 0 AND request_count),
  CONSTRAINT "usage_by_value_latency" CHECK (latency_ms_sum BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_by_value_meters" CHECK (input_tokens BETWEEN 0 AND 9000000000000000000 AND output_tokens BETWEEN 0 AND 9000000000000000000 AND cache_read_tokens BETWEEN 0 AND 9000000000000000000 AND cache_write_tokens BETWEEN 0 AND 9000000000000000000 AND reasoning_tokens BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_by_value_period" CHECK (period_end > period_start),
  CONSTRAINT "usage_by_value_said" CHECK (estimated_count BETWEEN 0 AND request_count AND unknown_count BETWEEN 0 AND unpriced_count AND retry_count BETWEEN 0 AND request_count AND provider_cost_count BETWEEN 0 AND request_count AND ttft_ms_sum BETWEEN 0 AND 9000000000000000000 AND retry_cost BETWEEN 0 AND 9000000000000000000 AND provider_cost BETWEEN 0 AND 9000000000000000000 AND compared_cost BETWEEN 0 AND 9000000000000000000)
);
-- Create index "usagebyvalue_model_id_period_start" to table: "usage_by_value"
CREATE INDEX "usagebyvalue_model_id_period_start" ON "usage_by_value" ("model_id", "period_start");
-- Create index "usagebyvalue_price_id_value_id_period_start" to table: "usage_by_value"
CREATE UNIQUE INDEX "usagebyvalue_price_id_value_id_period_start" ON "usage_by_value" ("price_id", "value_id", "period_start");
-- Create index "usagebyvalue_value_id_period_start" to table: "usage_by_value"
CREATE INDEX "usagebyvalue_value_id_period_start" ON "usage_by_value" ("value_id", "period_start");
-- Create "usage_by_value_quarters" table
CREATE TABLE "usage_by_value_quarters" (
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
  "estimated_count" bigint NOT NULL DEFAULT 0,
  "unknown_count" bigint NOT NULL DEFAULT 0,
  "retry_count" bigint NOT NULL DEFAULT 0,
  "ttft_ms_sum" bigint NOT NULL DEFAULT 0,
  "ttft_histogram" bytea NULL,
  "retry_cost" bigint NOT NULL DEFAULT 0,
  "provider_cost" bigint NOT NULL DEFAULT 0,
  "provider_cost_count" bigint NOT NULL DEFAULT 0,
  "compared_cost" bigint NOT NULL DEFAULT 0,
  "digest" bigint NULL,
  "value_id" uuid NOT NULL,
  "model_id" uuid NOT NULL,
  "price_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "usage_by_value_quarters_dimension_values_usage_quarters" FOREIGN KEY ("value_id") REFERENCES "dimension_values" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "usage_by_value_quarters_models_usage_by_value_quarters" FOREIGN KEY ("model_id") REFERENCES "models" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "usage_by_value_quarters_prices_usage_by_value_quarters" FOREIGN KEY ("price_id") REFERENCES "prices" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "usage_by_value_quarters_cost" CHECK (total_cost BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_by_value_quarters_counts" CHECK (request_count BETWEEN 0 AND 9000000000000000000 AND error_count BETWEEN 0 AND request_count AND unpriced_count BETWEEN 0 AND request_count),
  CONSTRAINT "usage_by_value_quarters_latency" CHECK (latency_ms_sum BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_by_value_quarters_meters" CHECK (input_tokens BETWEEN 0 AND 9000000000000000000 AND output_tokens BETWEEN 0 AND 9000000000000000000 AND cache_read_tokens BETWEEN 0 AND 9000000000000000000 AND cache_write_tokens BETWEEN 0 AND 9000000000000000000 AND reasoning_tokens BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_by_value_quarters_period" CHECK (period_end > period_start),
  CONSTRAINT "usage_by_value_quarters_said" CHECK (estimated_count BETWEEN 0 AND request_count AND unknown_count BETWEEN 0 AND unpriced_count AND retry_count BETWEEN 0 AND request_count AND provider_cost_count BETWEEN 0 AND request_count AND ttft_ms_sum BETWEEN 0 AND 9000000000000000000 AND retry_cost BETWEEN 0 AND 9000000000000000000 AND provider_cost BETWEEN 0 AND 9000000000000000000 AND compared_cost BETWEEN 0 AND 9000000000000000000)
);
-- Create index "usagebyvaluequarter_model_id_period_start" to table: "usage_by_value_quarters"
CREATE INDEX "usagebyvaluequarter_model_id_period_start" ON "usage_by_value_quarters" ("model_id", "period_start");
-- Create index "usagebyvaluequarter_price_id_value_id_period_start" to table: "usage_by_value_quarters"
CREATE UNIQUE INDEX "usagebyvaluequarter_price_id_value_id_period_start" ON "usage_by_value_quarters" ("price_id", "value_id", "period_start");
-- Create index "usagebyvaluequarter_value_id_period_start" to table: "usage_by_value_quarters"
CREATE INDEX "usagebyvaluequarter_value_id_period_start" ON "usage_by_value_quarters" ("value_id", "period_start");
-- Create "usage_folds" table
CREATE TABLE "usage_folds" (
  "id" uuid NOT NULL,
  "folded_to" uuid NOT NULL,
  "model_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "usage_folds_models_usage_fold" FOREIGN KEY ("model_id") REFERENCES "models" ("id") ON UPDATE NO ACTION ON DELETE CASCADE
);
-- Create index "usage_folds_model_id_key" to table: "usage_folds"
CREATE UNIQUE INDEX "usage_folds_model_id_key" ON "usage_folds" ("model_id");
-- Consumers from before there were dimensions: usage is summed by them from now on.
INSERT INTO dimensions (id, created_at, updated_at, name, kind, max_values, since, open_from)
  SELECT '00000000-0000-7000-8000-000000000001', now(), now(), 'consumer', 'consumer', 10000, now(), now()
  WHERE EXISTS (SELECT 1 FROM consumers);
INSERT INTO dimension_values (id, dimension_id, kind, name, since)
  SELECT '00000000-0000-7000-8000-000000000002', id, 'unassigned', '', since FROM dimensions;
INSERT INTO dimension_values (id, dimension_id, kind, name, since)
  SELECT '00000000-0000-7000-8000-000000000003', id, 'other', '', since FROM dimensions;
INSERT INTO dimension_values (id, dimension_id, kind, name, since)
  SELECT c.id, d.id, 'value', CAST(c.id AS text), d.since FROM consumers AS c CROSS JOIN dimensions AS d;
