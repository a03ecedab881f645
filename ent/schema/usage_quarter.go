package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
)

// UsageQuarter holds the schema definition for the UsageQuarter entity: what one key used of one
// model at one price during a quarter of an hour. Quarters are kept for some weeks; Usage says the
// same by UTC days, which are kept for ever.
type UsageQuarter struct{ ent.Schema }

// Mixin of the UsageQuarter.
func (UsageQuarter) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Sums{}, UsageOf{}} }

// Edges of the UsageQuarter.
func (UsageQuarter) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("model", Model.Type).Ref("usage_quarters").Field("model_id").Unique().Required(),
		edge.From("key", APIKey.Type).Ref("usage_quarters").Field("api_key_id").Unique().Required(),
		edge.From("price", Price.Type).Ref("usage_quarters").Field("price_id").Unique().Required(),
	}
}

// Annotations of the UsageQuarter.
func (UsageQuarter) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "usage_quarters"},
		sumChecks("usage_quarters"),
	}
}
