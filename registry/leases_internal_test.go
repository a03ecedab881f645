package registry

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestManyExpired: a caller takes no more leases away that have expired than it takes to give him a key.
func TestManyExpired(t *testing.T) {
	onEach(t, func(t *testing.T, open func(t *testing.T) (reg, other *Registry)) {
		t.Helper()
		reg, _ := open(t)
		ctx, now := t.Context(), time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
		reg.clock, reg.commits.Expired = func() time.Time { return now }, 2
		p, err := reg.CreateProvider(ctx, ProviderInput{Name: "p"})
		require.NoError(t, err)
		key, err := reg.AddAPIKey(ctx, KeyInput{
			ProviderID: p.ID, APIKey: "sk-test-0123456789", Limits: Limits{Concurrency: 5},
		})
		require.NoError(t, err)
		acquire := func() error {
			_, err := reg.AcquireKey(ctx, AcquireInput{ProviderID: p.ID, TTL: time.Minute})
			return err
		}
		for range 5 {
			require.NoError(t, acquire())
		}
		require.ErrorIs(t, acquire(), ErrNoKeyAvailable)
		now = now.Add(time.Minute)
		for _, taken := range []int{2, 2, 4, 4, 5} {
			require.NoError(t, acquire())
			require.Equal(t, taken, reg.client.ExpiredLease.Query().CountX(ctx))
		}
		require.ErrorIs(t, acquire(), ErrNoKeyAvailable)
		now = now.Add(time.Minute)
		require.NoError(t, reg.DegradeKey(ctx, key.ID, "x", time.Hour))
		require.ErrorIs(t, acquire(), ErrNoKeyAvailable)
		require.Zero(t, reg.client.KeyLease.Query().CountX(ctx), "who is turned away has looked at all of them")
	})
}
