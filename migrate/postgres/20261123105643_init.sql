-- Create "providers" table
CREATE TABLE "providers" (
  "id" uuid NOT NULL,
  "created_at" timestamptz NOT NULL,
  "updated_at" timestamptz NOT NULL,
  "deleted_at" timestamptz NULL,
  "name" character varying NOT NULL COLLATE "C",
  "display_name" character varying NOT NULL DEFAULT '' COLLATE "C",
  "base_url" character varying NOT NULL DEFAULT '' COLLATE "C",
  "auth_method" character varying NOT NULL DEFAULT 'bearer' COLLATE "C",
  "description" character varying NOT NULL DEFAULT '' COLLATE "C",
  PRIMARY KEY ("id"),
  CONSTRAINT "providers_auth_method" CHECK (auth_method IN ('bearer', 'header', 'query', 'oauth', 'aws_sigv4', 'none')),
  CONSTRAINT "providers_name" CHECK (length(name) BETWEEN 1 AND 128)
);
-- Create index "provider_name" to table: "providers"
CREATE UNIQUE INDEX "provider_name" ON "providers" ("name") WHERE deleted_at IS NULL;
-- Create "settings" table
CREATE TABLE "settings" (
  "key" character varying NOT NULL COLLATE "C",
  "value" character varying NOT NULL COLLATE "C",
  "updated_at" timestamptz NOT NULL,
  PRIMARY KEY ("key"),
  CONSTRAINT "settings_key" CHECK (length(key) BETWEEN 1 AND 256)
);
-- Create "api_keys" table
CREATE TABLE "api_keys" (
  "id" uuid NOT NULL,
  "created_at" timestamptz NOT NULL,
  "updated_at" timestamptz NOT NULL,
  "deleted_at" timestamptz NULL,
  "key_hash" character varying NOT NULL COLLATE "C",
  "key_prefix" character varying NOT NULL COLLATE "C",
  "label" character varying NOT NULL DEFAULT '' COLLATE "C",
  "usage_count" bigint NOT NULL DEFAULT 0,
  "token_count" bigint NOT NULL DEFAULT 0,
  "requests_today" bigint NOT NULL DEFAULT 0,
  "tokens_today" bigint NOT NULL DEFAULT 0,
  "last_reset" timestamptz NOT NULL,
  "disabled" boolean NOT NULL DEFAULT false,
  "degraded" boolean NOT NULL DEFAULT false,
  "degraded_until" timestamptz NULL,
  "degraded_reason" character varying NOT NULL DEFAULT '' COLLATE "C",
  "last_used_at" timestamptz NULL,
  "provider_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "api_keys_providers_keys" FOREIGN KEY ("provider_id") REFERENCES "providers" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "api_keys_counters" CHECK (usage_count BETWEEN 0 AND 9000000000000000000 AND token_count BETWEEN 0 AND 9000000000000000000 AND requests_today BETWEEN 0 AND 9000000000000000000 AND tokens_today BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "api_keys_degraded" CHECK (degraded = (degraded_until IS NOT NULL)),
  CONSTRAINT "api_keys_key_hash" CHECK (length(key_hash) = 64),
  CONSTRAINT "api_keys_key_prefix" CHECK (length(key_prefix) IN (0, 8))
);
-- Create index "apikey_provider_id" to table: "api_keys"
CREATE INDEX "apikey_provider_id" ON "api_keys" ("provider_id");
-- Create index "apikey_provider_id_key_hash" to table: "api_keys"
CREATE UNIQUE INDEX "apikey_provider_id_key_hash" ON "api_keys" ("provider_id", "key_hash") WHERE deleted_at IS NULL;
-- Create index "apikey_provider_id_usage_count_last_used_at_id" to table: "api_keys"
CREATE INDEX "apikey_provider_id_usage_count_last_used_at_id" ON "api_keys" ("provider_id", "usage_count", "last_used_at" NULLS FIRST, "id") WHERE deleted_at IS NULL;
-- Create "discovery_logs" table
CREATE TABLE "discovery_logs" (
  "id" uuid NOT NULL,
  "identifier" character varying NOT NULL COLLATE "C",
  "status" character varying NOT NULL DEFAULT 'pending' COLLATE "C",
  "attempt_count" bigint NOT NULL DEFAULT 0,
  "discovered_data" json NULL,
  "error_message" character varying NOT NULL DEFAULT '' COLLATE "C",
  "source" character varying NOT NULL DEFAULT '' COLLATE "C",
  "llm_model" character varying NOT NULL DEFAULT '' COLLATE "C",
  "cache_hit" boolean NOT NULL DEFAULT false,
  "started_at" timestamptz NOT NULL,
  "completed_at" timestamptz NULL,
  "provider_id" uuid NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "discovery_logs_providers_discovery_logs" FOREIGN KEY ("provider_id") REFERENCES "providers" ("id") ON UPDATE NO ACTION ON DELETE SET NULL,
  CONSTRAINT "discovery_logs_attempt_count" CHECK (attempt_count >= 0),
  CONSTRAINT "discovery_logs_identifier" CHECK (length(identifier) BETWEEN 1 AND 2048)
);
-- Create index "discoverylog_provider_id" to table: "discovery_logs"
CREATE INDEX "discoverylog_provider_id" ON "discovery_logs" ("provider_id");
-- Create index "discoverylog_started_at" to table: "discovery_logs"
CREATE INDEX "discoverylog_started_at" ON "discovery_logs" ("started_at");
-- Create "model_families" table
CREATE TABLE "model_families" (
  "id" uuid NOT NULL,
  "created_at" timestamptz NOT NULL,
  "updated_at" timestamptz NOT NULL,
  "name" character varying NOT NULL COLLATE "C",
  "description" character varying NOT NULL DEFAULT '' COLLATE "C",
  "provider_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "model_families_providers_families" FOREIGN KEY ("provider_id") REFERENCES "providers" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "model_families_name" CHECK (length(name) BETWEEN 1 AND 128)
);
-- Create index "modelfamily_provider_id_name" to table: "model_families"
CREATE UNIQUE INDEX "modelfamily_provider_id_name" ON "model_families" ("provider_id", "name");
-- Create "models" table
CREATE TABLE "models" (
  "id" uuid NOT NULL,
  "created_at" timestamptz NOT NULL,
  "updated_at" timestamptz NOT NULL,
  "deleted_at" timestamptz NULL,
  "model_id" character varying NOT NULL COLLATE "C",
  "name" character varying NOT NULL DEFAULT '' COLLATE "C",
  "description" character varying NOT NULL DEFAULT '' COLLATE "C",
  "cost_per_1m_input" bigint NULL,
  "cost_per_1m_output" bigint NULL,
  "context_window" bigint NOT NULL DEFAULT 0,
  "max_output_tokens" bigint NOT NULL DEFAULT 0,
  "supports_images" boolean NOT NULL DEFAULT false,
  "supports_audio" boolean NOT NULL DEFAULT false,
  "supports_tools" boolean NOT NULL DEFAULT false,
  "supports_structured_output" boolean NOT NULL DEFAULT false,
  "can_reason" boolean NOT NULL DEFAULT false,
  "can_stream" boolean NOT NULL DEFAULT false,
  "deprecated" boolean NOT NULL DEFAULT false,
  "deprecated_at" timestamptz NULL,
  "family_id" uuid NULL,
  "provider_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "models_model_families_models" FOREIGN KEY ("family_id") REFERENCES "model_families" ("id") ON UPDATE NO ACTION ON DELETE SET NULL,
  CONSTRAINT "models_providers_models" FOREIGN KEY ("provider_id") REFERENCES "providers" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "models_context_window" CHECK (context_window >= 0),
  CONSTRAINT "models_cost_input" CHECK (cost_per_1m_input BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "models_cost_output" CHECK (cost_per_1m_output BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "models_max_output_tokens" CHECK (max_output_tokens >= 0),
  CONSTRAINT "models_model_id" CHECK (length(model_id) BETWEEN 1 AND 256)
);
-- Create index "model_cost_per_1m_input_model_id_id" to table: "models"
CREATE INDEX "model_cost_per_1m_input_model_id_id" ON "models" ("cost_per_1m_input", "model_id", "id") WHERE deleted_at IS NULL;
-- Create index "model_family_id" to table: "models"
CREATE INDEX "model_family_id" ON "models" ("family_id");
-- Create index "model_provider_id" to table: "models"
CREATE INDEX "model_provider_id" ON "models" ("provider_id");
-- Create index "model_provider_id_model_id" to table: "models"
CREATE UNIQUE INDEX "model_provider_id_model_id" ON "models" ("provider_id", "model_id") WHERE deleted_at IS NULL;
-- Create "prices" table
CREATE TABLE "prices" (
  "id" uuid NOT NULL,
  "service_tier" character varying NOT NULL DEFAULT 'standard' COLLATE "C",
  "min_context_tokens" bigint NOT NULL DEFAULT 0,
  "rates" json NOT NULL,
  "effective_from" timestamptz NOT NULL,
  "effective_to" timestamptz NULL,
  "source" character varying NOT NULL DEFAULT '' COLLATE "C",
  "recorded_at" timestamptz NOT NULL,
  "model_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "prices_models_prices" FOREIGN KEY ("model_id") REFERENCES "models" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "prices_interval" CHECK (effective_to IS NULL OR effective_to > effective_from),
  CONSTRAINT "prices_min_context_tokens" CHECK (min_context_tokens >= 0),
  CONSTRAINT "prices_service_tier" CHECK (length(service_tier) BETWEEN 1 AND 64)
);
-- Create index "price_model_id_service_tier_min_context_tokens_effective_from" to table: "prices"
CREATE UNIQUE INDEX "price_model_id_service_tier_min_context_tokens_effective_from" ON "prices" ("model_id", "service_tier", "min_context_tokens", "effective_from");
-- Create "sdk_versions" table
CREATE TABLE "sdk_versions" (
  "id" uuid NOT NULL,
  "version" character varying NOT NULL COLLATE "C",
  "sdk_path" character varying NOT NULL DEFAULT '' COLLATE "C",
  "generated_at" timestamptz NOT NULL,
  "compilation_status" character varying NOT NULL DEFAULT 'pending' COLLATE "C",
  "test_results" character varying NOT NULL DEFAULT '' COLLATE "C",
  "code_hash" character varying NOT NULL DEFAULT '' COLLATE "C",
  "provider_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "sdk_versions_providers_sdk_versions" FOREIGN KEY ("provider_id") REFERENCES "providers" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "sdk_versions_version" CHECK (length(version) BETWEEN 1 AND 128)
);
-- Create index "sdkversion_provider_id_generated_at" to table: "sdk_versions"
CREATE INDEX "sdkversion_provider_id_generated_at" ON "sdk_versions" ("provider_id", "generated_at");
-- Create index "sdkversion_provider_id_version" to table: "sdk_versions"
CREATE UNIQUE INDEX "sdkversion_provider_id_version" ON "sdk_versions" ("provider_id", "version");
-- Create "usage_tracking" table
CREATE TABLE "usage_tracking" (
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
  "api_key_id" uuid NOT NULL,
  "model_id" uuid NOT NULL,
  "price_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "usage_tracking_api_keys_usage" FOREIGN KEY ("api_key_id") REFERENCES "api_keys" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "usage_tracking_models_usage" FOREIGN KEY ("model_id") REFERENCES "models" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "usage_tracking_prices_usage" FOREIGN KEY ("price_id") REFERENCES "prices" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "usage_tracking_cost" CHECK (total_cost BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_tracking_counts" CHECK (request_count BETWEEN 0 AND 9000000000000000000 AND error_count BETWEEN 0 AND request_count AND unpriced_count BETWEEN 0 AND request_count),
  CONSTRAINT "usage_tracking_grain" CHECK (grain IN ('quarter', 'day')),
  CONSTRAINT "usage_tracking_latency" CHECK (latency_ms_sum BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_tracking_meters" CHECK (input_tokens BETWEEN 0 AND 9000000000000000000 AND output_tokens BETWEEN 0 AND 9000000000000000000 AND cache_read_tokens BETWEEN 0 AND 9000000000000000000 AND cache_write_tokens BETWEEN 0 AND 9000000000000000000 AND reasoning_tokens BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "usage_tracking_period" CHECK (period_end > period_start)
);
-- Create index "usage_api_key_id" to table: "usage_tracking"
CREATE INDEX "usage_api_key_id" ON "usage_tracking" ("api_key_id");
-- Create index "usage_model_id_api_key_id_price_id_grain_period_start" to table: "usage_tracking"
CREATE UNIQUE INDEX "usage_model_id_api_key_id_price_id_grain_period_start" ON "usage_tracking" ("model_id", "api_key_id", "price_id", "grain", "period_start");
-- Create index "usage_model_id_grain_period_start" to table: "usage_tracking"
CREATE INDEX "usage_model_id_grain_period_start" ON "usage_tracking" ("model_id", "grain", "period_start");
-- Create index "usage_price_id" to table: "usage_tracking"
CREATE INDEX "usage_price_id" ON "usage_tracking" ("price_id");
