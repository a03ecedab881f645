-- Create "consumer_days" table
CREATE TABLE "consumer_days" (
  "id" uuid NOT NULL,
  "day" timestamptz NOT NULL,
  "requests" bigint NOT NULL DEFAULT 0,
  "tokens" bigint NOT NULL DEFAULT 0,
  "cost" bigint NOT NULL DEFAULT 0,
  "unpriced_requests" bigint NOT NULL DEFAULT 0,
  "consumer_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "consumer_days_consumers_days" FOREIGN KEY ("consumer_id") REFERENCES "consumers" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "consumer_days_amounts" CHECK (requests BETWEEN 0 AND 9000000000000000000 AND tokens BETWEEN 0 AND 9000000000000000000 AND cost BETWEEN 0 AND 9000000000000000000 AND unpriced_requests BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "consumer_days_unpriced" CHECK (unpriced_requests <= requests)
);
-- Create index "consumerday_consumer_id_day" to table: "consumer_days"
CREATE UNIQUE INDEX "consumerday_consumer_id_day" ON "consumer_days" ("consumer_id", "day");
-- Sum up the days of consumers that are known by model and price. One of the summed rows gives the id.
INSERT INTO "consumer_days" ("id", "consumer_id", "day", "requests", "tokens", "cost", "unpriced_requests")
  SELECT CAST(min(CAST(u.id AS text)) AS uuid), u.value_id, u.period_start,
    LEAST(sum(u.request_count), 9000000000000000000),
    LEAST(sum(CAST(u.input_tokens AS numeric) + u.output_tokens + u.cache_read_tokens + u.cache_write_tokens + u.reasoning_tokens), 9000000000000000000),
    LEAST(sum(COALESCE(u.total_cost, 0)), 9000000000000000000),
    LEAST(sum(u.unpriced_count), 9000000000000000000)
  FROM usage_by_value AS u JOIN consumers AS c ON c.id = u.value_id
  GROUP BY u.value_id, u.period_start;
