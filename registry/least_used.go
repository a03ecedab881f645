package registry

import (
	"context"
	stdsql "database/sql"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/money"
)

// The SQL here and in packages commit and ledger is written by hand. Ent builds each statement anew at every call; that
// measurably slowed down the choice of a key, and the reads and writes of a batch.

// leastUsedKeySQL reads the index (provider_id, usage_count, last_used_at, id) in its order and stops at the first
// usable key.
var leastUsedKeySQL = "SELECT " + strings.Join(apikey.Columns, ", ") +
	" FROM api_keys WHERE provider_id = $1 AND deleted_at IS NULL AND NOT disabled" +
	" AND (degraded_until IS NULL OR degraded_until <= $2) AND (expires_at IS NULL OR expires_at > $2)" +
	" ORDER BY usage_count, last_used_at NULLS FIRST, id LIMIT 1"

// leastUsedKey returns the key for GetLeastUsedKey, or Ent's NotFoundError.
func (r *Registry) leastUsedKey(ctx context.Context, providerID uuid.UUID, now time.Time) (*ent.APIKey, error) {
	if r.blank == nil || r.blank.Load() == nil {
		key, err := leastUsed(r.fresh, providerID, now).First(ctx)
		if err == nil && r.blank != nil {
			r.blank.Store(blankOf(key))
		}
		return key, err
	}
	key := *r.blank.Load()
	return readLeastUsed(ctx, r.fresh, &key, providerID, now)
}

// blankOf returns a copy of a row with the zero value in every column.
func blankOf(key *ent.APIKey) *ent.APIKey {
	blank := *key
	for _, field := range reflect.ValueOf(&blank).Elem().Fields() {
		if field.CanSet() { // the fields that tie it to the client are not exported
			field.SetZero()
		}
	}
	return &blank
}

// leastUsed builds the query of leastUsedKeySQL with Ent. ByUsageCount would count rows of the edge "usage";
// ByUsageCountField orders by the column.
func leastUsed(client *ent.Client, providerID uuid.UUID, now time.Time) *ent.APIKeyQuery {
	return client.APIKey.Query().Where(
		apikey.ProviderID(providerID), apikey.DeletedAtIsNil(), apikey.Disabled(false),
		apikey.Or(apikey.DegradedUntilIsNil(), apikey.DegradedUntilLTE(now)),
		apikey.Or(apikey.ExpiresAtIsNil(), apikey.ExpiresAtGT(now)),
	).Order(apikey.ByUsageCountField(), apikey.ByLastUsedAt(sql.OrderNullsFirst()), apikey.ByID())
}

// readLeastUsed reads the key into a blank one.
func readLeastUsed(
	ctx context.Context, client *ent.Client, key *ent.APIKey, providerID uuid.UUID, now time.Time,
) (_ *ent.APIKey, err error) {
	rows, err := client.QueryContext(ctx, leastUsedKeySQL, providerID, now)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if !rows.Next() {
		return nil, errors.Join(rows.Err(), new(ent.NotFoundError))
	}
	return key, rows.Scan(cellsOf(key)...)
}

// cellsOf returns the destinations for scanning a key, in the order of apikey.Columns. Ent gives the fields the same
// order.
func cellsOf(key *ent.APIKey) []any {
	cells := make([]any, 0, len(apikey.Columns))
	for _, field := range reflect.ValueOf(key).Elem().Fields() {
		if field.CanSet() && len(cells) < len(apikey.Columns) { // not what ties it to the client, nor the edges
			cells = append(cells, cellOf(field))
		}
	}
	return cells
}

// cellOf returns what a field is scanned into as Ent does it: NULL becomes the zero value.
func cellOf(field reflect.Value) any {
	switch to := field.Addr().Interface().(type) {
	case *string:
		return orZero[string]{to}
	case *bool:
		return orZero[bool]{to}
	case *int:
		return orZero[int]{to}
	case *int64:
		return orZero[int64]{to}
	case *money.USD:
		return orZero[int64]{(*int64)(to)}
	case *time.Time:
		return orZero[time.Time]{to}
	case *json.RawMessage:
		return (*[]byte)(to)
	case *[]string:
		return listCell{to}
	default: // it takes NULL by itself
		return to
	}
}

// orZero scans a value; NULL is zero.
type orZero[T any] struct{ to *T }

// Scan implements database/sql's Scanner.
func (c orZero[T]) Scan(value any) error {
	if v, ok := value.(T); ok { // the rest allocates
		*c.to = v
		return nil
	}
	var v stdsql.Null[T]
	err := v.Scan(value)
	*c.to = v.V
	return err
}

// listCell scans a list in JSON.
type listCell struct{ to *[]string }

// Scan implements database/sql's Scanner.
func (c listCell) Scan(value any) error {
	var text []byte
	if err := (orZero[[]byte]{&text}).Scan(value); err != nil {
		return err
	}
	*c.to = nil
	return pool.Decode("list of a key", text, c.to)
}

// GetLeastUsedKey returns the key of a provider that has served the fewest requests, as it is now. If several have, it
// returns the one that was used longest ago; a key that was never used comes first.
//
// It passes over keys that are disabled or expired, and over degraded keys until their degraded_until. It ignores
// limits and reserves nothing: until usage is recorded, the next caller gets the same key. To keep to limits, use
// [Registry.AcquireKey].
//
// It returns [ErrNoKeyAvailable], as a [*NoKeyError] that gives the reason for each key; also for an unknown provider,
// which has no keys.
func (r *Registry) GetLeastUsedKey(ctx context.Context, providerID uuid.UUID) (*ent.APIKey, error) {
	now := r.now()
	key, err := r.leastUsedKey(ctx, providerID, now)
	for ent.IsNotFound(err) { // until both look at the same keys
		key, err = r.explain(ctx, providerID, now)
	}
	if err != nil {
		return nil, translate(ctx, "get least used key", r.sayProvider(ctx, err))
	}
	return tied(r, asOf(key, now)), nil
}
