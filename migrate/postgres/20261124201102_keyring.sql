-- Create "data_keys" table
CREATE TABLE "data_keys" (
  "id" uuid NOT NULL,
  "wrapped_by" character varying NOT NULL COLLATE "C",
  "wrapped" bytea NOT NULL,
  "created_at" timestamptz NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "data_keys_wrapped" CHECK (length(wrapped_by) BETWEEN 1 AND 128 AND length(wrapped) BETWEEN 1 AND 65536)
);
-- Create "installations" table
CREATE TABLE "installations" (
  "id" uuid NOT NULL,
  "number" bigint NOT NULL,
  "created_at" timestamptz NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "installations_one" CHECK (number = 1)
);
-- Create index "installations_number_key" to table: "installations"
CREATE UNIQUE INDEX "installations_number_key" ON "installations" ("number");
-- Modify "api_keys" table
ALTER TABLE "api_keys" ADD CONSTRAINT "api_keys_sealed" CHECK (sealed IS NULL AND data_key_id IS NULL OR length(sealed) BETWEEN 1 AND 65536 AND data_key_id IS NOT NULL), ADD COLUMN "expires_at" timestamptz NULL, ADD COLUMN "sealed" bytea NULL, ADD COLUMN "data_key_id" uuid NULL, ADD
CONSTRAINT "api_keys_data_keys_keys" FOREIGN KEY ("data_key_id") REFERENCES "data_keys" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT;
-- Create index "apikey_data_key_id" to table: "api_keys"
CREATE INDEX "apikey_data_key_id" ON "api_keys" ("data_key_id");
