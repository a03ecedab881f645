package registry

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"entgo.io/ent/dialect"
	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// PruneInput says how long what ages is kept. Days of the ledger, and what people have changed, are kept for ever.
type PruneInput struct {
	// Events is how long single requests are kept, and with them their request ids, from one day to 36,500.
	// Defaults to 7 days.
	Events time.Duration
	// Quarters is how long quarters of an hour are kept: at least as long as the events that prove them, and up to
	// 36,500 days. Defaults to 35 days, or to Events if that is longer.
	Quarters time.Duration
	// KeyEvents is how long the audit trail keeps what the key pool did by itself (keys that were degraded, tried and
	// restored, providers that cooled down), from one day to 36,500. Defaults to 30 days.
	KeyEvents time.Duration
	// Discoveries is how long discovery logs are kept after they began, from one day to 36,500. Defaults to 90 days.
	Discoveries time.Duration
	// Budget is how long a call may take, up to a day: nothing is begun after it. Defaults to a minute.
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
	if keep.Events == 0 {
		keep.Events = keepEvents
	}
	if keep.Quarters == 0 {
		keep.Quarters = max(keepQuarters, keep.Events)
	}
	keep.KeyEvents = cmp.Or(keep.KeyEvents, keepKeyEvents)
	keep.Discoveries = cmp.Or(keep.Discoveries, keepDiscoveries)
	keep.Budget = cmp.Or(keep.Budget, pruneBudget)
	return keep
}

func (keep PruneInput) faults() fault.List {
	var f fault.List
	for _, of := range []struct {
		what string
		kept time.Duration
	}{
		{"events", keep.Events}, {"quarters", keep.Quarters}, {"key events", keep.KeyEvents},
		{"discoveries", keep.Discoveries},
	} {
		f.Check(
			of.kept >= utc.Day && of.kept <= longestKept, "%s %s are not between %s and %s", of.what, of.kept, utc.Day,
			longestKept,
		)
	}
	f.Check(keep.Quarters >= keep.Events, "quarters %s are kept shorter than events %s", keep.Quarters, keep.Events)
	f.Check(
		keep.Budget > 0 && keep.Budget <= longestBudget, "budget %s is not between 1ns and %s", keep.Budget,
		longestBudget,
	)
	return f
}

// PruneResult is what Prune has removed, and what is there.
type PruneResult struct {
	Events      int64 // requests that were removed
	Quarters    int64 // rows of quarters of an hour that were removed: by key and price, and by model
	KeyEvents   int64 // entries of the audit trail that were removed
	Discoveries int64 // discovery logs that were removed
	Freed       int64 // bytes that were given back to the file system

	// Rows past their time that are still there, because the budget ended or others held them.
	EventsLeft, QuartersLeft, KeyEventsLeft, DiscoveriesLeft int64

	EventsFrom   time.Time // nothing that happened from then on is missing among the events
	QuartersFrom time.Time // likewise among the quarters; 1970 if nothing ever was
}

func (report *PruneResult) add(more PruneResult) {
	report.Events += more.Events
	report.Quarters += more.Quarters
	report.KeyEvents += more.KeyEvents
	report.Discoveries += more.Discoveries
	report.Freed += more.Freed
}

