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

// SDKVersion holds the schema definition for the SDKVersion entity.
type SDKVersion struct{ ent.Schema }

// Mixin of the SDKVersion.
func (SDKVersion) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the SDKVersion.
func (SDKVersion) Fields() []ent.Field {
	return []ent.Field{
		id("provider_id", "the provider whose API it speaks"),
		field.String("version").Validate(rule.Text(1, rule.MaxName)).Comment("unique in its provider"),
		field.String("sdk_path").Default("").Validate(rule.Text(0, rule.MaxURL)).
			Comment("where the generated code lies"),
		field.Time("generated_at").Comment("UTC"),
		field.Enum("compilation_status").Values("pending", "success", "failed").Default("pending"),
		field.String("test_results").Default("").Validate(rule.Prose(rule.MaxData)).Comment("free text or JSON"),
		field.String("code_hash").Default("").Validate(rule.Optional(rule.SHA256)).
			Comment("SHA-256 of the code in lower-case hex; empty: not known"),
	}
}

// Edges of the SDKVersion.
func (SDKVersion) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("provider", Provider.Type).Ref("sdk_versions").Field("provider_id").Unique().Required(),
	}
}

// Indexes of the SDKVersion.
func (SDKVersion) Indexes() []ent.Index {
	return []ent.Index{
		// CreateSDKVersion; also serves the foreign key.
		index.Fields("provider_id", "version").Unique(),
		// LatestSDKVersion and ListSDKVersions, newest first.
		index.Fields("provider_id", "generated_at"),
	}
}

// Annotations of the SDKVersion.
func (SDKVersion) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "sdk_versions"},
		entsql.Checks(map[string]string{
			"sdk_versions_version": "length(version) BETWEEN 1 AND 128",
		}),
	}
}
