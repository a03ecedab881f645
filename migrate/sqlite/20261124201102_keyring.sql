-- Disable the enforcement of foreign-keys constraints
PRAGMA foreign_keys = off;
-- Create "new_api_keys" table
CREATE TABLE `new_api_keys` (
  `id` uuid NOT NULL,
  `created_at` datetime NOT NULL,
  `updated_at` datetime NOT NULL,
  `deleted_at` datetime NULL,
  `key_hash` text NOT NULL,
  `key_prefix` text NOT NULL,
  `label` text NOT NULL DEFAULT (''),
  `usage_count` integer NOT NULL DEFAULT (0),
  `token_count` integer NOT NULL DEFAULT (0),
  `extra_requests` integer NOT NULL DEFAULT (0),
  `extra_tokens` integer NOT NULL DEFAULT (0),
  `requests_today` integer NOT NULL DEFAULT (0),
  `tokens_today` integer NOT NULL DEFAULT (0),
  `last_reset` datetime NOT NULL,
  `disabled` bool NOT NULL DEFAULT (false),
  `degraded` bool NOT NULL DEFAULT (false),
  `degraded_until` datetime NULL,
  `degraded_reason` text NOT NULL DEFAULT (''),
  `last_used_at` datetime NULL,
  `expires_at` datetime NULL,
  `sealed` blob NULL,
  `data_key_id` uuid NULL,
  `provider_id` uuid NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `api_keys_data_keys_keys` FOREIGN KEY (`data_key_id`) REFERENCES `data_keys` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `api_keys_providers_keys` FOREIGN KEY (`provider_id`) REFERENCES `providers` (`id`) ON DELETE CASCADE,
  CONSTRAINT `api_keys_counters` CHECK (usage_count BETWEEN 0 AND 9000000000000000000 AND token_count BETWEEN 0 AND 9000000000000000000 AND requests_today BETWEEN 0 AND 9000000000000000000 AND tokens_today BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `api_keys_degraded` CHECK (degraded = (degraded_until IS NOT NULL)),
  CONSTRAINT `api_keys_extra` CHECK (extra_requests BETWEEN 0 AND usage_count AND extra_tokens BETWEEN 0 AND token_count),
  CONSTRAINT `api_keys_key_hash` CHECK (length(key_hash) = 64),
  CONSTRAINT `api_keys_key_prefix` CHECK (length(key_prefix) IN (0, 8)),
  CONSTRAINT `api_keys_sealed` CHECK (sealed IS NULL AND data_key_id IS NULL OR length(sealed) BETWEEN 1 AND 65536 AND data_key_id IS NOT NULL)
);
-- Copy rows from old table "api_keys" to new temporary table "new_api_keys"
INSERT INTO `new_api_keys` (`id`, `created_at`, `updated_at`, `deleted_at`, `key_hash`, `key_prefix`, `label`, `usage_count`, `token_count`, `extra_requests`, `extra_tokens`, `requests_today`, `tokens_today`, `last_reset`, `disabled`, `degraded`, `degraded_until`, `degraded_reason`, `last_used_at`, `provider_id`) SELECT `id`, `created_at`, `updated_at`, `deleted_at`, `key_hash`, `key_prefix`, `label`, `usage_count`, `token_count`, `extra_requests`, `extra_tokens`, `requests_today`, `tokens_today`, `last_reset`, `disabled`, `degraded`, `degraded_until`, `degraded_reason`, `last_used_at`, `provider_id` FROM `api_keys`;
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
-- Create "data_keys" table
CREATE TABLE `data_keys` (
  `id` uuid NOT NULL,
  `wrapped_by` text NOT NULL,
  `wrapped` blob NOT NULL,
  `created_at` datetime NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `data_keys_wrapped` CHECK (length(wrapped_by) BETWEEN 1 AND 128 AND length(wrapped) BETWEEN 1 AND 65536)
);
-- Create "installations" table
CREATE TABLE `installations` (
  `id` uuid NOT NULL,
  `number` integer NOT NULL,
  `created_at` datetime NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `installations_one` CHECK (number = 1)
);
-- Create index "installations_number_key" to table: "installations"
CREATE UNIQUE INDEX `installations_number_key` ON `installations` (`number`);
-- Enable back the enforcement of foreign-keys constraints
PRAGMA foreign_keys = on;
