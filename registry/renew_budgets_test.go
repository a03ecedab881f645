package registry_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/ent/budgetcrossing"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// renewal raises a lease of spenders to some tokens, at a dollar each.
func renewal(tokens int64) registry.RenewInput {
	return registry.RenewInput{TTL: time.Hour, EstimatedTokens: tokens}
}

// overBudget requires that a renewal does not fit into budgets, and returns why.
func overBudget(t *testing.T, l *registry.Lease, in registry.RenewInput) registry.BudgetError {
	t.Helper()
	err := l.Renew(t.Context(), in)
	require.ErrorIs(t, err, registry.ErrBudget)
	var over *registry.BudgetError
	require.ErrorAs(t, err, &over)
	return *over
}

// TestRenewBudget: what a renewal adds must fit into each budget above, in the window in which the lease began.
func TestRenewBudget(t *testing.T) { eachEngine(t, testRenewBudget) }

func testRenewBudget(t *testing.T, e engine) {
	for name, c := range map[string]struct {
		ceilings registry.Ceilings
		metric   registry.BudgetMetric
		unit     int64
	}{
		"tokens":          {registry.Ceilings{Tokens: 100}, registry.BudgetTokens, 1},
		"cost, of tokens": {registry.Ceilings{Cost: 100 * money.Dollar}, registry.BudgetCost, int64(money.Dollar)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s := newSpenders(t, e)
			s.budget(t, registry.BudgetInput{Ceilings: c.ceilings, Window: registry.Window{Per: entbudget.PerDay}})
			lease, other := s.acquire(t, s.ask(50)), s.acquire(t, s.ask(40))
			before := leaseRow(t, s.reg, lease.ID).String()

			over := overBudget(t, lease, renewal(61))
			require.Len(t, over.Closed, 1)
			closed := over.Closed[0]
			require.Equal(t, []any{c.metric, s.org.ID, 90 * c.unit, 10 * c.unit, 11 * c.unit},
				[]any{closed.Metric, closed.SubjectID, closed.Open, closed.Left, closed.Asked})
			require.True(t, over.OpensAt.IsZero(), "it counts in this window alone")
			require.True(t, over.Sooner, "when the other one ends")
			require.Equal(t, before, leaseRow(t, s.reg, lease.ID).String())
			crossings, err := s.reg.ListBudgetCrossings(ctx, registry.CrossingFilter{})
			require.NoError(t, err)
			require.Len(t, crossings, 1)
			require.Equal(t, budgetcrossing.KindRefused, crossings[0].Kind)
			require.False(t, overBudget(t, lease, renewal(101)).Sooner, "more than there ever is")

			require.NoError(t, lease.Renew(ctx, renewal(60)))
			require.NoError(t, lease.Renew(ctx, renewal(60)), "as if the answer to the first had been lost")
			_ = s.refused(t, s.ask(1))
			_ = overBudget(t, lease, renewal(61))
			require.NoError(t, lease.Renew(ctx, renewal(0)), "it asks for nothing more")
			require.NoError(t, other.Settle(ctx, used(10)))
			require.NoError(t, lease.Renew(ctx, renewal(90)))
			s.clock.Set(lease.AcquiredAt.Add(12*time.Hour - time.Minute))
			require.ErrorIs(t, lease.Renew(ctx, renewal(91)), registry.ErrLeaseEnded)
		})
	}
}

// TestRenewBudgetWindow: a lease counts where it began, whatever window it is renewed in.
func TestRenewBudgetWindow(t *testing.T) { eachEngine(t, testRenewBudgetWindow) }

func testRenewBudgetWindow(t *testing.T, e engine) {
	t.Parallel()
	ctx := t.Context()
	s := newSpenders(t, e)
	s.budget(t, registry.BudgetInput{
		Ceilings: registry.Ceilings{Tokens: 100, Requests: 1, Concurrency: 2},
		Window:   registry.Window{Per: entbudget.PerMinute},
	})
	in := s.ask(50)
	in.TTL = time.Hour
	lease := s.acquire(t, in)
	s.clock.Advance(time.Minute)
	s.acquire(t, s.ask(100)) // all of this minute
	_ = s.refused(t, s.ask(1))
	require.NoError(t, lease.Renew(ctx, renewal(100)), "of its own minute there are fifty left")
	over := overBudget(t, lease, renewal(101))
	require.Len(t, over.Closed, 1, "it is one request, as before")
	require.Equal(t, []any{registry.BudgetTokens, lease.AcquiredAt, int64(100)},
		[]any{over.Closed[0].Metric, over.Closed[0].Begin, over.Closed[0].Open})
	require.False(t, over.Sooner)
	require.NoError(t, s.reg.InTx(ctx, func(tx *registry.Registry) error {
		l, err := tx.GetLease(ctx, lease.ID)
		require.NoError(t, err)
		_ = overBudget(t, l, renewal(101))
		return l.Renew(ctx, renewal(100))
	}))

	// The price is that of the lease's beginning, and a model without one passes no ceiling of cost.
	s.budget(t, registry.BudgetInput{Name: "cost", Ceilings: registry.Ceilings{Cost: 1000 * money.Dollar}})
	s.clock.Advance(time.Minute)
	_, err := s.reg.UpdateModelPricing(ctx, s.model.ID, registry.PriceInput{Unknown: true})
	require.NoError(t, err)
	require.NoError(t, s.reg.DeleteBudget(ctx, over.Closed[0].BudgetID))
	require.NoError(t, lease.Renew(ctx, renewal(200)))
	require.EqualValues(t, 200*money.Dollar, leaseRow(t, s.reg, lease.ID).ReservedCost)
	require.True(t, s.refused(t, s.ask(1)).Closed[0].NoPrice)
}

