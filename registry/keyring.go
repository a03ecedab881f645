package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/datakey"
	"github.com/jeffersonwarrior/modelscan/internal/seal"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Keyring holds the owner's keys, outside of the database. They wrap the data keys, by which API keys are sealed; the
// database keeps a data key wrapped, with the id of the key that wrapped it. [NewKeyring] and [ParseKeyring] return keyrings
// whose keys are in memory. An adapter for a key management service implements Keyring by two calls of the service, which
// wraps and unwraps there and never gives its key away:
//
//	func (k adapter) Wrap(ctx context.Context, id string, dataKey []byte, to registry.KeyringBinding) ([]byte, error) {
//		return k.service.Encrypt(ctx, id, dataKey, to) // to: additional authenticated data, or an encryption context
//	}
//
// A keyring is used by [Open], by RotateKeyring, and when another process has made a data key, which is rare: data keys
// stay in memory once they are unwrapped. It must be safe for concurrent use. Its methods return [ErrKeyring], perhaps
// wrapped, where they say so; the operation that called returns any other error, such as one of the network, as it is.
type Keyring interface {
	// CurrentID names the key that wraps from now on, in 1 to 128 characters. It is the same until the registry is
	// opened anew with another keyring.
	CurrentID() string
	// Wrap returns a data key of 32 bytes, wrapped by the key of that id, in up to 65,536 bytes. It authenticates the
	// binding together with it, and does not keep dataKey. It returns [ErrKeyring] for an unknown id.
	Wrap(ctx context.Context, id string, dataKey []byte, to KeyringBinding) (wrapped []byte, err error)
	// Unwrap returns the data key that Wrap was given with the same id and binding, in a slice of the caller's own: the
	// registry overwrites it with zeros. It returns [ErrKeyring] for an unknown id, and for what that key did not wrap,
	// or wrapped with another binding.
	Unwrap(ctx context.Context, id string, wrapped []byte, to KeyringBinding) (dataKey []byte, err error)
}

// KeyringBinding names what a wrapped data key belongs to: its database and its row. A keyring authenticates it, so that a
// data key that was moved elsewhere does not unwrap, and need not look into it: it is some hundred bytes, not text, and
// the same at each call for the same data key and id. A service that takes text only can be given its hash or its base64.
type KeyringBinding = []byte

var _ seal.Keyring = Keyring(nil)

// memoryKeyring is the keyring of [NewKeyring].
type memoryKeyring struct{ *seal.StaticKeyring }

// Wrap implements [Keyring].
func (k memoryKeyring) Wrap(ctx context.Context, id string, dataKey []byte, to KeyringBinding) ([]byte, error) {
	wrapped, err := k.StaticKeyring.Wrap(ctx, id, dataKey, to)
	return wrapped, ofKeyring(err)
}

// Unwrap implements [Keyring].
func (k memoryKeyring) Unwrap(ctx context.Context, id string, wrapped []byte, to KeyringBinding) ([]byte, error) {
	dataKey, err := k.StaticKeyring.Unwrap(ctx, id, wrapped, to)
	return dataKey, ofKeyring(err)
}

// KeyringKeySize is the length of a key of [NewKeyring], in bytes.
const KeyringKeySize = seal.KeySize

// NewKeyring returns a keyring of keys by their ids, of which current wraps from now on and the others still unwrap. A key is
// [KeyringKeySize] random bytes, such as those of `openssl rand 32`, and not a passphrase; an id has up to 128
// characters. It returns [ErrInvalidData].
func NewKeyring(current string, keys map[string][]byte) (Keyring, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf("new keyring: %w: there is no key in it: is the file or the variable of the environment empty?", ErrInvalidData)
	}
	ring, err := seal.NewStaticKeyring(current, keys)
	if err != nil {
		return nil, fmt.Errorf("new keyring: %w: %w", ErrInvalidData, err)
	}
	return memoryKeyring{ring}, nil
}

// ParseKeyring returns the keyring that a text says, such as the content of a file or of a variable of the environment: lines
// of an id, "=" and the key in base64, of which the first is current. Empty lines and those that begin with # say nothing. It
// returns [ErrInvalidData].
func ParseKeyring(text string) (Keyring, error) {
	keys, current := map[string][]byte{}, ""
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		id, encoded, found := strings.Cut(line, "=")
		id = strings.TrimSpace(id)
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
		if !found || err != nil { // the error of base64 would quote the key
			return nil, fmt.Errorf("parse keyring: %w: line %d is not an id, = and a key in base64", ErrInvalidData, n+1)
		}
		if _, twice := keys[id]; twice {
			return nil, fmt.Errorf("parse keyring: %w: line %d has an id that came before", ErrInvalidData, n+1)
		}
		keys[id] = key
		if current == "" {
			current = id
		}
	}
	return NewKeyring(current, keys)
}

