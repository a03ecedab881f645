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

// BudgetGrant holds the schema definition for the BudgetGrant entity: more than the ceilings of a budget, for some of
// its windows.
type BudgetGrant struct{ ent.Schema }

// Mixin of the BudgetGrant.
func (BudgetGrant) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the BudgetGrant.
func (BudgetGrant) Fields() []ent.Field {
	return []ent.Field{
		id("budget_id", "the budget"),
		field.UUID("subject_id", uuid.UUID{}).Optional().Nillable().Immutable().
			Comment("the consumer that has it, of a budget for each; NULL: every one"),
		field.Time("windows_from").Immutable().Comment("windows that begin then or later have it, UTC"),
		field.Time("windows_until").Immutable().Comment("windows that begin then or later do not, UTC"),
		field.Int64("cost").GoType(money.USD(0)).Default(0).Immutable().Validate(rule.Amount).Comment("nano-USD"),
		field.Int64("tokens").Default(0).Immutable().Validate(rule.Amount),
		field.Int64("requests").Default(0).Immutable().Validate(rule.Amount),
		field.String("reason").Default("").Immutable().Validate(rule.Prose(rule.MaxReason)).Comment("for people"),
		field.Time("created_at").Immutable().Comment("when it was granted, UTC"),
		field.Time("revoked_at").Optional().Nillable().Comment("since then it does not count, UTC; NULL: it counts"),
	}
}

// Edges of the BudgetGrant.
func (BudgetGrant) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("budget", Budget.Type).Ref("grants").Field("budget_id").Unique().Required(),
		edge.From("subject", Consumer.Type).Ref("grants").Field("subject_id").Unique().Immutable(),
	}
}

// Indexes of the BudgetGrant.
func (BudgetGrant) Indexes() []ent.Index {
	return []ent.Index{
		// The grants that may still count, and the foreign key.
		index.Fields("budget_id", "windows_until"),
		// The foreign key.
		index.Fields("subject_id").Annotations(entsql.IndexWhere("subject_id IS NOT NULL")),
	}
}

// Annotations of the BudgetGrant.
func (BudgetGrant) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "budget_grants"},
		entsql.Checks(map[string]string{
			"budget_grants_amounts":  amounts("cost", "tokens", "requests"),
			"budget_grants_windows":  "windows_until > windows_from",
			"budget_grants_anything": "cost > 0 OR tokens > 0 OR requests > 0",
		}),
	}
}
