package registry

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/auditentry"
	"github.com/jeffersonwarrior/modelscan/ent/budgetcrossing"
	"github.com/jeffersonwarrior/modelscan/ent/budgetwindow"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/ent/usagebyvaluequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
)

const moveHorizonSQL = "INSERT INTO usage_horizons (part, complete_from) VALUES ($1, $2) ON CONFLICT (part) DO UPDATE" +
	" SET complete_from = excluded.complete_from WHERE usage_horizons.complete_from < excluded.complete_from"

// moveHorizons moves the horizons forward, after everybody who relies on what lies before them has ended.
//
// On PostgreSQL a transaction that has read the horizons holds a lock of their table until it ends. A transaction that
// keeps seeing the state of its beginning must take that lock first, with LOCK TABLE usage_horizons IN ACCESS SHARE
// MODE. SQLite shows each transaction the horizons and the rows of one state.
func (p *pruner) moveHorizons(ctx context.Context) (outcome, error) {
	h, err := ledger.ReadHorizons(ctx, p.r.fresh)
	if err != nil || !h.Events.Before(p.events) && !h.Quarters.Before(p.quarters) {
		return finished, err
	}
	return p.transact(ctx, func(tx *ent.Client) (outcome, error) {
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

// foldSteps returns the steps that add requests to the sums by value, one for each model with requests that are about
// to go.
func (p *pruner) foldSteps(ctx context.Context) (steps []step, err error) {
	const query = "SELECT m.id FROM " + ledger.ModelsFolded + " WHERE EXISTS (SELECT 1 FROM dimensions) AND EXISTS" +
		" (SELECT 1 FROM usage_events AS e WHERE e.model_id = m.id AND e.id > " + ledger.FoldedTo + " AND e.id < $1)" +
		" ORDER BY m.id"
	err = bulk.Scan(ctx, p.r.fresh, query, []any{ledger.FirstEventID(p.events)}, func(scan func(...any) error) error {
		var model uuid.UUID
		err := scan(&model)
		steps = append(steps, func(ctx context.Context) (outcome, error) {
			return p.transact(ctx, func(tx *ent.Client) (outcome, error) {
				more, err := p.r.commits.FoldSome(ctx, tx, model, timeOf(tx))
				if more {
					return unfinished, err
				}
				return finished, err
			})
		})
		return err
	})
	return steps, err
}

// eventSteps returns the steps that remove events.
func (p *pruner) eventSteps(ctx context.Context) ([]step, error) {
	if p.r.db.Dialect() == dialect.SQLite {
		return []step{p.deleteEvents(uuid.Nil)}, nil
	}
	old, err := ledger.PartitionsBefore(ctx, p.r.fresh, p.events)
	steps, first := make([]step, 0, len(old)), ledger.FirstEventID(p.events)
	for _, part := range old {
		if bytes.Compare(part.To[:], first[:]) <= 0 {
			steps = append(steps, p.dropPartition(part))
		} else { // a month or a year, a part of which is kept
			steps = append(steps, p.deleteEvents(part.From))
		}
	}
	return steps, err
}

func (p *pruner) dropPartition(part ledger.Partition) step {
	counted := false
	return func(ctx context.Context) (outcome, error) {
		if !counted { // before taking the lock, which keeps everybody waiting
			if err := part.Count(ctx, p.r.fresh); err != nil {
				return held, err
			}
			counted = true
		}
		return p.transact(ctx, func(tx *ent.Client) (outcome, error) {
			dropped, err := part.Drop(ctx, tx)
			if dropped { // otherwise another run was faster, and has counted it
				p.report.Events += part.Rows
				p.report.Freed += part.Bytes
			}
			return finished, err
		})
	}
}

// deleteEvents removes old events row by row, beginning with an id.
func (p *pruner) deleteEvents(from uuid.UUID) step {
	return p.deleteSome(&p.report.Events, usageevent.Table, "id >= $1 AND id < $2", usageevent.FieldID,
		from, ledger.FirstEventID(p.events))
}

// deleteSome removes the first rows of a table that a condition selects, in an order, and counts them.
func (p *pruner) deleteSome(count *int64, table, where, order string, args ...any) step {
	some := fmt.Sprintf("SELECT id FROM %s WHERE %s ORDER BY %s LIMIT %d", table, where, order, pruneRows)
	return func(ctx context.Context) (outcome, error) {
		return p.transact(ctx, func(tx *ent.Client) (outcome, error) {
			var ids []uuid.UUID
			err := bulk.Scan(ctx, tx, some, args, func(scan func(...any) error) error {
				var id uuid.UUID
				err := scan(&id)
				ids = append(ids, id)
				return err
			})
			if err != nil || len(ids) == 0 {
				return finished, err
			}
			list, of := bulk.In(ids)
			result, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE id IN "+list, of...)
			if err != nil {
				return held, err
			}
			n, err := result.RowsAffected()
			*count += n
			if len(ids) < pruneRows {
				return finished, err
			}
			return unfinished, err
		})
	}
}

// oldQuartersSQL finds the models that have quarters before an instant. It looks into the index once for each model.
const oldQuartersSQL = "SELECT m.id FROM models AS m WHERE" +
	" EXISTS (SELECT 1 FROM usage_quarters AS u WHERE u.model_id = m.id AND u.period_start < $1) OR" +
	" EXISTS (SELECT 1 FROM usage_total_quarters AS t WHERE t.model_id = m.id AND t.period_start < $1) OR" +
	" EXISTS (SELECT 1 FROM usage_by_value_quarters AS v WHERE v.model_id = m.id AND v.period_start < $1)" +
	" ORDER BY m.id"

// quarterSteps returns the steps that remove quarters: one for each model with old quarters.
func (p *pruner) quarterSteps(ctx context.Context) (steps []step, err error) {
	err = bulk.Scan(ctx, p.r.fresh, oldQuartersSQL, []any{p.quarters}, func(scan func(...any) error) error {
		var model uuid.UUID
		err := scan(&model)
		steps = append(steps, func(ctx context.Context) (outcome, error) { return p.deleteQuarters(ctx, model) })
		return err
	})
	return steps, err
}

// deleteQuarters removes the oldest quarters of a model together with their totals. The model is locked meanwhile:
// somebody who records late must find both or neither.
func (p *pruner) deleteQuarters(ctx context.Context, model uuid.UUID) (outcome, error) {
	return p.transact(ctx, func(tx *ent.Client) (outcome, error) {
		if p.r.db.Dialect() == dialect.Postgres { // keeps others from the model's periods
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
		if err != nil {
			return held, err
		}
		values, err := tx.UsageByValueQuarter.Delete().Where(
			usagebyvaluequarter.ModelID(model), usagebyvaluequarter.PeriodStartLTE(last)).Exec(ctx)
		p.report.Quarters += int64(n + totals + values)
		return result, err
	})
}

// What has aged besides the ledger.
const (
	oldKeyEvents   = "automatic AND at < $1"
	oldDiscoveries = "started_at < $1"
	oldWindows     = "window_end < $1"
	// A crossing that goes while its window counts would be noted again.
	oldCrossings = "at < $1 AND acknowledged_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM budget_windows AS w" +
		" WHERE w.budget_id = budget_crossings.budget_id AND w.subject_id = budget_crossings.subject_id" +
		" AND w.window_start = budget_crossings.window_start AND w.window_end > $1)"
)

// countLeft counts the rows that are past their time.
func (p *pruner) countLeft(ctx context.Context) error {
	for _, left := range []struct {
		count        *int64
		table, where string
		until        any
	}{
		{&p.report.EventsLeft, usageevent.Table, "id < $1", ledger.FirstEventID(p.events)},
		{&p.report.QuartersLeft, usagequarter.Table, "period_start < $1", p.quarters},
		{&p.report.QuartersLeft, usagetotalquarter.Table, "period_start < $1", p.quarters},
		{&p.report.QuartersLeft, usagebyvaluequarter.Table, "period_start < $1", p.quarters},
		{&p.report.KeyEventsLeft, auditentry.Table, oldKeyEvents, p.keyEvents},
		{&p.report.DiscoveriesLeft, discoverylog.Table, oldDiscoveries, p.discoveries},
		{&p.report.BudgetWindowsLeft, budgetwindow.Table, oldWindows, p.quarters},
		{&p.report.CrossingsLeft, budgetcrossing.Table, oldCrossings, p.quarters},
	} {
		query := "SELECT count(*) FROM " + left.table + " WHERE " + left.where
		err := bulk.Scan(ctx, p.r.fresh, query, []any{left.until}, func(scan func(...any) error) error {
			var n int64
			err := scan(&n)
			*left.count += n
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
