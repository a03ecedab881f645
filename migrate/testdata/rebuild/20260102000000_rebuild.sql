-- Disable the enforcement of foreign-keys constraints
PRAGMA foreign_keys = off;
-- Create "new_parents" table
CREATE TABLE `new_parents` (
  `id` integer NOT NULL,
  `name` text NOT NULL DEFAULT '',
  PRIMARY KEY (`id`),
  CONSTRAINT `parents_name` CHECK (length(name) < 10000)
);
-- Copy rows from old table "parents" to new temporary table "new_parents"
INSERT INTO `new_parents` (`id`, `name`) SELECT `id`, IFNULL(`name`, '') AS `name` FROM `parents`;
-- Drop "parents" table after copying rows
DROP TABLE `parents`;
-- Rename temporary table "new_parents" to "parents"
ALTER TABLE `new_parents` RENAME TO `parents`;
-- Create index "parents_name" to table: "parents"
CREATE INDEX `parents_name` ON `parents` (`name`);
-- Enable back the enforcement of foreign-keys constraints
PRAGMA foreign_keys = on;
