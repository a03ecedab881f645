-- Create "expired_leases" table
CREATE TABLE "expired_leases" (
  "id" uuid NOT NULL,
  "expires_at" timestamptz NOT NULL,
  "api_key_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "expired_leases_api_keys_expired_leases" FOREIGN KEY ("api_key_id") REFERENCES "api_keys" ("id") ON UPDATE NO ACTION ON DELETE CASCADE
);
-- Create index "expiredlease_api_key_id_expires_at" to table: "expired_leases"
CREATE INDEX "expiredlease_api_key_id_expires_at" ON "expired_leases" ("api_key_id", "expires_at");
