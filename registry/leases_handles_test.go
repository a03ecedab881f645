package registry_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// leaseEnds are ways to end a lease: of a request that is recorded under the lease's id, under another one, or not at
// all.
var leaseEnds = map[string]func(context.Context, *registry.Lease) error{
	"Settle": func(ctx context.Context, l *registry.Lease) error { return l.Settle(ctx, used(5)) },
	"Settle under another id": func(ctx context.Context, l *registry.Lease) error {
		in := used(5)
		in.RequestID = uuid.NewString()
		return l.Settle(ctx, in)
	},
	"Fail":    func(ctx context.Context, l *registry.Lease) error { return errOf(l.Fail(ctx, denied)) },
	"Release": func(ctx context.Context, l *registry.Lease) error { return l.Release(ctx) },
}

// TestLeaseEndedElsewhere ends leases of which other handles, here and in another process, are told that they have
// ended, and change nothing: open ones, expired ones, and those that have expired and reserve nothing any more.
func TestLeaseEndedElsewhere(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		for _, state := range []string{"open", "expired", "free"} {
			t.Run(engine+"/"+state, func(t *testing.T) {
				t.Parallel()
				open := openByClocks(t, engine)
				here, clock := open(registrytest.Start)
				there, other := open(registrytest.Start)
				p := mustProvider(t, here, "p")
				m := mustModel(t, here, p.ID, "m", gpt4())
				k := mustKey(t, here, p.ID, 1)
				in := registry.AcquireInput{ProviderID: p.ID, EstimatedTokens: 10, TTL: time.Minute}
				for first, end := range leaseEnds {
					for _, in.ModelID = range []uuid.UUID{m.ID, uuid.Nil} {
						if in.ModelID == uuid.Nil && strings.HasPrefix(first, "Settle") {
							continue // it needs one
						}
						require.NoError(t, here.RestoreKey(t.Context(), k.ID))
						lease, err := here.AcquireKey(t.Context(), in)
						require.NoError(t, err)
						second, err := here.GetLease(t.Context(), lease.ID)
						require.NoError(t, err)
						third, err := there.GetLease(t.Context(), lease.ID)
						require.NoError(t, err)
						if state != "open" {
							clock.Advance(2 * time.Minute)
							other.Advance(2 * time.Minute)
						}
						if state == "free" {
							next, err := there.AcquireKey(t.Context(), in)
							require.NoError(t, err)
							require.NoError(t, next.Release(t.Context()))
						}
						require.NoError(t, end(t.Context(), lease))
						requireEnded(t, here, first == "Settle", second, third)
					}
				}
			})
		}
	}
}

// requireEnded ends a lease again through other handles. A Settle is acknowledged if its request is recorded, and not
// that of a Fail.
func requireEnded(t *testing.T, reg *registry.Registry, isRecorded bool, handles ...*registry.Lease) {
	t.Helper()
	before := dump(t, reg)
	for _, handle := range handles {
		for again, end := range leaseEnds {
			if again == "Settle" && isRecorded {
				continue // of this handle it is the end
			}
			require.ErrorIs(t, end(t.Context(), handle), registry.ErrLeaseEnded, again)
		}
		if isRecorded {
			require.NoError(t, handle.Settle(t.Context(), used(5)))
		}
	}
	require.Equal(t, before, dump(t, reg))
}

func TestExpiredLease(t *testing.T) { eachEngine(t, testExpiredLease) }

