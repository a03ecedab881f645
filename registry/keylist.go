package registry

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// GetAPIKey returns a key as it is now. A deleted key is returned too, with its DeletedAt set. It returns [ErrNotFound]
// if there is no such key.
func (r *Registry) GetAPIKey(ctx context.Context, id uuid.UUID) (*ent.APIKey, error) {
	key, err := r.client.APIKey.Get(ctx, id)
	return tied(r, asOf(key, r.now())), translate(ctx, fmt.Sprintf("get API key %s", id), err)
}

// FindAPIKey returns the live key of a provider that has this text, as it is now. It returns [ErrInvalidData] if the
// text cannot be a key, and [ErrNotFound] if the provider does not have the key.
func (r *Registry) FindAPIKey(ctx context.Context, providerID uuid.UUID, apiKey string) (*ent.APIKey, error) {
	op := fmt.Sprintf("find API key of provider %s", providerID)
	var f fault.List
	checkAPIKey(&f, apiKey)
	if err := f.Err(); err != nil {
		return nil, translate(ctx, op, err)
	}
	key, err := r.client.APIKey.Query().Where(
		apikey.ProviderID(providerID), apikey.KeyHash(hash(apiKey)), apikey.DeletedAtIsNil(),
	).Only(ctx)
	return tied(r, asOf(key, r.now())), translate(ctx, op, err)
}

// KeyFilter selects API keys. All conditions must hold; a zero condition is ignored.
type KeyFilter struct {
	ProviderID   uuid.UUID
	QuotaGroupID uuid.UUID
	Deleted      bool // select deleted keys instead of live ones

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last key of the page before; zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl KeyFilter) Next(last *ent.APIKey) (KeyFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

// ListAPIKeys returns a page of keys as they are now, in the order they were added. It returns [ErrInvalidData] if the
// limit is out of range, and [ErrNotFound] if the key that After names was purged.
func (r *Registry) ListAPIKeys(ctx context.Context, filter KeyFilter) ([]*ent.APIKey, error) {
	l := listing[uuid.UUID]{ascending(apikey.FieldID), filter.Limit, filter.After}
	c := l.client(r)
	page, err := list(ctx, r, "list API keys", nil, l, c.APIKey.Get,
		c.APIKey.Query().Where(matching[predicate.APIKey](filter)...))
	now := r.now()
	for _, key := range page {
		asOf(key, now)
	}
	return page, err
}

// requireRoom returns an error if a provider cannot have a key besides its others. Keys that expire do not count:
// another key has replaced them.
func requireRoom(ctx context.Context, tx *ent.Client, providerID, id uuid.UUID) error {
	live, err := tx.APIKey.Query().Where(
		apikey.ProviderID(providerID), apikey.IDNEQ(id), apikey.DeletedAtIsNil(), apikey.ExpiresAtIsNil(),
	).Count(ctx)
	if err == nil && live >= MaxKeysPerProvider {
		err = fmt.Errorf("%w: the provider has %d keys already, the most it may have: delete one first",
			ErrInvalidData, live)
	}
	return err
}

// RevealAPIKey returns a live API key itself, also of a disabled or degraded key. It unseals what the database stores;
// or else it returns the result of the function of [WithSecretResolver], if its SHA-256 is the row's. The secret of a
// keyless key is empty.
//
// Errors:
//
//   - [ErrNotFound]: there is no such live key
//   - [ErrNoSecret]: the key is stored nowhere, or the resolver has returned another key
//   - [ErrKeyring]: the key is sealed, and the keyring is missing or lacks a key
//   - [ErrCorrupt]: the sealed text was changed, or belongs to another key, provider or database
//   - the resolver's error
func (r *Registry) RevealAPIKey(ctx context.Context, id uuid.UUID) (Secret, error) {
	op := fmt.Sprintf("reveal API key %s", id)
	key, err := r.fresh.APIKey.Query().Where(apikey.ID(id), apikey.DeletedAtIsNil()).Only(ctx)
	if err != nil {
		return Secret{}, translate(ctx, op, err)
	}
	secret, err := r.reveal(ctx, key)
	return secret, translate(ctx, op, err)
}

func (r *Registry) reveal(ctx context.Context, key *ent.APIKey) (secret Secret, err error) {
	switch {
	case isKeyless(key):
		return Secret{}, nil
	case key.Sealed != nil:
		text, err := r.vault.unseal(ctx, r.fresh, key)
		if err != nil {
			return Secret{}, err
		}
		return secretOf(text), nil // it is bound to the hash, which need not be compared
	case r.vault.resolve == nil:
		return Secret{}, fmt.Errorf("%w: it was added to a registry without a keyring: open it WithKeyring, and"+
			" give the key again with UpdateAPIKey; or open it with WithSecretResolver", ErrNoSecret)
	}
	if secret, err = r.vault.resolve(ctx, tied(r, asOf(key, r.now()))); err != nil {
		return Secret{}, err
	}
	if !secret.is(key) {
		return Secret{}, fmt.Errorf("%w: the resolver has returned another key", ErrNoSecret)
	}
	return secret, nil
}
