-- Create "consumers" table
CREATE TABLE "consumers" (
  "id" uuid NOT NULL,
  "created_at" timestamptz NOT NULL,
  "updated_at" timestamptz NOT NULL,
  "deleted_at" timestamptz NULL,
  "path" character varying NOT NULL COLLATE "C",
  "name" character varying NOT NULL COLLATE "C",
  "kind" character varying NOT NULL DEFAULT '' COLLATE "C",
  "external_id" character varying NULL COLLATE "C",
  "disabled" boolean NOT NULL DEFAULT false,
  "permissions" json NULL,
  "parent_id" uuid NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "consumers_consumers_children" FOREIGN KEY ("parent_id") REFERENCES "consumers" ("id") ON UPDATE NO ACTION ON DELETE RESTRICT,
  CONSTRAINT "consumers_external_id" CHECK (length(external_id) BETWEEN 1 AND 128),
  CONSTRAINT "consumers_kind" CHECK (length(kind) <= 32),
  CONSTRAINT "consumers_name" CHECK (length(name) BETWEEN 1 AND 128),
  CONSTRAINT "consumers_parent" CHECK (length(path) = 36 AND parent_id IS NULL OR length(path) > 36 AND parent_id IS NOT NULL),
  CONSTRAINT "consumers_path" CHECK (length(path) BETWEEN 36 AND 295 AND length(path) % 37 = 36)
);
-- Create index "consumer_external_id" to table: "consumers"
CREATE UNIQUE INDEX "consumer_external_id" ON "consumers" ("external_id") WHERE deleted_at IS NULL;
-- Create index "consumer_name" to table: "consumers"
CREATE UNIQUE INDEX "consumer_name" ON "consumers" ("name") WHERE deleted_at IS NULL AND parent_id IS NULL;
-- Create index "consumer_parent_id_name" to table: "consumers"
CREATE UNIQUE INDEX "consumer_parent_id_name" ON "consumers" ("parent_id", "name") WHERE deleted_at IS NULL;
-- Create index "consumer_parent_id_path" to table: "consumers"
CREATE INDEX "consumer_parent_id_path" ON "consumers" ("parent_id", "path");
-- Create index "consumer_path" to table: "consumers"
CREATE UNIQUE INDEX "consumer_path" ON "consumers" ("path");
-- Create "policy_version" table
CREATE TABLE "policy_version" (
  "id" uuid NOT NULL,
  "number" bigint NOT NULL,
  "version" bigint NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "policy_version_one" CHECK (number = 1),
  CONSTRAINT "policy_version_version" CHECK (version >= 0)
);
-- Create index "policy_version_number_key" to table: "policy_version"
CREATE UNIQUE INDEX "policy_version_number_key" ON "policy_version" ("number");
-- Create "access_keys" table
CREATE TABLE "access_keys" (
  "id" uuid NOT NULL,
  "created_at" timestamptz NOT NULL,
  "updated_at" timestamptz NOT NULL,
  "deleted_at" timestamptz NULL,
  "key_hash" character varying NOT NULL COLLATE "C",
  "key_prefix" character varying NOT NULL COLLATE "C",
  "label" character varying NOT NULL DEFAULT '' COLLATE "C",
  "expires_at" timestamptz NULL,
  "disabled" boolean NOT NULL DEFAULT false,
  "replaces_id" uuid NULL,
  "consumer_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "access_keys_access_keys_replaced_by" FOREIGN KEY ("replaces_id") REFERENCES "access_keys" ("id") ON UPDATE NO ACTION ON DELETE SET NULL,
  CONSTRAINT "access_keys_consumers_access_keys" FOREIGN KEY ("consumer_id") REFERENCES "consumers" ("id") ON UPDATE NO ACTION ON DELETE CASCADE,
  CONSTRAINT "access_keys_key_hash" CHECK (length(key_hash) = 64),
  CONSTRAINT "access_keys_key_prefix" CHECK (length(key_prefix) <= 12),
  CONSTRAINT "access_keys_replaces" CHECK (replaces_id < id)
);
-- Create index "accesskey_consumer_id" to table: "access_keys"
CREATE INDEX "accesskey_consumer_id" ON "access_keys" ("consumer_id");
-- Create index "accesskey_key_hash" to table: "access_keys"
CREATE UNIQUE INDEX "accesskey_key_hash" ON "access_keys" ("key_hash");
-- Create index "accesskey_replaces_id" to table: "access_keys"
CREATE INDEX "accesskey_replaces_id" ON "access_keys" ("replaces_id");
