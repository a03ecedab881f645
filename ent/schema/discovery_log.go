package schema

import (
	"encoding/json"

	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// DiscoveryLog holds the schema definition for the DiscoveryLog entity.
type DiscoveryLog struct{ ent.Schema }

// Mixin of the DiscoveryLog.
func (DiscoveryLog) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the DiscoveryLog.
func (DiscoveryLog) Fields() []ent.Field {
	return []ent.Field{
		field.UUID("provider_id", uuid.UUID{}).Optional().Nillable().
			Comment("the provider it found; NULL: none yet, or purged"),
		field.String("identifier").Validate(rule.Text(1, rule.MaxURL)).
			Comment("what was looked for, such as a provider's name or URL"),
		field.Enum("status").Values("pending", "success", "failed").Default("pending"),
		field.Int64("attempt_count").Default(0).Validate(rule.Amount).Comment("results reported so far"),
		field.JSON("discovered_data", json.RawMessage{}).SchemaType(jsonText).Optional().
			Comment("what was found, JSON; NULL: nothing"),
		field.String("error_message").Default("").Validate(rule.Prose(rule.MaxProse)),
		field.String("source").Default("").Validate(rule.Text(0, rule.MaxName)).
			Comment("where it was looked for, such as models.dev"),
		field.String("llm_model").Default("").Validate(rule.Text(0, rule.MaxModelID)).
			Comment("the model that read the source, if one did"),
		field.Bool("cache_hit").Default(false),
		field.Time("started_at").Comment("UTC"),
		field.Time("completed_at").Optional().Nillable().Comment("UTC; NULL: pending"),
	}
}

// Edges of the DiscoveryLog.
func (DiscoveryLog) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("provider", Provider.Type).Ref("discovery_logs").Field("provider_id").Unique(),
	}
}

// Indexes of the DiscoveryLog.
func (DiscoveryLog) Indexes() []ent.Index {
	return []ent.Index{
		// GetRecentDiscoveries.
		index.Fields("started_at"),
		// The foreign key.
		index.Fields("provider_id"),
	}
}

// Annotations of the DiscoveryLog.
func (DiscoveryLog) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "discovery_logs"},
		entsql.Checks(map[string]string{
			"discovery_logs_identifier":    "length(identifier) BETWEEN 1 AND 2048",
			"discovery_logs_attempt_count": "attempt_count >= 0",
		}),
	}
}
