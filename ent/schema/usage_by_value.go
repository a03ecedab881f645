package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/index"
	"entgo.io/ent/schema/mixin"
)

// ValueOf gives an entity what was used of one model at one price under one value of a dimension, during one period. A
// fold adds the requests to it some time after they were recorded: see UsageFold.
type ValueOf struct{ mixin.Schema }

// Fields of the ValueOf mixin.
func (ValueOf) Fields() []ent.Field {
	return []ent.Field{
		id("model_id", "the model that was used"),
		id("value_id", "the value of a dimension"),
		id("price_id", "the price that was applied; of the model"),
	}
}

// Indexes of the ValueOf mixin.
func (ValueOf) Indexes() []ent.Index {
	return []ent.Index{
		// A fold adds to the row it finds here. The price says which model. It also serves the foreign key of the
		// price.
		index.Fields("price_id", "value_id", "period_start").Unique(),
		// A model's periods in a range: Reprice, VerifyLedger, Prune; and the foreign key.
		index.Fields("model_id", "period_start"),
		// A value's periods in a range: UsageReport; and the foreign key.
		index.Fields("value_id", "period_start"),
	}
}

// UsageByValue holds the schema definition for the UsageByValue entity: what was used under one value on one UTC day.
type UsageByValue struct{ ent.Schema }

// Mixin of the UsageByValue.
func (UsageByValue) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Sums{}, ValueOf{}} }

// Edges of the UsageByValue.
func (UsageByValue) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("model", Model.Type).Ref("usage_by_value").Field("model_id").Unique().Required(),
		edge.From("value", DimensionValue.Type).Ref("usage").Field("value_id").Unique().Required(),
		edge.From("price", Price.Type).Ref("usage_by_value").Field("price_id").Unique().Required(),
	}
}

// Annotations of the UsageByValue.
func (UsageByValue) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "usage_by_value"},
		sumChecks("usage_by_value"),
	}
}
