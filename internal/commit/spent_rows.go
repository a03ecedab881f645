package commit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/budgetcrossing"
	"github.com/jeffersonwarrior/modelscan/ent/budgetwindow"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// readSpent reads the counters of requests that ask to be admitted, and what is open. It is one statement, so that a
// request which ends meanwhile is either open or has ended.
func (b *batch) readSpent(ctx context.Context, tx bulk.Querier, wanted []binding) error {
	unique := b.unread(wanted)
	if len(unique) == 0 {
		return nil
	}
	rows := make([][]any, len(unique))
	for i, by := range unique {
		rows[i] = []any{
			i, by.ID, by.subject.ID, by.begin, by.end, by.Provider != uuid.Nil || by.Models != nil,
			by.subject.Path, b.now,
		}
	}
	var (
		n              int
		ended          bool
		provider       *uuid.UUID
		model          *string
		running, until int64
		cells          ledger.TakenCells
	)
	addresses := append(cells.Addresses(&n, &ended, &provider, &model), &running, &until)
	keep := func(scan func(...any) error) error {
		if err := scan(addresses...); err != nil {
			return err
		}
		a := cells.Read()
		by := unique[n]
		c := b.counterOf(by)
		switch {
		case ended:
			c.Ended = a
		case model == nil && by.Provider == uuid.Nil && by.Models == nil,
			model != nil && by.Covers(*provider, *model):
			c.Open, c.Running = c.Open.Plus(a), c.Running+running
			of := b.accounts[by.account()]
			of.until = utc.Min(of.until, time.Unix(until, 0))
		}
		return nil
	}
	var err error
	if b.engine == dialect.Postgres {
		var args []any
		if args, err = bulk.Arrays(len(spentTypes), rows); err == nil {
			err = bulk.Scan(ctx, tx, readSpentPostgres, append(args, b.now), keep)
		}
	} else {
		err = bulk.Chunks(rows, func(some [][]any) error {
			return bulk.Scan(ctx, tx, readSpentSQLite(len(some)), slices.Concat(some...), keep)
		})
	}
	for _, by := range unique {
		b.accounts[by.account()].running = b.counterOf(by).Running
	}
	return err
}

// spentTypes are the types of the first columns of v in readSpentSQL. PostgreSQL finds the others.
var spentTypes = []string{"bigint", "uuid", "uuid", "timestamptz", "timestamptz", "boolean"}

const spentColumns = "v(number, budget_id, subject_id, begins, ends, filters, path, now)"

// readSpentSQL reads counters, and what open leases reserve: by model, if a budget filters models. Until is an
// expression for when they are to be read again, in Unix seconds.
func readSpentSQL(until string) string {
	sums := openSums("1", "l.reserved_tokens >> 32", "l.reserved_tokens & 4294967295", "l.reserved_cost >> 32",
		"l.reserved_cost & 4294967295")
	return "SELECT v.number, true, NULL, NULL, " + ledger.AmountColumns("w") + ", 0, 0" +
		" FROM v JOIN budget_windows AS w ON w.budget_id = v.budget_id AND w.subject_id = v.subject_id" +
		" AND w.window_start = v.begins" +
		" UNION ALL SELECT v.number, false, m.provider_id, m.model_id, " + strings.Join(sums, ", ") +
		", 0, count(*), " + until +
		" FROM v JOIN key_leases AS l ON l.consumer_path >= v.path AND l.consumer_path < v.path || '0'" + // after "/"
		" AND l.consumer_path <> '' AND l.expires_at > v.now LEFT JOIN models AS m ON v.filters AND m.id = l.model_id" +
		" GROUP BY v.number, m.provider_id, m.model_id"
}

// openSums returns the sums of terms over the leases that began in a window.
func openSums(terms ...string) (sums []string) {
	for _, term := range terms {
		sums = append(sums,
			"sum(CASE WHEN l.acquired_at >= v.begins AND l.acquired_at < v.ends THEN "+term+" ELSE 0 END)")
	}
	return sums
}

