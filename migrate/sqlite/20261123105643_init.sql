-- Create "api_keys" table
CREATE TABLE `api_keys` (
  `id` uuid NOT NULL,
  `created_at` datetime NOT NULL,
  `updated_at` datetime NOT NULL,
  `deleted_at` datetime NULL,
  `key_hash` text NOT NULL,
  `key_prefix` text NOT NULL,
  `label` text NOT NULL DEFAULT (''),
  `usage_count` integer NOT NULL DEFAULT (0),
  `token_count` integer NOT NULL DEFAULT (0),
  `requests_today` integer NOT NULL DEFAULT (0),
  `tokens_today` integer NOT NULL DEFAULT (0),
  `last_reset` datetime NOT NULL,
  `disabled` bool NOT NULL DEFAULT (false),
  `degraded` bool NOT NULL DEFAULT (false),
  `degraded_until` datetime NULL,
  `degraded_reason` text NOT NULL DEFAULT (''),
  `last_used_at` datetime NULL,
  `provider_id` uuid NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `api_keys_providers_keys` FOREIGN KEY (`provider_id`) REFERENCES `providers` (`id`) ON DELETE CASCADE,
  CONSTRAINT `api_keys_counters` CHECK (usage_count BETWEEN 0 AND 9000000000000000000 AND token_count BETWEEN 0 AND 9000000000000000000 AND requests_today BETWEEN 0 AND 9000000000000000000 AND tokens_today BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `api_keys_degraded` CHECK (degraded = (degraded_until IS NOT NULL)),
  CONSTRAINT `api_keys_key_hash` CHECK (length(key_hash) = 64),
  CONSTRAINT `api_keys_key_prefix` CHECK (length(key_prefix) IN (0, 8))
);
-- Create index "apikey_provider_id_key_hash" to table: "api_keys"
CREATE UNIQUE INDEX `apikey_provider_id_key_hash` ON `api_keys` (`provider_id`, `key_hash`) WHERE deleted_at IS NULL;
-- Create index "apikey_provider_id_usage_count_last_used_at_id" to table: "api_keys"
CREATE INDEX `apikey_provider_id_usage_count_last_used_at_id` ON `api_keys` (`provider_id`, `usage_count`, `last_used_at`, `id`) WHERE deleted_at IS NULL;
-- Create index "apikey_provider_id" to table: "api_keys"
CREATE INDEX `apikey_provider_id` ON `api_keys` (`provider_id`);
-- Create "discovery_logs" table
CREATE TABLE `discovery_logs` (
  `id` uuid NOT NULL,
  `identifier` text NOT NULL,
  `status` text NOT NULL DEFAULT ('pending'),
  `attempt_count` integer NOT NULL DEFAULT (0),
  `discovered_data` json NULL,
  `error_message` text NOT NULL DEFAULT (''),
  `source` text NOT NULL DEFAULT (''),
  `llm_model` text NOT NULL DEFAULT (''),
  `cache_hit` bool NOT NULL DEFAULT (false),
  `started_at` datetime NOT NULL,
  `completed_at` datetime NULL,
  `provider_id` uuid NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `discovery_logs_providers_discovery_logs` FOREIGN KEY (`provider_id`) REFERENCES `providers` (`id`) ON DELETE SET NULL,
  CONSTRAINT `discovery_logs_attempt_count` CHECK (attempt_count >= 0),
  CONSTRAINT `discovery_logs_identifier` CHECK (length(identifier) BETWEEN 1 AND 2048)
);
-- Create index "discoverylog_started_at" to table: "discovery_logs"
CREATE INDEX `discoverylog_started_at` ON `discovery_logs` (`started_at`);
-- Create index "discoverylog_provider_id" to table: "discovery_logs"
CREATE INDEX `discoverylog_provider_id` ON `discovery_logs` (`provider_id`);
-- Create "models" table
CREATE TABLE `models` (
  `id` uuid NOT NULL,
  `created_at` datetime NOT NULL,
  `updated_at` datetime NOT NULL,
  `deleted_at` datetime NULL,
  `model_id` text NOT NULL,
  `name` text NOT NULL DEFAULT (''),
  `description` text NOT NULL DEFAULT (''),
  `cost_per_1m_input` integer NULL,
  `cost_per_1m_output` integer NULL,
  `context_window` integer NOT NULL DEFAULT (0),
  `max_output_tokens` integer NOT NULL DEFAULT (0),
  `supports_images` bool NOT NULL DEFAULT (false),
  `supports_audio` bool NOT NULL DEFAULT (false),
  `supports_tools` bool NOT NULL DEFAULT (false),
  `supports_structured_output` bool NOT NULL DEFAULT (false),
  `can_reason` bool NOT NULL DEFAULT (false),
  `can_stream` bool NOT NULL DEFAULT (false),
  `deprecated` bool NOT NULL DEFAULT (false),
  `deprecated_at` datetime NULL,
  `family_id` uuid NULL,
  `provider_id` uuid NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `models_model_families_models` FOREIGN KEY (`family_id`) REFERENCES `model_families` (`id`) ON DELETE SET NULL,
  CONSTRAINT `models_providers_models` FOREIGN KEY (`provider_id`) REFERENCES `providers` (`id`) ON DELETE CASCADE,
  CONSTRAINT `models_context_window` CHECK (context_window >= 0),
  CONSTRAINT `models_cost_input` CHECK (cost_per_1m_input BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `models_cost_output` CHECK (cost_per_1m_output BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `models_max_output_tokens` CHECK (max_output_tokens >= 0),
  CONSTRAINT `models_model_id` CHECK (length(model_id) BETWEEN 1 AND 256)
);
-- Create index "model_provider_id_model_id" to table: "models"
CREATE UNIQUE INDEX `model_provider_id_model_id` ON `models` (`provider_id`, `model_id`) WHERE deleted_at IS NULL;
-- Create index "model_provider_id" to table: "models"
CREATE INDEX `model_provider_id` ON `models` (`provider_id`);
-- Create index "model_family_id" to table: "models"
CREATE INDEX `model_family_id` ON `models` (`family_id`);
-- Create index "model_cost_per_1m_input_model_id_id" to table: "models"
CREATE INDEX `model_cost_per_1m_input_model_id_id` ON `models` (`cost_per_1m_input`, `model_id`, `id`) WHERE deleted_at IS NULL;
-- Create "model_families" table
CREATE TABLE `model_families` (
  `id` uuid NOT NULL,
  `created_at` datetime NOT NULL,
  `updated_at` datetime NOT NULL,
  `name` text NOT NULL,
  `description` text NOT NULL DEFAULT (''),
  `provider_id` uuid NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `model_families_providers_families` FOREIGN KEY (`provider_id`) REFERENCES `providers` (`id`) ON DELETE CASCADE,
  CONSTRAINT `model_families_name` CHECK (length(name) BETWEEN 1 AND 128)
);
-- Create index "modelfamily_provider_id_name" to table: "model_families"
CREATE UNIQUE INDEX `modelfamily_provider_id_name` ON `model_families` (`provider_id`, `name`);
-- Create "prices" table
CREATE TABLE `prices` (
  `id` uuid NOT NULL,
  `service_tier` text NOT NULL DEFAULT ('standard'),
  `min_context_tokens` integer NOT NULL DEFAULT (0),
  `rates` json NOT NULL,
  `effective_from` datetime NOT NULL,
  `effective_to` datetime NULL,
  `source` text NOT NULL DEFAULT (''),
  `recorded_at` datetime NOT NULL,
  `model_id` uuid NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `prices_models_prices` FOREIGN KEY (`model_id`) REFERENCES `models` (`id`) ON DELETE CASCADE,
  CONSTRAINT `prices_interval` CHECK (effective_to IS NULL OR effective_to > effective_from),
  CONSTRAINT `prices_min_context_tokens` CHECK (min_context_tokens >= 0),
  CONSTRAINT `prices_service_tier` CHECK (length(service_tier) BETWEEN 1 AND 64)
);
-- Create index "price_model_id_service_tier_min_context_tokens_effective_from" to table: "prices"
CREATE UNIQUE INDEX `price_model_id_service_tier_min_context_tokens_effective_from` ON `prices` (`model_id`, `service_tier`, `min_context_tokens`, `effective_from`);
-- Create "providers" table
CREATE TABLE `providers` (
  `id` uuid NOT NULL,
  `created_at` datetime NOT NULL,
  `updated_at` datetime NOT NULL,
  `deleted_at` datetime NULL,
  `name` text NOT NULL,
  `display_name` text NOT NULL DEFAULT (''),
  `base_url` text NOT NULL DEFAULT (''),
  `auth_method` text NOT NULL DEFAULT ('bearer'),
  `description` text NOT NULL DEFAULT (''),
  PRIMARY KEY (`id`),
  CONSTRAINT `providers_auth_method` CHECK (auth_method IN ('bearer', 'header', 'query', 'oauth', 'aws_sigv4', 'none')),
  CONSTRAINT `providers_name` CHECK (length(name) BETWEEN 1 AND 128)
);
-- Create index "provider_name" to table: "providers"
CREATE UNIQUE INDEX `provider_name` ON `providers` (`name`) WHERE deleted_at IS NULL;
-- Create "sdk_versions" table
CREATE TABLE `sdk_versions` (
  `id` uuid NOT NULL,
  `version` text NOT NULL,
  `sdk_path` text NOT NULL DEFAULT (''),
  `generated_at` datetime NOT NULL,
  `compilation_status` text NOT NULL DEFAULT ('pending'),
  `test_results` text NOT NULL DEFAULT (''),
  `code_hash` text NOT NULL DEFAULT (''),
  `provider_id` uuid NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `sdk_versions_providers_sdk_versions` FOREIGN KEY (`provider_id`) REFERENCES `providers` (`id`) ON DELETE CASCADE,
  CONSTRAINT `sdk_versions_version` CHECK (length(version) BETWEEN 1 AND 128)
);
-- Create index "sdkversion_provider_id_version" to table: "sdk_versions"
CREATE UNIQUE INDEX `sdkversion_provider_id_version` ON `sdk_versions` (`provider_id`, `version`);
-- Create index "sdkversion_provider_id_generated_at" to table: "sdk_versions"
CREATE INDEX `sdkversion_provider_id_generated_at` ON `sdk_versions` (`provider_id`, `generated_at`);
-- Create "settings" table
CREATE TABLE `settings` (
  `key` text NOT NULL,
  `value` text NOT NULL,
  `updated_at` datetime NOT NULL,
  PRIMARY KEY (`key`),
  CONSTRAINT `settings_key` CHECK (length(key) BETWEEN 1 AND 256)
);
-- Create "usage_tracking" table
CREATE TABLE `usage_tracking` (
  `id` uuid NOT NULL,
  `grain` text NOT NULL,
  `period_start` datetime NOT NULL,
  `period_end` datetime NOT NULL,
  `request_count` integer NOT NULL DEFAULT (0),
  `error_count` integer NOT NULL DEFAULT (0),
  `unpriced_count` integer NOT NULL DEFAULT (0),
  `input_tokens` integer NOT NULL DEFAULT (0),
  `output_tokens` integer NOT NULL DEFAULT (0),
  `cache_read_tokens` integer NOT NULL DEFAULT (0),
  `cache_write_tokens` integer NOT NULL DEFAULT (0),
  `reasoning_tokens` integer NOT NULL DEFAULT (0),
  `total_cost` integer NULL,
  `latency_ms_sum` integer NOT NULL DEFAULT (0),
  `average_latency_ms` real NOT NULL DEFAULT (0),
  `api_key_id` uuid NOT NULL,
  `model_id` uuid NOT NULL,
  `price_id` uuid NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `usage_tracking_api_keys_usage` FOREIGN KEY (`api_key_id`) REFERENCES `api_keys` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `usage_tracking_models_usage` FOREIGN KEY (`model_id`) REFERENCES `models` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `usage_tracking_prices_usage` FOREIGN KEY (`price_id`) REFERENCES `prices` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `usage_tracking_cost` CHECK (total_cost BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_tracking_counts` CHECK (request_count BETWEEN 0 AND 9000000000000000000 AND error_count BETWEEN 0 AND request_count AND unpriced_count BETWEEN 0 AND request_count),
  CONSTRAINT `usage_tracking_grain` CHECK (grain IN ('quarter', 'day')),
  CONSTRAINT `usage_tracking_latency` CHECK (latency_ms_sum BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_tracking_meters` CHECK (input_tokens BETWEEN 0 AND 9000000000000000000 AND output_tokens BETWEEN 0 AND 9000000000000000000 AND cache_read_tokens BETWEEN 0 AND 9000000000000000000 AND cache_write_tokens BETWEEN 0 AND 9000000000000000000 AND reasoning_tokens BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_tracking_period` CHECK (period_end > period_start)
);
-- Create index "usage_model_id_api_key_id_price_id_grain_period_start" to table: "usage_tracking"
CREATE UNIQUE INDEX `usage_model_id_api_key_id_price_id_grain_period_start` ON `usage_tracking` (`model_id`, `api_key_id`, `price_id`, `grain`, `period_start`);
-- Create index "usage_model_id_grain_period_start" to table: "usage_tracking"
CREATE INDEX `usage_model_id_grain_period_start` ON `usage_tracking` (`model_id`, `grain`, `period_start`);
-- Create index "usage_api_key_id" to table: "usage_tracking"
CREATE INDEX `usage_api_key_id` ON `usage_tracking` (`api_key_id`);
-- Create index "usage_price_id" to table: "usage_tracking"
CREATE INDEX `usage_price_id` ON `usage_tracking` (`price_id`);
