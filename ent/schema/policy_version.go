package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
)

// PolicyVersion holds the schema definition for the PolicyVersion entity, which has at most one row: it counts the
// changes of what processes remember of consumers and access keys. The first change makes the row.
type PolicyVersion struct{ ent.Schema }

// Mixin of the PolicyVersion.
func (PolicyVersion) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the PolicyVersion.
func (PolicyVersion) Fields() []ent.Field {
	return []ent.Field{
		field.Int("number").Unique().Immutable().Comment("always 1: there is one row"),
		field.Int64("version").Comment("how many changes there have been; without the row: none"),
	}
}

// Annotations of the PolicyVersion.
func (PolicyVersion) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "policy_version"},
		entsql.Checks(map[string]string{
			"policy_version_one":     "number = 1",
			"policy_version_version": "version >= 0",
		}),
	}
}
