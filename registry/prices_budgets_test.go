package registry_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/ent/budgetcrossing"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// unpriced are recounts with usage of some days without a cost, and with budgets on cost.
type unpriced struct {
	*recounts

	month, each *ent.Budget
	priced      *ent.Model
	first       time.Time
}

func newUnpriced(t *testing.T, e engine) *unpriced {
	t.Helper()
	u := &unpriced{recounts: newRecounts(t, e)}
	u.priced, u.first = u.model, u.clock.Now()
	u.model = mustModel(t, u.reg, u.provider.ID, "unpriced", nil)
	u.month = u.budget(t, registry.BudgetInput{Name: "month", Ceilings: registry.Ceilings{Cost: 1000 * money.Dollar}})
	u.each = u.budget(t, registry.BudgetInput{
		Name: "each", Ceilings: registry.Ceilings{Cost: 100_000 * money.Dollar}, Each: true, EachKind: "user",
		Window: registry.Window{Per: entbudget.PerTotal},
	})
	u.months(t, 3)
	cost, requests := u.costs(t, u.month)
	require.Zero(t, cost)
	require.EqualValues(t, 24, requests)
	return u
}

// price is a dollar a token, since the first request.
func (u *unpriced) price() registry.PriceInput {
	return registry.PriceInput{Rates: money.Rates{meter.Input: 1_000_000 * money.Dollar}, EffectiveFrom: u.first}
}

// ask is a request of the user to a model whose price is known.
func (u *unpriced) ask() registry.AcquireInput {
	in := u.spenders.ask(1)
	in.ModelID = u.priced.ID
	return in
}

// requireCounted requires that the budgets have counted what all usage costs, and refuse what is too much.
func (u *unpriced) requireCounted(t *testing.T) {
	t.Helper()
	all := money.USD(u.tokens(u.first, u.user, u.rival)) * money.Dollar
	for _, b := range []*ent.Budget{u.month, u.each} {
		cost, requests := u.costs(t, b)
		require.Equal(t, all, cost, b.Name)
		require.Zero(t, requests, b.Name)
	}
	require.Empty(t, verified(t, u.reg).Differences)
	refused := u.refused(t, u.ask())
	require.Equal(t, []any{u.month.ID, int64(all)}, []any{refused.Closed[0].BudgetID, refused.Closed[0].Ended})
	crossings, err := u.reg.ListBudgetCrossings(t.Context(), registry.CrossingFilter{})
	require.NoError(t, err)
	var noted []int
	for _, c := range crossings {
		require.Equal(t, u.month.ID, c.BudgetID)
		if c.Kind == budgetcrossing.KindThreshold {
			noted = append(noted, c.Percent)
		}
	}
	require.ElementsMatch(t, []int{80, 100}, noted)
}

// TestPriceBudgets: past usage that gets a cost counts in budgets, where events are kept and where quarters of an hour
// are.
func TestPriceBudgets(t *testing.T) { eachEngine(t, testPriceBudgets) }

func testPriceBudgets(t *testing.T, e engine) {
	t.Parallel()
	u := newUnpriced(t, e)
	require.NoError(t, u.acquire(t, u.ask()).Release(t.Context()))
	_, err := u.reg.Prune(t.Context(), registry.PruneInput{Events: 24 * time.Hour, Budget: time.Minute})
	require.NoError(t, err)
	require.NoError(t, second(u.reg.UpdateModelPricing(t.Context(), u.model.ID, u.price())))
	u.requireCounted(t)
}

// TestPriceBudgetsWithin: the same within a transaction, and one that is undone.
func TestPriceBudgetsWithin(t *testing.T) { eachEngine(t, testPriceBudgetsWithin) }

