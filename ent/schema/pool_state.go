package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"github.com/google/uuid"
)

// PoolState holds the schema definition for the PoolState entity: on PostgreSQL, the lock of a provider's pool, and the
// name of its state. A process remembers the keys, groups and leases as it left them, and reads them again if the name
// has changed. SQLite reports by itself that somebody else has written, and has no rows here.
type PoolState struct{ ent.Schema }

// Mixin of the PoolState.
func (PoolState) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the PoolState.
func (PoolState) Fields() []ent.Field {
	return []ent.Field{
		id("provider_id", "the provider"),
		field.UUID("state", uuid.UUID{}).Optional().Nillable().
			Comment("the name of what a process has left; NULL: keys, groups or leases have changed since"),
		field.UUID("previous", uuid.UUID{}).Optional().Nillable().Comment("the state that this process found"),
	}
}

// Edges of the PoolState.
func (PoolState) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("provider", Provider.Type).Ref("pool_state").Field("provider_id").Unique().Required(),
	}
}

// Annotations of the PoolState.
func (PoolState) Annotations() []schema.Annotation {
	return []schema.Annotation{entsql.Annotation{Table: "pool_states"}}
}
