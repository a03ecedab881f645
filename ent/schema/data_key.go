package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
)

// DataKey holds the schema definition for the DataKey entity: a key that seals API keys. The newest
// one seals; older ones are there until what they sealed has been sealed anew.
type DataKey struct{ ent.Schema }

// Mixin of the DataKey.
func (DataKey) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the DataKey.
func (DataKey) Fields() []ent.Field {
	return []ent.Field{
		field.String("wrapped_by").Comment("id of the key of the owner's keyring that wraps it"),
		field.Bytes("wrapped").Sensitive().Comment("the key as the owner's keyring wrapped it"),
		field.Time("created_at").Immutable().Comment("when it was made, UTC"),
	}
}

// Edges of the DataKey.
func (DataKey) Edges() []ent.Edge {
	return []ent.Edge{
		// A key is never deleted while something is sealed by it.
		edge.To("keys", APIKey.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
	}
}

// Annotations of the DataKey.
func (DataKey) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "data_keys"},
		entsql.Checks(map[string]string{
			"data_keys_wrapped": "length(wrapped_by) BETWEEN 1 AND 128 AND length(wrapped) BETWEEN 1 AND 65536",
		}),
	}
}
