// Package schema is the graph, one file per entity. It imports nothing of this module but money and internal/rule, so
// that the client can be generated from an empty ent folder.
package schema

import (
	"encoding/json"
	"strings"
	"time"

	"entgo.io/ent"
	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"entgo.io/ent/schema/mixin"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/money"
)

// ID gives an entity a UUIDv7, made before the insert: ids sort by creation and are known before the row exists.
type ID struct{ mixin.Schema }

// Fields of the ID mixin.
func (ID) Fields() []ent.Field {
	return []ent.Field{
		field.UUID("id", uuid.UUID{}).Default(newID).Immutable(),
	}
}

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// Timestamps gives an entity created_at and updated_at. The registry sets both from its one clock; the defaults are for
// clients that a user opens.
type Timestamps struct{ mixin.Schema }

// Fields of the Timestamps mixin.
func (Timestamps) Fields() []ent.Field {
	return []ent.Field{
		field.Time("created_at").Default(now).Immutable().Comment("when the row was created, UTC"),
		field.Time("updated_at").Default(now).UpdateDefault(now).Comment("when the row last changed, UTC"),
	}
}

// now returns the time as it is stored: SQLite compares times as text, and PostgreSQL keeps microseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

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

// Quota gives an entity limits, and counters of ended requests. Running requests are in the leases. Each counter
// belongs to one window, which the row names, so that nothing has to reset it.
type Quota struct{ mixin.Schema }

// Fields of the Quota mixin.
func (Quota) Fields() []ent.Field {
	limit := func(name, comment string) ent.Field {
		return field.Int64(name).Default(0).Validate(rule.Amount).Comment(comment + "; 0: no limit")
	}
	return []ent.Field{
		limit("requests_per_minute", "the most requests in a UTC minute"),
		limit("tokens_per_minute", "the most tokens in a UTC minute, all meters"),
		limit("requests_per_day", "the most requests on a UTC day"),
		limit("tokens_per_day", "the most tokens on a UTC day, all meters"),
		limit("concurrency", "the most requests at once"),
		field.Int64("cost_per_day").GoType(money.USD(0)).Default(0).Validate(rule.Amount).
			Comment("nano-USD, the most on a UTC day; 0: no limit"),
		field.Time("minute").Optional().Nillable().
			Comment("the UTC minute that the counters of a minute are for; NULL: none yet"),
		field.Int64("requests_this_minute").Default(0).Validate(rule.Amount).
			Comment("requests that began in that minute and have ended"),
		field.Int64("tokens_this_minute").Default(0).Validate(rule.Amount).
			Comment("tokens of those requests, all meters"),
		field.Int64("requests_today").Default(0).Validate(rule.Amount).
			Comment("requests that began on the UTC day of last_reset and have ended"),
		field.Int64("tokens_today").Default(0).Validate(rule.Amount).
			Comment("tokens of those requests, all meters"),
		field.Int64("cost_today").GoType(money.USD(0)).Default(0).Validate(rule.Amount).
			Comment("nano-USD of those requests"),
		field.Time("last_reset").Default(now).
			Comment("the daily counters count since then and only for its UTC day"),
		field.JSON("observed", json.RawMessage{}).Optional().SchemaType(jsonText).
			Comment("what the provider's answers last said of its own limits; NULL: nothing"),
	}
}

// quotaChecks returns the CHECKs of the Quota mixin.
func quotaChecks(table string, others map[string]string) map[string]string {
	others[table+"_limits"] = amounts(
		"requests_per_minute", "tokens_per_minute", "requests_per_day", "tokens_per_day", "concurrency", "cost_per_day",
	)
	others[table+"_windows"] = amounts(
		"requests_this_minute", "tokens_this_minute", "requests_today", "tokens_today", "cost_today",
	)
	return others
}

// uniqueLive is a unique index over the rows that are not deleted.
func uniqueLive(fields ...string) ent.Index {
	return index.Fields(fields...).Unique().Annotations(live)
}

// live restricts an index to the rows that are not deleted.
var live = entsql.IndexWhere("deleted_at IS NULL")

// amounts returns a CHECK that every column is from 0 to 9e18. The upper bound matters on SQLite, where a sum past the
// range of an integer silently becomes a floating-point number.
func amounts(columns ...string) string {
	for i, c := range columns {
		columns[i] = c + " BETWEEN 0 AND 9000000000000000000"
	}
	return strings.Join(columns, " AND ")
}

// maxAttempt is the highest number of an attempt.
const maxAttempt = "1000000"

// attempts are the columns that say which attempt of a user's request a request is.
func attempts() []ent.Field {
	return []ent.Field{
		field.String("attempt_group").Default("").Immutable().
			Comment("the caller's name for the user's request that this is an attempt of; empty: it was not said"),
		field.Int("attempt").Default(0).Immutable().
			Comment("number of the attempt, from 1; from 2 on it is a retry; 0: it was not said"),
	}
}

// attemptCheck is the CHECK of the columns of attempts.
const attemptCheck = "length(attempt_group) <= 128 AND attempt BETWEEN 0 AND " + maxAttempt

// jsonText keeps JSON as it was written. PostgreSQL's jsonb would change the order of keys and
// refuse \u0000.
var jsonText = map[string]string{dialect.Postgres: "json"}

// id returns a foreign-key field.
func id(name, comment string) ent.Field {
	return field.UUID(name, uuid.UUID{}).Comment(comment)
}

// tags is the column of what a caller says of a request.
func tags() ent.Field {
	// PostgreSQL cannot compare json, which Ent does when it walks to rows.
	return field.JSON("tags", Tags{}).Optional().Immutable().SchemaType(map[string]string{dialect.Postgres: "text"}).
		Comment("what usage is summed by beside models and keys: the tags of each dimension; NULL: none")
}
