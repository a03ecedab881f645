-- Create "pool_states" table
CREATE TABLE `pool_states` (
  `id` uuid NOT NULL,
  `state` uuid NULL,
  `previous` uuid NULL,
  `provider_id` uuid NOT NULL,
  PRIMARY KEY (`id`),
  CONSTRAINT `pool_states_providers_pool_state` FOREIGN KEY (`provider_id`) REFERENCES `providers` (`id`) ON DELETE CASCADE
);
-- Create index "pool_states_provider_id_key" to table: "pool_states"
CREATE UNIQUE INDEX `pool_states_provider_id_key` ON `pool_states` (`provider_id`);
