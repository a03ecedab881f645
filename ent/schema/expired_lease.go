package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
)

// ExpiredLease holds the schema definition for the ExpiredLease entity: a lease that expired, that nobody has ended,
// and whose reservation is released. It can still be ended, once. A lease that is neither here nor a KeyLease has
// ended.
type ExpiredLease struct{ ent.Schema }

// Mixin of the ExpiredLease. Its id is that of the lease.
func (ExpiredLease) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the ExpiredLease.
func (ExpiredLease) Fields() []ent.Field {
	return []ent.Field{
		id("api_key_id", "the key that was used"),
		field.Time("expires_at").Immutable().Comment("when it expired, UTC; a day later it can be removed"),
	}
}

// Edges of the ExpiredLease.
func (ExpiredLease) Edges() []ent.Edge {
	return []ent.Edge{edge.From("key", APIKey.Type).Ref("expired_leases").Field("api_key_id").Unique().Required()}
}

// Indexes of the ExpiredLease.
func (ExpiredLease) Indexes() []ent.Index {
	return []ent.Index{
		// AcquireKey removes the old ones of a provider's keys; and the foreign key.
		index.Fields("api_key_id", "expires_at"),
	}
}

// Annotations of the ExpiredLease.
func (ExpiredLease) Annotations() []schema.Annotation {
	return []schema.Annotation{entsql.Annotation{Table: "expired_leases"}}
}
