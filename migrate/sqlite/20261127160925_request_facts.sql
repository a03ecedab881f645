-- SQLite checks all rows of a table once for each new column with a CHECK, so that the last column has them all. No table is
-- made anew.
-- Add columns to table: "key_leases"
ALTER TABLE `key_leases` ADD COLUMN `reserved_output` integer NOT NULL DEFAULT 0;
ALTER TABLE `key_leases` ADD COLUMN `attempt_group` text NOT NULL DEFAULT '';
ALTER TABLE `key_leases` ADD COLUMN `attempt` integer NOT NULL DEFAULT 0 CONSTRAINT `key_leases_attempt` CHECK (length(attempt_group) <= 128 AND attempt BETWEEN 0 AND 1000000) CONSTRAINT `key_leases_output` CHECK (reserved_output BETWEEN 0 AND reserved_tokens);
-- Add columns to table: "usage_events"
ALTER TABLE `usage_events` ADD COLUMN `usage_status` text NOT NULL DEFAULT 'reported';
ALTER TABLE `usage_events` ADD COLUMN `ttft_ms` integer NULL;
ALTER TABLE `usage_events` ADD COLUMN `provider_cost` integer NULL;
ALTER TABLE `usage_events` ADD COLUMN `provider_cost_source` text NOT NULL DEFAULT '';
ALTER TABLE `usage_events` ADD COLUMN `fingerprint` integer NULL;
ALTER TABLE `usage_events` ADD COLUMN `attempt_group` text NOT NULL DEFAULT '';
ALTER TABLE `usage_events` ADD COLUMN `attempt` integer NOT NULL DEFAULT 0 CONSTRAINT `usage_events_attempt` CHECK (length(attempt_group) <= 128 AND attempt BETWEEN 0 AND 1000000) CONSTRAINT `usage_events_provider_cost` CHECK (provider_cost BETWEEN 0 AND 9000000000000000000 AND length(provider_cost_source) <= 64 AND (provider_cost IS NOT NULL OR provider_cost_source = '')) CONSTRAINT `usage_events_ttft` CHECK (ttft_ms >= 0) CONSTRAINT `usage_events_usage_status` CHECK (usage_status IN ('reported', 'estimated') OR usage_status = 'unknown' AND cost IS NULL AND input_tokens = 0 AND output_tokens = 0 AND cache_read_tokens = 0 AND cache_write_tokens = 0 AND reasoning_tokens = 0);
-- Add columns to table: "usage_quarters"
ALTER TABLE `usage_quarters` ADD COLUMN `estimated_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_quarters` ADD COLUMN `unknown_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_quarters` ADD COLUMN `retry_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_quarters` ADD COLUMN `ttft_ms_sum` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_quarters` ADD COLUMN `ttft_histogram` blob NULL;
ALTER TABLE `usage_quarters` ADD COLUMN `retry_cost` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_quarters` ADD COLUMN `provider_cost` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_quarters` ADD COLUMN `provider_cost_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_quarters` ADD COLUMN `compared_cost` integer NOT NULL DEFAULT 0 CONSTRAINT `usage_quarters_said` CHECK (estimated_count BETWEEN 0 AND request_count AND unknown_count BETWEEN 0 AND unpriced_count AND retry_count BETWEEN 0 AND request_count AND provider_cost_count BETWEEN 0 AND request_count AND ttft_ms_sum BETWEEN 0 AND 9000000000000000000 AND retry_cost BETWEEN 0 AND 9000000000000000000 AND provider_cost BETWEEN 0 AND 9000000000000000000 AND compared_cost BETWEEN 0 AND 9000000000000000000);
-- Add columns to table: "usage_total_quarters"
ALTER TABLE `usage_total_quarters` ADD COLUMN `estimated_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_total_quarters` ADD COLUMN `unknown_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_total_quarters` ADD COLUMN `retry_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_total_quarters` ADD COLUMN `ttft_ms_sum` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_total_quarters` ADD COLUMN `ttft_histogram` blob NULL;
ALTER TABLE `usage_total_quarters` ADD COLUMN `retry_cost` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_total_quarters` ADD COLUMN `provider_cost` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_total_quarters` ADD COLUMN `provider_cost_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_total_quarters` ADD COLUMN `compared_cost` integer NOT NULL DEFAULT 0 CONSTRAINT `usage_total_quarters_said` CHECK (estimated_count BETWEEN 0 AND request_count AND unknown_count BETWEEN 0 AND unpriced_count AND retry_count BETWEEN 0 AND request_count AND provider_cost_count BETWEEN 0 AND request_count AND ttft_ms_sum BETWEEN 0 AND 9000000000000000000 AND retry_cost BETWEEN 0 AND 9000000000000000000 AND provider_cost BETWEEN 0 AND 9000000000000000000 AND compared_cost BETWEEN 0 AND 9000000000000000000);
-- Add columns to table: "usage_totals"
ALTER TABLE `usage_totals` ADD COLUMN `estimated_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_totals` ADD COLUMN `unknown_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_totals` ADD COLUMN `retry_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_totals` ADD COLUMN `ttft_ms_sum` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_totals` ADD COLUMN `ttft_histogram` blob NULL;
ALTER TABLE `usage_totals` ADD COLUMN `retry_cost` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_totals` ADD COLUMN `provider_cost` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_totals` ADD COLUMN `provider_cost_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_totals` ADD COLUMN `compared_cost` integer NOT NULL DEFAULT 0 CONSTRAINT `usage_totals_said` CHECK (estimated_count BETWEEN 0 AND request_count AND unknown_count BETWEEN 0 AND unpriced_count AND retry_count BETWEEN 0 AND request_count AND provider_cost_count BETWEEN 0 AND request_count AND ttft_ms_sum BETWEEN 0 AND 9000000000000000000 AND retry_cost BETWEEN 0 AND 9000000000000000000 AND provider_cost BETWEEN 0 AND 9000000000000000000 AND compared_cost BETWEEN 0 AND 9000000000000000000);
-- Add columns to table: "usage_tracking"
ALTER TABLE `usage_tracking` ADD COLUMN `estimated_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_tracking` ADD COLUMN `unknown_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_tracking` ADD COLUMN `retry_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_tracking` ADD COLUMN `ttft_ms_sum` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_tracking` ADD COLUMN `ttft_histogram` blob NULL;
ALTER TABLE `usage_tracking` ADD COLUMN `retry_cost` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_tracking` ADD COLUMN `provider_cost` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_tracking` ADD COLUMN `provider_cost_count` integer NOT NULL DEFAULT 0;
ALTER TABLE `usage_tracking` ADD COLUMN `compared_cost` integer NOT NULL DEFAULT 0 CONSTRAINT `usage_tracking_said` CHECK (estimated_count BETWEEN 0 AND request_count AND unknown_count BETWEEN 0 AND unpriced_count AND retry_count BETWEEN 0 AND request_count AND provider_cost_count BETWEEN 0 AND request_count AND ttft_ms_sum BETWEEN 0 AND 9000000000000000000 AND retry_cost BETWEEN 0 AND 9000000000000000000 AND provider_cost BETWEEN 0 AND 9000000000000000000 AND compared_cost BETWEEN 0 AND 9000000000000000000);
