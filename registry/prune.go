package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"entgo.io/ent/dialect"
	"github.com/cenkalti/backoff/v5"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/auditentry"
	"github.com/jeffersonwarrior/modelscan/ent/budgetcrossing"
	"github.com/jeffersonwarrior/modelscan/ent/budgetwindow"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// PruneInput says how long to keep what ages. Days of the ledger, and the audit trail of people's changes, are kept for
// ever.
type PruneInput struct {
	// Events is how long single requests and their request ids are kept, 1 to 36,500 days. Defaults to 7 days.
	Events time.Duration
	// Quarters is how long quarters of an hour are kept, up to 36,500 days. They prove events, so they must be kept at
	// least as long. Defaults to 35 days, or to Events if that is longer.
	Quarters time.Duration
	// KeyEvents is how long audit entries of the key pool are kept, 1 to 36,500 days: keys degraded, tried and
	// restored, and providers cooling down. Defaults to 30 days.
	KeyEvents time.Duration
	// Discoveries is how long discovery logs are kept after they began, 1 to 36,500 days. Defaults to 90 days.
	Discoveries time.Duration
	// Budget limits the time of a call, up to a day: when it is over, nothing new is begun. Defaults to a minute.
	Budget time.Duration
}

const (
	keepEvents      = 7 * utc.Day
	keepQuarters    = 35 * utc.Day
	keepKeyEvents   = 30 * utc.Day
	keepDiscoveries = 90 * utc.Day
	longestKept     = 36_500 * utc.Day
	pruneBudget     = time.Minute
	longestBudget   = utc.Day
)

func (keep PruneInput) withDefaults() PruneInput {
	keep.Events = cmp.Or(keep.Events, keepEvents)
	keep.Quarters = cmp.Or(keep.Quarters, max(keepQuarters, keep.Events))
	keep.KeyEvents = cmp.Or(keep.KeyEvents, keepKeyEvents)
	keep.Discoveries = cmp.Or(keep.Discoveries, keepDiscoveries)
	keep.Budget = cmp.Or(keep.Budget, pruneBudget)
	return keep
}

func (keep PruneInput) faults() (f fault.List) {
	for _, of := range []struct {
		what string
		kept time.Duration
	}{
		{"events", keep.Events}, {"quarters", keep.Quarters}, {"key events", keep.KeyEvents},
		{"discoveries", keep.Discoveries},
	} {
		f.Check(of.kept >= utc.Day && of.kept <= longestKept,
			"%s %s are not between %s and %s", of.what, of.kept, utc.Day, longestKept)
	}
	f.Check(keep.Quarters >= keep.Events, "quarters %s are kept shorter than events %s", keep.Quarters, keep.Events)
	f.Check(keep.Budget > 0 && keep.Budget <= longestBudget,
		"budget %s is not between 1ns and %s", keep.Budget, longestBudget)
	return f
}

// PruneResult says what Prune has removed, and what is left.
type PruneResult struct {
	Events      int64 // requests removed
	Quarters    int64 // rows of quarters of an hour removed: by key and price, by model and by value
	KeyEvents   int64 // audit entries removed
	Discoveries int64 // discovery logs removed
	// Windows of budgets that ended before the time for which quarters are kept, and crossings from before it that
	// somebody has acknowledged.
	BudgetWindows, Crossings int64

	Freed int64 // bytes given back to the file system

	// Rows past their time that are left, because the budget ended or others held them.
	EventsLeft, QuartersLeft, KeyEventsLeft, DiscoveriesLeft, BudgetWindowsLeft, CrossingsLeft int64

	EventsFrom   time.Time // no event is missing from then on
	QuartersFrom time.Time // no quarter of an hour is missing from then on; 1970 if none was ever removed
}

