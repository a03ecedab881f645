package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/money"
)

// ConsumerDay holds the schema definition for the ConsumerDay entity: what was used for one consumer on one UTC day, at
// all models and prices. It is the sum of the consumer's rows of UsageByValue, and has what the counters of budgets
// have: a new budget reads it.
type ConsumerDay struct{ ent.Schema }

// Mixin of the ConsumerDay.
func (ConsumerDay) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the ConsumerDay.
func (ConsumerDay) Fields() []ent.Field {
	return []ent.Field{
		id("consumer_id", "the consumer, without those below it"),
		field.Time("day").Immutable().Comment("first instant, UTC"),
		field.Int64("requests").Default(0).Validate(rule.Amount).Comment("that happened on the day, as far as folded"),
		field.Int64("tokens").Default(0).Validate(rule.Amount).Comment("of those requests, all meters"),
		field.Int64("cost").GoType(money.USD(0)).Default(0).Validate(rule.Amount).Comment("nano-USD of those requests"),
		field.Int64("unpriced_requests").Default(0).Validate(rule.Amount).Comment("those whose cost is not known"),
	}
}

// Edges of the ConsumerDay.
func (ConsumerDay) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("consumer", Consumer.Type).Ref("days").Field("consumer_id").Unique().Required(),
	}
}

// Indexes of the ConsumerDay.
func (ConsumerDay) Indexes() []ent.Index {
	return []ent.Index{
		// A fold adds to the row it finds here, a new budget reads a subtree's; and the foreign key.
		index.Fields("consumer_id", "day").Unique(),
	}
}

// Annotations of the ConsumerDay.
func (ConsumerDay) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "consumer_days"},
		entsql.Checks(map[string]string{
			"consumer_days_amounts":  amounts("requests", "tokens", "cost", "unpriced_requests"),
			"consumer_days_unpriced": "unpriced_requests <= requests",
		}),
	}
}
