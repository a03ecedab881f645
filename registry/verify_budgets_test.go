package registry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/ent/budgetwindow"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// counters are recounts with budgets of several kinds, and requests that were folded and not.
func newCounters(t *testing.T, e engine) (r *recounts, month *ent.Budget) {
	t.Helper()
	r = newRecounts(t, e)
	r.months(t, 1)
	for name, in := range map[string]registry.BudgetInput{
		"each":   {Each: true, EachKind: "user", Window: registry.Window{Per: entbudget.PerTotal}},
		"day":    {ConsumerID: r.team.ID, Window: registry.Window{Per: entbudget.PerDay, Zone: "Asia/Kolkata"}},
		"hour":   {Window: registry.Window{Per: entbudget.PerHour}},
		"minute": {Window: registry.Window{Per: entbudget.PerMinute}},
		"other":  {Models: []string{"other*"}},
	} {
		in.Name, in.Ceilings = name, registry.Ceilings{Tokens: 1_000_000}
		r.budget(t, in)
	}
	month = r.budget(t, registry.BudgetInput{Name: "month", Ceilings: registry.Ceilings{Tokens: 10_000}})
	r.months(t, 2)
	r.clock.Advance(17 * time.Minute)
	r.use(t, r.user, r.clock.Now(), 1)
	r.use(t, r.rival, r.clock.Now().Add(-50*time.Minute), 1)
	r.use(t, r.user, r.clock.Now().Add(50*time.Minute), 3) // of a clock that is ahead
	return r, month
}

// TestVerifyBudgets damages counters and paths in each way, and has VerifyLedger find and RepairLedger mend it.
func TestVerifyBudgets(t *testing.T) { eachEngine(t, testVerifyBudgets) }

func testVerifyBudgets(t *testing.T, e engine) {
	t.Parallel()
	r, month := newCounters(t, e)
	ctx, past := t.Context(), r.reg.Past()
	report := verified(t, r.reg)
	require.Empty(t, report.Differences)
	require.EqualValues(t, 6, report.Budgets)
	right := past.BudgetWindow.Query().Where(budgetwindow.BudgetID(month.ID)).OnlyX(ctx)
	exec := func(statement string, args ...any) func() {
		return func() {
			_, err := past.ExecContext(ctx, statement, args...)
			require.NoError(t, err)
		}
	}
	const ofMonth = " WHERE budget_id = $1 AND subject_id = $2"
	for what, x := range map[string]struct {
		damage func()
		kind   registry.DifferenceKind
		field  string
		mended int64
	}{
		"a request": {
			exec("UPDATE budget_windows SET requests = requests + 1"+ofMonth, month.ID, r.org.ID),
			registry.DifferenceWrongBudgetCounter, "requests", 1,
		},
		"tokens": {
			exec("UPDATE budget_windows SET tokens = 0"+ofMonth, month.ID, r.org.ID),
			registry.DifferenceWrongBudgetCounter, "tokens", 1,
		},
		"cost": {
			exec("UPDATE budget_windows SET cost = cost - 1"+ofMonth, month.ID, r.org.ID),
			registry.DifferenceWrongBudgetCounter, "cost", 1,
		},
		"unpriced": {
			exec("UPDATE budget_windows SET unpriced_requests = 2"+ofMonth, month.ID, r.org.ID),
			registry.DifferenceWrongBudgetCounter, "unpriced_requests", 1,
		},
		"no row": {
			exec("DELETE FROM budget_windows"+ofMonth, month.ID, r.org.ID),
			registry.DifferenceWrongBudgetCounter, "requests", 1,
		},
		"a row too many": {
			exec("UPDATE budget_windows SET subject_id = $1 WHERE budget_id = $2 AND subject_id = $3", r.rival.ID,
				month.ID, r.org.ID),
			registry.DifferenceWrongBudgetCounter, "requests", 2,
		},
		"a path": {
			exec("UPDATE consumers SET path = $1 WHERE id = $2", r.others.Path+"/"+r.user.ID.String(), r.user.ID),
			registry.DifferenceWrongPath, "path", 0,
		},
	} {
		x.damage()
		found := verified(t, r.reg).Differences
		require.NotEmpty(t, found, what)
		require.Equal(t, []any{x.kind, x.field}, []any{found[0].Kind, found[0].Field}, what)
		repaired, err := r.reg.RepairLedger(ctx)
		require.NoError(t, err, what)
		require.Empty(t, repaired.Unrepaired, what)
		require.Equal(t, x.mended, repaired.Counters, what)
		require.EqualValues(t, 1, repaired.Paths+min(repaired.Counters, 1), what)
		require.Empty(t, verified(t, r.reg).Differences, what)
		is := past.BudgetWindow.Query().
			Where(budgetwindow.BudgetID(month.ID), budgetwindow.SubjectID(r.org.ID)).OnlyX(ctx)
		require.Equal(t, right.Tokens, is.Tokens, what)
	}
	exec("UPDATE budget_windows SET cost = 1"+ofMonth, month.ID, r.org.ID)()
	found := verified(t, r.reg).Differences[0]
	cost := fmt.Sprint(int64(right.Cost))
	require.Equal(t, []any{"budget_windows", month.ID, r.org.ID, right.WindowStart.UTC(), cost, "1"}, []any{
		found.Table, found.BudgetID, found.SubjectID, found.PeriodStart.UTC(), found.Want, found.Have,
	})
	entries, err := r.reg.ListAudit(ctx, registry.AuditFilter{Action: registry.ActionRepair, Limit: 1000})
	require.NoError(t, err)
	require.Len(t, entries, 7)
}

// TestRepairBudgetCrosses: a counter that is set passes its thresholds, and refuses.
func TestRepairBudgetCrosses(t *testing.T) { eachEngine(t, testRepairBudgetCrosses) }

