package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
)

// Here, in ledger.go and in record.go is the SQL that is written by hand, because Ent, which builds a statement anew for
// each call, was measurably in the way: the choice of a key, and what a batch of usage reads and writes.

// hot is what leastUsedKey needs.
type hot struct {
	// key is a copy of a row that Ent made, never changed. Rows copied from it are tied to the client as Ent's are, so that
	// a caller can walk on from them.
	key atomic.Pointer[ent.APIKey]
}

// leastUsedKeySQL reads the index (provider_id, usage_count, last_used_at, id) in its order and
// stops at the first usable key.
const leastUsedKeySQL = "SELECT id, created_at, updated_at, deleted_at, provider_id, key_hash, key_prefix, label," +
	" usage_count, token_count, extra_requests, extra_tokens, requests_today, tokens_today, last_reset, disabled," +
	" degraded, degraded_until, degraded_reason, last_used_at, expires_at, sealed, data_key_id" +
	" FROM api_keys WHERE provider_id = $1 AND deleted_at IS NULL AND NOT disabled" +
	" AND (degraded_until IS NULL OR degraded_until <= $2) AND (expires_at IS NULL OR expires_at > $2)" +
	" ORDER BY usage_count, last_used_at NULLS FIRST, id LIMIT 1"

// leastUsedKey returns the key that GetLeastUsedKey is to return, or Ent's NotFoundError.
func (r *Registry) leastUsedKey(ctx context.Context, providerID uuid.UUID, now time.Time) (*ent.APIKey, error) {
	if r.hot == nil || r.hot.key.Load() == nil {
		key, err := leastUsed(r.fresh, providerID, now).First(ctx)
		if err == nil && r.hot != nil {
			own := *key
			r.hot.key.Store(&own)
		}
		return key, err
	}
	return r.hot.leastUsedKey(ctx, r.fresh, providerID, now)
}

// leastUsed is leastUsedKeySQL in Ent.
func leastUsed(client *ent.Client, providerID uuid.UUID, now time.Time) *ent.APIKeyQuery {
	return client.APIKey.Query().Where(
		apikey.ProviderID(providerID), apikey.DeletedAtIsNil(), apikey.Disabled(false),
		apikey.Or(apikey.DegradedUntilIsNil(), apikey.DegradedUntilLTE(now)),
		apikey.Or(apikey.ExpiresAtIsNil(), apikey.ExpiresAtGT(now)),
	).Order(inOrderOfUse()...)
}

// inOrderOfUse is the order in which keys are used. ByUsageCount would count rows of the edge
// "usage"; ByUsageCountField is the column.
func inOrderOfUse() []apikey.OrderOption {
	return []apikey.OrderOption{
		apikey.ByUsageCountField(), apikey.ByLastUsedAt(sql.OrderNullsFirst()), apikey.ByID(),
	}
}

func (h *hot) leastUsedKey(ctx context.Context, client *ent.Client, providerID uuid.UUID, now time.Time) (_ *ent.APIKey, err error) {
	rows, err := client.QueryContext(ctx, leastUsedKeySQL, providerID, now)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if !rows.Next() {
		return nil, errors.Join(rows.Err(), new(ent.NotFoundError))
	}
	k := *h.key.Load()
	k.DeletedAt, k.DegradedUntil, k.LastUsedAt, k.ExpiresAt, k.Sealed, k.DataKeyID = nil, nil, nil, nil, nil, nil
	err = rows.Scan(&k.ID, &k.CreatedAt, &k.UpdatedAt, &k.DeletedAt, &k.ProviderID, &k.KeyHash, &k.KeyPrefix, &k.Label,
		&k.UsageCount, &k.TokenCount, &k.ExtraRequests, &k.ExtraTokens, &k.RequestsToday, &k.TokensToday, &k.LastReset, &k.Disabled,
		&k.Degraded, &k.DegradedUntil, &k.DegradedReason, &k.LastUsedAt, &k.ExpiresAt, &k.Sealed, &k.DataKeyID)
	if err != nil {
		return nil, err
	}
	return &k, nil
}

