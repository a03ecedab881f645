package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
)

// Installation holds the schema definition for the Installation entity, which has at most one row: the identity of the
// database. It is copied and moved with the database, and sealed API keys open nowhere else.
type Installation struct{ ent.Schema }

// Mixin of the Installation.
func (Installation) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the Installation.
func (Installation) Fields() []ent.Field {
	return []ent.Field{
		field.Int("number").Unique().Immutable().Comment("always 1: there is one row"),
		field.Time("created_at").Immutable().Comment("UTC"),
	}
}

// Annotations of the Installation.
func (Installation) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "installations"},
		entsql.Checks(map[string]string{
			"installations_one": "number = 1",
		}),
	}
}
