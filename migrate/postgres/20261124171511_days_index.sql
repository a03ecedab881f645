-- Create index "usagetotal_model_id_period_start" to table: "usage_totals"
CREATE INDEX "usagetotal_model_id_period_start" ON "usage_totals" ("model_id", "period_start") WHERE grain = 'day';
-- Create index "usage_model_id_period_start" to table: "usage_tracking"
CREATE INDEX "usage_model_id_period_start" ON "usage_tracking" ("model_id", "period_start") WHERE grain = 'day';
