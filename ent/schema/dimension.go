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

// Tags are what a caller says of a request, by dimension.
type Tags = map[string][]string

// Dimension holds the schema definition for the Dimension entity: what usage is summed by beside models and keys, such
// as the feature that a request was made for. What it counts never changes for an instant that has passed: it counts
// from when it was created.
type Dimension struct{ ent.Schema }

// Mixin of the Dimension.
func (Dimension) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Timestamps{}} }

// Fields of the Dimension.
func (Dimension) Fields() []ent.Field {
	return []ent.Field{
		field.String("name").Unique().Immutable().Validate(rule.Slug).Comment("the name of its tags, such as feature"),
		field.Enum("kind").Values("single", "multi", "composite", "consumer").Default("single").Immutable().
			Comment("a request has one tag; or several; a combination of other dimensions; or the built-in consumer"),
		field.Strings("parts").Optional().Immutable().SchemaType(jsonText).
			Comment("names of the dimensions that a composite combines; NULL: it is none"),
		field.Int("max_values").Default(1000).Comment("the most values; what comes later counts as other"),
		field.Enum("grain").Values("quarter", "day").Default("quarter").Immutable().
			Comment("the finest sums that are kept: of quarters of an hour, or of UTC days"),
		field.Time("since").Immutable().Comment("requests from this instant on count, UTC"),
		field.Time("open_from").Comment("values that are new count in requests from this instant on, UTC"),
		field.Time("retired_at").Optional().Nillable().
			Comment("requests after this instant do not count; NULL: all do"),
	}
}

// Edges of the Dimension.
func (Dimension) Edges() []ent.Edge {
	return []ent.Edge{
		edge.To("dimension_values", DimensionValue.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
	}
}

// Annotations of the Dimension.
func (Dimension) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "dimensions"},
		entsql.Checks(map[string]string{
			"dimensions_name":   "length(name) BETWEEN 1 AND 64",
			"dimensions_kind":   "kind IN ('single', 'multi', 'composite', 'consumer') AND grain IN ('quarter', 'day')",
			"dimensions_values": "max_values BETWEEN 1 AND 10000",
			"dimensions_times":  "open_from >= since AND (retired_at IS NULL OR retired_at >= since)",
		}),
	}
}

// DimensionValue holds the schema definition for the DimensionValue entity: what usage is summed under. The value of a
// consumer has the consumer's id.
type DimensionValue struct{ ent.Schema }

// Mixin of the DimensionValue.
func (DimensionValue) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the DimensionValue.
func (DimensionValue) Fields() []ent.Field {
	return []ent.Field{
		id("dimension_id", "the dimension"),
		field.Enum("kind").Values("value", "unassigned", "other").Default("value").Immutable().
			Comment("a value; what has no tag; or what came after the last value that there was room for"),
		field.String("name").Immutable().Comment(
			"the tag; of several tags a sorted JSON array; of a composite one of the ids of its parts' values; of a" +
				" consumer its id; empty: unassigned or other"),
		field.Time("since").Immutable().Comment("requests from this instant on count under it, UTC"),
	}
}

// Edges of the DimensionValue.
func (DimensionValue) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("dimension", Dimension.Type).Ref("dimension_values").Field("dimension_id").Unique().Required(),
		edge.To("usage", UsageByValue.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("usage_quarters", UsageByValueQuarter.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
	}
}

// Indexes of the DimensionValue.
func (DimensionValue) Indexes() []ent.Index {
	return []ent.Index{
		// RecordUsage finds the value of a tag, UsageReport the values of a dimension; and the foreign key.
		index.Fields("dimension_id", "kind", "name").Unique(),
	}
}

// Annotations of the DimensionValue.
func (DimensionValue) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "dimension_values"},
		entsql.Checks(map[string]string{
			"dimension_values_kind": "kind = 'value' AND name <> '' OR kind IN ('unassigned', 'other') AND name = ''",
			"dimension_values_name": "length(name) <= 512",
		}),
	}
}
