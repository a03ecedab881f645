package registry

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestWaitersWake has a lease end that others of the same process wait for: they are told at once.
func TestWaitersWake(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	reg, err := Open(ctx, ":memory:")
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	reg.waiters.poll = time.Hour
	p, err := reg.CreateProvider(ctx, ProviderInput{Name: "p"})
	require.NoError(t, err)
	_, err = reg.AddAPIKey(
		ctx, KeyInput{ProviderID: p.ID, APIKey: "sk-test-000000000001", Limits: Limits{Concurrency: 1}},
	)
	require.NoError(t, err)
	in := AcquireInput{ProviderID: p.ID, TTL: time.Hour}
	lease, err := reg.AcquireKey(ctx, in)
	require.NoError(t, err)
	in.Wait = true
	got := make(chan error)
	const callers = 3
	for range callers {
		go func() {
			lease, err := reg.AcquireKey(ctx, in)
			if err == nil {
				err = lease.Release(ctx)
			}
			got <- err
		}()
	}
	for waiting := 0; waiting < callers; runtime.Gosched() {
		reg.waiters.mu.Lock()
		waiting = len(reg.waiters.list[p.ID])
		reg.waiters.mu.Unlock()
	}
	require.NoError(t, lease.Release(ctx))
	for range callers {
		require.NoError(t, <-got)
	}
}
