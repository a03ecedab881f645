-- Create "parents" table
CREATE TABLE `parents` (
  `id` integer NOT NULL,
  `name` text NULL,
  PRIMARY KEY (`id`)
);
-- Create index "parents_name" to table: "parents"
CREATE INDEX `parents_name` ON `parents` (`name`);
-- Create "children" table
CREATE TABLE `children` (
  `id` integer NOT NULL,
  `parent_id` integer NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `children_parents` FOREIGN KEY (`parent_id`) REFERENCES `parents` (`id`) ON UPDATE NO ACTION ON DELETE CASCADE
);
-- Create index "children_parent_id" to table: "children"
CREATE INDEX `children_parent_id` ON `children` (`parent_id`);
