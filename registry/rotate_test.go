package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

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
