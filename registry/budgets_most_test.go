package registry_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestBudgetMost: a counter goes up to the largest amount that a row may have, and stays there. The budget is closed,
// no request is refused that has happened, and the ledger agrees.
func TestBudgetMost(t *testing.T) { eachEngine(t, testBudgetMost) }

func testBudgetMost(t *testing.T, e engine) {
	t.Parallel()
	s, ctx := newSpenders(t, e), t.Context()
	const most = 9_000_000_000 // tokens, which cost as many dollars: what the ledger takes of a model
	require.EqualValues(t, rule.MaxAmount, most*money.Dollar)
	in := registry.BudgetInput{
		Ceilings: registry.Ceilings{Cost: rule.MaxAmount}, Window: registry.Window{Per: entbudget.PerTotal},
	}
	b := s.budget(t, in)
	record := func(name string, tokens int64) {
		t.Helper()
		p := mustProvider(t, s.reg, name)
		m := mustModel(t, s.reg, p.ID, "m", money.Rates{meter.Input: 1_000_000 * money.Dollar})
		k := mustKey(t, s.reg, p.ID, 1)
		in := used(tokens)
		in.ModelID, in.APIKeyID, in.ConsumerID = m.ID, k.ID, s.user.ID
		require.NoError(t, s.reg.RecordUsage(ctx, in))
	}
	counted := func(id uuid.UUID) money.USD {
		t.Helper()
		return s.reg.Client().Budget.GetX(ctx, id).QueryWindows().OnlyX(ctx).Cost
	}
	record("a", most-1)
	require.EqualValues(t, (most-1)*money.Dollar, counted(b.ID))
	require.NoError(t, s.acquire(t, s.ask(1)).Release(ctx))
	s.refused(t, s.ask(2))
	for _, name := range []string{"b", "c"} {
		record(name, most)
		require.EqualValues(t, rule.MaxAmount, counted(b.ID))
		require.Zero(t, s.refused(t, s.ask(1)).Closed[0].Left)
		requireProven(t, s.reg)
	}
	in.Name = "later"
	require.EqualValues(t, rule.MaxAmount, counted(s.budget(t, in).ID), "it starts from as much")
	require.EqualValues(t, 0, must(s.reg.RepairLedger(ctx)).Counters)
}
