package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/index"
)

// UsageTotal holds the schema definition for the UsageTotal entity: what all keys together used of
// one model at all prices during one period. It is the sum of the Usage of that model and period,
// kept so that questions over many keys read few rows.
type UsageTotal struct{ ent.Schema }

// Mixin of the UsageTotal.
func (UsageTotal) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Sums{}} }

// Fields of the UsageTotal.
func (UsageTotal) Fields() []ent.Field {
	return []ent.Field{
		id("model_id", "the model that was used"),
	}
}

// Edges of the UsageTotal.
func (UsageTotal) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("model", Model.Type).Ref("usage_totals").Field("model_id").Unique().Required(),
	}
}

// Indexes of the UsageTotal.
func (UsageTotal) Indexes() []ent.Index {
	return []ent.Index{
		// RecordUsage adds to the row it finds here; GetUsageStats, GetCostBreakdown and UsageReport
		// read a range. It also serves the foreign key.
		index.Fields("model_id", "grain", "period_start").Unique(),
		daysIndex(),
	}
}

// Annotations of the UsageTotal.
func (UsageTotal) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "usage_totals"},
		sumChecks("usage_totals"),
	}
}
