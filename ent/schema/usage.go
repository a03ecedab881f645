package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"entgo.io/ent/schema/mixin"

	"github.com/jeffersonwarrior/modelscan/money"
)

// Sums gives an entity the sums over the requests of a period. The table says how long that is: a UTC day or a quarter
// of an hour. Every request is counted in both, so that the rows of one table sum to all requests, once each.
type Sums struct{ mixin.Schema }

// Fields of the Sums mixin.
func (Sums) Fields() []ent.Field {
	count := func(name, comment string) ent.Field {
		return field.Int64(name).Default(0).Comment(comment)
	}
	cost := func(name, comment string) ent.Field {
		return field.Int64(name).GoType(money.USD(0)).Default(0).Comment("nano-USD: " + comment)
	}
	return []ent.Field{
		field.Time("period_start").Comment("first instant of the period, UTC"),
		field.Time("period_end").Comment("first instant after it, UTC"),
		count("request_count", "requests, failed ones included"),
		count("error_count", "requests that failed"),
		count("unpriced_count", "requests whose cost is not known and not in total_cost"),
		count("input_tokens", "input tokens outside of any cache"),
		count("output_tokens", "output tokens other than reasoning"),
		count("cache_read_tokens", "input tokens read from a cache"),
		count("cache_write_tokens", "input tokens written to a cache"),
		count("reasoning_tokens", "output tokens spent on reasoning"),
		field.Int64("total_cost").GoType(money.USD(0)).Optional().Nillable().
			Comment("nano-USD; NULL: no request of the period has a known cost"),
		count("latency_ms_sum", "latency of all requests together, milliseconds"),
		field.Float("average_latency_ms").Default(0).Comment("latency_ms_sum / request_count, milliseconds"),
		field.Bytes("latency_histogram").Optional().
			Comment(
				"how many requests took how long, as internal/latency encodes it; NULL: from before histograms" +
					" were kept",
			),
		count("estimated_count", "requests whose tokens are an estimate"),
		count("unknown_count", "requests whose tokens are not known: they have none and no cost, and are unpriced too"),
		count("retry_count", "requests that were a second or later attempt"),
		count("ttft_ms_sum", "time to the first token of the requests in ttft_histogram, milliseconds"),
		field.Bytes("ttft_histogram").Optional().
			Comment("how many requests had their first token after how long, as latency_histogram; NULL: none said so"),
		cost("retry_cost", "what the retries cost that have a known cost"),
		cost("provider_cost", "what the provider says that requests cost, as far as it does"),
		count("provider_cost_count", "requests for which it does"),
		cost("compared_cost", "the known cost of those requests: what to compare provider_cost with"),
		field.Int64("digest").Optional().Nillable().
			Comment("of all other columns but the id: a changed one is noticed; NULL: from before digests were kept"),
	}
}

// sumChecks are the CHECKs of the Sums mixin.
func sumChecks(table string) entsql.Annotation {
	return *entsql.Checks(map[string]string{
		table + "_period": "period_end > period_start",
		table + "_counts": amounts("request_count") + " AND error_count BETWEEN 0 AND request_count AND" +
			" unpriced_count BETWEEN 0 AND request_count",
		table + "_meters": amounts(
			"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens",
		),
		table + "_cost":    amounts("total_cost"),
		table + "_latency": amounts("latency_ms_sum"),
		table + "_said": "estimated_count BETWEEN 0 AND request_count AND unknown_count BETWEEN 0 AND unpriced_count" +
			" AND retry_count BETWEEN 0 AND request_count AND provider_cost_count BETWEEN 0 AND request_count AND " +
			amounts("ttft_ms_sum", "retry_cost", "provider_cost", "compared_cost"),
	})
}

// UsageOf gives an entity what one key used of one model at one price during one period.
type UsageOf struct{ mixin.Schema }

// Fields of the UsageOf mixin.
func (UsageOf) Fields() []ent.Field {
	return []ent.Field{
		id("model_id", "the model that was used"),
		id("api_key_id", "the key that was used; of the model's provider"),
		id("price_id", "the price that was applied; of the model"),
	}
}

// Indexes of the UsageOf mixin.
func (UsageOf) Indexes() []ent.Index {
	return []ent.Index{
		// RecordUsage adds to the row it finds here. The price says which model. It also serves the
		// foreign key of the price.
		index.Fields("price_id", "api_key_id", "period_start").Unique(),
		// A model's periods in a range: UsageReport, Reprice, VerifyLedger, Prune; and the foreign key.
		index.Fields("model_id", "period_start"),
		// A key's periods in a range: UsageReport, ListUsageEvents; and the foreign key.
		index.Fields("api_key_id", "period_start"),
	}
}

// Usage holds the schema definition for the Usage entity: what one key used of one model at
// one price on one UTC day.
type Usage struct{ ent.Schema }

// Mixin of the Usage.
func (Usage) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Sums{}, UsageOf{}} }

// Edges of the Usage.
func (Usage) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("model", Model.Type).Ref("usage").Field("model_id").Unique().Required(),
		edge.From("key", APIKey.Type).Ref("usage").Field("api_key_id").Unique().Required(),
		edge.From("price", Price.Type).Ref("usage").Field("price_id").Unique().Required(),
	}
}

// Annotations of the Usage.
func (Usage) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "usage_tracking"},
		sumChecks("usage_tracking"),
	}
}