var readSpentPostgres = func() string {
	arrays := make([]string, len(spentTypes))
	for i, of := range spentTypes {
		arrays[i] = fmt.Sprintf("CAST($%d AS %s[])", i+1, of)
	}
	return "WITH " + spentColumns + " AS (SELECT u.*, c.path, CAST($7 AS timestamptz) FROM unnest(" +
		strings.Join(arrays, ", ") + ") AS u(number, budget_id, subject_id, begins, ends, filters)" +
		" JOIN consumers AS c ON c.id = u.subject_id) " + readSpentSQL("0")
}()

var readSpentSQLite = bulk.Statements(func(n int) string {
	row := slices.Repeat([]string{"$%d"}, len(spentTypes)+2)
	return "WITH " + spentColumns + " AS (VALUES " + bulk.Placeholders(n, row...) + ") " +
		readSpentSQL("unixepoch(substr(min(l.expires_at), 1, 19))")
})

var (
	windowKey     = []string{"budget_id", "subject_id", "window_start"}
	windowColumns = slices.Concat([]string{"id"}, windowKey, []string{"window_end"}, ledger.Amounts)
)

var (
	addWindows = bulk.NewInsert(budgetwindow.Table, windowColumns, addingSQL)
	addUnknown = bulk.NewInsert(budgetwindow.Table, windowColumns, addingSQL+
		" RETURNING "+strings.Join(slices.Concat(windowKey, ledger.Amounts), ", "))
	// readAdded returns what counters are then, by the number of the row: few and short columns.
	readAdded = "SELECT v.number, s.requests, s.tokens, s.cost, s.unpriced_requests FROM %s AS s JOIN " +
		bulk.UnnestNumbered(2, budgetwindow.Table, windowKey) + " USING (" + strings.Join(windowKey, ", ") + ")"
	addingSQL = ledger.AddingSQL(budgetwindow.Table, windowKey...)
)

// takeWindows subtracts from counters, which do not fall below zero.
var takeWindows = bulk.NewUpdate(budgetwindow.Table, windowKey, ledger.Amounts...)

// unspend subtracts from the counters what was counted.
func (b *batch) unspend(ctx context.Context) error {
	budgets, subjects := map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	for id := range b.spent {
		budgets[id.budget], subjects[id.subject] = true, true
	}
	windows, err := b.tx.BudgetWindow.Query().Where(
		budgetwindow.BudgetIDIn(slices.Collect(maps.Keys(budgets))...),
		budgetwindow.SubjectIDIn(slices.Collect(maps.Keys(subjects))...), budgetwindow.WindowEndGT(b.now)).All(ctx)
	if err != nil {
		return err
	}
	var rows [][]any
	for _, w := range windows {
		s := b.spent[counterID{w.BudgetID, w.SubjectID, utc.Of(w.WindowStart)}]
		if s == nil {
			continue
		}
		// Costs may have become known since they were counted.
		requests := max(0, w.Requests-s.Requests)
		rows = append(rows, []any{
			requests, max(0, w.Tokens-s.Tokens), int64(max(0, w.Cost-s.Cost)),
			min(requests, max(0, w.UnpricedRequests-s.Unpriced)), w.BudgetID, w.SubjectID, w.WindowStart,
		})
	}
	return takeWindows.Run(ctx, b.tx, b.engine, rows)
}

// keptMinutes is how long windows of a minute are kept, for requests that are recorded late.
const keptMinutes = 10 * time.Minute

var dropWindows = bulk.NewDelete(budgetwindow.Table, windowKey,
	"t.budget_id = %s AND t.subject_id = %s AND t.window_start < %s")

var addCrossings = bulk.NewInsert(budgetcrossing.Table, []string{
	"id", "budget_id", "subject_id", "window_start", "kind", "metric", "percent", "spent", "ceiling", "at",
}, " ON CONFLICT (budget_id, subject_id, window_start, kind, metric, percent) DO NOTHING")

// writeSpent adds to the counters, and notes the thresholds that they have passed.
func (b *batch) writeSpent(ctx context.Context) error {
	var one bulk.Together
	if err := b.addSpent(ctx, &one); err != nil {
		return err
	}
	if err := one.Flush(ctx, b.tx); err != nil {
		return err
	}
	return b.noteSpent(ctx)
}

