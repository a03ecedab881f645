package registry_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

func TestGetLeastUsedKey(t *testing.T) { eachEngine(t, testGetLeastUsedKey) }

func testGetLeastUsedKey(t *testing.T, e engine) {
	t.Parallel()

	t.Run("fewest requests, then longest ago, never used first", func(t *testing.T) {
		t.Parallel()
		reg, clock := e.setup(t)
		p := mustProvider(t, reg, "openai")
		a, b, c := mustKey(t, reg, p.ID, 1), mustKey(t, reg, p.ID, 2), mustKey(t, reg, p.ID, 3)
		names := map[uuid.UUID]string{a.ID: "a", b.ID: "b", c.ID: "c"}
		use := func(id uuid.UUID) {
			clock.Advance(time.Second)
			require.NoError(t, reg.IncrementUsage(t.Context(), id, 1, 1))
		}
		var order strings.Builder
		for i := range 9 {
			if i == 3 {
				use(b.ID) // so b comes last in the next round
			}
			k, err := reg.GetLeastUsedKey(t.Context(), p.ID)
			require.NoError(t, err)
			order.WriteString(names[k.ID])
			use(k.ID)
		}
		require.Equal(t, "abc"+"ac"+"bac"+"b", order.String())
	})
	t.Run("disabled and degraded", func(t *testing.T) {
		t.Parallel()
		reg, clock := e.setup(t)
		p := mustProvider(t, reg, "openai")
		a, b := mustKey(t, reg, p.ID, 1), mustKey(t, reg, p.ID, 2)
		is := func(want uuid.UUID) {
			t.Helper()
			k, err := reg.GetLeastUsedKey(t.Context(), p.ID)
			require.NoError(t, err)
			require.Equal(t, want, k.ID)
		}
		is(a.ID)
		require.NoError(t, reg.DegradeKey(t.Context(), a.ID, "429", time.Minute))
		is(b.ID)
		clock.Advance(time.Minute - time.Microsecond)
		is(b.ID)
		clock.Advance(time.Microsecond)
		is(a.ID) // nobody restored it
		k, err := reg.GetLeastUsedKey(t.Context(), p.ID)
		require.NoError(t, err)
		require.False(t, k.Degraded)
		require.Nil(t, k.DegradedUntil)
		_, err = reg.UpdateAPIKey(t.Context(), a.ID, registry.KeyUpdate{Disabled: ptr(true)})
		require.NoError(t, err)
		is(b.ID)
	})
	t.Run("by hand and by Ent", func(t *testing.T) {
		t.Parallel()
		reg, clock := e.setup(t)
		for i := range 3 {
			p := mustProvider(t, reg, fmt.Sprint("p", i))
			for n := range 4 {
				k := mustKey(t, reg, p.ID, n)
				for range (n + i) % 3 {
					clock.Advance(time.Minute)
					require.NoError(t, reg.IncrementUsage(t.Context(), k.ID, 3, 4))
				}
				if (n+i)%4 == 0 {
					require.NoError(t, reg.DegradeKey(t.Context(), k.ID, "429", 5*time.Minute))
				}
			}
		}
		all, err := reg.ListProviders(t.Context(), registry.ProviderFilter{})
		require.NoError(t, err)
		for range 20 {
			for _, p := range all {
				byHand, err := reg.GetLeastUsedKey(t.Context(), p.ID)
				require.NoError(t, err)
				require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
					byEnt, err := tx.GetLeastUsedKey(t.Context(), p.ID) // transactions ask Ent
					require.NoError(t, err)
					require.Equal(t, byEnt.String(), byHand.String())
					require.Equal(t, byEnt.KeyHash, byHand.KeyHash)
					return nil
				}))
				walked, err := byHand.QueryProvider().Only(t.Context())
				require.NoError(t, err)
				require.Equal(t, p.ID, walked.ID)
				require.NoError(t, reg.IncrementUsage(t.Context(), byHand.ID, 1, 1))
				clock.Advance(time.Minute)
			}
		}
	})
}

// TestGetLeastUsedKeyNone has no key that is usable.
func TestGetLeastUsedKeyNone(t *testing.T) { eachEngine(t, testGetLeastUsedKeyNone) }

func testGetLeastUsedKeyNone(t *testing.T, e engine) {
	t.Parallel()
	t.Run("ErrNoKeyAvailable", func(t *testing.T) {
		t.Parallel()
		reg, clock := e.setup(t)
		p := mustProvider(t, reg, "openai")
		none := func() *registry.NoKeyError {
			t.Helper()
			_, err := reg.GetLeastUsedKey(t.Context(), p.ID)
			require.ErrorIs(t, err, registry.ErrNoKeyAvailable)
			var why *registry.NoKeyError
			require.ErrorAs(t, err, &why)
			return why
		}
		require.Empty(t, none().Keys)
		a, b, c := mustKey(t, reg, p.ID, 1), mustKey(t, reg, p.ID, 2), mustKey(t, reg, p.ID, 3)
		_, err := reg.UpdateAPIKey(t.Context(), a.ID, registry.KeyUpdate{Disabled: ptr(true), Label: ptr("l")})
		require.NoError(t, err)
		require.NoError(t, reg.DegradeKey(t.Context(), b.ID, "429", 2*time.Minute))
		require.NoError(t, reg.DegradeKey(t.Context(), c.ID, "429", time.Minute))
		why := none()
		require.Equal(t, clock.Now().Add(time.Minute), why.OpensAt)
		require.Equal(t, []registry.KeyVerdict{
			{ID: a.ID, Prefix: "sk-test-", Weight: 1, Label: "l", Reason: registry.KeyDisabled},
			{
				ID: b.ID, Prefix: "sk-test-", Weight: 1, Reason: registry.KeyDegraded, Detail: "429",
				Until: clock.Now().Add(2 * time.Minute),
			},
			{
				ID: c.ID, Prefix: "sk-test-", Weight: 1, Reason: registry.KeyDegraded, Detail: "429",
				Until: clock.Now().Add(time.Minute),
			},
		}, why.Keys)
		require.ErrorContains(t, why, "2026-07-15T12:01:00Z")
	})
}

// TestNoKeyRace asks for a key while the only one goes in and out of use: an error always says
// why for that key.
func TestNoKeyRace(t *testing.T) { eachEngineAtOnce(t, testNoKeyRace) }

func testNoKeyRace(t *testing.T, e engine) {
	t.Parallel()
	reg := e.new(t, registry.WithDurability(registry.DurabilityRelaxed))
	p := mustProvider(t, reg, "openai")
	k := mustKey(t, reg, p.ID, 1)
	done := make(chan error)
	go func() {
		for range 300 {
			err := errors.Join(reg.DegradeKey(t.Context(), k.ID, "429", time.Hour), reg.RestoreKey(t.Context(), k.ID))
			if err != nil {
				done <- err
				return
			}
		}
		close(done)
	}()
	for {
		_, err := reg.GetLeastUsedKey(t.Context(), p.ID)
		var none *registry.NoKeyError
		if errors.As(err, &none) {
			require.Len(t, none.Keys, 1)
		} else {
			require.NoError(t, err)
		}
		select {
		case err := <-done:
			require.NoError(t, err)
			return
		default:
		}
	}
}
