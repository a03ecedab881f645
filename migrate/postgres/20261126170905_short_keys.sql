-- Modify "api_keys" table
ALTER TABLE "api_keys" DROP CONSTRAINT "api_keys_key_prefix", ADD CONSTRAINT "api_keys_key_prefix" CHECK (length(key_prefix) <= 8);
