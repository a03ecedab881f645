package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// Provider holds the schema definition for the Provider entity.
type Provider struct{ ent.Schema }

// Mixin of the Provider.
func (Provider) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Timestamps{}, SoftDelete{}} }

// Fields of the Provider.
func (Provider) Fields() []ent.Field {
	return []ent.Field{
		field.String("name").Validate(rule.Slug).Comment("slug, such as openai; unique among live providers"),
		field.String("display_name").Default("").Validate(rule.Title(rule.MaxName)).
			Comment("name for people, such as OpenAI"),
		field.String("base_url").Default("").Validate(rule.URL).
			Comment("http(s) URL of the API without credentials; empty: not known"),
		field.Enum("auth_method").
			Values("bearer", "header", "query", "oauth", "aws_sigv4", "none").
			Default("bearer").
			Comment("how a request carries the key"),
		field.String("description").Default("").Validate(rule.Prose(rule.MaxProse)),
		field.Time("cooling_until").Optional().Nillable().
			Comment(
				"first instant its keys may be leased again after an incident of its own, UTC; NULL: there was none",
			),
		field.String("cooling_reason").Default("").Validate(rule.Label(0, rule.MaxWord)).
			Comment("the class of the failures of many keys at once"),
		field.Int("incidents").Default(0).Validate(rule.Range(0, rule.MaxCount)).
			Comment("incidents since a request succeeded, by which the next cooling is longer"),
	}
}

// Edges of the Provider.
func (Provider) Edges() []ent.Edge {
	return []ent.Edge{
		edge.To("families", ModelFamily.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("models", Model.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("keys", APIKey.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("budgets", Budget.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("quota_groups", QuotaGroup.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("pool_state", PoolState.Type).Unique().Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("sdk_versions", SDKVersion.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		// A log outlives what it was about.
		edge.To("discovery_logs", DiscoveryLog.Type).Annotations(entsql.OnDelete(entsql.SetNull)),
	}
}

// Indexes of the Provider.
func (Provider) Indexes() []ent.Index {
	return []ent.Index{
		// FindProvider, ListProviders; a deleted provider's name is free again.
		uniqueLive("name"),
	}
}

// Annotations of the Provider.
func (Provider) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "providers"},
		entsql.Checks(map[string]string{
			"providers_name": "length(name) BETWEEN 1 AND 128",
			"providers_cooling": "incidents BETWEEN 0 AND 1000000 AND (cooling_until IS NULL) =" +
				" (cooling_reason = '')",
			"providers_auth_method": "auth_method IN ('bearer', 'header', 'query', 'oauth', 'aws_sigv4', 'none')",
		}),
	}
}