func testPriceBudgetsWithin(t *testing.T, e engine) {
	t.Parallel()
	u := newUnpriced(t, e)
	registry.InPieces(u.reg, 5, nil)
	price := func(end error) error {
		return u.reg.InTx(t.Context(), func(tx *registry.Registry) error {
			require.NoError(t, second(tx.UpdateModelPricing(t.Context(), u.model.ID, u.price())))
			w := tx.Client().Budget.GetX(t.Context(), u.month.ID).QueryWindows().OnlyX(t.Context())
			require.Zero(t, w.UnpricedRequests)
			require.Empty(t, verified(t, tx).Differences)
			return end
		})
	}
	require.ErrorIs(t, price(errRollback), errRollback)
	cost, _ := u.costs(t, u.month)
	require.Zero(t, cost)
	require.Empty(t, verified(t, u.reg).Differences)
	require.NoError(t, price(nil))
	u.requireCounted(t)
}

// TestPriceBudgetsInPieces is interrupted after each piece, and after each budget. Calling again counts, also if all
// usage has its cost by then.
func TestPriceBudgetsInPieces(t *testing.T) { eachEngine(t, testPriceBudgetsInPieces) }

func testPriceBudgetsInPieces(t *testing.T, e engine) {
	t.Parallel()
	u := newUnpriced(t, e)
	stop := errors.New("interrupted")
	registry.InPieces(u.reg, 5, func(context.Context) error { return stop })
	for calls := 1; ; calls++ {
		left, err := u.reg.UnpricedUsage(t.Context())
		require.NoError(t, err)
		err = second(u.reg.UpdateModelPricing(t.Context(), u.model.ID, u.price()))
		require.ErrorIs(t, err, stop)
		require.ErrorContains(t, err, "call again")
		if len(left) == 0 {
			require.Greater(t, calls, 3)
			break
		}
	}
	require.NotEmpty(t, verified(t, u.reg).Differences, "one budget is not counted")
	registry.InPieces(u.reg, 5, func(context.Context) error { return nil })
	require.NoError(t, second(u.reg.UpdateModelPricing(t.Context(), u.model.ID, u.price())))
	u.requireCounted(t)
}

// TestPriceBudgetsUnused: the price of a model that has no usage counts nothing.
func TestPriceBudgetsUnused(t *testing.T) { eachEngine(t, testPriceBudgetsUnused) }

func testPriceBudgetsUnused(t *testing.T, e engine) {
	t.Parallel()
	u := newUnpriced(t, e)
	u.reg.Past().BudgetWindow.Update().SetTokens(1).ExecX(t.Context())
	wrong := len(verified(t, u.reg).Differences)
	require.NotZero(t, wrong)
	require.NoError(t, second(u.reg.UpdateModelPricing(t.Context(), u.priced.ID, u.price())))
	require.Len(t, verified(t, u.reg).Differences, wrong)
}

// TestPriceBudgetsOrder: within a transaction, whoever prices usage anew waits for requests that are being recorded
// before it keeps others from the model. In another order they would wait for each other.
func TestPriceBudgetsOrder(t *testing.T) {
	t.Parallel()
	u := newUnpriced(t, onPostgres)
	ctx := t.Context()
	record := func(tx *registry.Registry, model uuid.UUID) {
		in := used(1)
		in.ModelID, in.APIKeyID, in.ConsumerID = model, u.key.ID, u.user.ID
		require.NoError(t, tx.RecordUsage(ctx, in))
		u.spent[u.user.ID][u.clock.Now()]++
	}
	for _, price := range []func(tx *registry.Registry) error{
		func(tx *registry.Registry) error { return second(tx.UpdateModelPricing(ctx, u.model.ID, u.price())) },
		func(tx *registry.Registry) error {
			return second(tx.Reprice(ctx, registry.RepriceInput{ModelID: u.model.ID}))
		},
	} {
		result := make(chan error, 1)
		require.NoError(t, u.reg.InTx(ctx, func(tx *registry.Registry) error {
			record(tx, u.priced.ID)
			go func() { result <- u.reg.InTx(ctx, price) }()
			for waiting := 0; waiting == 0; {
				var err error
				waiting, err = pgQuery[int](ctx, u.reg, "SELECT count(*) FROM pg_stat_activity"+
					" WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'")
				if err != nil {
					return err
				}
			}
			record(tx, u.model.ID)
			return nil
		}))
		require.NoError(t, <-result)
		u.requireCounted(t)
	}
}
