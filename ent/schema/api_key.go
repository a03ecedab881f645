package schema

import (
	"math"

	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// APIKey holds the schema definition for the APIKey entity. The key itself is stored sealed, or not at all.
type APIKey struct{ ent.Schema }

// Mixin of the APIKey.
func (APIKey) Mixin() []ent.Mixin { return []ent.Mixin{ID{}, Timestamps{}, SoftDelete{}, Quota{}} }

// Fields of the APIKey.
func (APIKey) Fields() []ent.Field {
	return []ent.Field{
		id("provider_id", "the provider that issued it"),
		field.String("key_hash").Immutable().Sensitive().Validate(rule.SHA256).
			Comment("SHA-256 of the key in lower-case hex; of the empty string for a keyless key"),
		field.String("key_prefix").Immutable().Validate(rule.Text(0, 8)).
			Comment("first 8 characters, at most half of it; empty: a keyless key, or one of 1 character"),
		field.String("label").Default("").Validate(rule.Label(0, rule.MaxName)).Comment("name for people"),
		field.Int64("usage_count").Default(0).Validate(rule.Amount).Comment("requests ever recorded"),
		field.Int64("token_count").Default(0).Validate(rule.Amount).Comment("tokens ever recorded, all meters"),
		field.Int64("extra_requests").Default(0).Validate(rule.Amount).
			Comment("those of usage_count that IncrementUsage counted, which are not in the ledger"),
		field.Int64("extra_tokens").Default(0).Validate(rule.Amount).
			Comment("those of token_count that IncrementUsage counted"),
		field.Bool("disabled").Default(false).Comment("taken out by a person; only a person puts it back"),
		field.Bool("degraded").Default(false).Comment("out of use until degraded_until"),
		field.Time("degraded_until").Optional().Nillable().
			Comment("first instant it may be used again, UTC; NULL: it is not degraded"),
		field.String("degraded_reason").Default("").Validate(rule.Prose(rule.MaxReason)),
		field.String("degraded_by").Default("").Validate(rule.Label(0, rule.MaxWord)).
			Comment("the class of the failure that degraded it; empty: none did"),
		field.Time("degraded_at").Optional().Nillable().
			Comment("when it was degraded, having not been, UTC; NULL: it is not"),
		field.Int("failures").Default(0).Validate(rule.Range(0, rule.MaxCount)).
			Comment("failures of one class after the other, by which the next degradation is longer"),
		field.String("counted_class").Default("").
			Comment("class of the failures that are counted; empty: there was none since a request succeeded"),
		field.Time("counted_at").Optional().Nillable().
			Comment("when the last of them was, UTC; NULL: there was none since a request succeeded"),
		field.String("failure_class").Default("").
			Comment("class of the last failure; empty: there was none since a request succeeded"),
		field.Time("failed_at").Optional().Nillable().
			Comment("when the last failure was, UTC; NULL: there was none since a request succeeded"),
		field.Time("succeeded_at").Optional().Nillable().Comment("when the last lease ended well, UTC; NULL: none did"),
		field.Int64("pass").Default(0).Validate(rule.Range[int64](0, math.MaxInt64)).
			Comment("where in the pool's rotation it was last leased, as in stride scheduling"),
		field.Int("weight").Default(1).Validate(rule.Range(1, 1000)).
			Comment("its share of the requests, beside keys of the same priority"),
		field.Int("priority").Default(0).Validate(rule.Range(-1000, 1000)).
			Comment("keys of a higher one are leased first"),
		field.Strings("allowed_models").Optional().Validate(rule.Models).SchemaType(jsonText).
			Comment("the provider's names of the models that it is for, * at the end: any rest; NULL: all"),
		field.Strings("denied_models").Optional().Validate(rule.Models).SchemaType(jsonText).
			Comment("the models that it is not for, likewise; NULL: none"),
		field.UUID("quota_group_id", uuid.UUID{}).Optional().Nillable().
			Comment("the account whose limits it shares; NULL: none"),
		field.Time("last_used_at").Optional().Nillable().Comment("when usage last happened, UTC; NULL: never"),
		field.Time("expires_at").Optional().Nillable().
			Comment("first instant it is not used any more, UTC; NULL: it does not expire"),
		field.Bytes("sealed").Optional().Sensitive().Comment("the key, sealed by the data key; NULL: it is not kept"),
		field.UUID("data_key_id", uuid.UUID{}).Optional().Nillable().Comment("the data key that sealed it; NULL: none"),
	}
}

// Edges of the APIKey.
func (APIKey) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("provider", Provider.Type).Ref("keys").Field("provider_id").Unique().Required(),
		// The ledger is never deleted with a key.
		edge.To("usage", Usage.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("usage_quarters", UsageQuarter.Type).Annotations(entsql.OnDelete(entsql.Restrict)),
		edge.To("usage_events", UsageEvent.Type), // without an index: ListUsageEvents knows where to look
		edge.To("leases", KeyLease.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("expired_leases", ExpiredLease.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.From("quota_group", QuotaGroup.Type).Ref("keys").Field("quota_group_id").Unique(),
		edge.From("data_key", DataKey.Type).Ref("keys").Field("data_key_id").Unique(),
	}
}

// Indexes of the APIKey.
func (APIKey) Indexes() []ent.Index {
	return []ent.Index{
		// FindAPIKey and AddAPIKey.
		uniqueLive("provider_id", "key_hash"),
		// GetLeastUsedKey reads it in order and stops at the first usable key.
		index.Fields("provider_id", "usage_count", "last_used_at", "id").Annotations(live),
		// The foreign key: deleted keys count too.
		index.Fields("provider_id"),
		// The foreign key, and RotateKeyring.
		index.Fields("data_key_id"),
		// The foreign key.
		index.Fields("quota_group_id"),
	}
}

// Annotations of the APIKey.
func (APIKey) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entsql.Annotation{Table: "api_keys"},
		entsql.Checks(quotaChecks("api_keys", map[string]string{
			"api_keys_key_hash":   "length(key_hash) = 64",
			"api_keys_key_prefix": "length(key_prefix) <= 8",
			"api_keys_counters":   amounts("usage_count", "token_count"),
			"api_keys_extra": "extra_requests BETWEEN 0 AND usage_count AND extra_tokens BETWEEN 0 AND" +
				" token_count",
			"api_keys_sealed": "sealed IS NULL AND data_key_id IS NULL OR length(sealed) BETWEEN 1 AND 65536" +
				" AND data_key_id IS NOT NULL",
			"api_keys_degraded": "degraded = (degraded_until IS NOT NULL) AND (degraded OR degraded_by = '' AND" +
				" degraded_at IS NULL)",
			"api_keys_failures": "failures BETWEEN 0 AND 1000000 AND (failed_at IS NULL) = (failure_class = '')",
			"api_keys_choice":   "pass >= 0 AND weight BETWEEN 1 AND 1000 AND priority BETWEEN -1000 AND 1000",
		})),
	}
}
