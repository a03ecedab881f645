package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/money"
)

// KeyLease holds the schema definition for the KeyLease entity: a key in use, and what is reserved for it. The row is
// the reservation. It is removed when the lease ends. After it has expired, the next lease of the provider's keys makes
// it an ExpiredLease.
type KeyLease struct{ ent.Schema }

// Mixin of the KeyLease.
func (KeyLease) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the KeyLease.
func (KeyLease) Fields() []ent.Field {
	return append([]ent.Field{
		id("api_key_id", "the key that is used"),
		field.UUID("model_id", uuid.UUID{}).Optional().Nillable().
			Comment("the model that it is used for; NULL: it was not said"),
		field.UUID("quota_group_id", uuid.UUID{}).Optional().Nillable().
			Comment("the group that it counts in, wherever the key has gone since; NULL: none"),
		field.Int64("reserved_tokens").Default(0).
			Comment("tokens that count in the windows of the key and the group until it is known how many they were"),
		field.Int64("reserved_output").Default(0).
			Comment("how many of them are expected to be output; 0: it was not said"),
		field.Int64("reserved_cost").GoType(money.USD(0)).Default(0).Comment("nano-USD that are counted likewise"),
		field.Int64("pass").Default(0).Comment("start tag of the key's turn"),
		field.UUID("consumer_id", uuid.UUID{}).Optional().Nillable().
			Comment("the consumer that the request is for; NULL: nobody"),
		field.String("consumer_path").Default("").
			Comment("that consumer's path: what it reserves counts for all of them; empty: nobody"),
		field.UUID("access_key_id", uuid.UUID{}).Optional().Nillable().
			Comment("the access key by which the request was made; NULL: none"),
		field.Bool("probe").Default(false).Comment("it is the one request by which a key that was out is tried"),
		field.Time("acquired_at").Immutable().Comment("when it began, UTC; its request counts in the windows of then"),
		field.Time("expires_at").Comment("first instant at which what it reserves is free again, UTC"),
	}, append(attempts(), tags())...)
}

// Edges of the KeyLease.
func (KeyLease) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("key", APIKey.Type).Ref("leases").Field("api_key_id").Unique().Required(),
		edge.From("model", Model.Type).Ref("leases").Field("model_id").Unique(),
		edge.From("consumer", Consumer.Type).Ref("leases").Field("consumer_id").Unique(),
		edge.From("access_key", AccessKey.Type).Ref("leases").Field("access_key_id").Unique(),
		edge.From("quota_group", QuotaGroup.Type).Ref("leases").Field("quota_group_id").Unique(),
	}
}

// Indexes of the KeyLease.
func (KeyLease) Indexes() []ent.Index {
	return []ent.Index{
		// AcquireKey: the leases of keys, and the expired ones; and the foreign key.
		index.Fields("api_key_id", "expires_at"),
		// The foreign keys: PurgeModel and DeleteQuotaGroup would read all leases for each row that goes.
		index.Fields("model_id").Annotations(entsql.IndexWhere("model_id IS NOT NULL")),
		index.Fields("quota_group_id").Annotations(entsql.IndexWhere("quota_group_id IS NOT NULL")),
		index.Fields("consumer_id").Annotations(entsql.IndexWhere("consumer_id IS NOT NULL")),
		index.Fields("access_key_id").Annotations(entsql.IndexWhere("access_key_id IS NOT NULL")),
		// AcquireKey: what the consumers of a subtree have open.
		index.Fields("consumer_path").Annotations(entsql.IndexWhere("consumer_path <> ''")),
	}
}

// Annotations of the KeyLease.
func (KeyLease) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "key_leases"},
		entsql.Checks(map[string]string{
			"key_leases_reserved": amounts("reserved_tokens", "reserved_cost", "pass"),
			"key_leases_times":    "expires_at > acquired_at",
			"key_leases_output":   "reserved_output BETWEEN 0 AND reserved_tokens",
			"key_leases_attempt":  attemptCheck,
		}),
	}
}
