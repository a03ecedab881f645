package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
)

// UsageTotalQuarter holds the schema definition for the UsageTotalQuarter entity: the sum of the
// UsageQuarter of one model and quarter of an hour.
type UsageTotalQuarter struct{ ent.Schema }

// Mixin of the UsageTotalQuarter.
func (UsageTotalQuarter) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Sums{}, TotalOf{}} }

// Edges of the UsageTotalQuarter.
func (UsageTotalQuarter) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("model", Model.Type).Ref("usage_total_quarters").Field("model_id").Unique().Required(),
	}
}

// Annotations of the UsageTotalQuarter.
func (UsageTotalQuarter) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "usage_total_quarters"},
		sumChecks("usage_total_quarters"),
	}
}
