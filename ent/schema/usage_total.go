package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/index"
	"entgo.io/ent/schema/mixin"
)

// TotalOf gives an entity what all keys together used of one model at all prices during one period. It
// is the sum of the rows by key and price, kept so that questions over many keys read few rows.
type TotalOf struct{ mixin.Schema }

// Fields of the TotalOf mixin.
func (TotalOf) Fields() []ent.Field {
	return []ent.Field{
		id("model_id", "the model that was used"),
	}
}

// Indexes of the TotalOf mixin.
func (TotalOf) Indexes() []ent.Index {
	return []ent.Index{
		// RecordUsage adds to the row it finds here; GetUsageStats, GetCostBreakdown and UsageReport
		// read a range. It also serves the foreign key.
		index.Fields("model_id", "period_start").Unique(),
	}
}

// UsageTotal holds the schema definition for the UsageTotal entity: the sum of the Usage of one model
// and UTC day.
type UsageTotal struct{ ent.Schema }

// Mixin of the UsageTotal.
func (UsageTotal) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Sums{}, TotalOf{}} }

// Edges of the UsageTotal.
func (UsageTotal) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("model", Model.Type).Ref("usage_totals").Field("model_id").Unique().Required(),
	}
}

// Annotations of the UsageTotal.
func (UsageTotal) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "usage_totals"},
		sumChecks("usage_totals"),
	}
}
