-- Add column "extra_requests" to table: "api_keys"
ALTER TABLE `api_keys` ADD COLUMN `extra_requests` integer NOT NULL DEFAULT 0;
-- Add column "extra_tokens" to table: "api_keys"
ALTER TABLE `api_keys` ADD COLUMN `extra_tokens` integer NOT NULL DEFAULT 0 CONSTRAINT `api_keys_extra` CHECK (extra_requests BETWEEN 0 AND usage_count AND extra_tokens BETWEEN 0 AND token_count);
-- Add column "superseded_at" to table: "prices"
ALTER TABLE `prices` ADD COLUMN `superseded_at` datetime NULL;
-- Drop index "price_model_id_service_tier_min_context_tokens_effective_from" from table: "prices"
DROP INDEX `price_model_id_service_tier_min_context_tokens_effective_from`;
-- Create index "price_model_id_service_tier_min_context_tokens_effective_from" to table: "prices"
CREATE UNIQUE INDEX `price_model_id_service_tier_min_context_tokens_effective_from` ON `prices` (`model_id`, `service_tier`, `min_context_tokens`, `effective_from`) WHERE superseded_at IS NULL;
-- Create index "price_model_id" to table: "prices"
CREATE INDEX `price_model_id` ON `prices` (`model_id`);
-- Add column "latency_histogram" to table: "usage_tracking"
ALTER TABLE `usage_tracking` ADD COLUMN `latency_histogram` blob NULL;
-- Add column "digest" to table: "usage_tracking"
ALTER TABLE `usage_tracking` ADD COLUMN `digest` integer NULL;
-- Drop index "usage_model_id_api_key_id_price_id_grain_period_start" from table: "usage_tracking"
DROP INDEX `usage_model_id_api_key_id_price_id_grain_period_start`;
-- Drop index "usage_api_key_id" from table: "usage_tracking"
DROP INDEX `usage_api_key_id`;
-- Drop index "usage_price_id" from table: "usage_tracking"
DROP INDEX `usage_price_id`;
-- Create index "usage_price_id_api_key_id_grain_period_start" to table: "usage_tracking"
CREATE UNIQUE INDEX `usage_price_id_api_key_id_grain_period_start` ON `usage_tracking` (`price_id`, `api_key_id`, `grain`, `period_start`);
-- Create index "usage_api_key_id_grain_period_start" to table: "usage_tracking"
CREATE INDEX `usage_api_key_id_grain_period_start` ON `usage_tracking` (`api_key_id`, `grain`, `period_start`);
-- Create "usage_events" table
CREATE TABLE `usage_events` (
  `id` uuid NOT NULL,
  `request_id` text NOT NULL,
  `at` datetime NOT NULL,
  `input_tokens` integer NOT NULL DEFAULT (0),
  `output_tokens` integer NOT NULL DEFAULT (0),
  `cache_read_tokens` integer NOT NULL DEFAULT (0),
  `cache_write_tokens` integer NOT NULL DEFAULT (0),
  `reasoning_tokens` integer NOT NULL DEFAULT (0),
  `cost` integer NULL,
  `cost_status` text NOT NULL,
  `latency_ms` integer NOT NULL DEFAULT (0),
  `success` bool NOT NULL DEFAULT (true),
  `error_class` text NOT NULL DEFAULT (''),
  `http_status` integer NOT NULL DEFAULT (0),
  `api_key_id` uuid NOT NULL,
  `model_id` uuid NOT NULL,
  `price_id` uuid NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `usage_events_cost` CHECK (cost BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_events_cost_status` CHECK (cost_status IN ('priced', 'unpriced', 'repriced') AND (cost IS NULL) = (cost_status = 'unpriced')),
  CONSTRAINT `usage_events_error_class` CHECK (length(error_class) <= 64),
  CONSTRAINT `usage_events_http_status` CHECK (http_status BETWEEN 0 AND 599),
  CONSTRAINT `usage_events_latency` CHECK (latency_ms >= 0),
  CONSTRAINT `usage_events_meters` CHECK (input_tokens BETWEEN 0 AND 9000000000000000000 AND output_tokens BETWEEN 0 AND 9000000000000000000 AND cache_read_tokens BETWEEN 0 AND 9000000000000000000 AND cache_write_tokens BETWEEN 0 AND 9000000000000000000 AND reasoning_tokens BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_events_request_id` CHECK (length(request_id) BETWEEN 1 AND 128)
) WITHOUT ROWID;
-- Create index "usageevent_request_id" to table: "usage_events"
CREATE UNIQUE INDEX `usageevent_request_id` ON `usage_events` (`request_id`);
-- Create index "usageevent_model_id_id" to table: "usage_events"
CREATE INDEX `usageevent_model_id_id` ON `usage_events` (`model_id`, `id`);
-- Create index "usageevent_api_key_id_id" to table: "usage_events"
CREATE INDEX `usageevent_api_key_id_id` ON `usage_events` (`api_key_id`, `id`);
-- Create "usage_horizons" table
CREATE TABLE `usage_horizons` (
  `part` text NOT NULL,
  `complete_from` datetime NOT NULL,
  PRIMARY KEY (`part`),
  CONSTRAINT `usage_horizons_part` CHECK (part IN ('events', 'quarters'))
);
-- Create "usage_totals" table
CREATE TABLE `usage_totals` (
  `model_id` uuid NOT NULL,
  `grain` text NOT NULL,
  `period_start` datetime NOT NULL,
  `id` uuid NOT NULL,
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
  `latency_histogram` blob NULL,
  `digest` integer NULL,
  PRIMARY KEY (`model_id`, `grain`, `period_start`),
  CONSTRAINT `usage_totals_models_usage_totals` FOREIGN KEY (`model_id`) REFERENCES `models` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `usage_totals_cost` CHECK (total_cost BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_totals_counts` CHECK (request_count BETWEEN 0 AND 9000000000000000000 AND error_count BETWEEN 0 AND request_count AND unpriced_count BETWEEN 0 AND request_count),
  CONSTRAINT `usage_totals_grain` CHECK (grain IN ('quarter', 'day')),
  CONSTRAINT `usage_totals_latency` CHECK (latency_ms_sum BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_totals_meters` CHECK (input_tokens BETWEEN 0 AND 9000000000000000000 AND output_tokens BETWEEN 0 AND 9000000000000000000 AND cache_read_tokens BETWEEN 0 AND 9000000000000000000 AND cache_write_tokens BETWEEN 0 AND 9000000000000000000 AND reasoning_tokens BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_totals_period` CHECK (period_end > period_start)
) WITHOUT ROWID;
-- Fill "usage_totals" with the sums over keys and prices; the id of a row that is summed serves again
INSERT INTO `usage_totals` (`id`, `grain`, `period_start`, `period_end`, `request_count`, `error_count`, `unpriced_count`, `input_tokens`, `output_tokens`, `cache_read_tokens`, `cache_write_tokens`, `reasoning_tokens`, `total_cost`, `latency_ms_sum`, `average_latency_ms`, `model_id`)
SELECT MIN(`id`), `grain`, `period_start`, `period_end`, SUM(`request_count`), SUM(`error_count`), SUM(`unpriced_count`), SUM(`input_tokens`), SUM(`output_tokens`), SUM(`cache_read_tokens`), SUM(`cache_write_tokens`), SUM(`reasoning_tokens`), SUM(`total_cost`), SUM(`latency_ms_sum`), COALESCE(CAST(SUM(`latency_ms_sum`) AS real) / NULLIF(SUM(`request_count`), 0), 0), `model_id`
FROM `usage_tracking` GROUP BY `model_id`, `grain`, `period_start`, `period_end`;
-- What keys count beyond the ledger is what IncrementUsage has counted
UPDATE `api_keys` SET
  `extra_requests` = MAX(0, `usage_count` - COALESCE((SELECT SUM(`request_count`) FROM `usage_tracking` WHERE `api_key_id` = `api_keys`.`id` AND `grain` = 'day'), 0)),
  `extra_tokens` = MAX(0, `token_count` - COALESCE((SELECT SUM(`input_tokens` + `output_tokens` + `cache_read_tokens` + `cache_write_tokens` + `reasoning_tokens`) FROM `usage_tracking` WHERE `api_key_id` = `api_keys`.`id` AND `grain` = 'day'), 0));
-- What was recorded up to now has no events
INSERT INTO `usage_horizons` (`part`, `complete_from`) SELECT 'events', MAX(`period_end`) FROM `usage_tracking` WHERE `grain` = 'quarter' HAVING COUNT(*) > 0;
