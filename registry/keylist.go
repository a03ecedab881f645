package registry

import (
	"context"
	"fmt"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// GetAPIKey returns a key as it is now, live or deleted, which deleted_at tells. It returns [ErrNotFound].
func (r *Registry) GetAPIKey(ctx context.Context, id uuid.UUID) (*ent.APIKey, error) {
	key, err := r.client.APIKey.Get(ctx, id)
	return tied(r, asOf(key, r.now())), translate(ctx, fmt.Sprintf("get API key %s", id), err)
}

// FindAPIKey returns the live key of a provider with this text, as it is now. It returns
// [ErrInvalidData] for a text that cannot be a key, or [ErrNotFound].
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

// KeyFilter selects API keys. Conditions that are zero are none; the others must all hold.
type KeyFilter struct {
	ProviderID   uuid.UUID
	QuotaGroupID uuid.UUID
	Deleted      bool // the deleted keys instead of the live ones

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last key of the page before; zero: from the first
}

// Next returns the filter of the page after the one that ends with last, and how many rows a full page has.
func (fl KeyFilter) Next(last *ent.APIKey) (KeyFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

// ListAPIKeys returns a page of the keys that the filter selects as they are now, in the order they were added. It
// returns [ErrInvalidData] for a limit that is out of range, or [ErrNotFound] for an After that was purged.
func (r *Registry) ListAPIKeys(ctx context.Context, filter KeyFilter) ([]*ent.APIKey, error) {
	page, err := listing[*ent.APIKey, uuid.UUID]{
		order: ascending(apikey.FieldID),
		get: func(ctx context.Context, c *ent.Client, id uuid.UUID) (*ent.APIKey, error) {
			return c.APIKey.Get(ctx, id)
		},
		place: func(k *ent.APIKey) []any { return []any{k.ID} },
		all: func(ctx context.Context, c *ent.Client, page func(*sql.Selector)) ([]*ent.APIKey, error) {
			query := c.APIKey.Query().Where(filter.predicates()...)
			query.Modify(page)
			return query.All(ctx)
		},
	}.page(ctx, r, "list API keys", nil, filter.Limit, filter.After)
	now := r.now()
	for _, key := range page {
		asOf(key, now)
	}
	return page, err
}

func (fl KeyFilter) predicates() []predicate.APIKey {
	live := apikey.DeletedAtIsNil()
	if fl.Deleted {
		live = apikey.DeletedAtNotNil()
	}
	return append(matching[predicate.APIKey]("APIKey", fl), live)
}

// requireRoom returns an error when a provider may have no further key. One that expires is on its way out: another one
// follows it.
func requireRoom(ctx context.Context, tx *ent.Client, providerID uuid.UUID) error {
	live, err := tx.APIKey.Query().
		Where(apikey.ProviderID(providerID), apikey.DeletedAtIsNil(), apikey.ExpiresAtIsNil()).Count(ctx)
	if err == nil && live >= MaxKeysPerProvider {
		err = fmt.Errorf("%w: the provider has %d keys already, which is the most: delete one first",
			ErrInvalidData, live)
	}
	return err
}

// RevealAPIKey returns a live API key itself, disabled and degraded ones too: as it is sealed in the database, or else
// what the function of [WithSecretResolver] returns, if that has the SHA-256 of the row. That of a keyless key is
// empty.
//
// It returns [ErrNotFound]; [ErrNoSecret] when the key is kept nowhere, or what was resolved is another one;
// [ErrKeyring] when it is sealed and the keyring is missing or lacks its key; [ErrCorrupt] when what is sealed was
// changed, or belongs to another key, provider or database; or the error of the function.
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
		return secretOf(text), nil // the hash is a part of what it is bound to
	case r.vault.resolve == nil:
		return Secret{}, fmt.Errorf("%w: it was added to a registry without a keyring: open it WithKeyring, and"+
			" give the key again"+
			" with UpdateAPIKey; or open it with WithSecretResolver", ErrNoSecret)
	}
	if secret, err = r.vault.resolve(ctx, tied(r, asOf(key, r.now()))); err != nil {
		return Secret{}, err
	}
	if !secret.is(key) {
		return Secret{}, fmt.Errorf("%w: what was resolved has another hash", ErrNoSecret)
	}
	return secret, nil
}
