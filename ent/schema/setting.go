package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// Setting holds the schema definition for the Setting entity. Its id is its key.
type Setting struct{ ent.Schema }

// Fields of the Setting.
func (Setting) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").StorageKey("key").Immutable().Validate(rule.Text(1, rule.MaxKey)),
		field.String("value").Validate(rule.Prose(rule.MaxData)),
		field.Time("updated_at").Default(now).UpdateDefault(now).Comment("UTC"),
	}
}

// Annotations of the Setting.
func (Setting) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "settings"},
		entsql.Checks(map[string]string{
			"settings_key": "length(key) BETWEEN 1 AND 256",
		}),
	}
}
