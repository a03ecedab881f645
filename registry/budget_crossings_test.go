package registry_test

import (
	"errors"
	"fmt"
	"sync"
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

// TestBudgetCrossingsAtOnce has 64 callers of two processes spend what budgets have for two days, and be refused. Each
// threshold and each first refusal of a day is noted once.
func TestBudgetCrossingsAtOnce(t *testing.T) { eachEngineAtOnce(t, testBudgetCrossingsAtOnce) }

func testBudgetCrossingsAtOnce(t *testing.T, e engine) {
	t.Parallel()
	one, two, clock := e.openTwo(t)
	regs := []*registry.Registry{one, two}
	var models []*ent.Model // of a provider for each process, so that they share nothing but the budgets
	for i := range regs {
		p := mustProvider(t, one, fmt.Sprint("p", i))
		models = append(models, mustModel(t, one, p.ID, "m", money.Rates{meter.Input: money.Dollar}))
		mustKey(t, one, p.ID, i)
	}
	pooled, each := mustConsumer(t, one, "pooled", uuid.Nil), mustConsumer(t, one, "each", uuid.Nil)
	users := make([]*ent.Consumer, 8)
	for i := range users {
		users[i] = mustConsumer(t, one, fmt.Sprint("user ", i), []uuid.UUID{pooled.ID, each.ID}[i%2])
	}
	window := registry.Window{Per: entbudget.PerDay}
	for _, in := range []registry.BudgetInput{
		{ConsumerID: pooled.ID, Name: "pooled", Ceilings: registry.Ceilings{Requests: 100, Tokens: 100}},
		{ConsumerID: each.ID, Name: "each", Ceilings: registry.Ceilings{Requests: 20}, Each: true},
		{ConsumerID: each.ID, Name: "shadow", Ceilings: registry.Ceilings{Tokens: 60}, Mode: entbudget.ModeShadow},
	} {
		in.Window = window
		_, err := one.CreateBudget(t.Context(), in)
		require.NoError(t, err)
	}
	const callers, asks = 64, 4
	for range 2 {
		var all sync.WaitGroup
		for i := range callers {
			reg, m, user := regs[i/8%2], models[i/8%2], users[i%8]
			all.Go(func() {
				for range asks {
					lease, err := reg.AcquireKey(t.Context(), registry.AcquireInput{
						ProviderID: m.ProviderID, ModelID: m.ID, ConsumerID: user.ID, EstimatedTokens: 1,
						TTL: time.Minute,
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
			})
		}
		all.Wait()
		clock.Advance(24 * time.Hour)
	}
	requireCrossedOnce(t, two, append(users, pooled, each))
}

// requireCrossedOnce requires what TestBudgetCrossingsAtOnce passes, on each of two days.
func requireCrossedOnce(t *testing.T, reg *registry.Registry, subjects []*ent.Consumer) {
	t.Helper()
	names := map[uuid.UUID]string{}
	for _, c := range subjects {
		names[c.ID] = c.Name
	}
	var have, want []string
	rows, err := reg.ListBudgetCrossings(t.Context(), registry.CrossingFilter{})
	require.NoError(t, err)
	for _, c := range rows {
		have = append(have, fmt.Sprint(
			c.WindowStart.Format(time.DateOnly), " ", names[c.SubjectID], " ", c.Kind, " ", c.Metric, " ", c.Percent,
		))
	}
	add := func(subject, metric string, refusal budgetcrossing.Kind) {
		for _, day := range []string{"2026-07-15", "2026-07-16"} {
			of := day + " " + subject + " "
			want = append(want, of+"threshold "+metric+" 80", of+"threshold "+metric+" 100",
				of+string(refusal)+" "+metric+" 0")
		}
	}
	add("pooled", "tokens", budgetcrossing.KindRefused)
	add("pooled", "requests", budgetcrossing.KindRefused)
	for _, user := range []string{"user 1", "user 3", "user 5", "user 7"} {
		add(user, "requests", budgetcrossing.KindRefused)
	}
	add("each", "tokens", budgetcrossing.KindWouldRefuse)
	require.ElementsMatch(t, want, have)
}
