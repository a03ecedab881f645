-- Create "consumer_days" table
CREATE TABLE `consumer_days` (
  `id` uuid NOT NULL,
  `day` datetime NOT NULL,
  `requests` integer NOT NULL DEFAULT (0),
  `tokens` integer NOT NULL DEFAULT (0),
  `cost` integer NOT NULL DEFAULT (0),
  `unpriced_requests` integer NOT NULL DEFAULT (0),
  `consumer_id` uuid NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `consumer_days_consumers_days` FOREIGN KEY (`consumer_id`) REFERENCES `consumers` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `consumer_days_amounts` CHECK (requests BETWEEN 0 AND 9000000000000000000 AND tokens BETWEEN 0 AND 9000000000000000000 AND cost BETWEEN 0 AND 9000000000000000000 AND unpriced_requests BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT `consumer_days_unpriced` CHECK (unpriced_requests <= requests)
);
-- Create index "consumerday_consumer_id_day" to table: "consumer_days"
CREATE UNIQUE INDEX `consumerday_consumer_id_day` ON `consumer_days` (`consumer_id`, `day`);
-- Sum up the days of consumers that are known by model and price. One of the summed rows gives the id. Amounts are added
-- up in halves of 32 bits, because SQLite refuses a sum of more than an integer takes.
INSERT INTO `consumer_days` (`id`, `consumer_id`, `day`, `requests`, `tokens`, `cost`, `unpriced_requests`)
  SELECT s.id, s.value_id, s.period_start, s.requests,
    CASE WHEN s.tokens_high > 2147483647 THEN 9000000000000000000 ELSE min((s.tokens_high << 32) + s.tokens_low, 9000000000000000000) END,
    CASE WHEN s.cost_high > 2147483647 THEN 9000000000000000000 ELSE min((s.cost_high << 32) + s.cost_low, 9000000000000000000) END,
    s.unpriced
  FROM (
    SELECT min(u.id) AS id, u.value_id, u.period_start, sum(u.request_count) AS requests, sum(u.unpriced_count) AS unpriced,
      sum((u.input_tokens >> 32) + (u.output_tokens >> 32) + (u.cache_read_tokens >> 32) + (u.cache_write_tokens >> 32) + (u.reasoning_tokens >> 32)) AS tokens_high,
      sum((u.input_tokens & 4294967295) + (u.output_tokens & 4294967295) + (u.cache_read_tokens & 4294967295) + (u.cache_write_tokens & 4294967295) + (u.reasoning_tokens & 4294967295)) AS tokens_low,
      sum(COALESCE(u.total_cost, 0) >> 32) AS cost_high, sum(COALESCE(u.total_cost, 0) & 4294967295) AS cost_low
    FROM usage_by_value AS u JOIN consumers AS c ON c.id = u.value_id
    GROUP BY u.value_id, u.period_start
  ) AS s;
