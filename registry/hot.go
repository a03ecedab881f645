package registry

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
)

// hot is what the queries need that are written by hand because Ent, which builds the statement
// anew for each call, was measurably in the way. There is one of them: leastUsedKey.
type hot struct {
	// key is a copy of a row that Ent made, never changed. Rows copied from it are tied to the client as Ent's are, so that
	// a caller can walk on from them.
	key atomic.Pointer[ent.APIKey]
}

// leastUsedKeySQL reads the index (provider_id, usage_count, last_used_at, id) in its order and
// stops at the first usable key.
const leastUsedKeySQL = "SELECT id, created_at, updated_at, deleted_at, provider_id, key_hash, key_prefix, label," +
	" usage_count, token_count, requests_today, tokens_today, last_reset, disabled," +
	" degraded, degraded_until, degraded_reason, last_used_at" +
	" FROM api_keys WHERE provider_id = $1 AND deleted_at IS NULL AND NOT disabled" +
	" AND (degraded_until IS NULL OR degraded_until <= $2)" +
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
	k.DeletedAt, k.DegradedUntil, k.LastUsedAt = nil, nil, nil
	err = rows.Scan(&k.ID, &k.CreatedAt, &k.UpdatedAt, &k.DeletedAt, &k.ProviderID, &k.KeyHash, &k.KeyPrefix, &k.Label,
		&k.UsageCount, &k.TokenCount, &k.RequestsToday, &k.TokensToday, &k.LastReset, &k.Disabled,
		&k.Degraded, &k.DegradedUntil, &k.DegradedReason, &k.LastUsedAt)
	if err != nil {
		return nil, err
	}
	return &k, nil
}