// Prune removes all that ages: the events and the quarters of an hour of whole UTC days that ended longer ago than they
// are to be kept; the entries of the audit trail that the key pool made; and discovery logs. Days, totals by day, the
// keys' counters and what people changed stay as they are. It is for a job that runs once a day or more often; others
// may record meanwhile, and are kept waiting for some milliseconds at a time. Two at once share the work.
//
// Before anything of the ledger is removed, it notes from when on it is complete, in a transaction of its own. That is
// never taken back: when retention is lengthened later, it shows in what is kept from then on. What is recorded late,
// for a day that was removed, is counted in its day, and its event and quarter are removed the next time.
//
// On PostgreSQL events are dropped by whole days, which leaves no dead rows behind, as long as there are no more than
// 40 days of them; where they are kept longer, or are recorded for many days that are past, they are removed row by
// row. A lock that others hold is waited for in moments, between which they go on, until the budget ends. A SQLite file
// shrinks if it was created by this library.
//
// When it returns nil, the report says what is left, and calling it again goes on there. It returns [ErrInvalidData]
// for a retention that breaks the rules, and within a transaction: it needs several of its own. After an error, what
// was removed until then stays removed.
func (r *Registry) Prune(ctx context.Context, keep PruneInput) (PruneResult, error) {
	const op = "prune"
	keep = keep.withDefaults()
	f := keep.faults()
	if err := f.Err(); err != nil {
		return PruneResult{}, translate(ctx, op, err)
	}
	if r.inTx {
		return PruneResult{}, translate(ctx, op, r.transact(ctx, r.db, nil, steps{}, func(*Registry) error {
			return fmt.Errorf("%w: inside of a transaction", ErrInvalidData)
		}))
	}
	budget, cancel := context.WithTimeout(ctx, keep.Budget)
	defer cancel()
	now := r.now()
	p := pruner{
		r: r, budget: budget, until: now.Add(keep.Budget),
		events: utc.StartOfDay(
			utc.Clamp(now.Add(-keep.Events)),
		), quarters: utc.StartOfDay(utc.Clamp(now.Add(-keep.Quarters))),
		keyEvents: utc.Clamp(now.Add(-keep.KeyEvents)), discoveries: utc.Clamp(now.Add(-keep.Discoveries)),
	}
	if err := p.run(ctx); err != nil {
		return PruneResult{}, translate(ctx, op, err)
	}
	return p.report, nil
}

const (
	pruneRows  = 250 // that are removed in a transaction, about
	prunePages = 250 // of a SQLite file that are given back in a transaction

	// pruneLockTimeout is how long others may be kept waiting behind Prune when it waits for a lock on
	// PostgreSQL.
	pruneLockTimeout = 25 * time.Millisecond
)

// pruner is one run of Prune.
type pruner struct {
	r                                        *Registry
	events, quarters, keyEvents, discoveries time.Time // the first instants that are kept
	report                                   PruneResult

	// The budget ends when the registry's clock says so, or the machine's: a clock that stands still must not keep
	// it waiting for a lock for ever.
	until  time.Time
	budget context.Context //nolint:containedctx // it is not what statements run with: what has begun is ended
}

// step is a piece of the work, which is called until it is finished.
type step func(ctx context.Context) (outcome, error)

type outcome int

const (
	finished   outcome = iota
	unfinished         // there is more to do
	held               // others hold what it needs; nothing was done
)