func testRepairBudgetCrosses(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	b := s.budget(t, registry.BudgetInput{Ceilings: registry.Ceilings{Tokens: 10}})
	lease := s.acquire(t, s.ask(9))
	require.NoError(t, lease.Settle(t.Context(), used(9)))
	past := s.reg.Past()
	past.BudgetWindow.Delete().ExecX(t.Context()) // as if it was not counted
	past.BudgetCrossing.Delete().ExecX(t.Context())
	require.NoError(t, s.acquire(t, s.ask(5)).Release(t.Context()))
	require.NoError(t, s.reg.InTx(t.Context(), func(tx *registry.Registry) error {
		require.NotEmpty(t, verified(t, tx).Differences)
		repaired, err := tx.RepairLedger(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, repaired.Counters)
		require.Empty(t, verified(t, tx).Differences)
		return nil
	}))
	require.Equal(t, int64(9), s.refused(t, s.ask(5)).Closed[0].Ended)
	crossings, err := s.reg.ListBudgetCrossings(t.Context(), registry.CrossingFilter{})
	require.NoError(t, err)
	require.Equal(t, []any{b.ID, 80}, []any{crossings[0].BudgetID, crossings[0].Percent})
}

// TestRepairBudgetsLeaves: what cannot be proven is told. A path that leads to itself, and a zone that is not known
// here, keep nothing else from being checked.
func TestRepairBudgetsLeaves(t *testing.T) { eachEngine(t, testRepairBudgetsLeaves) }

func testRepairBudgetsLeaves(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	bad := s.budget(t, registry.BudgetInput{Name: "bad", Ceilings: registry.Ceilings{Tokens: 10}})
	other := mustConsumer(t, s.reg, "other", uuid.Nil)
	good := s.budget(t, registry.BudgetInput{ConsumerID: other.ID, Ceilings: registry.Ceilings{Tokens: 10}})
	in := used(4)
	in.ModelID, in.APIKeyID, in.ConsumerID = s.model.ID, s.key.ID, other.ID
	require.NoError(t, s.reg.RecordUsage(t.Context(), in))
	past := s.reg.Past()
	_, err := past.ExecContext(t.Context(), "UPDATE budgets SET zone = 'Mars/Olympus' WHERE id = $1", bad.ID)
	require.NoError(t, err)
	_, err = past.ExecContext(t.Context(), "UPDATE consumers SET parent_id = $1 WHERE id = $1", s.user.ID)
	require.NoError(t, err)
	past.BudgetWindow.Update().SetTokens(1).ExecX(t.Context())
	repaired, err := s.reg.RepairLedger(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, repaired.Counters)
	require.Equal(t, int64(4), good.QueryWindows().OnlyX(t.Context()).Tokens)
	require.ErrorIs(t, s.reg.PurgeConsumer(t.Context(), other.ID), registry.ErrForeignKey)
	var kinds []registry.DifferenceKind
	for _, d := range repaired.Unrepaired {
		kinds = append(kinds, d.Kind)
	}
	require.Equal(t, []registry.DifferenceKind{registry.DifferenceWrongPath, registry.DifferenceUnreadableRow}, kinds)
}

// TestVerifyBudgetPruned: the ledger does not know what was spent in a window that began within a day whose quarters
// Prune has removed. Its counter is neither called wrong nor set, and later ones are.
func TestVerifyBudgetPruned(t *testing.T) { eachEngine(t, testVerifyBudgetPruned) }

func testVerifyBudgetPruned(t *testing.T, e engine) {
	t.Parallel()
	r := newRecounts(t, e)
	monday := (int(r.clock.Now().Weekday())+6)%7 + 1
	r.clock.Advance(18*time.Hour + 30*time.Minute)
	b := r.budget(t, registry.BudgetInput{
		Ceilings: registry.Ceilings{Tokens: 1_000_000},
		Window:   registry.Window{Per: entbudget.PerWeek, AnchorDay: monday, AnchorHour: 18},
	})
	require.Equal(t, r.clock.Now().Add(-30*time.Minute), b.CountsFrom.UTC())
	r.use(t, r.user, r.clock.Now(), 5)
	counters := func(tokens ...int64) {
		t.Helper()
		var have []int64
		for _, w := range b.QueryWindows().Order(budgetwindow.ByWindowStart()).AllX(t.Context()) {
			have = append(have, w.Tokens)
		}
		require.Equal(t, tokens, have)
	}
	past := r.reg.Past().BudgetWindow.Update()
	past.SetTokens(4).ExecX(t.Context())
	require.Len(t, verified(t, r.reg).Differences, 1, "it is known yet")
	require.EqualValues(t, 1, must(r.reg.RepairLedger(t.Context())).Counters)
	counters(5)

	r.clock.Advance(7*24*time.Hour - time.Hour)
	r.use(t, r.user, r.clock.Now(), 7)
	r.use(t, r.user, r.clock.Now().Add(50*time.Minute), 3) // of a clock that is ahead, in the next window
	_, err := r.reg.Prune(t.Context(), registry.PruneInput{
		Events: 24 * time.Hour, Quarters: 72 * time.Hour, Budget: time.Minute,
	})
	require.NoError(t, err)
	require.Empty(t, verified(t, r.reg).Differences)
	require.Zero(t, must(r.reg.RepairLedger(t.Context())).Counters)
	counters(12, 3)
	past.SetTokens(11).ExecX(t.Context())
	require.Len(t, verified(t, r.reg).Differences, 1, "of the next window")
	require.EqualValues(t, 1, must(r.reg.RepairLedger(t.Context())).Counters)
	counters(11, 3)
}
