package commit

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/budgetcrossing"
	"github.com/jeffersonwarrior/modelscan/ent/budgetwindow"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Counter is what a subject has spent in a window of a budget: as it is counted, and as the ledger has it.
type Counter struct {
	Budget, Subject uuid.UUID
	Begin, End      time.Time
	Have, Want      budget.Amount

	of *budget.Budget // nil: there is no usage
}

// WrongCounters returns the counters of a budget's present and later windows that are not what the ledger has. It
// passes over a window that the ledger does not know as far back as it counts. From must read one state; or the caller
// has the policy's lock.
func (m *Committer) WrongCounters(
	ctx context.Context, from *ent.Client, now time.Time, row *ent.Budget,
) (wrong []Counter, err error) {
	b := m.counting(from, now)
	path, err := b.pathOf(ctx, row.ConsumerID)
	if err != nil {
		return nil, err
	}
	window, err := WindowOf(row)
	if err != nil {
		return nil, err
	}
	present, _ := window.Of(now)
	complete, err := b.spendAgain(ctx, row, path, row.CountsFrom)
	if err != nil {
		return nil, err
	}
	known := complete.Equal(utc.Max(present, utc.Of(row.CountsFrom)))
	rows, err := from.BudgetWindow.Query().Where(budgetwindow.BudgetID(row.ID), budgetwindow.WindowEndGT(now)).All(ctx)
	if err != nil {
		return nil, err
	}
	counters := map[counterID]Counter{}
	for id, sum := range b.spent {
		counters[id] = Counter{
			Budget: id.budget, Subject: id.subject, Begin: id.begin, End: sum.end, Want: sum.Amount, of: sum.Budget,
		}
	}
	for _, w := range rows {
		id := counterID{row.ID, w.SubjectID, utc.Of(w.WindowStart)}
		c := counters[id]
		c.Budget, c.Subject, c.Begin, c.End = row.ID, w.SubjectID, id.begin, utc.Of(w.WindowEnd)
		c.Have = budget.Amount{Requests: w.Requests, Tokens: w.Tokens, Cost: w.Cost, Unpriced: w.UnpricedRequests}
		counters[id] = c
	}
	for id, c := range counters {
		if c.Have != c.Want && (known || !id.begin.Equal(present)) {
			wrong = append(wrong, c)
		}
	}
	slices.SortFunc(wrong, func(x, y Counter) int { return x.id().compare(y.id()) })
	return wrong, nil
}

func (c Counter) id() counterID { return counterID{c.Budget, c.Subject, c.Begin} }

var setWindows = bulk.NewInsert(budgetwindow.Table, windowColumns, " ON CONFLICT (budget_id, subject_id, window_start)"+
	" DO UPDATE SET "+strings.Join([]string{
	"requests = excluded.requests", "tokens = excluded.tokens", "cost = excluded.cost",
	"unpriced_requests = excluded.unpriced_requests",
}, ", "))

// SetCounters sets counters to what they must be, and notes the thresholds that they then pass. The caller has the
// policy's lock.
func (m *Committer) SetCounters(ctx context.Context, tx *ent.Client, now time.Time, counters []Counter) error {
	b := m.counting(tx, now)
	rows := make([][]any, len(counters))
	for i, c := range counters {
		rows[i] = ledger.AppendAmount([]any{budgetwindow.DefaultID(), c.Budget, c.Subject, c.Begin, c.End}, c.Want)
		if c.of == nil || !isLong(c.Begin, c.End) {
			continue
		}
		for _, x := range c.of.Crossings(c.Subject, c.Begin, c.Have, c.Want) {
			b.crossings = append(b.crossings, crossing{c.id(), x, budgetcrossing.KindThreshold})
		}
	}
	if err := setWindows.Run(ctx, tx, m.engine, rows); err != nil {
		return err
	}
	return b.writeCrossings(ctx)
}