// addSpent adds to the counters, in one order for all. On SQLite it knows most of them. On PostgreSQL the statement is
// executed together with others.
func (b *batch) addSpent(ctx context.Context, one *bulk.Together) error {
	sums := slices.Collect(maps.Values(b.spent))
	slices.SortFunc(sums, func(x, y *addition) int { return x.id().compare(y.id()) })
	var known, unknown [][]any
	var asked []*addition
	for _, s := range sums {
		row := ledger.AppendAmount([]any{budgetwindow.DefaultID(), s.ID, s.subject.ID, s.begin, s.end}, s.Amount)
		if c := b.counterOf(s.binding); c != nil && b.engine == dialect.SQLite {
			known = append(known, row)
			b.added(s, c.Ended)
		} else {
			unknown, asked = append(unknown, row), append(asked, s)
		}
	}
	if err := addWindows.Run(ctx, b.tx, b.engine, known); err != nil || len(unknown) == 0 {
		return err
	}
	if b.engine == dialect.Postgres {
		return b.addTogether(ctx, one, unknown, asked)
	}
	var id counterID
	var after budget.Amount
	cells := []any{
		&id.budget, &id.subject, &id.begin, &after.Requests, &after.Tokens, (*int64)(&after.Cost), &after.Unpriced,
	}
	return addUnknown.Return(ctx, b.tx, unknown, func(scan func(...any) error) error {
		if err := scan(cells...); err != nil {
			return err
		}
		id.begin = utc.Of(id.begin)
		b.added(b.spent[id], after)
		return nil
	})
}

// addTogether has rows added to counters when the statements are executed that are collected.
func (b *batch) addTogether(ctx context.Context, one *bulk.Together, rows [][]any, of []*addition) error {
	if err := addUnknown.Run(ctx, one, b.engine, rows); err != nil {
		return err
	}
	var n int
	var after budget.Amount
	cells := []any{&n, &after.Requests, &after.Tokens, (*int64)(&after.Cost), &after.Unpriced}
	one.Read(readAdded, len(cells), func(scan func(...any) error) error {
		if err := scan(cells...); err != nil {
			return err
		}
		b.added(of[n-1], after)
		return nil
	})
	return nil
}

// noteSpent notes the thresholds that were passed, after counters were added to.
func (b *batch) noteSpent(ctx context.Context) error {
	if err := dropWindows.Run(ctx, b.tx, b.engine, b.aged); err != nil {
		return err
	}
	return b.writeCrossings(ctx)
}

// added notes the thresholds that a counter has passed. If it is new and of a minute, much older ones are deleted.
func (b *batch) added(s *addition, after budget.Amount) {
	if s.Window.Per == budget.Minute && after == s.Amount {
		kept := utc.Min(s.begin, b.now).Add(-keptMinutes)
		b.aged = append(b.aged, []any{s.ID, s.subject.ID, kept})
		if a := b.accounts[s.account()]; a != nil {
			maps.DeleteFunc(a.windows, func(begin time.Time, _ *budget.Counter) bool { return begin.Before(kept) })
		}
	}
	if !isLong(s.begin, s.end) {
		return
	}
	for _, c := range s.Crossings(s.subject.ID, s.begin, after.Less(s.Amount), after) {
		b.crossings = append(b.crossings, crossing{s.id(), c, budgetcrossing.KindThreshold})
	}
}

// writeCrossings notes crossings that are not noted yet.
func (b *batch) writeCrossings(ctx context.Context) error {
	slices.SortStableFunc(b.crossings, func(x, y crossing) int { return x.compare(y.counterID) })
	noted := make([][]any, len(b.crossings))
	for i, c := range b.crossings {
		noted[i] = []any{
			budgetcrossing.DefaultID(), c.budget, c.subject, c.begin, string(c.kind), string(c.Metric), c.Percent,
			c.Spent, c.Ceiling, b.now,
		}
	}
	return addCrossings.Run(ctx, b.tx, b.engine, noted)
}
