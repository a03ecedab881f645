package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"github.com/google/uuid"
)

// UsageFold holds the schema definition for the UsageFold entity: up to which event of a model usage by value is added
// up. Reports add the events from there on. A model without a row has no event that is added up.
type UsageFold struct{ ent.Schema }

// Mixin of the UsageFold.
func (UsageFold) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the UsageFold.
func (UsageFold) Fields() []ent.Field {
	return []ent.Field{
		field.UUID("model_id", uuid.UUID{}).Unique().Immutable().Comment("the model"),
		field.UUID("folded_to", uuid.UUID{}).
			Comment("events up to this id are added up; what is recorded later under such an id is added up at once"),
	}
}

// Edges of the UsageFold.
func (UsageFold) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("model", Model.Type).Ref("usage_fold").Field("model_id").Unique().Required().Immutable(),
	}
}

// Annotations of the UsageFold.
func (UsageFold) Annotations() []schema.Annotation {
	return []schema.Annotation{entsql.Annotation{Table: "usage_folds"}}
}
