package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/datakey"
	"github.com/jeffersonwarrior/modelscan/internal/seal"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// vault seals and unseals API keys.
type vault struct {
	ring    Keyring // nil: there is no keyring
	resolve func(ctx context.Context, key *ent.APIKey) (Secret, error)

	installation atomic.Pointer[uuid.UUID] // the id of the database
	keys         sync.Map                  // unwrapped data keys, by their ids
}

// load unwraps all data keys. It returns false if the database has no data key.
func (v *vault) load(ctx context.Context, client *ent.Client) (bool, error) {
	row, err := client.Installation.Query().Only(ctx)
	if ent.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	v.installation.Store(&row.ID)
	rows, err := client.DataKey.Query().All(ctx)
	if err != nil {
		return false, err
	}
	for _, row := range rows {
		if _, err := v.unwrap(ctx, row); err != nil {
			return false, err
		}
	}
	return len(rows) > 0, nil
}

// binding returns what data keys are bound to.
func (v *vault) binding() seal.Binding {
	id := value(v.installation.Load())
	return seal.Bind([]byte("modelscan/database"), id[:])
}

// bindingOf returns what a sealed API key is bound to.
func (v *vault) bindingOf(key *ent.APIKey) seal.Binding {
	id := value(v.installation.Load())
	return seal.Bind([]byte("modelscan/api key"), id[:], key.ProviderID[:], key.ID[:], []byte(key.KeyHash))
}

func (v *vault) unwrap(ctx context.Context, row *ent.DataKey) (*seal.DataKey, error) {
	key, err := seal.UnwrapDataKey(ctx, row.ID, v.ring, row.WrappedBy, row.Wrapped, v.binding())
	if err != nil {
		return nil, ofKeyring(fmt.Errorf("data key %s: %w", row.ID, err))
	}
	v.keys.Store(row.ID, key)
	return key, nil
}

// dataKey returns a data key. It reads one that another process has made since.
func (v *vault) dataKey(ctx context.Context, client *ent.Client, id uuid.UUID) (*seal.DataKey, error) {
	if key, ok := v.keys.Load(id); ok {
		return key.(*seal.DataKey), nil
	}
	row, err := client.DataKey.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return v.unwrap(ctx, row)
}

// newDataKey makes a data key, which seals from now on: it is the newest, even if the clock went back. The vault
// remembers it only when it reads it again, because the transaction may be undone.
func (v *vault) newDataKey(ctx context.Context, tx *ent.Client, now time.Time) (uuid.UUID, error) {
	last, err := newestDataKey(ctx, tx)
	switch {
	case err == nil:
		now = utc.Max(now, last.CreatedAt.Add(time.Microsecond))
	case !ent.IsNotFound(err):
		return uuid.Nil, err
	}
	id := datakey.DefaultID()
	_, by, wrapped, err := seal.NewDataKey(ctx, id, v.ring, v.binding())
	if err != nil {
		return id, ofKeyring(err)
	}
	return id, tx.DataKey.Create().SetID(id).SetWrappedBy(by).SetWrapped(wrapped).SetCreatedAt(now).Exec(ctx)
}

// newestDataKey returns the data key that seals, or Ent's NotFoundError.
func newestDataKey(ctx context.Context, client *ent.Client) (*ent.DataKey, error) {
	return client.DataKey.Query().Order(datakey.ByCreatedAt(sql.OrderDesc())).First(ctx)
}

// ofKeyring makes errors of a keyring match ErrKeyring.
func ofKeyring(err error) error {
	if errors.Is(err, ErrKeyring) {
		return err
	}
	if errors.Is(err, seal.ErrKey) || errors.Is(err, seal.ErrAuthentic) || errors.Is(err, seal.ErrInvalid) {
		return fmt.Errorf("%w: %w", ErrKeyring, err)
	}
	return err
}

// sealKey seals the text of a key for the row that a mutation writes, if this database keeps API keys. Id, provider and
// hash of the key must be set.
func (v *vault) sealKey(
	ctx context.Context, tx *ent.Client, key *ent.APIKey, text string, m *ent.APIKeyMutation,
) error {
	newest, err := newestDataKey(ctx, tx)
	switch {
	case ent.IsNotFound(err) && v.ring == nil:
		return nil
	case err != nil:
		return err
	case v.ring == nil:
		return fmt.Errorf("%w: API keys of this database are sealed: open it WithKeyring", ErrKeyring)
	}
	dataKey, err := v.dataKey(ctx, tx, newest.ID)
	if err != nil {
		return err
	}
	m.SetSealed(dataKey.Seal([]byte(text), v.bindingOf(key)))
	m.SetDataKeyID(newest.ID)
	return nil
}

// unseal returns what is sealed in a row. It returns [ErrCorrupt] if it was changed or belongs to another row.
func (v *vault) unseal(ctx context.Context, client *ent.Client, key *ent.APIKey) ([]byte, error) {
	if v.ring == nil {
		return nil, fmt.Errorf("%w: the API key is sealed: open the registry WithKeyring", ErrKeyring)
	}
	id, err := seal.KeyID(key.Sealed)
	if err == nil && id != *key.DataKeyID {
		err = fmt.Errorf("sealed by data key %s, not %s", id, *key.DataKeyID)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	dataKey, err := v.dataKey(ctx, client, id)
	if ent.IsNotFound(err) { // a rotation has sealed the key anew since it was read, and has removed the data key
		now, err := client.APIKey.Get(ctx, key.ID)
		if err != nil {
			return nil, err
		}
		if value(now.DataKeyID) == id {
			return nil, fmt.Errorf("%w: data key %s is missing", ErrCorrupt, id)
		}
		return v.unseal(ctx, client, now)
	}
	if err != nil {
		return nil, err
	}
	text, err := dataKey.Open(key.Sealed, v.bindingOf(key))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return text, nil
}