// Prune removes what has aged:
//
//   - events and quarters of an hour, of whole UTC days that ended before they need to be kept
//   - audit entries of the key pool
//   - discovery logs
//   - windows of budgets, and crossings that were acknowledged, as quarters
//
// Days, totals by day, the keys' counters and the audit trail of people's changes stay. Call Prune from a job, once a
// day or more often. Others may record meanwhile; they wait for some milliseconds at a time. Two calls at once share
// the work.
//
// Before it removes anything of the ledger, Prune adds requests to the sums by value that they are not in yet. It notes
// in a transaction of its own from when on the ledger is complete. That is never taken back: a longer retention takes
// effect for what is kept from then on. Usage that is recorded late, for a day that was pruned, counts in its day; the
// next Prune removes its event and quarter.
//
// On PostgreSQL, events are dropped by whole days, which leaves no dead rows, as long as there are at most 40 days of
// them. If they are kept for longer, or recorded for many past days, they are removed row by row. Prune waits for locks
// in short moments, until the budget ends, and lets others go on in between.
//
// A SQLite file shrinks if this library created it.
//
// When Prune returns nil, the result says what is left; another call continues. After an error, what was removed stays
// removed. It returns [ErrInvalidData] if the input breaks a rule, or within a transaction, because it needs several of
// its own.
func (r *Registry) Prune(ctx context.Context, keep PruneInput) (PruneResult, error) {
	const op = "prune"
	keep = keep.withDefaults()
	if err := keep.faults().Err(); err != nil {
		return PruneResult{}, translate(ctx, op, err)
	}
	if r.inTx {
		return PruneResult{}, translate(ctx, op, r.InTx(ctx, func(*Registry) error {
			return fmt.Errorf("%w: not allowed inside of a transaction", ErrInvalidData)
		}))
	}
	budget, cancel := context.WithTimeout(ctx, keep.Budget)
	defer cancel()
	now := r.now()
	p := pruner{
		r: r, budget: budget, until: now.Add(keep.Budget),
		events:      utc.StartOfDay(utc.Clamp(now.Add(-keep.Events))),
		quarters:    utc.StartOfDay(utc.Clamp(now.Add(-keep.Quarters))),
		keyEvents:   utc.Clamp(now.Add(-keep.KeyEvents)),
		discoveries: utc.Clamp(now.Add(-keep.Discoveries)),
	}
	if err := p.run(ctx); err != nil {
		return PruneResult{}, translate(ctx, op, err)
	}
	return p.report, nil
}

const (
	pruneRows  = 250 // rows removed in a transaction, about
	prunePages = 250 // pages of a SQLite file given back in a transaction

	// pruneLockTimeout is how long others may have to wait behind Prune when it waits for a lock on PostgreSQL.
	pruneLockTimeout = 25 * time.Millisecond
)

// pruner is one run of Prune.
type pruner struct {
	r                                        *Registry
	events, quarters, keyEvents, discoveries time.Time // the first instants that are kept
	report                                   PruneResult

	// The budget ends by the registry's clock or by the machine's, whichever is first: a registry's clock that stands
	// still must not keep Prune waiting for a lock for ever.
	until  time.Time
	budget context.Context //nolint:containedctx // no statement runs with it: what has begun is finished
}

// step does a piece of the work. It is called until it is finished.
type step func(ctx context.Context) (outcome, error)

type outcome int

const (
	finished   outcome = iota
	unfinished         // there is more to do
	held               // others hold what the step needs; nothing was done
)

func (p *pruner) run(ctx context.Context) error {
	folds, err := p.foldSteps(ctx)
	if err != nil {
		return err
	}
	left, err := p.work(ctx, folds)
	if err == nil && len(left) == 0 {
		left, err = p.work(ctx, []step{p.moveHorizons})
	}
	if err == nil && len(left) == 0 {
		left, err = p.remove(ctx)
	}
	if err != nil {
		return err
	}
	h, err := ledger.ReadHorizons(ctx, p.r.fresh)
	if err != nil {
		return err
	}
	p.report.EventsFrom, p.report.QuartersFrom = h.Events, h.Quarters
	if len(left) == 0 {
		return nil
	}
	return p.countLeft(ctx)
}

