package registry

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"
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
	untilWaiting(reg, callers)
	require.NoError(t, lease.Release(ctx))
	for range callers {
		require.NoError(t, <-got)
	}
}

func untilWaiting(reg *Registry, callers int) {
	for Waiting(reg) < callers {
		runtime.Gosched()
	}
}

// TestWaitersPassOn wakes callers who cannot use a key, because of their budget: the next one gets it.
func TestWaitersPassOn(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	reg, err := Open(ctx, ":memory:")
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	reg.waiters.poll = time.Hour
	input := func(name string) AcquireInput {
		p, err := reg.CreateProvider(ctx, ProviderInput{Name: name})
		require.NoError(t, err)
		m, err := reg.CreateModel(ctx, ModelInput{ProviderID: p.ID, ModelID: "m"})
		require.NoError(t, err)
		key := KeyInput{ProviderID: p.ID, APIKey: "sk-test-000000000001", Limits: Limits{Concurrency: 1}}
		_, err = reg.AddAPIKey(ctx, key)
		require.NoError(t, err)
		return AcquireInput{ProviderID: p.ID, ModelID: m.ID, TTL: time.Hour}
	}
	in, elsewhere := input("p"), input("elsewhere")
	poor, err := reg.CreateConsumer(ctx, ConsumerInput{Name: "poor"})
	require.NoError(t, err)
	_, err = reg.CreateBudget(ctx, BudgetInput{ConsumerID: poor.ID, Name: "b", Ceilings: Ceilings{Concurrency: 1}})
	require.NoError(t, err)
	elsewhere.ConsumerID = poor.ID
	spent, err := reg.AcquireKey(ctx, elsewhere)
	require.NoError(t, err)
	busy, err := reg.AcquireKey(ctx, in)
	require.NoError(t, err)

	wait := func(in AcquireInput) chan error {
		got, already := make(chan error, 1), Waiting(reg)
		in.Wait = true
		go func() {
			lease, err := reg.AcquireKey(ctx, in)
			if err == nil {
				err = lease.Release(ctx)
			}
			got <- err
		}()
		untilWaiting(reg, already+1)
		return got
	}
	ofPoor := in
	ofPoor.ConsumerID = poor.ID
	refused := []chan error{wait(ofPoor), wait(ofPoor)}
	served := wait(in)
	require.NoError(t, busy.Release(ctx))
	require.NoError(t, <-served)
	untilWaiting(reg, len(refused))

	// With room in the budget, the end of a lease of the provider wakes them one after the other.
	require.NoError(t, spent.Release(ctx))
	reg.waiters.wake(in.ProviderID)
	for _, got := range refused {
		require.NoError(t, <-got)
	}
}

// TestWaitersTurns passes turns on: each caller is given a turn once.
func TestWaitersTurns(t *testing.T) {
	t.Parallel()
	var w waiters
	var provider uuid.UUID
	callers := [3]waiter{}
	for i := range callers {
		w.enter(provider, &callers[i])
	}
	woken := func(i int) bool {
		select {
		case <-callers[i].wake:
			return true
		default:
			return false
		}
	}
	w.wake(provider)
	for i := range callers {
		require.True(t, woken(i), i)
		w.enter(provider, &callers[i]) // it could not use its turn, and waits again
		w.passOn(provider, &callers[i])
	}
	for i := range callers {
		require.False(t, woken(i), i)
	}
	w.wake(provider)
	require.True(t, woken(0))
	w.leave(provider, &callers[1], false)
	w.leave(provider, &callers[0], false)
	require.True(t, woken(2), "who leaves without using a turn passes it on")
	require.Empty(t, w.list)
}
