-- Modify "api_keys" table
ALTER TABLE "api_keys" ADD COLUMN "counted_class" character varying NOT NULL DEFAULT '' COLLATE "C", ADD COLUMN "counted_at" timestamptz NULL;
-- What has been counted was of the last failure's class, where that counts
UPDATE "api_keys" SET "counted_class" = "failure_class", "counted_at" = "failed_at" WHERE "failures" > 0 AND "failure_class" IN ('rate_limited', 'quota_exhausted', 'auth');
