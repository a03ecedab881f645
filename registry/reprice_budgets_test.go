package registry_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// costs returns the cost and the requests without one of a budget's counters in windows that have not ended.
func (r *recounts) costs(t *testing.T, b *ent.Budget) (cost money.USD, unpriced int64) {
	t.Helper()
	for _, w := range r.reg.Client().Budget.GetX(t.Context(), b.ID).QueryWindows().AllX(t.Context()) {
		if w.WindowEnd.After(r.clock.Now()) {
			cost, unpriced = cost+w.Cost, unpriced+w.UnpricedRequests
		}
	}
	return cost, unpriced
}

func (r *recounts) setPrice(t *testing.T, m *ent.Model, dollars int64, from time.Time) {
	t.Helper()
	_, err := r.reg.UpdateModelPricing(t.Context(), m.ID, registry.PriceInput{
		Rates: money.Rates{meter.Input: money.USD(dollars) * money.Dollar}, EffectiveFrom: from,
	})
	require.NoError(t, err)
}

// TestRepriceBudgets prices usage anew where events are kept, where quarters of an hour are, and where days are alone:
// counters follow, and pass thresholds. In between a consumer moves.
func TestRepriceBudgets(t *testing.T) { eachEngine(t, testRepriceBudgets) }

func testRepriceBudgets(t *testing.T, e engine) {
	t.Parallel()
	r := newRecounts(t, e)
	first := r.clock.Now()
	r.model = mustModel(t, r.reg, r.provider.ID, "cheap", money.Rates{meter.Input: 250_000 * money.Dollar})
	r.months(t, 2)
	month := r.budget(t, registry.BudgetInput{Name: "month", Ceilings: registry.Ceilings{Cost: 2000 * money.Dollar}})
	r.budget(t, registry.BudgetInput{
		Name: "total", Ceilings: registry.Ceilings{Cost: 5 * money.Dollar}, Each: true, EachKind: "user",
		Window: registry.Window{Per: entbudget.PerTotal},
	})
	r.budget(t, registry.BudgetInput{
		ConsumerID: r.team.ID, Ceilings: registry.Ceilings{Requests: 1000},
		Window: registry.Window{Per: entbudget.PerDay},
	})
	other := r.budget(t, registry.BudgetInput{
		Name: "other", Ceilings: registry.Ceilings{Cost: money.Dollar}, Models: []string{"x"},
	})
	r.months(t, 5)
	r.use(t, r.user, r.clock.Now().Add(30*time.Minute), 9) // of a clock that is ahead
	was, _ := r.costs(t, month)
	require.Equal(t, money.USD(r.tokens(first, r.user, r.rival))*money.Dollar/4, was)
	reprice := func(rate int64) money.USD {
		r.setPrice(t, r.model, rate, first)
		_, err := r.reg.Reprice(t.Context(), registry.RepriceInput{ModelID: r.model.ID})
		require.NoError(t, err)
		require.Empty(t, verified(t, r.reg).Differences)
		cost, _ := r.costs(t, month)
		return cost
	}
	require.Equal(t, was/2, reprice(125_000))
	require.Equal(t, was*2, reprice(500_000))
	crossings, err := r.reg.ListBudgetCrossings(t.Context(), registry.CrossingFilter{})
	require.NoError(t, err)
	noted := len(crossings)
	_, err = r.reg.Prune(t.Context(), registry.PruneInput{
		Events: 24 * time.Hour, Quarters: 48 * time.Hour, Budget: time.Minute,
	})
	require.NoError(t, err)
	require.NoError(t, second(r.reg.MoveConsumer(t.Context(), r.user.ID, r.others.ID)))
	require.Equal(t, was*3, reprice(750_000))
	crossings, err = r.reg.ListBudgetCrossings(t.Context(), registry.CrossingFilter{})
	require.NoError(t, err)
	require.Greater(t, len(crossings), noted)
	dry, err := r.reg.Reprice(t.Context(), registry.RepriceInput{ModelID: r.model.ID, DryRun: true})
	require.NoError(t, err)
	require.Zero(t, dry.Requests)
	cost, _ := r.costs(t, other)
	require.Zero(t, cost)
	kind := "robot"
	require.NoError(t, second(r.reg.UpdateConsumer(t.Context(), r.user.ID, registry.ConsumerUpdate{Kind: &kind})))
	require.Empty(t, verified(t, r.reg).Differences)
}
