-- Create "audit_log" table
CREATE TABLE "audit_log" (
  "id" uuid NOT NULL,
  "at" timestamptz NOT NULL,
  "actor" character varying NOT NULL DEFAULT '' COLLATE "C",
  "action" character varying NOT NULL COLLATE "C",
  "entity" character varying NOT NULL COLLATE "C",
  "entity_id" character varying NOT NULL DEFAULT '' COLLATE "C",
  "before" json NULL,
  "after" json NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "audit_log_action" CHECK (length(action) BETWEEN 1 AND 64),
  CONSTRAINT "audit_log_actor" CHECK (length(actor) <= 128),
  CONSTRAINT "audit_log_entity" CHECK (length(entity) BETWEEN 1 AND 64)
);
-- Create index "auditentry_at" to table: "audit_log"
CREATE INDEX "auditentry_at" ON "audit_log" ("at");
-- Create index "auditentry_entity_entity_id_at" to table: "audit_log"
CREATE INDEX "auditentry_entity_entity_id_at" ON "audit_log" ("entity", "entity_id", "at");