func (p *pruner) run(ctx context.Context) error {
	left, err := p.work(ctx, []step{p.moveHorizons})
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

// remove returns the steps that are left.
func (p *pruner) remove(ctx context.Context) (left []step, err error) {
	quarters, err := p.quarterSteps(ctx)
	if err != nil {
		return nil, err
	}
	events, err := p.eventSteps(ctx)
	if err != nil {
		return nil, err
	}
	steps := slices.Concat(quarters, events, []step{p.deleteKeyEvents, p.deleteDiscoveries})
	if left, err = p.work(ctx, steps); err != nil {
		return nil, err
	}
	if p.r.db.Dialect() == dialect.SQLite {
		err = p.shrink(ctx)
	}
	return left, err
}

// work takes steps in turns, so that one that is held keeps no other waiting, and returns those that are left
// when the budget ends.
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
		select { // with jitter, so that it meets others at other moments
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

// transact is a step in one transaction. What the body notes is added to the report when it is committed.
func (p *pruner) transact(
	ctx context.Context, body func(tx *ent.Client, done *PruneResult) (outcome, error),
) (result outcome, err error) {
	var done PruneResult
	err = p.r.db.Retry(ctx, func() error {
		done = PruneResult{}
		err := p.r.operate(ctx, p.r.db, func(tx *ent.Client) (err error) {
			if p.r.db.Dialect() == dialect.Postgres {
				timeout := fmt.Sprintf("SET LOCAL lock_timeout = %d", pruneLockTimeout.Milliseconds())
				if _, err := tx.ExecContext(ctx, timeout); err != nil {
					return err
				}
			}
			result, err = body(tx, &done)
			return err
		})
		if store.IsLockTimeout(err) {
			result, done = held, PruneResult{}
			return nil
		}
		return err
	})
	if err == nil {
		p.report.add(done)
	}
	return result, err
}

const moveHorizonSQL = "INSERT INTO usage_horizons (part, complete_from) VALUES ($1, $2) ON CONFLICT (part) DO UPDATE" +
	" SET complete_from = excluded.complete_from WHERE usage_horizons.complete_from < excluded.complete_from"

// moveHorizons moves the horizons forward, after everybody has ended who relies on what lies before them: on
// PostgreSQL a transaction that has read the horizons holds a lock of their table to its end. One that sees the
// state of its beginning throughout must take that lock first, by LOCK TABLE usage_horizons IN ACCESS SHARE MODE.
// SQLite shows each transaction both the horizons and the rows of one state.
func (p *pruner) moveHorizons(ctx context.Context) (outcome, error) {
	h, err := ledger.ReadHorizons(ctx, p.r.fresh)
	if err != nil || !h.Events.Before(p.events) && !h.Quarters.Before(p.quarters) {
		return finished, err
	}
	return p.transact(ctx, func(tx *ent.Client, _ *PruneResult) (outcome, error) {
		if p.r.db.Dialect() == dialect.Postgres {
			if _, err := tx.ExecContext(ctx, "LOCK TABLE usage_horizons IN ACCESS EXCLUSIVE MODE"); err != nil {
				return held, err
			}
		}
		for _, to := range []struct {
			part string
			from time.Time
		}{{ledger.EventsPart, p.events}, {ledger.QuartersPart, p.quarters}} {
			if _, err := tx.ExecContext(ctx, moveHorizonSQL, to.part, to.from); err != nil {
				return held, err
			}
		}
		return finished, nil
	})
}

// eventSteps are the steps that remove events.
func (p *pruner) eventSteps(ctx context.Context) ([]step, error) {
	if p.r.db.Dialect() == dialect.SQLite {
		return []step{p.deleteEvents(uuid.Nil)}, nil
	}
	old, err := ledger.PartitionsBefore(ctx, p.r.fresh, p.events)
	steps, first := make([]step, 0, len(old)), ledger.FirstEventID(p.events)
	for _, part := range old {
		if bytes.Compare(part.To[:], first[:]) <= 0 {
			steps = append(steps, p.dropPartition(part))
		} else { // a month or a year, of which a part is to be kept
			steps = append(steps, p.deleteEvents(part.From))
		}
	}
	return steps, err
}

func (p *pruner) dropPartition(part ledger.Partition) step {
	counted := false
	return func(ctx context.Context) (outcome, error) {
		if !counted { // not under the lock that keeps everybody waiting
			if err := part.Count(ctx, p.r.fresh); err != nil {
				return held, err
			}
			counted = true
		}
		return p.transact(ctx, func(tx *ent.Client, done *PruneResult) (outcome, error) {
			dropped, err := part.Drop(ctx, tx)
			if dropped { // else another run was faster, and has counted it
				done.Events, done.Freed = part.Rows, part.Bytes
			}
			return finished, err
		})
	}
}

// deleteEvents removes old events row by row, from an id on.
func (p *pruner) deleteEvents(from uuid.UUID) step {
	return func(ctx context.Context) (outcome, error) {
		return p.transact(ctx, func(tx *ent.Client, done *PruneResult) (outcome, error) {
			some, result := usageevent.And(
				usageevent.IDGTE(from), usageevent.IDLT(ledger.FirstEventID(p.events)),
			), finished
			last, err := tx.UsageEvent.Query().Where(some).Order(usageevent.ByID()).Offset(pruneRows - 1).FirstID(ctx)
			switch {
			case err == nil:
				some, result = usageevent.And(usageevent.IDGTE(from), usageevent.IDLTE(last)), unfinished
			case !ent.IsNotFound(err):
				return held, err
			}
			n, err := tx.UsageEvent.Delete().Where(some).Exec(ctx)
			done.Events = int64(n)
			return result, err
		})
	}
}

// oldQuartersSQL finds the models that have quarters before an instant, by looking into the index for each model.
const oldQuartersSQL = "SELECT m.id FROM models AS m WHERE" +
	" EXISTS (SELECT 1 FROM usage_quarters AS u WHERE u.model_id = m.id AND u.period_start < $1) OR" +
	" EXISTS (SELECT 1 FROM usage_total_quarters AS t WHERE t.model_id = m.id AND t.period_start < $1)" +
	" ORDER BY m.id"

// quarterSteps are the steps that remove quarters: one for each model that has old ones.
func (p *pruner) quarterSteps(ctx context.Context) (steps []step, err error) {
	err = bulk.Scan(ctx, p.r.fresh, oldQuartersSQL, []any{p.quarters}, func(scan func(...any) error) error {
		var model uuid.UUID
		err := scan(&model)
		steps = append(steps, func(ctx context.Context) (outcome, error) { return p.deleteQuarters(ctx, model) })
		return err
	})
	return steps, err
}

// deleteQuarters removes the oldest quarters of a model together with their totals. It is locked meanwhile: who
// records something late must find both or neither.
func (p *pruner) deleteQuarters(ctx context.Context, model uuid.UUID) (outcome, error) {
	return p.transact(ctx, func(tx *ent.Client, done *PruneResult) (outcome, error) {
		if p.r.db.Dialect() == dialect.Postgres { // the part of lockLedger that keeps others from a model's periods
			if err := ledger.LockModels(ctx, tx, []uuid.UUID{model}); err != nil {
				return held, err
			}
		}
		quarters := usagequarter.And(usagequarter.ModelID(model), usagequarter.PeriodStartLT(p.quarters))
		last, result := p.quarters.Add(-time.Microsecond), finished
		row, err := tx.UsageQuarter.Query().Where(quarters).Order(usagequarter.ByPeriodStart()).Offset(pruneRows - 1).
			First(ctx)
		switch {
		case err == nil:
			last, result = row.PeriodStart, unfinished
		case !ent.IsNotFound(err):
			return held, err
		}
		n, err := tx.UsageQuarter.Delete().Where(quarters, usagequarter.PeriodStartLTE(last)).Exec(ctx)
		if err != nil {
			return held, err
		}
		totals, err := tx.UsageTotalQuarter.Delete().Where(
			usagetotalquarter.ModelID(model), usagetotalquarter.PeriodStartLTE(last)).Exec(ctx)
		done.Quarters = int64(n + totals)
		return result, err
	})
}

// countLeft counts what is past its time.
func (p *pruner) countLeft(ctx context.Context) error {
	for _, left := range []struct {
		count *int64
		query string
		until any
	}{
		{&p.report.EventsLeft, "SELECT count(*) FROM usage_events WHERE id < $1", ledger.FirstEventID(p.events)},
		{&p.report.QuartersLeft, "SELECT (SELECT count(*) FROM usage_quarters WHERE period_start < $1)" +
			" + (SELECT count(*) FROM usage_total_quarters WHERE period_start < $1)", p.quarters},
		{&p.report.KeyEventsLeft, "SELECT count(*) FROM audit_log WHERE automatic AND at < $1", p.keyEvents},
		{&p.report.DiscoveriesLeft, "SELECT count(*) FROM discovery_logs WHERE started_at < $1", p.discoveries},
	} {
		if err := bulk.Scan(ctx, p.r.fresh, left.query, []any{left.until}, func(scan func(...any) error) error {
			return scan(left.count)
		}); err != nil {
			return err
		}
	}
	return nil
}

// shrink gives pages of a SQLite file that are free back to the file system, in several transactions, so that
// others may write in between.
func (p *pruner) shrink(ctx context.Context) error {
	before := p.report.Freed
	_, err := p.work(ctx, []step{p.vacuum})
	if err != nil || p.report.Freed == before {
		return err
	}
	// The file itself is cut when all of the log has been copied into it. This waits for nobody: if somebody still
	// reads what was there before, a later commit does it.
	return bulk.Scan(
		ctx, p.r.client, "PRAGMA wal_checkpoint(PASSIVE)", nil, func(func(...any) error) error { return nil },
	)
}

func (p *pruner) vacuum(ctx context.Context) (outcome, error) {
	return p.transact(ctx, func(tx *ent.Client, done *PruneResult) (outcome, error) {
		var before, after, size int64
		pragma := func(name string, value *int64) error {
			return bulk.Scan(ctx, tx, "PRAGMA "+name, nil, func(scan func(...any) error) error {
				if value == nil {
					return nil // a row for each page: it is freed by asking for the next
				}
				return scan(value)
			})
		}
		for _, ask := range []struct {
			name  string
			value *int64
		}{
			{"page_size", &size}, {"page_count", &before}, {
				fmt.Sprintf("incremental_vacuum(%d)", prunePages), nil,
			}, {"page_count", &after},
		} {
			if err := pragma(ask.name, ask.value); err != nil {
				return held, err
			}
		}
		done.Freed = (before - after) * size
		if before-after < prunePages {
			return finished, nil
		}
		return unfinished, nil
	})
}
