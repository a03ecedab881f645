package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
)

// Here, in ledger.go, basis.go and poolrows.go is the SQL that is written by hand, because Ent, which builds a statement anew for
// each call, was measurably in the way: the choice of a key, and what a batch of usage and leases reads and writes.

// hot is what leastUsedKey needs.
type hot struct {
	// key is a copy of a row that Ent made, never changed. Rows copied from it are tied to the client as Ent's are, so that
	// a caller can walk on from them.
	key atomic.Pointer[ent.APIKey]
}

// leastUsedKeySQL reads the index (provider_id, usage_count, last_used_at, id) in its order and
// stops at the first usable key.
const leastUsedKeySQL = "SELECT id, created_at, updated_at, deleted_at, provider_id, key_hash, key_prefix, label," +
	" usage_count, token_count, extra_requests, extra_tokens, disabled, degraded, degraded_until, degraded_at, degraded_reason, degraded_by," +
	" failures, counted_class, counted_at, failure_class, failed_at, succeeded_at, pass, weight, priority, allowed_models, denied_models, quota_group_id," +
	" requests_per_minute, tokens_per_minute, requests_per_day, tokens_per_day, concurrency, cost_per_day, minute, requests_this_minute," +
	" tokens_this_minute, requests_today, tokens_today, cost_today, last_reset, observed, last_used_at, expires_at, sealed, data_key_id" +
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
	k.CountedAt, k.DegradedAt, k.FailedAt, k.SucceededAt, k.QuotaGroupID, k.Minute, k.Observed, k.AllowedModels, k.DeniedModels = nil, nil, nil, nil, nil, nil, nil, nil, nil
	var allowed, denied []byte
	err = rows.Scan(&k.ID, &k.CreatedAt, &k.UpdatedAt, &k.DeletedAt, &k.ProviderID, &k.KeyHash, &k.KeyPrefix, &k.Label,
		&k.UsageCount, &k.TokenCount, &k.ExtraRequests, &k.ExtraTokens, &k.Disabled, &k.Degraded, &k.DegradedUntil, &k.DegradedAt, &k.DegradedReason, &k.DegradedBy,
		&k.Failures, &k.CountedClass, &k.CountedAt, &k.FailureClass, &k.FailedAt, &k.SucceededAt, &k.Pass, &k.Weight, &k.Priority, &allowed, &denied, &k.QuotaGroupID,
		&k.RequestsPerMinute, &k.TokensPerMinute, &k.RequestsPerDay, &k.TokensPerDay, &k.Concurrency, &k.CostPerDay, &k.Minute, &k.RequestsThisMinute,
		&k.TokensThisMinute, &k.RequestsToday, &k.TokensToday, &k.CostToday, &k.LastReset, (*[]byte)(&k.Observed), &k.LastUsedAt, &k.ExpiresAt,
		&k.Sealed, &k.DataKeyID)
	if err != nil {
		return nil, err
	}
	return &k, errors.Join(readNames(allowed, &k.AllowedModels), readNames(denied, &k.DeniedModels))
}

// readNames reads a list of models.
func readNames(text []byte, to *[]string) error {
	if len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("%w: models of a key: %w", ErrCorrupt, err)
	}
	return nil
}
