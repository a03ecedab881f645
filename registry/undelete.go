package registry

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
)

// UndeleteProvider takes DeleteProvider back and returns the provider, with the models and keys that were deleted with
// it, at the same instant. Those deleted before stay deleted. A live provider is left as it is.
//
// It is one transaction, in which others wait to write: about 0.7 s for a provider with 5,000 models. It returns
// [ErrConflict], changing nothing, if another live provider has the name, and [ErrNotFound] if there is no such
// provider.
func (r *Registry) UndeleteProvider(ctx context.Context, id uuid.UUID) (*ent.Provider, error) {
	op := fmt.Sprintf("undelete provider %s", id)
	return change(ctx, r.writeAlone, op, nil, func(tx *ent.Client) (*ent.Provider, error) {
		if err := r.holdPools(ctx, tx, commit.PoolOf, id); err != nil {
			return nil, err
		}
		old, err := tx.Provider.Get(ctx, id)
		if err != nil || old.DeletedAt == nil {
			return old, err
		}
		p, err := save(ctx, tx, ActionUndelete, old, old.Update().ClearDeletedAt())
		if err != nil {
			return nil, taken(err, "another provider is called %q now: rename that one first", old.Name)
		}
		return p, undeleteWith(ctx, tx, id, *old.DeletedAt)
	})
}

// undeleteWith brings back the models and keys that DeleteProvider deleted.
func undeleteWith(ctx context.Context, tx *ent.Client, id uuid.UUID, deleted time.Time) error {
	models, err := tx.Model.Query().Where(model.ProviderID(id), model.DeletedAt(deleted)).Order(model.ByID()).All(ctx)
	if err != nil {
		return err
	}
	var ids []uuid.UUID
	models = lastOfEach(models, func(m *ent.Model) string { return m.ModelID })
	noteRows(tx, ActionUndelete, models, func(m *ent.Model) {
		m.DeletedAt, m.UpdatedAt, ids = nil, timeOf(tx), append(ids, m.ID)
	})
	for some := range slices.Chunk(ids, chunk) {
		if err := tx.Model.Update().Where(model.IDIn(some...)).ClearDeletedAt().Exec(ctx); err != nil {
			return err
		}
	}
	keys, err := tx.APIKey.Query().Where(apikey.ProviderID(id), apikey.DeletedAt(deleted)).Order(apikey.ByID()).All(ctx)
	if err != nil {
		return err
	}
	ids = nil
	keys = lastOfEach(keys, func(k *ent.APIKey) string { return k.KeyHash })
	noteRows(tx, ActionUndelete, keys, func(k *ent.APIKey) {
		k.DeletedAt, k.UpdatedAt, ids = nil, timeOf(tx), append(ids, k.ID)
	})
	for some := range slices.Chunk(ids, chunk) {
		if err := tx.APIKey.Update().Where(apikey.IDIn(some...)).ClearDeletedAt().Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// lastOfEach returns the last row of each name. If several were deleted at one instant, the last one was live until
// then.
func lastOfEach[T any](rows []*T, name func(*T) string) []*T {
	last := map[string]*T{}
	for _, row := range rows {
		last[name(row)] = row
	}
	return slices.DeleteFunc(rows, func(row *T) bool { return row != last[name(row)] })
}

// UndeleteModel takes DeleteModel back and returns the model. A live model is left as it is.
//
// Errors:
//
//   - [ErrConflict]: another live model of the provider has its model_id
//   - [ErrForeignKey]: the provider is deleted
//   - [ErrNotFound]: there is no such model
func (r *Registry) UndeleteModel(ctx context.Context, id uuid.UUID) (*ent.Model, error) {
	op := fmt.Sprintf("undelete model %s", id)
	return change(ctx, r.writeAlone, op, nil, func(tx *ent.Client) (*ent.Model, error) {
		old, err := tx.Model.Get(ctx, id)
		if err != nil || old.DeletedAt == nil {
			return old, err
		}
		if err := requireUndeleted(ctx, tx, old.ProviderID); err != nil {
			return nil, err
		}
		m, err := save(ctx, tx, ActionUndelete, old, old.Update().ClearDeletedAt())
		return m, taken(err, "another model of the provider is called %q now: delete that one first", old.ModelID)
	})
}

// UndeleteAPIKey takes DeleteAPIKey back and returns the key as it is now: disabled, degraded or expired as it was, and
// in its quota group if that still exists. To end a degradation, use [Registry.RestoreKey]. A live key is left as it
// is.
//
// Errors:
//
//   - [ErrConflict]: the key was added to the provider again
//   - [ErrInvalidData]: the provider has [MaxKeysPerProvider] other keys
//   - [ErrForeignKey]: the provider is deleted
//   - [ErrNotFound]: there is no such key
func (r *Registry) UndeleteAPIKey(ctx context.Context, id uuid.UUID) (*ent.APIKey, error) {
	var now time.Time
	op := fmt.Sprintf("undelete API key %s", id)
	key, err := change(ctx, r.writeAlone, op, nil, func(tx *ent.Client) (*ent.APIKey, error) {
		old, err := r.lockedKey(ctx, tx, id)
		now = timeOf(tx)
		if err != nil || old.DeletedAt == nil {
			return old, err
		}
		if err := requireUndeleted(ctx, tx, old.ProviderID); err != nil {
			return nil, err
		}
		key, err := save(ctx, tx, ActionUndelete, old, old.Update().ClearDeletedAt())
		if err != nil {
			return nil, taken(err, "the provider has the key again, in another row: delete that one first")
		}
		if key.ExpiresAt == nil { // a key that expires does not count
			err = requireRoom(ctx, tx, key.ProviderID, id)
		}
		return key, err
	})
	return asOf(key, now), err
}

// requireUndeleted returns ErrForeignKey if the provider of a row to undelete is deleted itself.
func requireUndeleted(ctx context.Context, tx *ent.Client, providerID uuid.UUID) error {
	if err := requireProvider(ctx, tx, providerID); err != nil {
		return fmt.Errorf("%w: undelete the provider first", err)
	}
	return nil
}
