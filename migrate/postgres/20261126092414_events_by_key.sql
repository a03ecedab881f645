-- Drop index "usageevent_api_key_id_id" from table: "usage_events"
DROP INDEX "usageevent_api_key_id_id";
