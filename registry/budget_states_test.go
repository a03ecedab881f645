package registry_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// What a request costs follows from its tokens, if nobody says so.
func TestBudgetEstimates(t *testing.T) { eachEngine(t, testBudgetEstimates) }

func testBudgetEstimates(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	s.budget(t, registry.BudgetInput{Ceilings: registry.Ceilings{Cost: 100 * money.Dollar}})
	model := mustModel(t, s.reg, s.provider.ID, "two rates", money.Rates{
		meter.Input: 200_000 * money.Dollar, meter.Output: 1_000_000 * money.Dollar, // 20 cents and a dollar a token
	})
	ask := func(tokens, output int64, cost money.USD) registry.AcquireInput {
		in := s.ask(0)
		in.ModelID, in.EstimatedTokens, in.EstimatedOutputTokens, in.EstimatedCost = model.ID, tokens, output, cost
		return in
	}
	asked := func(in registry.AcquireInput) money.USD {
		t.Helper()
		states, err := s.reg.ExplainBudgets(t.Context(), in)
		require.NoError(t, err)
		return money.USD(states[0].Asked)
	}
	require.Equal(t, 10*money.Dollar, asked(ask(10, 0, 0)), "all of it as output")
	require.Equal(t, 6*money.Dollar, asked(ask(10, 5, 0)))
	require.Equal(t, 7*money.Dollar, asked(ask(10, 5, 7*money.Dollar)), "as the caller says")
	require.Zero(t, asked(ask(0, 0, 0)))
	s.refused(t, ask(101, 0, 0))
	l := s.acquire(t, ask(100, 0, 0))
	require.Equal(t, int64(100*money.Dollar), s.refused(t, ask(1, 0, 0)).Closed[0].Open)
	require.NoError(t, l.Release(t.Context()))
}

// A request that has no price passes no ceiling of cost, unless the budget allows it.
func TestBudgetUnpriced(t *testing.T) { eachEngine(t, testBudgetUnpriced) }

func testBudgetUnpriced(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	b := s.budget(t, registry.BudgetInput{Ceilings: registry.Ceilings{Cost: money.Dollar}})
	in := s.ask(0)
	in.ModelID = mustModel(t, s.reg, s.provider.ID, "unpriced", money.Rates{}).ID
	over := s.refused(t, in)
	require.True(t, over.Closed[0].NoPrice)
	require.True(t, over.OpensAt.IsZero())
	require.ErrorContains(t, &over, "the model has no price")
	output := s.ask(2)
	output.EstimatedOutputTokens = 1
	require.True(t, s.refused(t, output).Closed[0].NoPrice, "output has no rate")

	_, err := s.reg.UpdateBudget(t.Context(), b.ID, registry.BudgetUpdate{
		OnUnpriced: ptr(entbudget.OnUnpricedAllow),
	})
	require.NoError(t, err)
	require.NoError(t, s.acquire(t, in).Settle(t.Context(), used(1)))
	states, err := s.reg.ExplainBudgets(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, int64(1), states[0].Unpriced)
}

// A request counts in the window in which its lease began, whenever it ends.
func TestBudgetMidnight(t *testing.T) { eachEngine(t, testBudgetMidnight) }

func testBudgetMidnight(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	s.budget(t, registry.BudgetInput{
		Ceilings: registry.Ceilings{Requests: 1}, Window: registry.Window{Per: entbudget.PerDay},
	})
	s.clock.Set(time.Date(2026, 7, 15, 23, 59, 50, 0, time.UTC))
	first := s.acquire(t, s.ask(1))
	s.clock.Advance(20 * time.Second)
	second := s.acquire(t, s.ask(1))
	require.NoError(t, first.Settle(t.Context(), used(1)))
	require.NoError(t, second.Settle(t.Context(), used(1)))
	windows := s.reg.Client().BudgetWindow.Query().AllX(t.Context())
	require.Len(t, windows, 2)
	for _, w := range windows {
		require.Equal(t, int64(1), w.Requests)
	}
}
