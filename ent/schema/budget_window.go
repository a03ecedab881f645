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

// BudgetWindow holds the schema definition for the BudgetWindow entity: what ended for a subject in one window of a
// budget. What is open is in the leases. It is removed some time after the window has ended.
type BudgetWindow struct{ ent.Schema }

// Mixin of the BudgetWindow.
func (BudgetWindow) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the BudgetWindow.
func (BudgetWindow) Fields() []ent.Field {
	return []ent.Field{
		id("budget_id", "the budget"),
		id("subject_id", "the consumer that is counted, with all below it"),
		field.Time("window_start").Immutable().Comment("first instant, UTC"),
		field.Time("window_end").Immutable().Comment("first instant of the next window, UTC"),
		field.Int64("requests").Default(0).Validate(rule.Amount).Comment("that happened in the window and have ended"),
		field.Int64("tokens").Default(0).Validate(rule.Amount).Comment("of those requests, all meters"),
		field.Int64("cost").GoType(money.USD(0)).Default(0).Validate(rule.Amount).Comment("nano-USD of those requests"),
		field.Int64("unpriced_requests").Default(0).Validate(rule.Amount).Comment("those whose cost is not known"),
	}
}

// Edges of the BudgetWindow.
func (BudgetWindow) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("budget", Budget.Type).Ref("windows").Field("budget_id").Unique().Required(),
		edge.From("subject", Consumer.Type).Ref("budget_windows").Field("subject_id").Unique().Required(),
	}
}

// Indexes of the BudgetWindow.
func (BudgetWindow) Indexes() []ent.Index {
	return []ent.Index{
		// AcquireKey reads it, the end of a lease adds to it; and the foreign key of the budget.
		index.Fields("budget_id", "subject_id", "window_start").Unique(),
		// The foreign key.
		index.Fields("subject_id"),
		// Prune.
		index.Fields("window_end"),
	}
}

// Annotations of the BudgetWindow.
func (BudgetWindow) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "budget_windows"},
		entsql.Checks(map[string]string{
			"budget_windows_amounts":  amounts("requests", "tokens", "cost", "unpriced_requests"),
			"budget_windows_unpriced": "unpriced_requests <= requests",
			"budget_windows_times":    "window_end > window_start",
		}),
	}
}