// remove runs the steps that remove rows, and returns those that are left.
func (p *pruner) remove(ctx context.Context) (left []step, err error) {
	quarters, err := p.quarterSteps(ctx)
	if err != nil {
		return nil, err
	}
	folds, err := p.foldSteps(ctx) // of what was recorded late meanwhile
	if err != nil {
		return nil, err
	}
	if left, err = p.work(ctx, folds); err != nil || len(left) > 0 {
		return left, err
	}
	events, err := p.eventSteps(ctx)
	if err != nil {
		return nil, err
	}
	steps := slices.Concat(quarters, events, []step{
		p.deleteSome(&p.report.KeyEvents, auditentry.Table, oldKeyEvents, "at", p.keyEvents),
		p.deleteSome(&p.report.Discoveries, discoverylog.Table, oldDiscoveries, "started_at", p.discoveries),
		p.deleteSome(&p.report.BudgetWindows, budgetwindow.Table, oldWindows, "window_end", p.quarters),
		p.deleteSome(&p.report.Crossings, budgetcrossing.Table, oldCrossings, "at", p.quarters),
	})
	if left, err = p.work(ctx, steps); err != nil {
		return nil, err
	}
	if p.r.db.Dialect() == dialect.SQLite {
		err = p.shrink(ctx)
	}
	return left, err
}

// work runs steps in turns, so that a held step does not block the others. It returns the steps that are left when the
// budget ends.
func (p *pruner) work(ctx context.Context, steps []step) ([]step, error) {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = pruneLockTimeout, 20*pruneLockTimeout
	more := func() bool { return len(steps) > 0 && p.budget.Err() == nil && p.r.clock().Before(p.until) }
	if !more() {
		return steps, ctx.Err()
	}
	err := p.r.pieces(ctx, "between two steps", func() (bool, error) {
		next := steps[0]
		result, err := next(ctx)
		if err != nil {
			return false, err
		}
		steps = steps[1:]
		if result != finished {
			steps = append(steps, next)
		}
		if result != held {
			wait.Reset()
			return more(), nil
		}
		select { // with jitter, to meet others at other moments
		case <-time.After(wait.NextBackOff()):
		case <-p.budget.Done():
		}
		return more(), nil
	})
	if err != nil {
		return nil, err
	}
	return steps, ctx.Err()
}

// transact runs a step in one transaction. What the body counts goes into the report.
func (p *pruner) transact(
	ctx context.Context, body func(tx *ent.Client) (outcome, error),
) (result outcome, err error) {
	before := p.report
	err = p.r.db.Retry(ctx, func() error {
		p.report = before // forget an attempt that was rolled back
		err := p.r.operate(ctx, p.r.db, func(tx *ent.Client) (err error) {
			if p.r.db.Dialect() == dialect.Postgres {
				timeout := fmt.Sprintf("SET LOCAL lock_timeout = %d", pruneLockTimeout.Milliseconds())
				if _, err := tx.ExecContext(ctx, timeout); err != nil {
					return err
				}
			}
			result, err = body(tx)
			return err
		})
		if store.IsLockTimeout(err) {
			result, p.report = held, before
			return nil
		}
		return err
	})
	return result, err
}

// shrink gives unused pages of a SQLite file back to the file system, in several transactions, so that others can write
// in between.
func (p *pruner) shrink(ctx context.Context) error {
	before := p.report.Freed
	_, err := p.work(ctx, []step{p.vacuum})
	if err != nil || p.report.Freed == before {
		return err
	}
	// The file itself is cut when the whole log has been copied into it. This does not wait: if somebody still reads
	// an earlier state, a later commit does it.
	return bulk.Scan(
		ctx, p.r.client, "PRAGMA wal_checkpoint(PASSIVE)", nil, func(func(...any) error) error { return nil },
	)
}

func (p *pruner) vacuum(ctx context.Context) (outcome, error) {
	return p.transact(ctx, func(tx *ent.Client) (outcome, error) {
		var before, after, size int64
		for _, ask := range []struct {
			name  string
			value *int64 // nil: one row for each page; asking for the next row frees a page
		}{
			{"page_size", &size},
			{"page_count", &before},
			{fmt.Sprintf("incremental_vacuum(%d)", prunePages), nil},
			{"page_count", &after},
		} {
			err := bulk.Scan(ctx, tx, "PRAGMA "+ask.name, nil, func(scan func(...any) error) error {
				if ask.value == nil {
					return nil
				}
				return scan(ask.value)
			})
			if err != nil {
				return held, err
			}
		}
		p.report.Freed += (before - after) * size
		if before-after < prunePages {
			return finished, nil
		}
		return unfinished, nil
	})
}
