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

// QuotaGroup holds the schema definition for the QuotaGroup entity: an account at a provider, whose keys share its
// limits.
type QuotaGroup struct{ ent.Schema }

// Mixin of the QuotaGroup.
func (QuotaGroup) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Timestamps{}, Quota{}} }

// Fields of the QuotaGroup.
func (QuotaGroup) Fields() []ent.Field {
	return []ent.Field{
		id("provider_id", "the provider that the account is with"),
		field.String("name").Validate(rule.Text(1, rule.MaxName)).
			Comment("name for people; unique among those of the provider"),
	}
}

// Edges of the QuotaGroup.
func (QuotaGroup) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("provider", Provider.Type).Ref("quota_groups").Field("provider_id").Unique().Required(),
		// DeleteQuotaGroup refuses while live keys are in it; keys that are deleted leave it.
		edge.To("keys", APIKey.Type).Annotations(entsql.OnDelete(entsql.SetNull)),
		edge.To("leases", KeyLease.Type).Annotations(entsql.OnDelete(entsql.SetNull)),
	}
}

// Indexes of the QuotaGroup.
func (QuotaGroup) Indexes() []ent.Index {
	return []ent.Index{
		// ListQuotaGroups, and the foreign key.
		index.Fields("provider_id", "name").Unique(),
	}
}

// Annotations of the QuotaGroup.
func (QuotaGroup) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "quota_groups"},
		entsql.Checks(quotaChecks("quota_groups", map[string]string{
			"quota_groups_name": "length(name) BETWEEN 1 AND 128",
		})),
	}
}
