package registry_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// eachName runs a test with the name of an empty database on each engine.
func eachName(t *testing.T, test func(*testing.T, string)) {
	t.Helper()
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); test(t, filepath.Join(t.TempDir(), "keyring.db")) })
	t.Run("postgres", func(t *testing.T) { t.Parallel(); test(t, registrytest.PostgresURL(t)) })
}

func openWith(t *testing.T, name string, options ...registry.Option) *registry.Registry {
	t.Helper()
	reg, err := registry.Open(t.Context(), name, options...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	return reg
}

func TestKeyring(t *testing.T) { eachName(t, testKeyring) }

func testKeyring(t *testing.T, name string) {
	plain := openWith(t, name)
	p := mustProvider(t, plain, "openai")
	before := mustKey(t, plain, p.ID, 1)

	reg := openWith(t, name, registry.WithKeyring(ring(t, "a")))
	k := mustKey(t, reg, p.ID, 2)
	keyless, err := reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, Keyless: true})
	require.NoError(t, err)
	requireReveals(t, reg, k.ID, secret(2))
	requireReveals(t, reg, keyless.ID, "")
	requireReveals(t, openWith(t, name, registry.WithKeyring(ring(t, "a", "b"))), k.ID, secret(2))
	for id, want := range map[uuid.UUID]error{before.ID: registry.ErrNoSecret, p.ID: registry.ErrNotFound} {
		_, err := reg.RevealAPIKey(t.Context(), id)
		require.ErrorIs(t, err, want)
	}
	// A key that was added without the keyring can be sealed later.
	for text, want := range map[string]error{
		secret(2): registry.ErrInvalidData, "short": registry.ErrInvalidData, secret(1): nil,
	} {
		_, err := plain.UpdateAPIKey(t.Context(), before.ID, registry.KeyUpdate{APIKey: &text})
		require.ErrorIs(t, err, registry.ErrInvalidData)
		_, err = reg.UpdateAPIKey(t.Context(), before.ID, registry.KeyUpdate{APIKey: &text})
		require.ErrorIs(t, err, want)
	}
	requireReveals(t, reg, before.ID, secret(1))
	disabled, err := reg.UpdateAPIKey(t.Context(), k.ID, registry.KeyUpdate{Disabled: ptr(true)})
	require.NoError(t, err)
	requireReveals(t, reg, disabled.ID, secret(2))

	// Without the keyring, what is sealed stays so, and nothing is added that is not.
	_, err = plain.RevealAPIKey(t.Context(), k.ID)
	require.ErrorIs(t, err, registry.ErrKeyring)
	_, err = plain.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: secret(3)})
	require.ErrorIs(t, err, registry.ErrKeyring)
	_, err = plain.RotateKeyring(t.Context(), registry.KeyringRotationInput{})
	require.ErrorIs(t, err, registry.ErrKeyring)
	used, err := plain.GetLeastUsedKey(t.Context(), p.ID)
	require.NoError(t, err)
	require.Contains(t, []uuid.UUID{before.ID, keyless.ID}, used.ID)

	wrong, err := registry.NewKeyring("a", map[string][]byte{"a": keyringKey('x')})
	require.NoError(t, err)
	for why, r := range map[string]registry.Keyring{"missing": ring(t, "b"), "wrong": wrong} {
		_, err := registry.Open(t.Context(), name, registry.WithKeyring(r))
		require.ErrorIs(t, err, registry.ErrKeyring, why)
	}
	require.NoError(t, reg.DeleteAPIKey(t.Context(), k.ID))
	_, err = reg.RevealAPIKey(t.Context(), k.ID)
	require.ErrorIs(t, err, registry.ErrNotFound)
}

// TestKeyringAtOnce opens a new database in many goroutines, which must agree on a data key.
func TestKeyringAtOnce(t *testing.T) { eachName(t, testKeyringAtOnce) }

