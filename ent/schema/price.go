package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Price holds the schema definition for the Price entity: the rates of a model in one service
// tier, from one size of context up, during one interval of time.
type Price struct{ ent.Schema }

// Mixin of the Price.
func (Price) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the Price. Each meter has its rate in a column of its own, so that rates can be asked for and sorted by.
func (Price) Fields() []ent.Field {
	rate := func(meter string) ent.Field {
		return field.Int64("cost_per_1m_" + meter).GoType(money.USD(0)).Optional().Nillable().
			Validate(rule.Range[int64](0, rule.MaxRate)).
			Comment("nano-USD per 1M tokens of " + meter + "; NULL: not known")
	}
	return []ent.Field{
		id("model_id", "the model"),
		field.String("service_tier").Default("standard").Validate(rule.Text(1, rule.MaxWord)).
			Comment("such as standard, batch, flex, priority"),
		field.Int64("min_context_tokens").Default(0).Validate(rule.Range[int64](0, rule.MaxTokens)).
			Comment("the rates hold for whole requests with at least this many input tokens, cached ones included"),
		rate("input"), rate("output"), rate("cache_read"), rate("cache_write"), rate("reasoning"),
		field.Time("effective_from").Comment("first instant the rates hold, UTC"),
		field.Time("effective_to").Optional().Nillable().
			Comment("first instant they no longer hold, UTC; NULL: current"),
		field.String("source").Default("").Validate(rule.Text(0, rule.MaxName)).
			Comment("where the rates come from, such as catwalk; empty: set by hand"),
		field.Time("recorded_at").Immutable().Comment("when the row was written, UTC"),
		field.Time("superseded_at").Optional().Nillable().
			Comment(
				"when another price took its whole interval over, UTC; it stays for the usage it was applied to;" +
					" NULL: in force",
			),
	}
}

// Edges of the Price.
func (Price) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("model", Model.Type).Ref("prices").Field("model_id").Unique().Required(),
		edge.To("usage", Usage.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("usage_quarters", UsageQuarter.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("usage_by_value", UsageByValue.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("usage_by_value_quarters", UsageByValueQuarter.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("usage_events", UsageEvent.Type),
	}
}

// Indexes of the Price.
func (Price) Indexes() []ent.Index {
	return []ent.Index{
		// PriceAt and RecordUsage.
		index.Fields("model_id", "service_tier", "min_context_tokens", "effective_from").Unique().
			Annotations(entsql.IndexWhere("superseded_at IS NULL")),
		// The foreign key: superseded prices count too.
		index.Fields("model_id"),
	}
}

// Annotations of the Price.
func (Price) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "prices"},
		entsql.Checks(map[string]string{
			"prices_service_tier":       "length(service_tier) BETWEEN 1 AND 64",
			"prices_min_context_tokens": "min_context_tokens >= 0",
			"prices_rates": amounts("cost_per_1m_input", "cost_per_1m_output", "cost_per_1m_cache_read",
				"cost_per_1m_cache_write",
				"cost_per_1m_reasoning"),
			"prices_interval": "effective_to IS NULL OR effective_to > effective_from",
		}),
	}
}
