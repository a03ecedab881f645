// Package schema is the graph, one file per entity. It imports nothing of this module but
// money, so that the client can be generated from an empty ent folder.
package schema

import (
	"strings"

	"entgo.io/ent"
	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"entgo.io/ent/schema/mixin"
	"github.com/google/uuid"
)

// ID gives an entity a UUIDv7 that is made here, before the insert: ids sort by creation and
// are known before the row exists.
type ID struct{ mixin.Schema }

// Fields of the ID mixin.
func (ID) Fields() []ent.Field {
	return []ent.Field{
		field.UUID("id", uuid.UUID{}).Default(newID).Immutable(),
	}
}

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// Timestamps gives an entity created_at and updated_at. They have no default: the registry
// sets both from its one clock.
type Timestamps struct{ mixin.Schema }

// Fields of the Timestamps mixin.
func (Timestamps) Fields() []ent.Field {
	return []ent.Field{
		field.Time("created_at").Immutable().Comment("when the row was created, UTC"),
		field.Time("updated_at").Comment("when the row last changed, UTC"),
	}
}

// SoftDelete gives an entity deleted_at. A deleted row is gone from lists and its name is
// free again, while the ledger still points at it.
type SoftDelete struct{ mixin.Schema }

// Fields of the SoftDelete mixin.
func (SoftDelete) Fields() []ent.Field {
	return []ent.Field{
		field.Time("deleted_at").Optional().Nillable().
			Comment("when the row was deleted, UTC; NULL: it is live"),
	}
}

// uniqueLive is a unique index over the rows that are not deleted.
func uniqueLive(fields ...string) ent.Index {
	return index.Fields(fields...).Unique().Annotations(live)
}

// live restricts an index to the rows that are not deleted.
var live = entsql.IndexWhere("deleted_at IS NULL")

// amounts is a CHECK that every column is from 0 to 9e18. The upper bound matters on SQLite,
// where a sum past the range of an integer silently becomes a floating-point number.
func amounts(columns ...string) string {
	for i, c := range columns {
		columns[i] = c + " BETWEEN 0 AND 9000000000000000000"
	}
	return strings.Join(columns, " AND ")
}

// jsonText keeps JSON as it was written. PostgreSQL's jsonb would change the order of keys and
// refuse \u0000.
var jsonText = map[string]string{dialect.Postgres: "json"}

// id returns a foreign-key field.
func id(name, comment string) ent.Field {
	return field.UUID(name, uuid.UUID{}).Comment(comment)
}
