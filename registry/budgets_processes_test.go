package registry_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// Many callers in two processes share an organisation's budget, and it is never passed.
func TestBudgetProcesses(t *testing.T) { eachEngineAtOnce(t, testBudgetProcesses) }

func testBudgetProcesses(t *testing.T, e engine) {
	t.Parallel()
	const requests, dollars = 40, 100
	name := e.filled(t, "empty", func(name string) { require.NoError(t, mustOpen(t, name).Close()) })
	clock := registrytest.NewClock(registrytest.Start)
	var regs []*registry.Registry
	for range 2 {
		regs = append(regs, openWith(t, name, registry.WithClock(clock.Now), registry.WithoutMigration()))
	}
	s := &spenders{reg: regs[0], clock: clock, provider: mustProvider(t, regs[0], "openai")}
	s.model = mustModel(t, s.reg, s.provider.ID, "gpt-4", money.Rates{meter.Input: 1_000_000 * money.Dollar})
	s.key = mustKey(t, s.reg, s.provider.ID, 1)
	// The other process uses keys of another provider: what they share is the budget.
	other := &spenders{provider: mustProvider(t, s.reg, "anthropic")}
	other.model = mustModel(t, s.reg, other.provider.ID, "claude", money.Rates{meter.Input: 1_000_000 * money.Dollar})
	other.key = mustKey(t, s.reg, other.provider.ID, 2)
	s.org = mustConsumer(t, s.reg, "org", uuid.Nil)
	s.user, other.user = s.org, s.org
	b := s.budget(t, registry.BudgetInput{
		Ceilings: registry.Ceilings{Requests: requests, Cost: dollars * money.Dollar},
	})
	var admitted, refused, open atomic.Int64
	var all sync.WaitGroup
	for i := range 16 {
		user := mustConsumer(t, s.reg, string(rune('a'+i)), s.org.ID)
		reg, of := regs[i%2], []*spenders{s, other}[i%2]
		all.Go(func() {
			for n := range 10 {
				in := of.ask(int64(1 + n%4))
				in.ConsumerID = user.ID
				l, err := reg.AcquireKey(t.Context(), in)
				switch {
				case errors.Is(err, registry.ErrBudget):
					refused.Add(1)
					continue
				case err != nil:
					t.Error(err)
					return
				}
				admitted.Add(1)
				if held := open.Add(1); held > requests {
					t.Errorf("%d requests are open", held)
				}
				if n%3 == 0 {
					open.Add(-1)
					admitted.Add(-1)
					err = l.Release(t.Context())
				} else {
					err = l.Settle(t.Context(), used(int64(1+n%4)))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	require.Positive(t, refused.Load())
	require.LessOrEqual(t, admitted.Load(), int64(requests))
	states, err := regs[1].ExplainBudgets(t.Context(), registry.AcquireInput{
		ProviderID: s.provider.ID, ModelID: s.model.ID, ConsumerID: s.org.ID, TTL: time.Minute,
	})
	require.NoError(t, err)
	for _, state := range states {
		require.Equal(t, b.ID, state.BudgetID)
		require.LessOrEqual(t, state.Ended, state.Ceiling)
		require.Zero(t, state.Open)
	}
	require.Equal(t, admitted.Load(), states[1].Ended)
}