func testKeyringAtOnce(t *testing.T, name string) {
	regs := make([]*registry.Registry, 8)
	var all sync.WaitGroup
	for i := range regs {
		all.Go(func() {
			reg, err := registry.Open(t.Context(), name, registry.WithKeyring(ring(t, "a")))
			if err != nil {
				t.Error(err)
				return
			}
			regs[i] = reg
		})
	}
	all.Wait()
	require.False(t, t.Failed())
	p := mustProvider(t, regs[0], "openai")
	for i, reg := range regs {
		k := mustKey(t, reg, p.ID, i)
		requireReveals(t, regs[(i+1)%len(regs)], k.ID, secret(i))
	}
	n, err := regs[0].Client().DataKey.Query().Count(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	for _, reg := range regs {
		require.NoError(t, reg.Close())
	}
}

func TestResolveSecret(t *testing.T) {
	t.Parallel()
	elsewhere := map[string]string{"one": secret(1), "two": secret(9)}
	resolve := func(_ context.Context, key *ent.APIKey) (registry.Secret, error) {
		text, ok := elsewhere[key.Label]
		if !ok {
			return registry.Secret{}, errRollback
		}
		return registry.NewSecret(text), nil
	}
	reg := onSQLite.new(t, registry.WithSecretResolver(resolve))
	p := mustProvider(t, reg, "openai")
	for n, want := range []error{errRollback, nil, registry.ErrNoSecret} {
		key, err := reg.AddAPIKey(
			t.Context(),
			registry.KeyInput{ProviderID: p.ID, APIKey: secret(n), Label: []string{"zero", "one", "two"}[n]},
		)
		require.NoError(t, err)
		got, err := reg.RevealAPIKey(t.Context(), key.ID)
		require.ErrorIs(t, err, want)
		require.Equal(t, want == nil, got.Equal(registry.NewSecret(secret(n))))
	}
	for _, option := range []registry.Option{registry.WithSecretResolver(nil), registry.WithKeyring(nil)} {
		_, err := registry.Open(t.Context(), ":memory:", option)
		require.ErrorIs(t, err, registry.ErrInvalidData)
	}
}

func TestParseKeyring(t *testing.T) {
	t.Parallel()
	encoded := func(n byte) string { return base64.StdEncoding.EncodeToString(keyringKey(n)) }
	r, err := registry.ParseKeyring("# ours\n\n new = " + encoded('n') + "\r\nold=" + encoded('o') + "\n")
	require.NoError(t, err)
	require.Equal(t, "new", r.CurrentID())
	wrapped, err := r.Wrap(t.Context(), "old", []byte("data"), nil)
	require.NoError(t, err)
	data, err := ring(t, "old"[:1]).Unwrap(t.Context(), "o", wrapped, nil)
	require.NoError(t, err)
	require.Equal(t, "data", string(data))

	for why, text := range map[string]string{
		"empty": "", "no id": "=" + encoded('a'), "no key": "a", "not base64": "a=?" + encoded('a'),
		"short": "a=" + encoded('a')[:40] + "==", "twice": "a=" + encoded('a') + "\na=" + encoded('b'),
		"uniform": "a=" + strings.Repeat("A", 43) + "=", "long id": strings.Repeat("i", 129) + "=" + encoded('a'),
	} {
		_, err := registry.ParseKeyring(text)
		require.ErrorIs(t, err, registry.ErrInvalidData, why)
		require.NotContains(t, err.Error(), encoded('a')[:20], why)
	}
}

// TestSealedTampered changes what is sealed in every way: each gives an error, none a key.
func TestSealedTampered(t *testing.T) {
	long(t, "every bit is changed")
	t.Parallel()
	type world struct {
		reg  *registry.Registry
		keys []*ent.APIKey // two of one provider, one of another
	}
	build := func() world {
		reg := openWith(t, ":memory:", registry.WithKeyring(ring(t, "a")))
		p, q := mustProvider(t, reg, "openai"), mustProvider(t, reg, "other")
		w := world{reg: reg}
		for n, provider := range []uuid.UUID{p.ID, p.ID, q.ID} {
			w.keys = append(w.keys, mustKey(t, reg, provider, n))
		}
		return w
	}
	w, other := build(), build()
	set := func(id uuid.UUID, blob []byte) {
		require.NoError(t, w.reg.Past().APIKey.UpdateOneID(id).SetSealed(blob).Exec(t.Context()))
	}
	fails := func(id uuid.UUID, want error, why string, args ...any) {
		t.Helper()
		got, err := w.reg.RevealAPIKey(t.Context(), id)
		require.ErrorIs(t, err, want, why, args)
		require.True(t, got.IsZero(), why, args)
	}
	good := w.keys[0].Sealed
	for bit := range len(good) * 8 {
		blob := bytes.Clone(good)
		blob[bit/8] ^= 1 << (bit % 8)
		set(w.keys[0].ID, blob)
		fails(w.keys[0].ID, registry.ErrCorrupt, "bit %d", bit)
	}
	for n := 1; n < len(good); n++ {
		set(w.keys[0].ID, good[:n])
		fails(w.keys[0].ID, registry.ErrCorrupt, "%d bytes", n)
	}
	set(w.keys[0].ID, append(bytes.Clone(good), 0))
	fails(w.keys[0].ID, registry.ErrCorrupt, "a byte more")
	set(w.keys[0].ID, good)
	requireReveals(t, w.reg, w.keys[0].ID, secret(0))

	set(w.keys[1].ID, good)
	fails(w.keys[1].ID, registry.ErrCorrupt, "of another row")
	set(w.keys[2].ID, good)
	fails(w.keys[2].ID, registry.ErrCorrupt, "of another provider")
	exec := func(statement string, args ...any) {
		_, err := w.reg.Client().ExecContext(t.Context(), statement, args...)
		require.NoError(t, err)
	}
	exec("UPDATE api_keys SET provider_id = $1 WHERE id = $2", w.keys[2].ProviderID, w.keys[0].ID)
	fails(w.keys[0].ID, registry.ErrCorrupt, "moved to another provider")
	exec(
		"UPDATE api_keys SET provider_id = $1, key_hash = $2 WHERE id = $3", w.keys[0].ProviderID, w.keys[2].KeyHash,
		w.keys[0].ID,
	)
	fails(w.keys[0].ID, registry.ErrCorrupt, "with another hash")
	exec("UPDATE api_keys SET key_hash = $1 WHERE id = $2", w.keys[0].KeyHash, w.keys[0].ID)
	requireReveals(t, w.reg, w.keys[0].ID, secret(0))

	// Of the same key, when that was deleted and added again.
	require.NoError(t, w.reg.DeleteAPIKey(t.Context(), w.keys[0].ID))
	again := mustKey(t, w.reg, w.keys[0].ProviderID, 0)
	requireReveals(t, w.reg, again.ID, secret(0))
	set(again.ID, good)
	fails(again.ID, registry.ErrCorrupt, "of the row before it")
	w.keys[0] = again

	// Another database: what it sealed, then with its data key, and then with all of the row.
	foreign := other.keys[0]
	set(w.keys[0].ID, foreign.Sealed)
	fails(w.keys[0].ID, registry.ErrCorrupt, "of another database")
	row, err := other.reg.Client().DataKey.Query().Only(t.Context())
	require.NoError(t, err)
	require.NoError(t, w.reg.Past().DataKey.Create().SetID(row.ID).SetWrapped(row.Wrapped).SetWrappedBy(row.WrappedBy).
		SetCreatedAt(row.CreatedAt).Exec(t.Context()))
	exec("UPDATE api_keys SET data_key_id = $1 WHERE id = $2", row.ID, w.keys[0].ID)
	fails(w.keys[0].ID, registry.ErrKeyring, "of another database, with its data key")
}

// TestDataKeyTampered changes a wrapped data key: the database does not open with a keyring.
func TestDataKeyTampered(t *testing.T) {
	long(t, "every bit is changed")
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keyring.db")
	reg := openWith(t, path, registry.WithKeyring(ring(t, "a", "b")))
	row, err := reg.Client().DataKey.Query().Only(t.Context())
	require.NoError(t, err)
	fails := func(wrapped []byte, by string) {
		t.Helper()
		require.NoError(t, reg.Past().DataKey.UpdateOne(row).SetWrapped(wrapped).SetWrappedBy(by).Exec(t.Context()))
		_, err := registry.Open(t.Context(), path, registry.WithKeyring(ring(t, "a", "b")))
		require.ErrorIs(t, err, registry.ErrKeyring)
	}
	for i := range row.Wrapped {
		wrapped := bytes.Clone(row.Wrapped)
		wrapped[i] ^= 1 << (i % 8)
		fails(wrapped, "a")
	}
	fails(row.Wrapped[:10], "a")
	fails(row.Wrapped, "b")
	fails(row.Wrapped, "c")
	require.NoError(t, reg.Past().DataKey.UpdateOne(row).SetWrapped(row.Wrapped).SetWrappedBy("a").Exec(t.Context()))
	openWith(t, path, registry.WithKeyring(ring(t, "b", "a")))
}

// TestMoveSealed moves a database with sealed keys, which open there too.
func TestMoveSealed(t *testing.T) {
	t.Parallel()
	path, target := filepath.Join(t.TempDir(), "keyring.db"), registrytest.PostgresURL(t)
	reg := openWith(t, path, registry.WithKeyring(ring(t, "a")))
	keys := sealedKeys(t, reg, 2, 3)
	_, err := registry.Move(t.Context(), path, target, nil)
	require.NoError(t, err)
	moved := openWith(t, target, registry.WithKeyring(ring(t, "a")))
	for id, want := range keys {
		requireReveals(t, moved, id, want)
	}
}

// outage is a keyring whose service does not answer.
type outage struct{ registry.Keyring }

func (outage) Unwrap(context.Context, string, []byte, registry.KeyringBinding) ([]byte, error) {
	return nil, errors.New("no answer")
}

func TestKeyringOutage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keyring.db")
	openWith(t, path, registry.WithKeyring(ring(t, "a")))
	_, err := registry.Open(t.Context(), path, registry.WithKeyring(outage{ring(t, "a")}))
	require.ErrorContains(t, err, "no answer")
	require.NotErrorIs(t, err, registry.ErrKeyring)
}
