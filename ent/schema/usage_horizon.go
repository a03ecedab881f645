package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
)

// UsageHorizon holds the schema definition for the UsageHorizon entity: how far back a part of the
// ledger is complete. A part without a row is complete from the beginning.
type UsageHorizon struct{ ent.Schema }

// Fields of the UsageHorizon.
func (UsageHorizon) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").StorageKey("part").Immutable().Comment("events or quarters"),
		field.Time("complete_from").
			Comment("nothing from this instant on is missing, UTC; what lies before is being removed"),
	}
}

// Annotations of the UsageHorizon.
func (UsageHorizon) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "usage_horizons"},
		entsql.Checks(map[string]string{
			"usage_horizons_part": "part IN ('events', 'quarters')",
		}),
	}
}
