package schema

import (
	"fmt"

	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// Consumer holds the schema definition for the Consumer entity: whom cost is charged to, such as an organisation, a
// team or a user. Consumers are a tree of up to 8 levels.
type Consumer struct{ ent.Schema }

// Permission says which models of a provider a consumer may use, or may not.
type Permission struct {
	ProviderID uuid.UUID `json:"provider_id"`
	// Models are the provider's names of the models, * at the end: any rest; empty: all its models.
	Models []string `json:"models"`
	Deny   bool     `json:"deny"` // these may not be used, whatever else permits them
}

// permissions is the rule of a list of permissions.
func permissions(list []Permission) error {
	if len(list) > rule.MaxPermissions {
		return rule.ValueErrors{fmt.Sprintf("has %d entries, more than %d", len(list), rule.MaxPermissions)}
	}
	models := 0
	for _, p := range list {
		if p.ProviderID == uuid.Nil {
			return rule.ValueErrors{"has an entry without a provider"}
		}
		if err := rule.Models(p.Models); err != nil {
			return rule.ValueErrors{"has an entry whose list of models " + err.Error()}
		}
		models += len(p.Models)
	}
	if models > rule.MaxModels {
		return rule.ValueErrors{fmt.Sprintf("has %d names of models, more than %d", models, rule.MaxModels)}
	}
	return nil
}

// Mixin of the Consumer.
func (Consumer) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Timestamps{}, SoftDelete{}} }

// Fields of the Consumer.
func (Consumer) Fields() []ent.Field {
	permitted := field.JSON("permissions", []Permission{}).Optional().SchemaType(jsonText).
		Comment("the models that it and all below it may use; NULL: all")
	permitted.Descriptor().Validators = []any{permissions} // Ent has no method for it
	return []ent.Field{
		field.UUID("parent_id", uuid.UUID{}).Optional().Nillable().Comment("the consumer above it; NULL: none"),
		field.String("path").Comment("the ids of the consumers from the root to itself, joined by /"),
		field.String("name").Validate(rule.Text(1, rule.MaxName)).
			Comment("unique among the live consumers of the same parent"),
		field.String("kind").Default("").Validate(rule.Text(0, rule.MaxKind)).
			Comment("what it is, in the owner's words, such as team or user; empty: not said"),
		field.String("external_id").Optional().Nillable().Validate(rule.Text(1, rule.MaxName)).
			Comment("its id in the owner's system, unique among live consumers; NULL: none"),
		field.Bool("disabled").Default(false).Comment("nobody acts for it, nor for those below it"),
		permitted,
	}
}

// Edges of the Consumer.
func (Consumer) Edges() []ent.Edge {
	return []ent.Edge{
		// PurgeConsumer removes the lowest level first.
		edge.To("children", Consumer.Type).Annotations(entsql.OnDelete(entsql.Restrict)).
			From("parent").Field("parent_id").Unique(),
		edge.To("access_keys", AccessKey.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("leases", KeyLease.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("usage_events", UsageEvent.Type), // without an index, as for keys
		edge.To("days", ConsumerDay.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("budgets", Budget.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("grants", BudgetGrant.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("budget_windows", BudgetWindow.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("budget_crossings", BudgetCrossing.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
	}
}

// Indexes of the Consumer.
func (Consumer) Indexes() []ent.Index {
	return []ent.Index{
		// CreateConsumer; names are unique among siblings.
		uniqueLive("parent_id", "name"),
		// The same for consumers without a parent.
		index.Fields("name").Unique().
			Annotations(entsql.IndexWhere("deleted_at IS NULL AND parent_id IS NULL")),
		// EnsureConsumer and FindConsumer.
		uniqueLive("external_id"),
		// ListConsumers, subtrees, and Move, which copies parents first.
		index.Fields("path").Unique(),
		// The foreign key, and the consumers of one parent in their order.
		index.Fields("parent_id", "path"),
	}
}

// Annotations of the Consumer.
func (Consumer) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "consumers"},
		entsql.Checks(map[string]string{
			"consumers_name":        "length(name) BETWEEN 1 AND 128",
			"consumers_kind":        "length(kind) <= 32",
			"consumers_external_id": "length(external_id) BETWEEN 1 AND 128",
			// An id has 36 characters: 1 to 8 levels.
			"consumers_path": "length(path) BETWEEN 36 AND 295 AND length(path) % 37 = 36",
			"consumers_parent": "length(path) = 36 AND parent_id IS NULL" +
				" OR length(path) > 36 AND parent_id IS NOT NULL",
		}),
	}
}
