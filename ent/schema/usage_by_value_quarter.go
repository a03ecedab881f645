package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
)

// UsageByValueQuarter holds the schema definition for the UsageByValueQuarter entity: what was used under one value
// during a quarter of an hour. It is kept as long as UsageQuarter.
type UsageByValueQuarter struct{ ent.Schema }

// Mixin of the UsageByValueQuarter.
func (UsageByValueQuarter) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Sums{}, ValueOf{}} }

// Edges of the UsageByValueQuarter.
func (UsageByValueQuarter) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("model", Model.Type).Ref("usage_by_value_quarters").Field("model_id").Unique().Required(),
		edge.From("value", DimensionValue.Type).Ref("usage_quarters").Field("value_id").Unique().Required(),
		edge.From("price", Price.Type).Ref("usage_by_value_quarters").Field("price_id").Unique().Required(),
	}
}

// Annotations of the UsageByValueQuarter.
func (UsageByValueQuarter) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "usage_by_value_quarters"},
		sumChecks("usage_by_value_quarters"),
	}
}
