package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Model holds the schema definition for the Model entity.
type Model struct{ ent.Schema }

// Mixin of the Model.
func (Model) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Timestamps{}, SoftDelete{}} }

// Fields of the Model.
func (Model) Fields() []ent.Field {
	return []ent.Field{
		id("provider_id", "the provider that serves it"),
		field.UUID("family_id", uuid.UUID{}).Optional().Nillable().
			Comment("a family of the same provider; NULL: none known"),
		field.String("model_id").Validate(rule.Text(1, rule.MaxModelID)).
			Comment("the provider's own name for it, as a request carries it"),
		field.String("name").Default("").Validate(rule.Title(rule.MaxName)).Comment("name for people"),
		field.String("description").Default("").Validate(rule.Prose(rule.MaxProse)),
		field.Int64("cost_per_1m_input").GoType(money.USD(0)).Optional().Nillable().
			Validate(rule.Range[int64](0, rule.MaxRate)).
			Comment("current standard rate, nano-USD per 1M input tokens; NULL: not known; prices has the history"),
		field.Int64("cost_per_1m_output").GoType(money.USD(0)).Optional().Nillable().
			Validate(rule.Range[int64](0, rule.MaxRate)).
			Comment("current standard rate, nano-USD per 1M output tokens; NULL: not known"),
		field.Int64("context_window").Default(0).Validate(rule.Range[int64](0, rule.MaxTokens)).
			Comment("tokens; 0: not known"),
		field.Int64("max_output_tokens").Default(0).Validate(rule.Range[int64](0, rule.MaxTokens)).
			Comment("tokens; 0: not known"),
		field.Bool("supports_images").Default(false).
			Comment("takes images as input; false: no, or not known, as in all that follow"),
		field.Bool("supports_audio").Default(false).Comment("takes audio as input"),
		field.Bool("supports_tools").Default(false).Comment("calls tools"),
		field.Bool("supports_structured_output").Default(false).Comment("answers in a given JSON schema"),
		field.Bool("can_reason").Default(false),
		field.Bool("can_stream").Default(false),
		field.Bool("deprecated").Default(false),
		field.Time("deprecated_at").Optional().Nillable().
			Comment("when it is or was deprecated, UTC; NULL: it is not"),
	}
}

// Edges of the Model.
func (Model) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("provider", Provider.Type).Ref("models").Field("provider_id").Unique().Required(),
		edge.From("family", ModelFamily.Type).Ref("models").Field("family_id").Unique(),
		edge.To("leases", KeyLease.Type).Annotations(entsql.OnDelete(entsql.SetNull)),
		edge.To("prices", Price.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		// The ledger is never deleted with the catalogue.
		edge.To("usage", Usage.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("usage_quarters", UsageQuarter.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("usage_totals", UsageTotal.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("usage_total_quarters", UsageTotalQuarter.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("usage_by_value", UsageByValue.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("usage_by_value_quarters", UsageByValueQuarter.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("usage_fold", UsageFold.Type).Unique().Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("usage_events", UsageEvent.Type),
	}
}

// Indexes of the Model.
func (Model) Indexes() []ent.Index {
	return []ent.Index{
		// FindModel, GetModelsByProvider, the catalogue import.
		uniqueLive("provider_id", "model_id"),
		// The foreign key: deleted models count too.
		index.Fields("provider_id"),
		// The foreign key; ListModels by family.
		index.Fields("family_id"),
		// ListModels, cheapest input first.
		index.Fields("cost_per_1m_input", "model_id", "id").Annotations(live),
	}
}

// Annotations of the Model.
func (Model) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "models"},
		entsql.Checks(map[string]string{
			"models_model_id":          "length(model_id) BETWEEN 1 AND 256",
			"models_cost_input":        amounts("cost_per_1m_input"),
			"models_cost_output":       amounts("cost_per_1m_output"),
			"models_context_window":    "context_window >= 0",
			"models_max_output_tokens": "max_output_tokens >= 0",
		}),
	}
}
