-- Disable the enforcement of foreign-keys constraints
PRAGMA foreign_keys = off;
-- Create "new_prices" table
CREATE TABLE `new_prices` (
  `id` uuid NOT NULL,
  `service_tier` text NOT NULL DEFAULT ('standard'),
  `min_context_tokens` integer NOT NULL DEFAULT (0),
  `cost_per_1m_input` integer NULL,
  `cost_per_1m_output` integer NULL,
  `cost_per_1m_cache_read` integer NULL,
  `cost_per_1m_cache_write` integer NULL,
  `cost_per_1m_reasoning` integer NULL,
  `effective_from` datetime NOT NULL,
  `effective_to` datetime NULL,
  `source` text NOT NULL DEFAULT (''),
  `recorded_at` datetime NOT NULL,
  `superseded_at` datetime NULL,
  `model_id` uuid NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `prices_models_prices` FOREIGN KEY (`model_id`) REFERENCES `models` (`id`) ON DELETE CASCADE,
  CONSTRAINT `prices_interval` CHECK (effective_to IS NULL OR effective_to > effective_from),
  CONSTRAINT `prices_min_context_tokens` CHECK (min_context_tokens >= 0),
  CONSTRAINT `prices_rates` CHECK (cost_per_1m_input BETWEEN 0 AND 9000000000000000000 AND cost_per_1m_output BETWEEN 0 AND 9000000000000000000 AND cost_per_1m_cache_read BETWEEN 0 AND 9000000000000000000 AND cost_per_1m_cache_write BETWEEN 0 AND 9000000000000000000 AND cost_per_1m_reasoning BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `prices_service_tier` CHECK (length(service_tier) BETWEEN 1 AND 64)
);
-- Copy rows from old table "prices" to new temporary table "new_prices"; a rate that was not known was not in the JSON
INSERT INTO `new_prices` (`id`, `service_tier`, `min_context_tokens`, `cost_per_1m_input`, `cost_per_1m_output`, `cost_per_1m_cache_read`, `cost_per_1m_cache_write`, `cost_per_1m_reasoning`, `effective_from`, `effective_to`, `source`, `recorded_at`, `superseded_at`, `model_id`) SELECT `id`, `service_tier`, `min_context_tokens`, json_extract(`rates`, '$.input'), json_extract(`rates`, '$.output'), json_extract(`rates`, '$.cache_read'), json_extract(`rates`, '$.cache_write'), json_extract(`rates`, '$.reasoning'), `effective_from`, `effective_to`, `source`, `recorded_at`, `superseded_at`, `model_id` FROM `prices`;
-- Drop "prices" table after copying rows
DROP TABLE `prices`;
-- Rename temporary table "new_prices" to "prices"
ALTER TABLE `new_prices` RENAME TO `prices`;
-- Create index "price_model_id_service_tier_min_context_tokens_effective_from" to table: "prices"
CREATE UNIQUE INDEX `price_model_id_service_tier_min_context_tokens_effective_from` ON `prices` (`model_id`, `service_tier`, `min_context_tokens`, `effective_from`) WHERE superseded_at IS NULL;
-- Create index "price_model_id" to table: "prices"
CREATE INDEX `price_model_id` ON `prices` (`model_id`);
-- Enable back the enforcement of foreign-keys constraints
PRAGMA foreign_keys = on;
