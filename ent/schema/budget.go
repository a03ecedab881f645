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
	"github.com/jeffersonwarrior/modelscan/money"
)

// Budget holds the schema definition for the Budget entity: ceilings over the windows of a calendar, for what is spent
// for a consumer and for all below it. Its measure (owner, each, window and filter) never changes: what was counted
// would mean something else.
type Budget struct{ ent.Schema }

// Mixin of the Budget.
func (Budget) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Timestamps{}} }

// Fields of the Budget.
func (Budget) Fields() []ent.Field {
	return []ent.Field{
		id("consumer_id", "the consumer that it is for"),
		field.String("name").Validate(rule.Text(1, rule.MaxName)).
			Comment("name for people; unique among the consumer's"),
		field.Bool("each").Default(false).Immutable().
			Comment("every consumer below the owner has it for itself; else the owner and all below it share it"),
		field.String("each_kind").Default("").Immutable().Validate(rule.Text(0, rule.MaxKind)).
			Comment("if each: those of this kind, the first one on the way down; empty: the owner's children"),
		field.Enum("per").Values("minute", "hour", "day", "week", "month", "total").Default("month").Immutable().
			Comment("what a window lasts"),
		field.String("zone").Default("UTC").Immutable().Validate(rule.Text(1, rule.MaxWord)).
			Comment("the time zone of the windows, such as Europe/Berlin"),
		field.Int("anchor_day").Default(0).Immutable().
			Comment("on which day a window begins: of a week 1 to 7, from Monday; of a month 1 to 31; otherwise 0"),
		field.Int("anchor_hour").Default(0).Immutable().Comment("at which hour a day, week or month begins"),
		field.UUID("provider_id", uuid.UUID{}).Optional().Nillable().Immutable().
			Comment("the provider whose models count; NULL: all"),
		field.Strings("models").Optional().Immutable().Validate(rule.Models).SchemaType(jsonText).
			Comment("the provider's names of the models that count, * at the end: any rest; NULL: all"),
		field.Int64("cost").GoType(money.USD(0)).Default(0).Validate(rule.Amount).
			Comment("nano-USD, the most in a window; 0: no ceiling"),
		field.Int64("tokens").Default(0).Validate(rule.Amount).
			Comment("the most tokens in a window, all meters; 0: no ceiling"),
		field.Int64("requests").Default(0).Validate(rule.Amount).
			Comment("the most requests in a window; 0: no ceiling"),
		field.Int64("concurrency").Default(0).Validate(rule.Amount).Comment("the most leases at once; 0: no ceiling"),
		field.Enum("mode").Values("enforce", "shadow").Default("enforce").
			Comment("enforce: it refuses; shadow: it only notes what it would have refused"),
		field.Enum("on_unpriced").Values("block", "allow").Default("block").
			Comment("whether a request whose model has no price passes a ceiling of cost"),
		field.Ints("thresholds").Optional().SchemaType(jsonText).
			Comment("percentages of a ceiling at which a crossing is noted; NULL: none"),
		field.Time("counts_from").
			Comment("requests from this instant on count, UTC: as far back as the ledger knew consumers"),
	}
}

// Edges of the Budget.
func (Budget) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("consumer", Consumer.Type).Ref("budgets").Field("consumer_id").Unique().Required(),
		edge.From("provider", Provider.Type).Ref("budgets").Field("provider_id").Unique().Immutable(),
		edge.To("grants", BudgetGrant.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("windows", BudgetWindow.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("crossings", BudgetCrossing.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
	}
}

// Indexes of the Budget.
func (Budget) Indexes() []ent.Index {
	return []ent.Index{
		// The budgets of a consumer, and the foreign key.
		index.Fields("consumer_id", "name").Unique(),
		// The foreign key.
		index.Fields("provider_id").Annotations(entsql.IndexWhere("provider_id IS NOT NULL")),
	}
}

// Annotations of the Budget.
func (Budget) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "budgets"},
		entsql.Checks(map[string]string{
			"budgets_name":      "length(name) BETWEEN 1 AND 128",
			"budgets_each":      "each OR each_kind = ''",
			"budgets_ceilings":  amounts("cost", "tokens", "requests", "concurrency"),
			"budgets_a_ceiling": "cost > 0 OR tokens > 0 OR requests > 0 OR concurrency > 0",
			"budgets_mode":      "mode IN ('enforce', 'shadow') AND on_unpriced IN ('block', 'allow')",
			"budgets_window": "per = 'week' AND anchor_day BETWEEN 1 AND 7" +
				" OR per = 'month' AND anchor_day BETWEEN 1 AND 31" +
				" OR per IN ('minute', 'hour', 'day', 'total') AND anchor_day = 0",
			"budgets_hour": "anchor_hour BETWEEN 0 AND 23 AND (anchor_hour = 0 OR per IN ('day', 'week', 'month'))",
		}),
	}
}