// WithKeyring keeps API keys, sealed, so that [Registry.RevealAPIKey] can give them back: by AES-256-GCM, with a data
// key that the keyring has wrapped, and bound to their row. Without it only hashes and prefixes are kept.
//
// The first Open of a database with a keyring decides: from then on keys are added to it only with one, and [Open] returns
// [ErrKeyring] if the keyring is not that of the database. All processes need the same one. What is sealed is safe from
// who has the file, or a backup, and not the keyring; not from who can read the memory of a process, or has both.
func WithKeyring(ring Keyring) Option {
	return func(c *config) error {
		if ring == nil {
			return errors.New("WithKeyring: the keyring is nil")
		}
		c.keyring = ring
		return nil
	}
}

// ResolveSecret is for API keys that are kept elsewhere, in a vault, say, or a file: [Registry.RevealAPIKey] calls resolve
// for those that are not sealed in the database. It is called with the row, of which id, provider_id, key_hash and label
// tell which key is meant, and must be safe for concurrent use.
func ResolveSecret(resolve func(ctx context.Context, key *ent.APIKey) (Secret, error)) Option {
	return func(c *config) error {
		if resolve == nil {
			return errors.New("ResolveSecret: the function is nil")
		}
		c.resolve = resolve
		return nil
	}
}

// vault seals API keys and gives them back.
type vault struct {
	ring    Keyring // nil: none
	resolve func(ctx context.Context, key *ent.APIKey) (Secret, error)

	mu           sync.Mutex
	installation uuid.UUID
	keys         map[uuid.UUID]*seal.DataKey // that have been unwrapped
}

// openVault makes the database's identity and its first data key, if there is none, and unwraps all of them.
func (r *Registry) openVault(ctx context.Context) error {
	if r.vault.ring == nil {
		return nil
	}
	open, err := r.vault.load(ctx, r.fresh)
	if err != nil || open {
		return translate(ctx, "open keyring", err)
	}
	return r.writeAlone(ctx, "open keyring", func(tx *ent.Client) error {
		if open, err := r.vault.load(ctx, tx); err != nil || open { // another process was faster
			return err
		}
		now := r.now()
		row, err := tx.Installation.Create().SetNumber(1).SetCreatedAt(now).Save(ctx)
		if err != nil {
			return err
		}
		r.vault.installedAs(row.ID)
		_, err = r.newDataKey(ctx, tx)
		return err
	})
}

// load unwraps the data keys there are. It returns false if there is none.
func (v *vault) load(ctx context.Context, client *ent.Client) (bool, error) {
	row, err := client.Installation.Query().Only(ctx)
	if ent.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	v.installedAs(row.ID)
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

func (v *vault) installedAs(id uuid.UUID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.installation = id
}

// binding is what data keys are bound to.
func (v *vault) binding() seal.Binding {
	v.mu.Lock()
	defer v.mu.Unlock()
	return seal.Bind([]byte("modelscan/database"), v.installation[:])
}

// bindingOf is what a sealed API key is bound to.
func (v *vault) bindingOf(key *ent.APIKey) seal.Binding {
	v.mu.Lock()
	defer v.mu.Unlock()
	return seal.Bind([]byte("modelscan/api key"), v.installation[:], key.ProviderID[:], key.ID[:], []byte(key.KeyHash))
}

func (v *vault) unwrap(ctx context.Context, row *ent.DataKey) (*seal.DataKey, error) {
	key, err := seal.UnwrapDataKey(ctx, row.ID, v.ring, row.WrappedBy, row.Wrapped, v.binding())
	if err != nil {
		return nil, ofKeyring(fmt.Errorf("data key %s: %w", row.ID, err))
	}
	v.learn(key)
	return key, nil
}

func (v *vault) learn(key *seal.DataKey) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.keys == nil {
		v.keys = map[uuid.UUID]*seal.DataKey{}
	}
	v.keys[key.ID()] = key
}

// dataKey returns a data key, which another process may have made since the last one was read.
func (v *vault) dataKey(ctx context.Context, client *ent.Client, id uuid.UUID) (*seal.DataKey, error) {
	v.mu.Lock()
	key := v.keys[id]
	v.mu.Unlock()
	if key != nil {
		return key, nil
	}
	row, err := client.DataKey.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return v.unwrap(ctx, row)
}

