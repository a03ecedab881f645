package registry

import (
	"bytes"
	"context"
	stdsql "database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
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
	cells, fields := make([]any, 0, len(apikey.Columns)), make([]fieldCell, len(apikey.Columns))
	for _, field := range reflect.ValueOf(key).Elem().Fields() {
		if !field.CanSet() || len(cells) == len(apikey.Columns) { // the fields that tie it to the client, and the edges
			continue
		}
		_, scans := field.Addr().Interface().(stdsql.Scanner)
		if scans || field.Kind() == reflect.Pointer { // they take NULL by themselves
			cells = append(cells, field.Addr().Interface())
			continue
		}
		cell := &fields[len(cells)]
		cell.Value = field
		cells = append(cells, cell)
	}
	return cells
}

// fieldCell scans a value into a field as Ent does: NULL becomes the zero value, bytes are copied, and a field of any
// other type is decoded from JSON.
type fieldCell struct{ reflect.Value }

// Scan implements database/sql's Scanner.
func (c *fieldCell) Scan(value any) error {
	switch {
	case value == nil:
		c.SetZero()
		return nil
	case c.Kind() == reflect.String:
		return scanAs(value, c.SetString)
	case c.Kind() == reflect.Bool:
		return scanAs(value, c.SetBool)
	case c.CanInt():
		return scanAs(value, c.SetInt)
	case c.CanUint():
		return scanAs(value, c.SetUint)
	case c.CanFloat():
		return scanAs(value, c.SetFloat)
	case c.Type() == reflect.TypeFor[time.Time]():
		return scanAs(value, func(v time.Time) { c.Set(reflect.ValueOf(v)) })
	}
	text, err := scanned[[]byte](value)
	switch {
	case err != nil:
		return err
	case c.Kind() == reflect.Slice && c.Type().Elem().Kind() == reflect.Uint8:
		c.SetBytes(bytes.Clone(text)) // the driver owns them
		return nil
	}
	if err := json.Unmarshal(text, c.Addr().Interface()); err != nil {
		return fmt.Errorf("%w: list of a key: %w", ErrCorrupt, err)
	}
	return nil
}

// scanAs scans a value that is not NULL and passes it to set.
func scanAs[T any](value any, set func(T)) error {
	v, err := scanned[T](value)
	if err == nil {
		set(v)
	}
	return err
}

// scanned returns a value that is not NULL as a T.
func scanned[T any](value any) (T, error) {
	if v, ok := value.(T); ok { // the rest allocates
		return v, nil
	}
	var v stdsql.Null[T]
	err := v.Scan(value)
	return v.V, err
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
	for ent.IsNotFound(err) {
		key, err = r.explain(ctx, providerID, now)
	}
	if err != nil {
		return nil, translate(ctx, "get least used key", r.sayProvider(ctx, err))
	}
	return tied(r, asOf(key, now)), nil
}
