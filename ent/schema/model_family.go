package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// ModelFamily holds the schema definition for the ModelFamily entity.
type ModelFamily struct{ ent.Schema }

// Mixin of the ModelFamily.
func (ModelFamily) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Timestamps{}} }

// Fields of the ModelFamily.
func (ModelFamily) Fields() []ent.Field {
	return []ent.Field{
		id("provider_id", "the provider whose models these are"),
		field.String("name").Validate(rule.Text(1, rule.MaxName)).Comment("such as claude-3; unique in its provider"),
		field.String("description").Default("").Validate(rule.Prose(rule.MaxProse)),
	}
}

// Edges of the ModelFamily.
func (ModelFamily) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("provider", Provider.Type).Ref("families").Field("provider_id").Unique().Required(),
		// A model outlives its family.
		edge.To("models", Model.Type).Annotations(entsql.OnDelete(entsql.SetNull)),
	}
}

// Indexes of the ModelFamily.
func (ModelFamily) Indexes() []ent.Index {
	return []ent.Index{
		// ListFamilies; also serves the foreign key.
		index.Fields("provider_id", "name").Unique(),
	}
}

// Annotations of the ModelFamily.
func (ModelFamily) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "model_families"},
		entsql.Checks(map[string]string{
			"model_families_name": "length(name) BETWEEN 1 AND 128",
		}),
	}
}
