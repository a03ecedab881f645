package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestLeaseConflict ends leases with requests under an id of another request: they end, nothing is counted, and who
// waits for a key gets it.
func TestLeaseConflict(t *testing.T) { eachEngine(t, testLeaseConflict) }

func testLeaseConflict(t *testing.T, e engine) {
	t.Parallel()
	p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{Concurrency: 1}}})
	ctx := t.Context()
	registry.WithoutPolling(p.Registry)
	one := used(1)
	one.RequestID, one.ModelID, one.APIKeyID = "r", p.model.ID, p.keys[0].ID
	require.NoError(t, p.RecordUsage(ctx, one))
	want := p.key(t, 0)
	other := used(2)
	other.RequestID = "r"
	for name, end := range map[string]func(*registry.Registry, *registry.Lease) error{
		"Settle": func(_ *registry.Registry, l *registry.Lease) error { return l.Settle(ctx, other) },
		"Fail": func(_ *registry.Registry, l *registry.Lease) error {
			_, err := l.Fail(ctx, registry.Failure{Status: 500, Usage: other})
			return err
		},
		"InTx": func(reg *registry.Registry, l *registry.Lease) error {
			var err error
			require.NoError(t, reg.InTx(ctx, func(tx *registry.Registry) error {
				within, found := tx.GetLease(ctx, l.ID)
				require.NoError(t, found)
				err = within.Settle(ctx, other)
				return nil
			}))
			return err
		},
	} {
		lease := p.acquire(t, 5)
		deadline, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		waits := make(chan error, 1)
		go func() {
			in := registry.AcquireInput{ProviderID: p.provider.ID, TTL: time.Minute, Wait: true}
			next, err := p.AcquireKey(deadline, in)
			if err == nil {
				err = next.Release(ctx)
			}
			waits <- err
		}()
		require.Eventually(t, func() bool { return registry.Waiting(p.Registry) == 1 }, time.Minute, time.Millisecond)
		err := end(p.Registry, lease)
		require.ErrorIs(t, err, registry.ErrConflict, name)
		require.NotErrorIs(t, err, registry.ErrLeaseEnded, name)
		require.ErrorContains(t, err, `request "r" was recorded with other contents`, name)
		require.NoError(t, <-waits, name)
		require.Zero(t, p.openLeases(t), name)
		require.ErrorIs(t, lease.Settle(ctx, other), registry.ErrLeaseEnded, name)
		key := p.key(t, 0)
		require.Equal(t, []int64{want.UsageCount, want.TokensToday, want.RequestsToday},
			[]int64{key.UsageCount, key.TokensToday, key.RequestsToday}, name)
	}
	requireLedger(t, p.Registry)

	_, err := p.Client().ExecContext(ctx, "UPDATE usage_events SET fingerprint = NULL")
	require.NoError(t, err)
	require.NoError(t, p.acquire(t, 5).Settle(ctx, other), "without a fingerprint it may be the same")
}
