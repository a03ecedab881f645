-- Create index "keylease_model_id" to table: "key_leases"
CREATE INDEX "keylease_model_id" ON "key_leases" ("model_id") WHERE model_id IS NOT NULL;
-- Create index "keylease_quota_group_id" to table: "key_leases"
CREATE INDEX "keylease_quota_group_id" ON "key_leases" ("quota_group_id") WHERE quota_group_id IS NOT NULL;
