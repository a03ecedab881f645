package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/money"
)

// UsageEvent holds the schema definition for the UsageEvent entity: one request. Events are kept for
// some days, their sums for ever.
//
// The id is a UUIDv7 that begins with the microsecond of the request, so that ids are in the order of
// time: the table is read, and removed from, by ranges of ids. On PostgreSQL it is partitioned by
// them, a UTC day each; a partition holds a request id at most once.
//
// Its references are not foreign keys. The periods in which a request is counted have foreign keys, and dropping a
// partition with foreign keys would lock the tables that they point to.
type UsageEvent struct{ ent.Schema }

// Fields of the UsageEvent.
func (UsageEvent) Fields() []ent.Field {
	tokens := func(name, comment string) ent.Field {
		return field.Int64(name).Default(0).Comment(comment)
	}
	return append([]ent.Field{
		field.UUID("id", uuid.UUID{}).Immutable().Comment("a UUIDv7 of the time of the request"),
		field.String("request_id").Immutable().Comment("the caller's idempotency key; else the id"),
		field.Time("at").Immutable().Comment("when the request happened, UTC"),
		id("model_id", "the model that was used"),
		id("api_key_id", "the key that was used; of the model's provider"),
		id("price_id", "the price that was applied; of the model"),
		tokens("input_tokens", "input tokens outside of any cache"),
		tokens("output_tokens", "output tokens other than reasoning"),
		tokens("cache_read_tokens", "input tokens read from a cache"),
		tokens("cache_write_tokens", "input tokens written to a cache"),
		tokens("reasoning_tokens", "output tokens spent on reasoning"),
		field.Int64("cost").GoType(money.USD(0)).Optional().Nillable().Comment("nano-USD; NULL: not known"),
		field.Enum("cost_status").Values("priced", "unpriced", "repriced").
			Comment(
				"priced when it was recorded; its cost is not known; or priced, again or for the first time, later",
			),
		field.Int64("latency_ms").Default(0).Comment("milliseconds"),
		field.Bool("success").Default(true).Comment("it did not end with an error"),
		field.String("error_class").Default("").
			Comment("what kind of error, such as rate_limited; empty: none, or not known"),
		field.UUID("consumer_id", uuid.UUID{}).Optional().Nillable().Immutable().
			Comment("the consumer that it was for; NULL: nobody"),
		field.UUID("access_key_id", uuid.UUID{}).Optional().Nillable().Immutable().
			Comment("the access key by which it was made; NULL: none"),
		field.Int("http_status").Default(0).Comment("status of the provider's answer; 0: none, or not known"),
		field.Enum("usage_status").Values("reported", "estimated", "unknown").Default("reported").
			Comment("who says how many tokens it used: the provider; an estimate; or nobody, and then it has none"),
		field.Int64("ttft_ms").Optional().Nillable().
			Comment("time to the first token, milliseconds; NULL: it was not said"),
		field.Int64("provider_cost").GoType(money.USD(0)).Optional().Nillable().
			Comment("nano-USD that the provider says it cost; NULL: it does not say"),
		field.String("provider_cost_source").Default("").Comment("where the provider says so; empty: it was not said"),
		field.Int64("fingerprint").Optional().Nillable().
			Comment(
				"of what the caller said of the request, but for times: another request under the same id is noticed;" +
					" NULL: from before fingerprints were kept",
			),
	}, append(attempts(), tags())...)
}

// Edges of the UsageEvent.
func (UsageEvent) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("model", Model.Type).Ref("usage_events").Field("model_id").Unique().Required(),
		edge.From("key", APIKey.Type).Ref("usage_events").Field("api_key_id").Unique().Required(),
		edge.From("consumer", Consumer.Type).Ref("usage_events").Field("consumer_id").Unique().Immutable(),
		edge.From("access_key", AccessKey.Type).Ref("usage_events").Field("access_key_id").Unique().Immutable(),
		edge.From("price", Price.Type).Ref("usage_events").Field("price_id").Unique().Required(),
	}
}

// Indexes of the UsageEvent.
func (UsageEvent) Indexes() []ent.Index {
	return []ent.Index{
		// RecordUsage: a request that was recorded before.
		index.Fields("request_id").Unique(),
		// ListUsageEvents: the requests to a model, by time. Requests of a key are found through the quarters in which
		// it was used: a batch uses many keys, and an index by key would make it write as many pages.
		index.Fields("model_id", "id"),
	}
}

// Annotations of the UsageEvent.
func (UsageEvent) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "usage_events"},
		entsql.Checks(map[string]string{
			"usage_events_request_id": "length(request_id) BETWEEN 1 AND 128",
			"usage_events_meters": amounts(
				"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens",
			),
			"usage_events_cost": amounts("cost"),
			"usage_events_cost_status": "cost_status IN ('priced', 'unpriced', 'repriced') AND (cost IS NULL) =" +
				" (cost_status = 'unpriced')",
			"usage_events_latency":     "latency_ms >= 0",
			"usage_events_error_class": "length(error_class) <= 64",
			"usage_events_http_status": "http_status BETWEEN 0 AND 599",
			"usage_events_usage_status": "usage_status IN ('reported', 'estimated') OR usage_status = 'unknown' AND" +
				" cost IS NULL AND input_tokens = 0 AND output_tokens = 0 AND cache_read_tokens = 0 AND" +
				" cache_write_tokens = 0 AND reasoning_tokens = 0",
			"usage_events_ttft": "ttft_ms >= 0",
			"usage_events_provider_cost": amounts("provider_cost") + " AND length(provider_cost_source) <= 64 AND" +
				" (provider_cost IS NOT NULL OR provider_cost_source = '')",
			"usage_events_attempt": attemptCheck,
		}),
	}
}
