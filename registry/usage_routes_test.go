package registry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// routes are two registries on one PostgreSQL database, as of two processes, and for each of them a model and a key
// that the other does not use: no lock of a model or a key keeps them from recording the same request at once.
type routes struct {
	url    string
	regs   [2]*registry.Registry
	models [2]*ent.Model
	keys   [2]*ent.APIKey
}

func newRoutes(t *testing.T) *routes {
	t.Helper()
	r := &routes{url: registrytest.PostgresURL(t)}
	r.regs = [2]*registry.Registry{r.open(t), r.open(t)}
	t.Cleanup(func() {
		for _, reg := range r.regs {
			require.NoError(t, reg.Close())
		}
	})
	p := mustProvider(t, r.regs[0], "p")
	for i := range r.regs {
		r.models[i] = mustModel(t, r.regs[0], p.ID, fmt.Sprint("m", i), gpt4())
		r.keys[i] = mustKey(t, r.regs[0], p.ID, i)
	}
	record(t, r.regs[0], r.models[0], r.keys[0], 1, 1) // makes the day's partition
	return r
}

func (r *routes) open(t *testing.T) *registry.Registry {
	t.Helper()
	reg, err := registry.Open(t.Context(), r.url, registry.WithDurability(registry.DurabilityRelaxed),
		registry.WithClock(func() time.Time { return registrytest.Start }))
	require.NoError(t, err)
	return reg
}

// input is a request as it took a route.
func (r *routes) input(route int, requestID string) registry.UsageInput {
	return registry.UsageInput{
		RequestID: requestID, ModelID: r.models[route].ID, APIKeyID: r.keys[route].ID,
		Tokens: meter.Tokens{InputTokens: 1},
	}
}

// TestRequestIDOfTwoRoutes repeats a request with another model and key while it is being recorded: it is refused, and
// so is what is done in one transaction with it; but a lease ends.
func TestRequestIDOfTwoRoutes(t *testing.T) {
	t.Parallel()
	type repeated func(ctx context.Context, r *routes, lease *registry.Lease, in registry.UsageInput) error
	for name, repeat := range map[string]repeated{
		"RecordUsage": func(ctx context.Context, r *routes, _ *registry.Lease, in registry.UsageInput) error {
			return r.regs[1].RecordUsage(ctx, in)
		},
		"RecordUsageBatch": func(ctx context.Context, r *routes, _ *registry.Lease, in registry.UsageInput) error {
			return r.regs[1].RecordUsageBatch(ctx, []registry.UsageInput{r.input(1, "before"), in, r.input(1, "after")})
		},
		"InTx": func(ctx context.Context, r *routes, _ *registry.Lease, in registry.UsageInput) error {
			return r.regs[1].InTx(ctx, func(tx *registry.Registry) error {
				if err := tx.RecordUsage(ctx, r.input(1, "before")); err != nil {
					return err
				}
				if err := tx.RecordUsage(ctx, in); err != nil {
					return err
				}
				return tx.RecordUsage(ctx, r.input(1, "after"))
			})
		},
		"Settle": func(ctx context.Context, _ *routes, lease *registry.Lease, in registry.UsageInput) error {
			return lease.Settle(ctx, in)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, r := t.Context(), newRoutes(t)
			lease, err := r.regs[1].AcquireKey(ctx, registry.AcquireInput{
				ProviderID: r.models[1].ProviderID, ModelID: r.models[1].ID, Exclude: []uuid.UUID{r.keys[0].ID},
				TTL: time.Minute,
			})
			require.NoError(t, err)
			var done atomic.Bool
			result := make(chan error, 1)
			require.NoError(t, r.regs[0].InTx(ctx, func(tx *registry.Registry) error {
				if err := tx.RecordUsage(ctx, r.input(0, "r")); err != nil {
					return err
				}
				go func() {
					err := repeat(ctx, r, lease, r.input(1, "r"))
					done.Store(true)
					result <- err
				}()
				for waiting := 0; waiting == 0 && !done.Load(); {
					var err error
					waiting, err = pgQuery[int](ctx, r.regs[0], "SELECT count(*) FROM pg_stat_activity"+
						" WHERE datname = current_database() AND wait_event_type = 'Lock'")
					if err != nil {
						return err
					}
				}
				require.False(t, done.Load(), "it waits for the other to commit")
				return nil
			}))
			require.ErrorIs(t, <-result, registry.ErrConflict)
			of, err := r.regs[0].Client().UsageEvent.Query().Where(usageevent.RequestID("r")).OnlyX(ctx).QueryModel().
				Only(ctx)
			require.NoError(t, err)
			require.Equal(t, r.models[0].ID, of.ID, "who was first has recorded it")
			require.EqualValues(t, 2, recorded(t, r.regs[0]))
			leases, err := r.regs[0].Client().KeyLease.Query().Count(ctx)
			require.NoError(t, err)
			require.Equal(t, map[bool]int{true: 0, false: 1}[name == "Settle"], leases)
		})
	}
}

// TestRequestIDsOfTwoRoutes has both record requests under the same ids at once, in opposite orders: each counts once,
// the other one is refused, and none of them stands in the other's way.
func TestRequestIDsOfTwoRoutes(t *testing.T) {
	t.Parallel()
	ctx, r := t.Context(), newRoutes(t)
	const rounds, requests = 10, 40
	var wg sync.WaitGroup
	var refused atomic.Int64
	check := func(what string, number int, err error) {
		if errors.Is(err, registry.ErrConflict) {
			refused.Add(1)
		} else if err != nil {
			t.Errorf("%s %d: %v", what, number, err)
		}
	}
	for route, reg := range r.regs {
		wg.Go(func() {
			for round := range rounds {
				var inputs []registry.UsageInput
				for i := range requests {
					inputs = append(inputs, r.input(route, fmt.Sprint("batch ", round, " ", i)))
				}
				if route == 1 {
					slices.Reverse(inputs)
				}
				check("batch", round, reg.RecordUsageBatch(ctx, inputs))
			}
		})
		wg.Go(func() {
			for i := range rounds * requests {
				check("request", i, reg.RecordUsage(ctx, r.input(route, fmt.Sprint("single ", i))))
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1+2*rounds*requests, recorded(t, r.regs[0]))
	require.EqualValues(t, rounds+rounds*requests, refused.Load())

	for _, reg := range r.regs {
		require.NoError(t, reg.Close()) // then the server has counted what they did
	}
	after := r.open(t)
	defer func() { require.NoError(t, after.Close()) }()
	for others := 1; others > 0; {
		others = must(pgQuery[int](ctx, after, "SELECT count(*) FROM pg_stat_activity WHERE datname ="+
			" current_database()"+
			" AND backend_type = 'client backend' AND pid <> pg_backend_pid()"))
	}
	require.Zero(
		t, must(pgQuery[int](ctx, after, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")),
	)
}