// newDataKey makes a data key, which seals from now on: it is the newest, also where a clock went back. It is remembered
// only when it is read again: the transaction may be undone.
func (r *Registry) newDataKey(ctx context.Context, tx *ent.Client) (uuid.UUID, error) {
	now := r.now()
	last, err := newestDataKey(ctx, tx)
	switch {
	case err == nil:
		now = utc.Max(now, last.CreatedAt.Add(time.Microsecond))
	case !ent.IsNotFound(err):
		return uuid.Nil, err
	}
	id := datakey.DefaultID()
	_, by, wrapped, err := seal.NewDataKey(ctx, id, r.vault.ring, r.vault.binding())
	if err != nil {
		return id, ofKeyring(err)
	}
	return id, tx.DataKey.Create().SetID(id).SetWrappedBy(by).SetWrapped(wrapped).SetCreatedAt(now).Exec(ctx)
}

// newestDataKey returns the data key that seals, or Ent's NotFoundError.
func newestDataKey(ctx context.Context, client *ent.Client) (*ent.DataKey, error) {
	return client.DataKey.Query().Order(datakey.ByCreatedAt(sql.OrderDesc())).First(ctx)
}

// ofKeyring tells errors of the keyring from those of the database.
func ofKeyring(err error) error {
	if errors.Is(err, ErrKeyring) {
		return err
	}
	if errors.Is(err, seal.ErrKey) || errors.Is(err, seal.ErrAuthentic) || errors.Is(err, seal.ErrInvalid) {
		return fmt.Errorf("%w: %w", ErrKeyring, err)
	}
	return err
}

// sealed is what is stored of an API key itself.
type sealed struct {
	blob []byte    // nil: nothing is
	by   uuid.UUID // the data key
}

// sealKey seals the text of a key, of which id, provider and hash are known, if API keys are kept in this database.
func (r *Registry) sealKey(ctx context.Context, tx *ent.Client, key *ent.APIKey, text string) (sealed, error) {
	newest, err := newestDataKey(ctx, tx)
	switch {
	case ent.IsNotFound(err) && r.vault.ring == nil:
		return sealed{}, nil
	case err != nil:
		return sealed{}, err
	case r.vault.ring == nil:
		return sealed{}, fmt.Errorf("%w: API keys of this database are sealed: open it WithKeyring", ErrKeyring)
	}
	dataKey, err := r.vault.dataKey(ctx, tx, newest.ID)
	if err != nil {
		return sealed{}, err
	}
	return sealed{dataKey.Seal([]byte(text), r.vault.bindingOf(key)), newest.ID}, nil
}

// unseal returns what is sealed in a row. It returns [ErrCorrupt] for what was changed or belongs to another row.
func (r *Registry) unseal(ctx context.Context, client *ent.Client, key *ent.APIKey) ([]byte, error) {
	if r.vault.ring == nil {
		return nil, fmt.Errorf("%w: the API key is sealed: open the registry WithKeyring", ErrKeyring)
	}
	id, err := seal.KeyID(key.Sealed)
	if err == nil && id != *key.DataKeyID {
		err = fmt.Errorf("sealed by data key %s, not %s", id, *key.DataKeyID)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	dataKey, err := r.vault.dataKey(ctx, client, id)
	if err != nil {
		return nil, err
	}
	text, err := dataKey.Open(key.Sealed, r.vault.bindingOf(key))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return text, nil
}

// RevealAPIKey returns a live API key itself, disabled and degraded ones too: as it is sealed in the database, or else
// what the function of [ResolveSecret] returns, if that has the SHA-256 of the row. That of a keyless key is empty.
//
// It returns [ErrNotFound]; [ErrNoSecret] when the key is kept nowhere, or what was resolved is another one; [ErrKeyring]
// when it is sealed and the keyring is missing or lacks its key; [ErrCorrupt] when what is sealed was changed, or belongs to
// another key, provider or database; or the error of the function.
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
		text, err := r.unseal(ctx, r.fresh, key)
		if err != nil {
			return Secret{}, err
		}
		return secretOf(text), nil // the hash is a part of what it is bound to
	case r.vault.resolve == nil:
		return Secret{}, fmt.Errorf("%w: it was added to a registry without a keyring: open it WithKeyring, and give the key again"+
			" with UpdateAPIKey; or open it with ResolveSecret", ErrNoSecret)
	}
	if secret, err = r.vault.resolve(ctx, tied(r, asOf(key, r.now()))); err != nil {
		return Secret{}, err
	}
	if !secret.is(key) {
		return Secret{}, fmt.Errorf("%w: what was resolved has another hash", ErrNoSecret)
	}
	return secret, nil
}
