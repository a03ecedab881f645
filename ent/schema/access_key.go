package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// AccessKey holds the schema definition for the AccessKey entity: by its secret, a caller shows for which consumer it
// acts. The secret is not stored. It has no rights or limits of its own: those are the consumer's.
type AccessKey struct{ ent.Schema }

// Mixin of the AccessKey.
func (AccessKey) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Timestamps{}, SoftDelete{}} }

// Fields of the AccessKey.
func (AccessKey) Fields() []ent.Field {
	return []ent.Field{
		id("consumer_id", "the consumer that it is for"),
		field.String("key_hash").Immutable().Sensitive().Validate(rule.SHA256).
			Comment("SHA-256 of the secret in lower-case hex"),
		field.String("key_prefix").Immutable().Validate(rule.Text(0, 12)).
			Comment("first 12 characters of the secret, at most half of it"),
		field.String("label").Default("").Validate(rule.Label(0, rule.MaxName)).Comment("name for people"),
		field.Time("expires_at").Optional().Nillable().
			Comment("first instant it is not accepted any more, UTC; NULL: it does not expire"),
		field.Bool("disabled").Default(false).Comment("taken out by a person; only a person puts it back"),
		field.UUID("replaces_id", uuid.UUID{}).Optional().Nillable().Immutable().
			Comment("the access key that it replaces by rotation; NULL: none"),
	}
}

// Edges of the AccessKey.
func (AccessKey) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("consumer", Consumer.Type).Ref("access_keys").Field("consumer_id").Unique().Required(),
		edge.To("leases", KeyLease.Type).Annotations(entsql.OnDelete(entsql.SetNull)),
		edge.To("usage_events", UsageEvent.Type), // without an index, as for keys
		edge.To("replaced_by", AccessKey.Type).Annotations(entsql.OnDelete(entsql.SetNull)).
			From("replaces").Field("replaces_id").Unique().Immutable(),
	}
}

// Indexes of the AccessKey.
func (AccessKey) Indexes() []ent.Index {
	return []ent.Index{
		// Authenticate. It covers deleted rows too: a secret that was revoked never comes back.
		index.Fields("key_hash").Unique(),
		// ListAccessKeys, and the foreign key.
		index.Fields("consumer_id"),
		// The foreign key.
		index.Fields("replaces_id"),
	}
}

// Annotations of the AccessKey.
func (AccessKey) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "access_keys"},
		entsql.Checks(map[string]string{
			"access_keys_key_hash":   "length(key_hash) = 64",
			"access_keys_key_prefix": "length(key_prefix) <= 12",
			// Move copies access keys in the order of their ids.
			"access_keys_replaces": "replaces_id < id",
		}),
	}
}