// countUsesSQL adds to the counters of some keys: requests, tokens, those of both that are not in the ledger, the first
// instants of the day and of the next day, the last use, now, id. The daily counters start again at the first use of a
// UTC day; a use of an earlier day leaves them alone.
var countUsesSQL = map[string]func(n int) string{
	// Joined with VALUES, SQLite takes five times as long, for it copies the rows first.
	dialect.SQLite: func(int) string { return countKeySQL },
	dialect.Postgres: statements(func(n int) string {
		return countUsesText("v.column%d") + " FROM (VALUES " + placeholders(n, "CAST($%d AS bigint)", "CAST($%d AS bigint)",
			"CAST($%d AS bigint)", "CAST($%d AS bigint)", "CAST($%d AS timestamptz)", "CAST($%d AS timestamptz)",
			"CAST($%d AS timestamptz)", "CAST($%d AS timestamptz)", "CAST($%d AS uuid)") + ") AS v WHERE api_keys.id = v.column9"
	}),
}

// countUsesIn says how many keys a statement counts.
var countUsesIn = map[string]func(uses []use, write func([]use) error) error{
	dialect.SQLite: func(uses []use, write func([]use) error) error {
		for one := range slices.Chunk(uses, 1) {
			if err := write(one); err != nil {
				return err
			}
		}
		return nil
	},
	dialect.Postgres: chunks[use],
}

var countKeySQL = countUsesText("$%d") + " WHERE id = $9"

// countUsesText writes the columns by their numbers, which first appear in ascending order: SQLite takes $1 for a name,
// and counts for itself.
func countUsesText(column string) string {
	return strings.NewReplacer(
		"{requests}", fmt.Sprintf(column, 1), "{tokens}", fmt.Sprintf(column, 2),
		"{extra requests}", fmt.Sprintf(column, 3), "{extra tokens}", fmt.Sprintf(column, 4),
		"{day}", fmt.Sprintf(column, 5), "{next day}", fmt.Sprintf(column, 6),
		"{last use}", fmt.Sprintf(column, 7), "{now}", fmt.Sprintf(column, 8),
	).Replace("UPDATE api_keys SET" +
		" usage_count = usage_count + {requests}, token_count = token_count + {tokens}," +
		" extra_requests = extra_requests + {extra requests}, extra_tokens = extra_tokens + {extra tokens}," +
		" requests_today = CASE WHEN last_reset < {day} THEN {requests}" +
		" WHEN last_reset < {next day} THEN requests_today + {requests} ELSE requests_today END," +
		" tokens_today = CASE WHEN last_reset < {day} THEN {tokens}" +
		" WHEN last_reset < {next day} THEN tokens_today + {tokens} ELSE tokens_today END," +
		" last_reset = CASE WHEN last_reset > {day} THEN last_reset ELSE {day} END," +
		" last_used_at = CASE WHEN last_used_at > {last use} THEN last_used_at ELSE {last use} END," +
		" updated_at = {now}")
}

// countUses adds to the counters of keys, which are locked. A key that was used on several days has a row
// for each, and one statement changes a key once: the days go one after the other.
func (r *Registry) countUses(ctx context.Context, tx execer, sums map[use]useSum) error {
	days := map[time.Time][]use{}
	for u := range sums {
		days[u.day] = append(days[u.day], u)
	}
	write := func(uses []use) error {
		args := make([]any, 0, 9*len(uses))
		for _, u := range uses {
			s := sums[u]
			extraRequests, extraTokens := int64(0), int64(0)
			if s.extra {
				extraRequests, extraTokens = s.requests, s.tokens
			}
			args = append(args, s.requests, s.tokens, extraRequests, extraTokens, u.day, u.day.Add(24*time.Hour), s.last, s.now, u.key)
		}
		_, err := tx.ExecContext(ctx, countUsesSQL[r.db.Dialect()](len(uses)), args...)
		return err
	}
	for _, day := range slices.SortedFunc(maps.Keys(days), time.Time.Compare) {
		if err := countUsesIn[r.db.Dialect()](days[day], write); err != nil {
			return err
		}
	}
	return nil
}