func testExpiredLease(t *testing.T, e engine) {
	// expired returns a lease that has expired, and whose place another one has taken.
	expired := func(t *testing.T) (*poolTest, *registry.Lease) {
		t.Helper()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		lease := p.acquire(t, 10)
		p.clock.Advance(time.Minute)
		require.NoError(t, p.acquire(t, 1).Release(t.Context()))
		require.Zero(t, p.openLeases(t))
		return p, lease
	}
	count := func(t *testing.T, p *poolTest) int {
		t.Helper()
		n, err := p.Client().ExpiredLease.Query().Count(t.Context())
		require.NoError(t, err)
		return n
	}
	t.Run("that could not be settled", func(t *testing.T) {
		t.Parallel()
		p, lease := expired(t)
		in := used(1)
		in.ModelID = uuid.New()
		require.ErrorIs(t, lease.Settle(t.Context(), in), registry.ErrForeignKey)
		require.Equal(t, 1, count(t, p))
		require.NoError(t, lease.Settle(t.Context(), used(1)))
		require.Zero(t, count(t, p))
		require.EqualValues(t, 1, p.key(t, 0).UsageCount)
	})
	t.Run("for a day", func(t *testing.T) {
		t.Parallel()
		p, lease := expired(t)
		p.clock.Advance(24*time.Hour - time.Microsecond)
		p.acquire(t, 1)
		p.clock.Advance(time.Minute)
		p.acquire(t, 1) // the other one has expired
		require.Equal(t, 1, count(t, p), "one that is new, and not the old one")
		require.ErrorIs(t, lease.Settle(t.Context(), used(1)), registry.ErrLeaseEnded)
		require.Zero(t, p.key(t, 0).UsageCount)
	})
	t.Run("whose key is purged", func(t *testing.T) {
		t.Parallel()
		p, lease := expired(t)
		require.NoError(t, p.PurgeAPIKey(t.Context(), p.keys[0].ID))
		require.Zero(t, count(t, p))
		require.ErrorIs(t, lease.Release(t.Context()), registry.ErrForeignKey)
	})
	t.Run("in a transaction that is undone", func(t *testing.T) {
		t.Parallel()
		p, lease := expired(t)
		require.NoError(t, lease.Release(t.Context()))
		lease = p.acquire(t, 1)
		var within *registry.Lease
		require.ErrorIs(t, p.InTx(t.Context(), func(tx *registry.Registry) (err error) {
			within, err = tx.GetLease(t.Context(), lease.ID)
			require.NoError(t, err)
			require.NoError(t, within.Settle(t.Context(), used(1)))
			require.ErrorIs(t, within.Release(t.Context()), registry.ErrLeaseEnded)
			return errRollback
		}), errRollback)
		require.NoError(t, within.Settle(t.Context(), used(2)), "it has not ended")
		require.ErrorIs(t, lease.Release(t.Context()), registry.ErrLeaseEnded)
		require.EqualValues(t, 2, p.key(t, 0).TokenCount)
	})
}

// TestLeaseEndedAtOnce ends a lease through handles of two processes at once: one of them ends it.
func TestLeaseEndedAtOnce(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			open := openByClocks(t, engine)
			here, clock := open(registrytest.Start)
			there, other := open(registrytest.Start)
			p := mustProvider(t, here, "p")
			m := mustModel(t, here, p.ID, "m", gpt4())
			mustKey(t, here, p.ID, 1)
			for round := range 4 {
				lease, err := here.AcquireKey(
					t.Context(), registry.AcquireInput{ProviderID: p.ID, ModelID: m.ID, TTL: time.Minute},
				)
				require.NoError(t, err)
				var handles []*registry.Lease
				for i := range 8 {
					handle, err := []*registry.Registry{here, there}[i%2].GetLease(t.Context(), lease.ID)
					require.NoError(t, err)
					handles = append(handles, handle)
				}
				if round%2 == 1 { // it has expired
					clock.Advance(time.Hour)
					other.Advance(time.Hour)
				}
				var all sync.WaitGroup
				errs := make([]error, len(handles))
				for i, handle := range handles {
					all.Go(func() {
						in := used(1)
						in.RequestID = uuid.NewString()
						errs[i] = handle.Settle(t.Context(), in)
					})
				}
				all.Wait()
				ended := 0
				for _, err := range errs {
					if err == nil {
						ended++
						continue
					}
					require.ErrorIs(t, err, registry.ErrLeaseEnded)
				}
				require.Equal(t, 1, ended)
				events, err := here.ListUsageEvents(t.Context(), registry.EventFilter{})
				require.NoError(t, err)
				require.Len(t, events, round+1)
			}
		})
	}
}
