-- Disable the enforcement of foreign-keys constraints
PRAGMA foreign_keys = off;
-- Create "new_api_keys" table
CREATE TABLE `new_api_keys` (
  `id` uuid NOT NULL,
  `created_at` datetime NOT NULL,
  `updated_at` datetime NOT NULL,
  `deleted_at` datetime NULL,
  `requests_per_minute` integer NOT NULL DEFAULT (0),
  `tokens_per_minute` integer NOT NULL DEFAULT (0),
  `requests_per_day` integer NOT NULL DEFAULT (0),
  `tokens_per_day` integer NOT NULL DEFAULT (0),
  `concurrency` integer NOT NULL DEFAULT (0),
  `cost_per_day` integer NOT NULL DEFAULT (0),
  `minute` datetime NULL,
  `requests_this_minute` integer NOT NULL DEFAULT (0),
  `tokens_this_minute` integer NOT NULL DEFAULT (0),
  `requests_today` integer NOT NULL DEFAULT (0),
  `tokens_today` integer NOT NULL DEFAULT (0),
  `cost_today` integer NOT NULL DEFAULT (0),
  `last_reset` datetime NOT NULL,
  `observed` json NULL,
  `key_hash` text NOT NULL,
  `key_prefix` text NOT NULL,
  `label` text NOT NULL DEFAULT (''),
  `usage_count` integer NOT NULL DEFAULT (0),
  `token_count` integer NOT NULL DEFAULT (0),
  `extra_requests` integer NOT NULL DEFAULT (0),
  `extra_tokens` integer NOT NULL DEFAULT (0),
  `disabled` bool NOT NULL DEFAULT (false),
  `degraded` bool NOT NULL DEFAULT (false),
  `degraded_until` datetime NULL,
  `degraded_reason` text NOT NULL DEFAULT (''),
  `degraded_by` text NOT NULL DEFAULT (''),
  `degraded_at` datetime NULL,
  `failures` integer NOT NULL DEFAULT (0),
  `counted_class` text NOT NULL DEFAULT (''),
  `counted_at` datetime NULL,
  `failure_class` text NOT NULL DEFAULT (''),
  `failed_at` datetime NULL,
  `succeeded_at` datetime NULL,
  `pass` integer NOT NULL DEFAULT (0),
  `weight` integer NOT NULL DEFAULT (1),
  `priority` integer NOT NULL DEFAULT (0),
  `allowed_models` json NULL,
  `denied_models` json NULL,
  `last_used_at` datetime NULL,
  `expires_at` datetime NULL,
  `sealed` blob NULL,
  `data_key_id` uuid NULL,
  `provider_id` uuid NOT NULL,
  `quota_group_id` uuid NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `api_keys_data_keys_keys` FOREIGN KEY (`data_key_id`) REFERENCES `data_keys` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `api_keys_providers_keys` FOREIGN KEY (`provider_id`) REFERENCES `providers` (`id`) ON DELETE CASCADE,
  CONSTRAINT `api_keys_quota_groups_keys` FOREIGN KEY (`quota_group_id`) REFERENCES `quota_groups` (`id`) ON DELETE SET NULL,
  CONSTRAINT `api_keys_choice` CHECK (pass >= 0 AND weight BETWEEN 1 AND 1000 AND priority BETWEEN -1000 AND 1000),
  CONSTRAINT `api_keys_counters` CHECK (usage_count BETWEEN 0 AND 9000000000000000000 AND token_count BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `api_keys_degraded` CHECK (degraded = (degraded_until IS NOT NULL) AND (degraded OR degraded_by = '' AND degraded_at IS NULL)),
  CONSTRAINT `api_keys_extra` CHECK (extra_requests BETWEEN 0 AND usage_count AND extra_tokens BETWEEN 0 AND token_count),
  CONSTRAINT `api_keys_failures` CHECK (failures BETWEEN 0 AND 1000000 AND (failed_at IS NULL) = (failure_class = '')),
  CONSTRAINT `api_keys_key_hash` CHECK (length(key_hash) = 64),
  CONSTRAINT `api_keys_key_prefix` CHECK (length(key_prefix) <= 8),
  CONSTRAINT `api_keys_limits` CHECK (requests_per_minute BETWEEN 0 AND 9000000000000000000 AND tokens_per_minute BETWEEN 0 AND 9000000000000000000 AND requests_per_day BETWEEN 0 AND 9000000000000000000 AND tokens_per_day BETWEEN 0 AND 9000000000000000000 AND concurrency BETWEEN 0 AND 9000000000000000000 AND cost_per_day BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `api_keys_sealed` CHECK (sealed IS NULL AND data_key_id IS NULL OR length(sealed) BETWEEN 1 AND 65536 AND data_key_id IS NOT NULL),
  CONSTRAINT `api_keys_windows` CHECK (requests_this_minute BETWEEN 0 AND 9000000000000000000 AND tokens_this_minute BETWEEN 0 AND 9000000000000000000 AND requests_today BETWEEN 0 AND 9000000000000000000 AND tokens_today BETWEEN 0 AND 9000000000000000000 AND cost_today BETWEEN 0 AND 9000000000000000000)
);
-- Copy rows from old table "api_keys" to new temporary table "new_api_keys"
INSERT INTO `new_api_keys` (`id`, `created_at`, `updated_at`, `deleted_at`, `requests_per_minute`, `tokens_per_minute`, `requests_per_day`, `tokens_per_day`, `concurrency`, `cost_per_day`, `minute`, `requests_this_minute`, `tokens_this_minute`, `requests_today`, `tokens_today`, `cost_today`, `last_reset`, `observed`, `key_hash`, `key_prefix`, `label`, `usage_count`, `token_count`, `extra_requests`, `extra_tokens`, `disabled`, `degraded`, `degraded_until`, `degraded_reason`, `degraded_by`, `degraded_at`, `failures`, `counted_class`, `counted_at`, `failure_class`, `failed_at`, `succeeded_at`, `pass`, `weight`, `priority`, `allowed_models`, `denied_models`, `last_used_at`, `expires_at`, `sealed`, `data_key_id`, `provider_id`, `quota_group_id`) SELECT `id`, `created_at`, `updated_at`, `deleted_at`, `requests_per_minute`, `tokens_per_minute`, `requests_per_day`, `tokens_per_day`, `concurrency`, `cost_per_day`, `minute`, `requests_this_minute`, `tokens_this_minute`, `requests_today`, `tokens_today`, `cost_today`, `last_reset`, `observed`, `key_hash`, `key_prefix`, `label`, `usage_count`, `token_count`, `extra_requests`, `extra_tokens`, `disabled`, `degraded`, `degraded_until`, `degraded_reason`, `degraded_by`, `degraded_at`, `failures`, `counted_class`, `counted_at`, `failure_class`, `failed_at`, `succeeded_at`, `pass`, `weight`, `priority`, `allowed_models`, `denied_models`, `last_used_at`, `expires_at`, `sealed`, `data_key_id`, `provider_id`, `quota_group_id` FROM `api_keys`;
-- Drop "api_keys" table after copying rows
DROP TABLE `api_keys`;
-- Rename temporary table "new_api_keys" to "api_keys"
ALTER TABLE `new_api_keys` RENAME TO `api_keys`;
-- Create index "apikey_provider_id_key_hash" to table: "api_keys"
CREATE UNIQUE INDEX `apikey_provider_id_key_hash` ON `api_keys` (`provider_id`, `key_hash`) WHERE deleted_at IS NULL;
-- Create index "apikey_provider_id_usage_count_last_used_at_id" to table: "api_keys"
CREATE INDEX `apikey_provider_id_usage_count_last_used_at_id` ON `api_keys` (`provider_id`, `usage_count`, `last_used_at`, `id`) WHERE deleted_at IS NULL;
-- Create index "apikey_provider_id" to table: "api_keys"
CREATE INDEX `apikey_provider_id` ON `api_keys` (`provider_id`);
-- Create index "apikey_data_key_id" to table: "api_keys"
CREATE INDEX `apikey_data_key_id` ON `api_keys` (`data_key_id`);
-- Create index "apikey_quota_group_id" to table: "api_keys"
CREATE INDEX `apikey_quota_group_id` ON `api_keys` (`quota_group_id`);
-- Enable back the enforcement of foreign-keys constraints
PRAGMA foreign_keys = on;
