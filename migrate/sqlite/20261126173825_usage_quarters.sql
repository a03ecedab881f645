-- Disable the enforcement of foreign-keys constraints
PRAGMA foreign_keys = off;
-- Create "usage_quarters" table
CREATE TABLE `usage_quarters` (
  `id` uuid NOT NULL,
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
  `latency_histogram` blob NULL,
  `digest` integer NULL,
  `api_key_id` uuid NOT NULL,
  `model_id` uuid NOT NULL,
  `price_id` uuid NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `usage_quarters_api_keys_usage_quarters` FOREIGN KEY (`api_key_id`) REFERENCES `api_keys` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `usage_quarters_models_usage_quarters` FOREIGN KEY (`model_id`) REFERENCES `models` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `usage_quarters_prices_usage_quarters` FOREIGN KEY (`price_id`) REFERENCES `prices` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `usage_quarters_cost` CHECK (total_cost BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_quarters_counts` CHECK (request_count BETWEEN 0 AND 9000000000000000000 AND error_count BETWEEN 0 AND request_count AND unpriced_count BETWEEN 0 AND request_count),
  CONSTRAINT `usage_quarters_latency` CHECK (latency_ms_sum BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_quarters_meters` CHECK (input_tokens BETWEEN 0 AND 9000000000000000000 AND output_tokens BETWEEN 0 AND 9000000000000000000 AND cache_read_tokens BETWEEN 0 AND 9000000000000000000 AND cache_write_tokens BETWEEN 0 AND 9000000000000000000 AND reasoning_tokens BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_quarters_period` CHECK (period_end > period_start)
);
-- Copy the quarters of "usage_tracking" to it
INSERT INTO `usage_quarters` (`id`, `period_start`, `period_end`, `request_count`, `error_count`, `unpriced_count`, `input_tokens`, `output_tokens`, `cache_read_tokens`, `cache_write_tokens`, `reasoning_tokens`, `total_cost`, `latency_ms_sum`, `average_latency_ms`, `latency_histogram`, `digest`, `api_key_id`, `model_id`, `price_id`) SELECT `id`, `period_start`, `period_end`, `request_count`, `error_count`, `unpriced_count`, `input_tokens`, `output_tokens`, `cache_read_tokens`, `cache_write_tokens`, `reasoning_tokens`, `total_cost`, `latency_ms_sum`, `average_latency_ms`, `latency_histogram`, `digest`, `api_key_id`, `model_id`, `price_id` FROM `usage_tracking` WHERE `grain` = 'quarter';
-- Create index "usagequarter_price_id_api_key_id_period_start" to table: "usage_quarters"
CREATE UNIQUE INDEX `usagequarter_price_id_api_key_id_period_start` ON `usage_quarters` (`price_id`, `api_key_id`, `period_start`);
-- Create index "usagequarter_model_id_period_start" to table: "usage_quarters"
CREATE INDEX `usagequarter_model_id_period_start` ON `usage_quarters` (`model_id`, `period_start`);
-- Create index "usagequarter_api_key_id_period_start" to table: "usage_quarters"
CREATE INDEX `usagequarter_api_key_id_period_start` ON `usage_quarters` (`api_key_id`, `period_start`);
-- Create "new_usage_tracking" table
CREATE TABLE `new_usage_tracking` (
  `id` uuid NOT NULL,
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
  `latency_histogram` blob NULL,
  `digest` integer NULL,
  `api_key_id` uuid NOT NULL,
  `model_id` uuid NOT NULL,
  `price_id` uuid NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `usage_tracking_api_keys_usage` FOREIGN KEY (`api_key_id`) REFERENCES `api_keys` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `usage_tracking_models_usage` FOREIGN KEY (`model_id`) REFERENCES `models` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `usage_tracking_prices_usage` FOREIGN KEY (`price_id`) REFERENCES `prices` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `usage_tracking_cost` CHECK (total_cost BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_tracking_counts` CHECK (request_count BETWEEN 0 AND 9000000000000000000 AND error_count BETWEEN 0 AND request_count AND unpriced_count BETWEEN 0 AND request_count),
  CONSTRAINT `usage_tracking_latency` CHECK (latency_ms_sum BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_tracking_meters` CHECK (input_tokens BETWEEN 0 AND 9000000000000000000 AND output_tokens BETWEEN 0 AND 9000000000000000000 AND cache_read_tokens BETWEEN 0 AND 9000000000000000000 AND cache_write_tokens BETWEEN 0 AND 9000000000000000000 AND reasoning_tokens BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_tracking_period` CHECK (period_end > period_start)
);
-- Copy the days of "usage_tracking" to it
INSERT INTO `new_usage_tracking` (`id`, `period_start`, `period_end`, `request_count`, `error_count`, `unpriced_count`, `input_tokens`, `output_tokens`, `cache_read_tokens`, `cache_write_tokens`, `reasoning_tokens`, `total_cost`, `latency_ms_sum`, `average_latency_ms`, `latency_histogram`, `digest`, `api_key_id`, `model_id`, `price_id`) SELECT `id`, `period_start`, `period_end`, `request_count`, `error_count`, `unpriced_count`, `input_tokens`, `output_tokens`, `cache_read_tokens`, `cache_write_tokens`, `reasoning_tokens`, `total_cost`, `latency_ms_sum`, `average_latency_ms`, `latency_histogram`, `digest`, `api_key_id`, `model_id`, `price_id` FROM `usage_tracking` WHERE `grain` = 'day';
-- Drop "usage_tracking" table after copying rows
DROP TABLE `usage_tracking`;
-- Rename temporary table "new_usage_tracking" to "usage_tracking"
ALTER TABLE `new_usage_tracking` RENAME TO `usage_tracking`;
-- Create index "usage_price_id_api_key_id_period_start" to table: "usage_tracking"
CREATE UNIQUE INDEX `usage_price_id_api_key_id_period_start` ON `usage_tracking` (`price_id`, `api_key_id`, `period_start`);
-- Create index "usage_model_id_period_start" to table: "usage_tracking"
CREATE INDEX `usage_model_id_period_start` ON `usage_tracking` (`model_id`, `period_start`);
-- Create index "usage_api_key_id_period_start" to table: "usage_tracking"
CREATE INDEX `usage_api_key_id_period_start` ON `usage_tracking` (`api_key_id`, `period_start`);
-- Create "usage_total_quarters" table
CREATE TABLE `usage_total_quarters` (
  `model_id` uuid NOT NULL,
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
  PRIMARY KEY (`model_id`, `period_start`),
  CONSTRAINT `usage_total_quarters_models_usage_total_quarters` FOREIGN KEY (`model_id`) REFERENCES `models` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `usage_total_quarters_cost` CHECK (total_cost BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_total_quarters_counts` CHECK (request_count BETWEEN 0 AND 9000000000000000000 AND error_count BETWEEN 0 AND request_count AND unpriced_count BETWEEN 0 AND request_count),
  CONSTRAINT `usage_total_quarters_latency` CHECK (latency_ms_sum BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_total_quarters_meters` CHECK (input_tokens BETWEEN 0 AND 9000000000000000000 AND output_tokens BETWEEN 0 AND 9000000000000000000 AND cache_read_tokens BETWEEN 0 AND 9000000000000000000 AND cache_write_tokens BETWEEN 0 AND 9000000000000000000 AND reasoning_tokens BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_total_quarters_period` CHECK (period_end > period_start)
) WITHOUT ROWID;
-- Copy the quarters of "usage_totals" to it
INSERT INTO `usage_total_quarters` (`model_id`, `period_start`, `id`, `period_end`, `request_count`, `error_count`, `unpriced_count`, `input_tokens`, `output_tokens`, `cache_read_tokens`, `cache_write_tokens`, `reasoning_tokens`, `total_cost`, `latency_ms_sum`, `average_latency_ms`, `latency_histogram`, `digest`) SELECT `model_id`, `period_start`, `id`, `period_end`, `request_count`, `error_count`, `unpriced_count`, `input_tokens`, `output_tokens`, `cache_read_tokens`, `cache_write_tokens`, `reasoning_tokens`, `total_cost`, `latency_ms_sum`, `average_latency_ms`, `latency_histogram`, `digest` FROM `usage_totals` WHERE `grain` = 'quarter';
-- Create "new_usage_totals" table
CREATE TABLE `new_usage_totals` (
  `model_id` uuid NOT NULL,
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
  PRIMARY KEY (`model_id`, `period_start`),
  CONSTRAINT `usage_totals_models_usage_totals` FOREIGN KEY (`model_id`) REFERENCES `models` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `usage_totals_cost` CHECK (total_cost BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_totals_counts` CHECK (request_count BETWEEN 0 AND 9000000000000000000 AND error_count BETWEEN 0 AND request_count AND unpriced_count BETWEEN 0 AND request_count),
  CONSTRAINT `usage_totals_latency` CHECK (latency_ms_sum BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_totals_meters` CHECK (input_tokens BETWEEN 0 AND 9000000000000000000 AND output_tokens BETWEEN 0 AND 9000000000000000000 AND cache_read_tokens BETWEEN 0 AND 9000000000000000000 AND cache_write_tokens BETWEEN 0 AND 9000000000000000000 AND reasoning_tokens BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `usage_totals_period` CHECK (period_end > period_start)
) WITHOUT ROWID;
-- Copy the days of "usage_totals" to it
INSERT INTO `new_usage_totals` (`model_id`, `period_start`, `id`, `period_end`, `request_count`, `error_count`, `unpriced_count`, `input_tokens`, `output_tokens`, `cache_read_tokens`, `cache_write_tokens`, `reasoning_tokens`, `total_cost`, `latency_ms_sum`, `average_latency_ms`, `latency_histogram`, `digest`) SELECT `model_id`, `period_start`, `id`, `period_end`, `request_count`, `error_count`, `unpriced_count`, `input_tokens`, `output_tokens`, `cache_read_tokens`, `cache_write_tokens`, `reasoning_tokens`, `total_cost`, `latency_ms_sum`, `average_latency_ms`, `latency_histogram`, `digest` FROM `usage_totals` WHERE `grain` = 'day';
-- Drop "usage_totals" table after copying rows
DROP TABLE `usage_totals`;
-- Rename temporary table "new_usage_totals" to "usage_totals"
ALTER TABLE `new_usage_totals` RENAME TO `usage_totals`;
-- Enable back the enforcement of foreign-keys constraints
PRAGMA foreign_keys = on;
