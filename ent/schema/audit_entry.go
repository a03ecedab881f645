package schema

import (
	"encoding/json"

	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// AuditEntry holds the schema definition for the AuditEntry entity: one change, by whom, of what,
// from what to what. It is written in the transaction of the change and never changed.
type AuditEntry struct{ ent.Schema }

// Mixin of the AuditEntry.
func (AuditEntry) Mixin() []ent.Mixin { return []ent.Mixin{ID{}} }

// Fields of the AuditEntry.
func (AuditEntry) Fields() []ent.Field {
	return []ent.Field{
		field.Time("at").Immutable().Comment("when, UTC"),
		field.String("actor").Default("").Immutable().Validate(rule.Text(0, rule.MaxName)).
			Comment("by whom; empty: nobody was named"),
		field.String("action").Immutable().Validate(rule.Text(1, rule.MaxWord)).
			Comment("what was done, such as create or update"),
		field.String("entity").Immutable().Validate(rule.Text(1, rule.MaxWord)).
			Comment("to what kind of thing, such as provider"),
		field.String("entity_id").Default("").Immutable().Validate(rule.Text(0, rule.MaxKey)).
			Comment("which one; empty: not one alone"),
		field.JSON("before", json.RawMessage{}).Optional().Immutable().SchemaType(jsonText).
			Comment("the row as it was, without secrets; NULL: there was none"),
		field.JSON("after", json.RawMessage{}).Optional().Immutable().SchemaType(jsonText).
			Comment("the row as it became, or what was done to the ledger; NULL: it is gone"),
		field.Bool("automatic").Default(false).Immutable().
			Comment("the key pool did it by itself, as failures and successes of requests say; such entries age"),
	}
}

// Indexes of the AuditEntry.
func (AuditEntry) Indexes() []ent.Index {
	return []ent.Index{
		// ListAudit: by time, and the history of one thing.
		index.Fields("at"),
		index.Fields("entity", "entity_id", "at"),
		// Prune: automatic entries, oldest first.
		index.Fields("at").StorageKey("auditentry_automatic_at").Annotations(entsql.IndexWhere("automatic")),
	}
}

// Annotations of the AuditEntry.
func (AuditEntry) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "audit_log"},
		entsql.Checks(map[string]string{
			"audit_log_actor":  "length(actor) <= 128",
			"audit_log_action": "length(action) BETWEEN 1 AND 64",
			"audit_log_entity": "length(entity) BETWEEN 1 AND 64",
		}),
	}
}
