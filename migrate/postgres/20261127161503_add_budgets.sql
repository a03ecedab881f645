-- Modify "usage_events" table
ALTER TABLE "usage_events" ADD COLUMN "access_key_id" uuid NULL, ADD COLUMN "consumer_id" uuid NULL;
-- Create "budgets" table
CREATE TABLE "budgets" (
  "id" uuid NOT NULL,
  "created_at" timestamptz NOT NULL,
  "updated_at" timestamptz NOT NULL,
  "name" character varying NOT NULL COLLATE "C",
  "each" boolean NOT NULL DEFAULT false,
  "each_kind" character varying NOT NULL DEFAULT '' COLLATE "C",
  "per" character varying NOT NULL DEFAULT 'month' COLLATE "C",
  "zone" character varying NOT NULL DEFAULT 'UTC' COLLATE "C",
  "anchor_day" bigint NOT NULL DEFAULT 0,
  "anchor_hour" bigint NOT NULL DEFAULT 0,
  "models" json NULL,
  "cost" bigint NOT NULL DEFAULT 0,
  "tokens" bigint NOT NULL DEFAULT 0,
  "requests" bigint NOT NULL DEFAULT 0,
  "concurrency" bigint NOT NULL DEFAULT 0,
  "mode" character varying NOT NULL DEFAULT 'enforce' COLLATE "C",
  "on_unpriced" character varying NOT NULL DEFAULT 'block' COLLATE "C",
  "thresholds" json NULL,
  "counts_from" timestamptz NOT NULL,
  "consumer_id" uuid NOT NULL,
  "provider_id" uuid NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "budgets_consumers_budgets" FOREIGN KEY ("consumer_id") REFERENCES "consumers" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "budgets_providers_budgets" FOREIGN KEY ("provider_id") REFERENCES "providers" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "budgets_a_ceiling" CHECK (cost > 0 OR tokens > 0 OR requests > 0 OR concurrency > 0),
  CONSTRAINT "budgets_ceilings" CHECK (cost BETWEEN 0 AND 9000000000000000000 AND tokens BETWEEN 0 AND 9000000000000000000 AND requests BETWEEN 0 AND 9000000000000000000 AND concurrency BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "budgets_each" CHECK (each OR each_kind = ''),
  CONSTRAINT "budgets_hour" CHECK (anchor_hour BETWEEN 0 AND 23 AND (anchor_hour = 0 OR per IN ('day', 'week', 'month'))),
  CONSTRAINT "budgets_mode" CHECK (mode IN ('enforce', 'shadow') AND on_unpriced IN ('block', 'allow')),
  CONSTRAINT "budgets_name" CHECK (length(name) BETWEEN 1 AND 128),
  CONSTRAINT "budgets_window" CHECK (per = 'week' AND anchor_day BETWEEN 1 AND 7 OR per = 'month' AND anchor_day BETWEEN 1 AND 31 OR per IN ('minute', 'hour', 'day', 'total') AND anchor_day = 0)
);
-- Create index "budget_consumer_id_name" to table: "budgets"
CREATE UNIQUE INDEX "budget_consumer_id_name" ON "budgets" ("consumer_id", "name");
-- Create index "budget_provider_id" to table: "budgets"
CREATE INDEX "budget_provider_id" ON "budgets" ("provider_id") WHERE provider_id IS NOT NULL;
-- Create "budget_crossings" table
CREATE TABLE "budget_crossings" (
  "id" uuid NOT NULL,
  "window_start" timestamptz NOT NULL,
  "kind" character varying NOT NULL COLLATE "C",
  "metric" character varying NOT NULL COLLATE "C",
  "percent" bigint NOT NULL DEFAULT 0,
  "spent" bigint NOT NULL,
  "ceiling" bigint NOT NULL,
  "at" timestamptz NOT NULL,
  "acknowledged_at" timestamptz NULL,
  "budget_id" uuid NOT NULL,
  "subject_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "budget_crossings_budgets_crossings" FOREIGN KEY ("budget_id") REFERENCES "budgets" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "budget_crossings_consumers_budget_crossings" FOREIGN KEY ("subject_id") REFERENCES "consumers" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "budget_crossings_amounts" CHECK (spent BETWEEN 0 AND 9000000000000000000 AND ceiling BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "budget_crossings_kind" CHECK (kind IN ('threshold', 'refused', 'would_refuse') AND (kind = 'threshold') = (percent > 0)),
  CONSTRAINT "budget_crossings_metric" CHECK (metric IN ('cost', 'tokens', 'requests', 'concurrency'))
);
-- Create index "budgetcrossing_feed" to table: "budget_crossings"
CREATE INDEX "budgetcrossing_feed" ON "budget_crossings" ("id") WHERE acknowledged_at IS NULL;
-- Create index "budgetcrossing_once" to table: "budget_crossings"
CREATE UNIQUE INDEX "budgetcrossing_once" ON "budget_crossings" ("budget_id", "subject_id", "window_start", "kind", "metric", "percent");
-- Create index "budgetcrossing_subject_id" to table: "budget_crossings"
CREATE INDEX "budgetcrossing_subject_id" ON "budget_crossings" ("subject_id");
-- Create "budget_grants" table
CREATE TABLE "budget_grants" (
  "id" uuid NOT NULL,
  "windows_from" timestamptz NOT NULL,
  "windows_until" timestamptz NOT NULL,
  "cost" bigint NOT NULL DEFAULT 0,
  "tokens" bigint NOT NULL DEFAULT 0,
  "requests" bigint NOT NULL DEFAULT 0,
  "reason" character varying NOT NULL DEFAULT '' COLLATE "C",
  "created_at" timestamptz NOT NULL,
  "revoked_at" timestamptz NULL,
  "budget_id" uuid NOT NULL,
  "subject_id" uuid NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "budget_grants_budgets_grants" FOREIGN KEY ("budget_id") REFERENCES "budgets" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "budget_grants_consumers_grants" FOREIGN KEY ("subject_id") REFERENCES "consumers" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "budget_grants_amounts" CHECK (cost BETWEEN 0 AND 9000000000000000000 AND tokens BETWEEN 0 AND 9000000000000000000 AND requests BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "budget_grants_anything" CHECK (cost > 0 OR tokens > 0 OR requests > 0),
  CONSTRAINT "budget_grants_windows" CHECK (windows_until > windows_from)
);
-- Create index "budgetgrant_budget_id_windows_until" to table: "budget_grants"
CREATE INDEX "budgetgrant_budget_id_windows_until" ON "budget_grants" ("budget_id", "windows_until");
-- Create index "budgetgrant_subject_id" to table: "budget_grants"
CREATE INDEX "budgetgrant_subject_id" ON "budget_grants" ("subject_id") WHERE subject_id IS NOT NULL;
-- Create "budget_windows" table
CREATE TABLE "budget_windows" (
  "id" uuid NOT NULL,
  "window_start" timestamptz NOT NULL,
  "window_end" timestamptz NOT NULL,
  "requests" bigint NOT NULL DEFAULT 0,
  "tokens" bigint NOT NULL DEFAULT 0,
  "cost" bigint NOT NULL DEFAULT 0,
  "unpriced_requests" bigint NOT NULL DEFAULT 0,
  "budget_id" uuid NOT NULL,
  "subject_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "budget_windows_budgets_windows" FOREIGN KEY ("budget_id") REFERENCES "budgets" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "budget_windows_consumers_budget_windows" FOREIGN KEY ("subject_id") REFERENCES "consumers" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "budget_windows_amounts" CHECK (requests BETWEEN 0 AND 9000000000000000000 AND tokens BETWEEN 0 AND 9000000000000000000 AND cost BETWEEN 0 AND 9000000000000000000 AND unpriced_requests BETWEEN 0 AND 9000000000000000000),
  CONSTRAINT "budget_windows_times" CHECK (window_end > window_start),
  CONSTRAINT "budget_windows_unpriced" CHECK (unpriced_requests <= requests)
);
-- Create index "budgetwindow_budget_id_subject_id_window_start" to table: "budget_windows"
CREATE UNIQUE INDEX "budgetwindow_budget_id_subject_id_window_start" ON "budget_windows" ("budget_id", "subject_id", "window_start");
-- Create index "budgetwindow_subject_id" to table: "budget_windows"
CREATE INDEX "budgetwindow_subject_id" ON "budget_windows" ("subject_id");
-- Create index "budgetwindow_window_end" to table: "budget_windows"
CREATE INDEX "budgetwindow_window_end" ON "budget_windows" ("window_end");
-- Modify "key_leases" table
ALTER TABLE "key_leases" ADD COLUMN "consumer_path" character varying NOT NULL DEFAULT '' COLLATE "C", ADD COLUMN "access_key_id" uuid NULL, ADD COLUMN "consumer_id" uuid NULL, ADD
CONSTRAINT "key_leases_access_keys_leases" FOREIGN KEY ("access_key_id") REFERENCES "access_keys" ("id") ON UPDATE NO ACTION ON DELETE SET NULL, ADD
CONSTRAINT "key_leases_consumers_leases" FOREIGN KEY ("consumer_id") REFERENCES "consumers" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT;
-- Create index "keylease_access_key_id" to table: "key_leases"
CREATE INDEX "keylease_access_key_id" ON "key_leases" ("access_key_id") WHERE access_key_id IS NOT NULL;
-- Create index "keylease_consumer_id" to table: "key_leases"
CREATE INDEX "keylease_consumer_id" ON "key_leases" ("consumer_id") WHERE consumer_id IS NOT NULL;
-- Create index "keylease_consumer_path" to table: "key_leases"
CREATE INDEX "keylease_consumer_path" ON "key_leases" ("consumer_path") WHERE consumer_path <> '';
