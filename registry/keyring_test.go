package registry_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// keyringKey returns a key of the owner's.
func keyringKey(n byte) []byte {
	key := bytes.Repeat([]byte{n}, registry.KeyringKeySize)
	key[0]++
	return key
}

// ring returns a keyring of keys, of which the first is current.
func ring(tb testing.TB, ids ...string) registry.Keyring {
	tb.Helper()
	keys := map[string][]byte{}
	for _, id := range ids {
		keys[id] = keyringKey(id[0])
	}
	r, err := registry.NewKeyring(ids[0], keys)
	require.NoError(tb, err)
	return r
}

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

// requireReveals demands that a key is given back.
func requireReveals(t *testing.T, reg *registry.Registry, id uuid.UUID, want string) {
	t.Helper()
	got, err := reg.RevealAPIKey(t.Context(), id)
	require.NoError(t, err)
	require.True(t, got.Equal(registry.NewSecret(want)))
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

// sealedKeys adds keys to several providers.
func sealedKeys(t *testing.T, reg *registry.Registry, providers, each int) map[uuid.UUID]string {
	t.Helper()
	keys := map[uuid.UUID]string{}
	for p := range providers {
		provider := mustProvider(t, reg, fmt.Sprint("p", p))
		for n := range each {
			keys[mustKey(t, reg, provider.ID, n).ID] = secret(n)
		}
	}
	return keys
}

func TestRotateKeyring(t *testing.T) { eachName(t, testRotateKeyring) }

func testRotateKeyring(t *testing.T, name string) {
	reg := openWith(t, name, registry.WithKeyring(ring(t, "a")))
	keys := sealedKeys(t, reg, 3, 90)
	gone := mustKey(t, reg, mustProvider(t, reg, "gone").ID, 1)
	require.NoError(t, reg.DeleteAPIKey(t.Context(), gone.ID))

	// The owner's key: afterwards the old one is not needed any more, nor of use.
	next := openWith(t, name, registry.WithKeyring(ring(t, "b", "a")))
	report, err := next.RotateKeyring(t.Context(), registry.KeyringRotationInput{})
	require.NoError(t, err)
	require.Equal(t, registry.KeyringResult{Rewrapped: 1}, report)
	report, err = next.RotateKeyring(t.Context(), registry.KeyringRotationInput{})
	require.NoError(t, err)
	require.Zero(t, report)
	_, err = registry.Open(t.Context(), name, registry.WithKeyring(ring(t, "a")))
	require.ErrorIs(t, err, registry.ErrKeyring)

	// The data key: of all, deleted ones too. A key that does not open stays as it is.
	ids := slices.SortedFunc(maps.Keys(keys), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	one := ids[150]
	row, err := next.Client().APIKey.Get(t.Context(), one)
	require.NoError(t, err)
	require.NoError(t, next.Past().APIKey.UpdateOneID(one).SetSealed(row.Sealed[:40]).Exec(t.Context()))
	report, err = next.RotateKeyring(t.Context(), registry.KeyringRotationInput{DataKey: true})
	require.ErrorIs(t, err, registry.ErrCorrupt)
	require.ErrorContains(t, err, one.String())
	require.Equal(t, registry.KeyringResult{Resealed: len(keys), Left: 1}, report)
	require.NoError(t, next.Past().APIKey.UpdateOneID(one).SetSealed(row.Sealed).Exec(t.Context()))
	report, err = next.RotateKeyring(t.Context(), registry.KeyringRotationInput{DataKey: true})
	require.NoError(t, err)
	require.Equal(t, registry.KeyringResult{Resealed: 1, Removed: 1}, report)
	last := openWith(t, name, registry.WithKeyring(ring(t, "b")))
	for id, want := range keys {
		requireReveals(t, last, id, want)
	}
	_, err = reg.RevealAPIKey(t.Context(), one)
	require.ErrorIs(t, err, registry.ErrKeyring, "it has only the key that was rotated away")
	entries, err := last.ListAudit(t.Context(), registry.AuditFilter{Entity: registry.EntityKeyring})
	require.NoError(t, err)
	var changes []string
	for _, entry := range entries {
		require.Equal(t, registry.ActionRotate, entry.Action)
		changes = append(changes, string(entry.After))
	}
	require.Equal(t, []string{
		`{"removed":1}`, `{"resealed":1}`, `{"resealed":71}`, `{"resealed":99}`, `{"resealed":100}`, `{"rewrapped":1}`,
	}, changes)
}

// TestRotateKeyringClock rotates by a clock that is behind that of whoever made the last data key.
func TestRotateKeyringClock(t *testing.T) {
	t.Parallel()
	clock := registrytest.NewClock(registrytest.Start)
	reg := onSQLite.new(t, registry.WithClock(clock.Now), registry.WithKeyring(ring(t, "a")))
	keys := sealedKeys(t, reg, 1, 3)
	for range 3 {
		clock.Advance(-time.Hour)
		report, err := reg.RotateKeyring(t.Context(), registry.KeyringRotationInput{DataKey: true})
		require.NoError(t, err)
		require.Equal(t, registry.KeyringResult{Resealed: 3, Removed: 1}, report)
	}
	for id, want := range keys {
		requireReveals(t, reg, id, want)
	}
}

// TestRotateKeyringResumes interrupts a rotation again and again.
func TestRotateKeyringResumes(t *testing.T) { eachName(t, testRotateKeyringResumes) }

func testRotateKeyringResumes(t *testing.T, name string) {
	reg := openWith(t, name, registry.WithKeyring(ring(t, "a")))
	keys := sealedKeys(t, reg, 4, 100)
	first, err := reg.Client().DataKey.Query().OnlyID(t.Context())
	require.NoError(t, err)
	left := func() int {
		n, err := reg.Client().APIKey.Query().Where(apikey.DataKeyID(first)).Count(t.Context())
		require.NoError(t, err)
		return n
	}
	interrupted := 0
	for left() > 0 {
		before := left()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := reg.RotateKeyring(ctx, registry.KeyringRotationInput{DataKey: true})
			done <- err
		}()
		for ended := false; !ended; {
			select {
			case err = <-done:
				ended = true
			default:
				if left() < before {
					cancel()
				}
			}
		}
		cancel()
		if err != nil {
			require.ErrorIs(t, err, context.Canceled)
			interrupted++
		}
	}
	require.Positive(t, interrupted)
	report, err := reg.RotateKeyring(t.Context(), registry.KeyringRotationInput{})
	require.NoError(t, err)
	require.Zero(t, report.Left)
	n, err := reg.Client().DataKey.Query().Count(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	entries, err := reg.ListAudit(t.Context(), registry.AuditFilter{Entity: registry.EntityKeyring})
	require.NoError(t, err)
	resealed := 0
	for _, entry := range entries {
		var change map[string]int
		require.NoError(t, json.Unmarshal(entry.After, &change))
		resealed += change["resealed"]
	}
	require.Len(t, keys, resealed, "each key was sealed anew once: the interrupted rotations share a data key")
	for id, want := range keys {
		requireReveals(t, reg, id, want)
	}
}

// TestRotateKeyringUnderLoad adds and reveals keys in two registries, while two others rotate at once.
func TestRotateKeyringUnderLoad(t *testing.T) { eachName(t, testRotateKeyringUnderLoad) }

func testRotateKeyringUnderLoad(t *testing.T, name string) {
	var rotating, users []*registry.Registry
	for range 2 {
		rotating = append(rotating, openWith(t, name, registry.WithKeyring(ring(t, "b", "a"))))
		users = append(users, openWith(t, name, registry.WithKeyring(ring(t, "b", "a"))))
	}
	p := mustProvider(t, users[0], "openai")
	var (
		mu   sync.Mutex
		keys = map[uuid.UUID]string{}
		all  sync.WaitGroup
	)
	for g, reg := range users {
		all.Go(func() {
			for i := range 40 {
				text := secret(100*g + i)
				key, err := reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: text})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				keys[key.ID] = text
				some := map[uuid.UUID]string{}
				for id, text := range keys {
					if some[id] = text; len(some) == 5 {
						break
					}
				}
				mu.Unlock()
				for id, want := range some {
					if got, err := reg.RevealAPIKey(t.Context(), id); err != nil ||
						!got.Equal(registry.NewSecret(want)) {
						t.Errorf("%s: %v", id, err)
					}
				}
			}
		})
	}
	for _, reg := range rotating {
		all.Go(func() {
			for range 10 {
				if _, err := reg.RotateKeyring(t.Context(), registry.KeyringRotationInput{DataKey: true}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	require.Len(t, keys, 80)
	for id, want := range keys {
		requireReveals(t, users[0], id, want)
	}
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

func TestRotateAPIKey(t *testing.T) {
	t.Parallel()
	for _, e := range []engine{onSQLite, onPostgres} {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			clock := registrytest.NewClock(registrytest.Start)
			reg := e.new(t, registry.WithClock(clock.Now), registry.WithKeyring(ring(t, "a")))
			p := mustProvider(t, reg, "openai")
			old, err := reg.AddAPIKey(
				t.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: secret(1), Label: "main"},
			)
			require.NoError(t, err)
			for n := 2; n <= registry.MaxKeysPerProvider; n++ {
				key := mustKey(t, reg, p.ID, n)
				_, err := reg.UpdateAPIKey(t.Context(), key.ID, registry.KeyUpdate{Disabled: ptr(true)})
				require.NoError(t, err)
			}
			key, err := reg.RotateAPIKey(
				t.Context(), old.ID, registry.KeyRotationInput{APIKey: secret(1000), Overlap: time.Hour},
			)
			require.NoError(t, err)
			require.Equal(t, "main", key.Label)
			requireReveals(t, reg, key.ID, secret(1000))
			requireReveals(t, reg, old.ID, secret(1))

			usable := func() map[uuid.UUID]bool {
				found := map[uuid.UUID]bool{}
				for range 4 {
					k, err := reg.GetLeastUsedKey(t.Context(), p.ID)
					require.NoError(t, err)
					found[k.ID] = true
					require.NoError(t, reg.IncrementUsage(t.Context(), k.ID, 1, 1))
					clock.Advance(time.Second)
				}
				return found
			}
			require.Equal(t, map[uuid.UUID]bool{old.ID: true, key.ID: true}, usable())
			clock.Advance(time.Hour)
			require.Equal(t, map[uuid.UUID]bool{key.ID: true}, usable())

			require.NoError(t, reg.DegradeKey(t.Context(), key.ID, "429", time.Minute))
			_, err = reg.GetLeastUsedKey(t.Context(), p.ID)
			var none *registry.NoKeyError
			require.ErrorAs(t, err, &none)
			require.Equal(t, registry.KeyExpired, none.Keys[0].Reason)
			require.Equal(t, clock.Now().Add(time.Minute), none.OpensAt)

			_, err = reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: secret(2000)})
			require.ErrorIs(t, err, registry.ErrInvalidData, "a 101st")
			again, err := reg.RotateAPIKey(
				t.Context(), old.ID, registry.KeyRotationInput{APIKey: secret(3000), Overlap: 2 * time.Hour},
			)
			require.ErrorIs(
				t, err, registry.ErrInvalidData, "the key that expires does not count, the one after it does",
			)
			require.Nil(t, again)
			next, err := reg.RotateAPIKey(t.Context(), key.ID, registry.KeyRotationInput{APIKey: secret(3000)})
			require.NoError(t, err)
			clock.Advance(time.Minute)
			require.Equal(t, map[uuid.UUID]bool{next.ID: true}, usable())

			for why, in := range map[string]registry.KeyRotationInput{
				"spaced": {APIKey: "a key"}, "empty": {}, "negative": {APIKey: secret(4), Overlap: -1}, "long": {
					APIKey: secret(4), Overlap: 91 * 24 * time.Hour,
				},
			} {
				_, err := reg.RotateAPIKey(t.Context(), next.ID, in)
				require.ErrorIs(t, err, registry.ErrInvalidData, why)
			}
			_, err = reg.RotateAPIKey(t.Context(), next.ID, registry.KeyRotationInput{APIKey: secret(3000)})
			require.ErrorIs(t, err, registry.ErrConflict)
			row, err := reg.Client().APIKey.Get(t.Context(), next.ID)
			require.NoError(t, err)
			require.Nil(t, row.ExpiresAt, "nothing is done")
			require.NoError(t, reg.DeleteAPIKey(t.Context(), next.ID))
			_, err = reg.RotateAPIKey(
				t.Context(), key.ID, registry.KeyRotationInput{APIKey: secret(4000), Overlap: time.Hour},
			)
			require.NoError(t, err)
			expired, err := reg.Client().APIKey.Get(t.Context(), key.ID)
			require.NoError(t, err)
			require.True(t, expired.ExpiresAt.Before(clock.Now()), "an expiry does not move back")
			_, err = reg.RotateAPIKey(t.Context(), p.ID, registry.KeyRotationInput{APIKey: secret(5)})
			require.ErrorIs(t, err, registry.ErrNotFound)
			other := mustProvider(t, reg, "local")
			keyless, err := reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: other.ID, Keyless: true})
			require.NoError(t, err)
			_, err = reg.RotateAPIKey(t.Context(), keyless.ID, registry.KeyRotationInput{APIKey: secret(5)})
			require.ErrorIs(t, err, registry.ErrInvalidData)
		})
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

// slowService is a keyring whose service takes its time to unwrap once, when it is told to.
type slowService struct {
	registry.Keyring
	slow          atomic.Bool
	asked, answer chan struct{}
}

func (s *slowService) Unwrap(
	ctx context.Context, id string, wrapped []byte, to registry.KeyringBinding,
) ([]byte, error) {
	if s.slow.CompareAndSwap(true, false) {
		close(s.asked)
		<-s.answer
	}
	return s.Keyring.Unwrap(ctx, id, wrapped, to)
}

// TestRotateKeyringAtService leases a key in another process while a rotation waits for the keyring's service.
func TestRotateKeyringAtService(t *testing.T) { eachName(t, testRotateKeyringAtService) }

func testRotateKeyringAtService(t *testing.T, name string) {
	slow := &slowService{Keyring: ring(t, "a"), asked: make(chan struct{}), answer: make(chan struct{})}
	rotating := openWith(t, name, registry.WithKeyring(slow))
	other := openWith(t, name, registry.WithKeyring(ring(t, "a")))
	p := mustProvider(t, other, "openai")
	key := mustKey(t, other, p.ID, 1)
	slow.slow.Store(true)
	var all sync.WaitGroup
	var report registry.KeyringResult
	var err error
	all.Go(func() {
		report, err = rotating.RotateKeyring(t.Context(), registry.KeyringRotationInput{DataKey: true})
	})
	<-slow.asked
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	lease, leaseErr := other.AcquireKey(ctx, registry.AcquireInput{ProviderID: p.ID, TTL: time.Minute})
	close(slow.answer)
	all.Wait()
	require.NoError(t, leaseErr)
	require.NoError(t, lease.Release(t.Context()))
	require.NoError(t, err)
	require.Equal(t, registry.KeyringResult{Resealed: 1, Removed: 1}, report)
	requireReveals(t, other, key.ID, secret(1))
}