// TestRenewBudgetAtOnce renews leases of two pools from two processes at once: nothing but the budget keeps them apart.
func TestRenewBudgetAtOnce(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			open := openByClocks(t, engine)
			here, _ := open(registrytest.Start)
			there, _ := open(registrytest.Start)
			org := mustConsumer(t, here, "org", uuid.Nil)
			const ceiling = 1000
			_, err := here.CreateBudget(ctx, registry.BudgetInput{
				ConsumerID: org.ID, Name: "b", Ceilings: registry.Ceilings{Tokens: ceiling},
			})
			require.NoError(t, err)
			inputs := make([]registry.AcquireInput, 2)
			for i, name := range []string{"p", "q"} {
				p := mustProvider(t, here, name)
				mustKey(t, here, p.ID, i)
				inputs[i] = registry.AcquireInput{
					ProviderID: p.ID, ModelID: mustModel(t, here, p.ID, "m", nil).ID, ConsumerID: org.ID,
				}
			}
			var all sync.WaitGroup
			granted, errs := make([]int64, 8), make([]error, 8)
			for i := range granted {
				all.Go(func() {
					_, granted[i], errs[i] = grow(ctx, []*registry.Registry{here, there}[i%2], inputs[i%2])
				})
			}
			all.Wait()
			require.NoError(t, errors.Join(errs...))
			sum := int64(0)
			for _, n := range granted {
				sum += n
			}
			require.LessOrEqual(t, sum, int64(ceiling))
			require.Greater(t, sum, int64(ceiling-20), "they were refused by the budget alone")
		})
	}
}

// TestRenewNoPrice: a lease that was acquired before there was a budget of cost goes on, and reserves no more.
func TestRenewNoPrice(t *testing.T) { eachEngine(t, testRenewNoPrice) }

func testRenewNoPrice(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	in := s.ask(5)
	in.ModelID = mustModel(t, s.reg, s.provider.ID, "unpriced", nil).ID
	lease := s.acquire(t, in)
	s.budget(t, registry.BudgetInput{Ceilings: registry.Ceilings{Cost: money.Dollar}})
	require.NoError(t, lease.Renew(t.Context(), renewal(0)))
	require.NoError(t, lease.Renew(t.Context(), renewal(5)), "it has reserved as much before")
	require.True(t, overBudget(t, lease, renewal(6)).Closed[0].NoPrice)
}

// TestRenewForbidden: who may not use the key any more cannot renew its lease, which can still be settled.
func TestRenewForbidden(t *testing.T) { eachEngine(t, testRenewForbidden) }

func testRenewForbidden(t *testing.T, e engine) {
	for name, c := range map[string]struct {
		change func(t *testing.T, s *spenders, accessKey uuid.UUID) error
		reason registry.ForbiddenReason
	}{
		"access key deleted": {func(t *testing.T, s *spenders, id uuid.UUID) error {
			t.Helper()
			return s.reg.DeleteAccessKey(t.Context(), id)
		}, registry.AccessKeyDeleted},
		"consumer above disabled": {func(t *testing.T, s *spenders, _ uuid.UUID) error {
			t.Helper()
			_, err := s.reg.UpdateConsumer(t.Context(), s.org.ID, registry.ConsumerUpdate{Disabled: new(true)})
			return err
		}, registry.ConsumerDisabled},
		"consumer deleted": {func(t *testing.T, s *spenders, _ uuid.UUID) error {
			t.Helper()
			return s.reg.DeleteConsumer(t.Context(), s.user.ID)
		}, registry.ConsumerDeleted},
		"model denied": {func(t *testing.T, s *spenders, _ uuid.UUID) error {
			t.Helper()
			_, err := s.reg.UpdateConsumer(t.Context(), s.team.ID, registry.ConsumerUpdate{
				Permissions: &[]registry.Permission{{ProviderID: s.provider.ID, Deny: true}},
			})
			return err
		}, registry.ModelDenied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s := newSpenders(t, e)
			key, _, err := s.reg.CreateAccessKey(ctx, registry.AccessKeyInput{ConsumerID: s.user.ID})
			require.NoError(t, err)
			in := s.ask(1)
			if c.reason != registry.ConsumerDeleted { // its access keys are deleted with it
				in.ConsumerID, in.AccessKeyID = uuid.Nil, key.ID
			}
			lease := s.acquire(t, in)
			require.NoError(t, lease.Renew(ctx, renewal(2)))
			require.NoError(t, c.change(t, s, key.ID))
			before := leaseRow(t, s.reg, lease.ID).String()
			for _, more := range []registry.RenewInput{renewal(0), renewal(3)} {
				err = lease.Renew(ctx, more)
				require.ErrorIs(t, err, registry.ErrForbidden)
				var forbidden *registry.ForbiddenError
				require.ErrorAs(t, err, &forbidden)
				require.Equal(t, c.reason, forbidden.Reason)
			}
			require.Equal(t, before, leaseRow(t, s.reg, lease.ID).String())
			require.NoError(t, lease.Settle(ctx, used(2)))
		})
	}
}

// TestRenewModelPurged: a lease for a consumer, whose model is gone, cannot be renewed.
func TestRenewModelPurged(t *testing.T) { eachEngine(t, testRenewModelPurged) }

func testRenewModelPurged(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	lease := s.acquire(t, s.ask(1))
	in := s.ask(1)
	in.ConsumerID = uuid.Nil
	ofNobody := s.acquire(t, in)
	require.NoError(t, s.reg.DeleteModel(t.Context(), s.model.ID))
	require.NoError(t, s.reg.PurgeModel(t.Context(), s.model.ID))
	require.ErrorIs(t, lease.Renew(t.Context(), renewal(2)), registry.ErrForeignKey)
	require.NoError(t, ofNobody.Renew(t.Context(), renewal(2)))
}
