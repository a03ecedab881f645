package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
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
	// blank is a row that Ent made, never changed, without its values. Copies of it are tied to the client as Ent's rows
	// are, so that a caller can walk on from them, and hold nothing of another key.
	blank atomic.Pointer[ent.APIKey]
}

// leastUsedKeySQL reads the index (provider_id, usage_count, last_used_at, id) in its order and
// stops at the first usable key.
var leastUsedKeySQL = "SELECT " + strings.Join(apikey.Columns, ", ") +
	" FROM api_keys WHERE provider_id = $1 AND deleted_at IS NULL AND NOT disabled" +
	" AND (degraded_until IS NULL OR degraded_until <= $2) AND (expires_at IS NULL OR expires_at > $2)" +
	" ORDER BY usage_count, last_used_at NULLS FIRST, id LIMIT 1"

// leastUsedKey returns the key that GetLeastUsedKey is to return, or Ent's NotFoundError.
func (r *Registry) leastUsedKey(ctx context.Context, providerID uuid.UUID, now time.Time) (*ent.APIKey, error) {
	if r.hot == nil || r.hot.blank.Load() == nil {
		key, err := leastUsed(r.fresh, providerID, now).First(ctx)
		if err == nil && r.hot != nil {
			r.hot.blank.Store(blankOf(key))
		}
		return key, err
	}
	return r.hot.leastUsedKey(ctx, r.fresh, providerID, now)
}

// blankOf returns a copy of a row with the zero value in every column.
func blankOf(key *ent.APIKey) *ent.APIKey {
	blank := *key
	for _, field := range reflect.ValueOf(&blank).Elem().Fields() {
		if field.CanSet() { // what ties it to the client is not exported
			field.SetZero()
		}
	}
	return &blank
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
	key := *h.blank.Load()
	if err := rows.Scan(cellsOf(&key)...); err != nil {
		return nil, err
	}
	return &key, nil
}

// cellsOf returns what the columns of a key are scanned into, in the order of apikey.Columns: Ent gives the fields the same
// order.
func cellsOf(key *ent.APIKey) []any {
	cells := make([]any, 0, len(apikey.Columns))
	for _, field := range reflect.ValueOf(key).Elem().Fields() {
		switch {
		case !field.CanSet() || len(cells) == len(apikey.Columns): // what ties it to the client, and its edges
		case field.Kind() == reflect.Slice:
			cells = append(cells, sliceCell{field})
		default:
			cells = append(cells, field.Addr().Interface())
		}
	}
	return cells
}

// sliceCell is scanned into a slice: bytes as they are, anything else from JSON.
type sliceCell struct{ reflect.Value }

// Scan implements database/sql's Scanner.
func (c sliceCell) Scan(value any) error {
	var text []byte
	switch v := value.(type) {
	case nil:
		return nil
	case string:
		text = []byte(v)
	case []byte:
		text = bytes.Clone(v)
	default:
		return fmt.Errorf("%T is no text", value)
	}
	if c.Type().Elem().Kind() == reflect.Uint8 {
		c.SetBytes(text)
		return nil
	}
	if err := json.Unmarshal(text, c.Addr().Interface()); err != nil {
		return fmt.Errorf("%w: list of a key: %w", ErrCorrupt, err)
	}
	return nil
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
