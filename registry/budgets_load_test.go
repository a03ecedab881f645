package registry_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestNoDeadlocksOfBudgets has four processes record and lease for the users of two organisations, in opposite orders,
// while one of them changes budgets, moves users and makes dimensions: nobody waits for somebody who waits for him.
func TestNoDeadlocksOfBudgets(t *testing.T) {
	long(t, "many transactions wait for each other")
	t.Parallel()
	l := newBudgetLoad(t)
	var all sync.WaitGroup
	for i := range l.models {
		all.Go(func() { l.record(t, i) })
		for n := range 8 {
			all.Go(func() { l.lease(t, i, n) })
		}
	}
	all.Go(func() { l.change(t) })
	all.Wait()
	requireProven(t, l.regs[0])
	for _, reg := range l.regs {
		require.NoError(t, reg.Close()) // then servers tell what they counted
	}
	requireNoDeadlocks(t, l.name)
}

// budgetLoad is processes on one database, and the users of two organisations.
type budgetLoad struct {
	name    string
	regs    []*registry.Registry
	models  []*ent.Model // of a provider for each process, so that they share nothing but the users
	keys    []*ent.APIKey
	orgs    []*ent.Consumer
	users   []*ent.Consumer
	budgets []*ent.Budget
}

func newBudgetLoad(t *testing.T) *budgetLoad {
	t.Helper()
	l := &budgetLoad{name: registrytest.PostgresURL(t)}
	for range 4 {
		l.regs = append(l.regs, openWith(t, l.name))
	}
	reg := l.regs[0]
	for i := range l.regs {
		p := mustProvider(t, reg, fmt.Sprint("p", i))
		l.models = append(l.models, mustModel(t, reg, p.ID, "m", gpt4()))
		l.keys = append(l.keys, mustKey(t, reg, p.ID, i))
	}
	for i := range 2 {
		org := mustConsumer(t, reg, fmt.Sprint("org ", i), uuid.Nil)
		l.orgs = append(l.orgs, org)
		for n := range 16 {
			l.users = append(l.users, mustConsumer(t, reg, fmt.Sprint("user ", 16*i+n), org.ID, "user"))
		}
		for _, in := range []registry.BudgetInput{
			{Name: "all", Ceilings: registry.Ceilings{Requests: 1_000_000, Concurrency: 1000}},
			{
				Name: "each", Each: true, EachKind: "user", Ceilings: registry.Ceilings{Tokens: 200},
				Window: registry.Window{Per: entbudget.PerDay},
			},
		} {
			in.ConsumerID = org.ID
			b, err := reg.CreateBudget(t.Context(), in)
			require.NoError(t, err)
			l.budgets = append(l.budgets, b)
		}
	}
	_, err := reg.CreateDimension(t.Context(), registry.DimensionInput{Name: "feature"})
	require.NoError(t, err)
	return l
}

// record records requests for all users, every other process in the opposite order. It does so in a transaction of its
// own, which waits until the server finds a deadlock: a batch gives way to others before that.
func (l *budgetLoad) record(t *testing.T, i int) {
	t.Helper()
	var batch []registry.UsageInput
	for n, user := range l.users {
		batch = append(batch, registry.UsageInput{
			ModelID: l.models[i].ID, APIKeyID: l.keys[i].ID, ConsumerID: user.ID,
			Tokens: meter.Tokens{InputTokens: 1}, Tags: registry.Tags{"feature": {fmt.Sprint(n)}},
		})
	}
	if i%2 > 0 {
		slices.Reverse(batch)
	}
	for range 40 {
		err := l.regs[i].InTx(t.Context(), func(tx *registry.Registry) error {
			return tx.RecordUsageBatch(t.Context(), batch)
		})
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// lease leases keys for some users in turn. Callers who do so at once share batches.
func (l *budgetLoad) lease(t *testing.T, i, n int) {
	t.Helper()
	users := l.users[12:20] // of both organisations
	for range 30 {
		n = (n + 1 + i%2*(len(users)-2)) % len(users) // forwards, or backwards
		lease, err := l.regs[i].AcquireKey(t.Context(), registry.AcquireInput{
			ProviderID: l.models[i].ProviderID, ModelID: l.models[i].ID, ConsumerID: users[n].ID, TTL: time.Minute,
			EstimatedTokens: 1, Tags: registry.Tags{"feature": {fmt.Sprint(n)}},
		})
		if errors.Is(err, registry.ErrBudget) {
			continue
		}
		if err == nil {
			err = lease.Settle(t.Context(), used(1))
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// change changes what binds the requests that run meanwhile.
func (l *budgetLoad) change(t *testing.T) {
	t.Helper()
	reg, ctx := l.regs[0], t.Context()
	for n := range 24 {
		b, user := l.budgets[n%len(l.budgets)], l.users[n%len(l.users)]
		errs := []error{
			second(reg.UpdateBudget(ctx, b.ID, registry.BudgetUpdate{Cost: ptr(gpt4()[meter.Input])})),
			second(reg.GrantBudget(ctx, registry.GrantInput{BudgetID: b.ID, Cost: 1})),
			second(reg.MoveConsumer(ctx, user.ID, l.orgs[(1+n/16)%2].ID)),
			second(reg.CreateDimension(ctx, registry.DimensionInput{Name: fmt.Sprint("d", n)})),
		}
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
	}
}
