package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// BudgetCrossing holds the schema definition for the BudgetCrossing entity: a threshold that a subject passed, or its
// first refusal, in a window of a budget. It is noted once.
type BudgetCrossing struct{ ent.Schema }

// Mixin of the BudgetCrossing.
func (BudgetCrossing) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the BudgetCrossing.
func (BudgetCrossing) Fields() []ent.Field {
	return []ent.Field{
		id("budget_id", "the budget"),
		id("subject_id", "the consumer that is counted"),
		field.Time("window_start").Immutable().Comment("first instant of the window, UTC"),
		field.Enum("kind").Values("threshold", "refused", "would_refuse").Immutable().
			Comment("a threshold was passed; a request was refused; or a budget in shadow mode would have refused one"),
		field.Enum("metric").Values("cost", "tokens", "requests", "concurrency").Immutable().
			Comment("of which ceiling"),
		field.Int("percent").Default(0).Immutable().Comment("the threshold; 0: a refusal"),
		field.Int64("spent").Immutable().Validate(rule.Amount).Comment("what had been spent then, with what was open"),
		field.Int64("ceiling").Immutable().Validate(rule.Amount).Comment("the ceiling, with grants"),
		field.Time("at").Immutable().Comment("when it was noted, UTC"),
		field.Time("acknowledged_at").Optional().Nillable().
			Comment("when somebody took note of it, UTC; NULL: nobody has"),
	}
}

// Edges of the BudgetCrossing.
func (BudgetCrossing) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("budget", Budget.Type).Ref("crossings").Field("budget_id").Unique().Required(),
		edge.From("subject", Consumer.Type).Ref("budget_crossings").Field("subject_id").Unique().Required(),
	}
}

// Indexes of the BudgetCrossing.
func (BudgetCrossing) Indexes() []ent.Index {
	return []ent.Index{
		// It is noted once; and the foreign key of the budget.
		index.Fields("budget_id", "subject_id", "window_start", "kind", "metric", "percent").Unique().
			StorageKey("budgetcrossing_once"),
		// ListBudgetCrossings: the feed of what nobody has acknowledged.
		index.Fields("id").StorageKey("budgetcrossing_feed").Annotations(entsql.IndexWhere("acknowledged_at IS NULL")),
		// The foreign key.
		index.Fields("subject_id"),
	}
}

// Annotations of the BudgetCrossing.
func (BudgetCrossing) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "budget_crossings"},
		entsql.Checks(map[string]string{
			"budget_crossings_kind": "kind IN ('threshold', 'refused', 'would_refuse') AND" +
				" (kind = 'threshold') = (percent > 0)",
			"budget_crossings_metric":  "metric IN ('cost', 'tokens', 'requests', 'concurrency')",
			"budget_crossings_amounts": amounts("spent", "ceiling"),
		}),
	}
}
