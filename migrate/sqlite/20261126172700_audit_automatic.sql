-- Add column "automatic" to table: "audit_log"
ALTER TABLE `audit_log` ADD COLUMN `automatic` bool NOT NULL DEFAULT false;
-- Create index "auditentry_automatic_at" to table: "audit_log"
CREATE INDEX `auditentry_automatic_at` ON `audit_log` (`at`) WHERE automatic;
-- The key pool told of a key whether it was degraded, and of a provider that it cools down; people's entries have the row
UPDATE `audit_log` SET `automatic` = true WHERE `action` = 'cool_down' OR `action` IN ('degrade', 'restore', 'probe') AND `entity` = 'api_key' AND CAST(`after` AS text) LIKE '{"degraded":%';
