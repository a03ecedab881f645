package registry

import (
	"context"
	"fmt"
	"maps"
	"math"
	"strings"
	"time"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// reprice prices usage anew, piece by piece, from where p is. Then it sets the counters of budgets, also if nothing was
// left to price: an earlier call may have ended before that.
func (r *Registry) reprice(ctx context.Context, op string, p *repricing) error {
	err := r.pieces(ctx, op, func() (more bool, err error) {
		if p.done {
			return false, nil
		}
		before := *p
		piece := func(tx *ent.Client) error {
			*p = before // forget an attempt that was rolled back
			if !p.dry {
				if err := r.lockBudgets(ctx, tx); err != nil {
					return err
				}
			}
			return r.repricePiece(ctx, tx, p)
		}
		if p.dry {
			err = translate(ctx, op, r.inOneState(ctx, piece))
		} else {
			err = r.writeAlone(ctx, op, nil, piece)
		}
		if err != nil {
			*p = before
		}
		return !p.done, err
	})
	if err != nil || p.dry || r.inTx { // within a transaction, the piece has set them
		return err
	}
	return r.recountBudgets(ctx, op, p.model)
}

// repricePiece prices some thousand events and periods anew, and records the result in the audit trail. Within a
// transaction of the caller's it prices all of them, and sets the counters of budgets.
func (r *Registry) repricePiece(ctx context.Context, tx *ent.Client, p *repricing) (err error) {
	if r.db.Dialect() == dialect.Postgres && !p.dry {
		if err := ledger.LockModels(ctx, tx, []uuid.UUID{p.model}); err != nil {
			return err
		}
	}
	if p.Horizons, err = ledger.ReadHorizons(ctx, tx); err != nil {
		return err
	}
	all, err := tx.Price.Query().Where(price.ModelID(p.model)).All(ctx)
	if err != nil {
		return err
	}
	p.prices = make(map[uuid.UUID]*ent.Price, len(all))
	for _, q := range all {
		p.prices[q.ID] = q
	}
	if err := p.readBook(ctx, tx); err != nil {
		return err
	}
	p.at = utc.Max(p.at, p.Widen(p.start, utc.Floor))
	if p.report.End.IsZero() {
		p.report.Start, p.report.End = p.at, p.Widen(p.end, utc.Ceil)
	}
	p.piece, p.days = RepriceResult{Start: p.at}, map[ledger.Period]bool{}
	p.most = r.pieceRows
	if r.inTx { // it cannot be continued
		p.most = math.MaxInt
	}
	for rows := 0; rows < p.most && !p.done; {
		n, err := r.repriceStep(ctx, tx, p)
		if err != nil {
			return err
		}
		rows += n
	}
	p.piece.End = p.at
	if p.done {
		p.piece.End = p.report.End
	}
	if err := p.report.add(p.piece); err != nil || p.dry {
		return err
	}
	if err := ledger.RecountDays(ctx, tx, r.db.Dialect(), p.days); err != nil {
		return err
	}
	if p.piece.Requests > 0 {
		note(tx, auditEntry{action: ActionReprice, entity: EntityModel, id: p.model.String(), after: p.piece})
	}
	if r.inTx {
		return r.recountWithin(ctx, tx, p.model)
	}
	return nil
}

// repriceStep prices the next usage of one UTC day anew, in the finest grain that is kept: events, quarters, or the
// day.
func (r *Registry) repriceStep(ctx context.Context, tx *ent.Client, p *repricing) (rows int, err error) {
	end := p.Widen(p.end, utc.Ceil)
	days := tx.UsageTotal.Query().Where(usagetotal.ModelID(p.model),
		usagetotal.PeriodStartGTE(utc.StartOfDay(p.at)), usagetotal.PeriodStartLT(end))
	if p.unpricedAlone {
		days.Where(func(s *sql.Selector) { // unknown usage stays without a cost
			s.Where(sql.ColumnsGT(s.C(usagetotal.FieldUnpricedCount), s.C(usagetotal.FieldUnknownCount)))
		})
	}
	first, err := days.Order(usagetotal.ByPeriodStart()).
		Select(usagetotal.FieldID, usagetotal.FieldPeriodStart).First(ctx)
	switch {
	case !p.at.Before(end) || ent.IsNotFound(err):
		p.done = true
		return 0, nil
	case err != nil:
		return 0, err
	}
	start := first.PeriodStart
	if start.After(p.at) {
		p.at, p.after = start, uuid.Nil
	}
	until := utc.Min(start.Add(utc.Day), end)
	p.moves = moves{less: byPeriod{}, more: byPeriod{}, whole: byPeriod{}}
	from, table := p.at, len(ledger.Tables) // of the values to move; events move them themselves
	switch {
	case start.Before(p.Quarters):
		p.at, from, table = start, start, dayTable
		rows, err = p.moveRows(ctx, tx, ledger.Tables[dayTable], start.Add(utc.Day))
	case p.at.Before(p.Events):
		table = quarterTable
		rows, err = p.moveQuarters(ctx, tx, utc.Min(until, p.Events))
	default:
		rows, err = p.moveEvents(ctx, tx, until)
	}
	if err != nil || len(p.more) == 0 {
		return rows, err
	}
	err = r.apply(ctx, tx, &p.moves, p.dry)
	if err == nil && !p.dry && len(p.book.All) > 0 && table < len(ledger.Tables) {
		err = r.moveValues(ctx, tx, p, ledger.Tables[table].Grain, from)
	}
	return rows, err
}

const (
	quarterTable = 0 // of ledger.Tables
	dayTable     = 1
)

// ofModelIn selects the periods of a model that begin in a range of time.
const ofModelIn = " WHERE model_id = $1 AND period_start >= $2 AND period_start < $3"

// moveQuarters moves the next quarters that begin before until.
func (p *repricing) moveQuarters(ctx context.Context, tx *ent.Client, until time.Time) (int, error) {
	t := ledger.Tables[quarterTable]
	query := "SELECT period_start FROM " + t.Name + ofModelIn + " ORDER BY period_start LIMIT 1 OFFSET $4"
	args := []any{p.model, p.at, until, min(p.most, pieceRows)}
	err := bulk.Scan(ctx, tx, query, args, func(scan func(...any) error) error {
		var next time.Time
		if err := scan(&next); err != nil {
			return err
		}
		until = utc.Max(utc.Of(next), p.at.Add(utc.Quarter))
		return nil
	})
	if err != nil {
		return 0, err
	}
	return p.moveRows(ctx, tx, t, until)
}

// moveRows moves the periods of a table that begin before until. Quarters are moved in their days, too.
func (p *repricing) moveRows(ctx context.Context, tx *ent.Client, t *ledger.Table, until time.Time) (int, error) {
	rows := 0
	of := ledger.Period{Model: p.model, Grain: t.Grain}
	cells := ledger.NewCells(&of.Key, &of.Price, &of.Start)
	query := "SELECT api_key_id, price_id, period_start, " + strings.Join(ledger.SumColumns, ", ") + " FROM " + t.Name +
		ofModelIn
	err := bulk.Scan(ctx, tx, query, []any{p.model, p.at, until}, func(scan func(...any) error) error {
		if err := scan(cells.Addresses...); err != nil {
			return err
		}
		rows++
		of.Start = utc.Of(of.Start)
		was, err := cells.Read()
		if err != nil {
			return err
		}
		_, _, _, err = p.move(of, of.Start, of.End(), was)
		return err
	})
	p.at = until
	return rows, err
}

// moveEvents moves the next events before until: those of whole quarters, unless a quarter has too many.
func (p *repricing) moveEvents(ctx context.Context, tx *ent.Client, until time.Time) (int, error) {
	whole, after, limit := p.after == uuid.Nil, p.after, min(p.most, pieceRows)
	if whole {
		after = ledger.FirstEventID(p.at)
	}
	var events []ledger.Event
	err := ledger.ReadEvents(ctx, tx, p.model, after, ledger.FirstEventID(until), limit,
		func(e ledger.Event, err error) error {
			if err == nil && (e.Latency < 0 || e.Latency > latency.Max) {
				err = fmt.Errorf("%w: latency_ms", ErrCorrupt)
			}
			e.At = utc.Of(e.At)
			events = append(events, e)
			return err
		})
	if err != nil {
		return 0, err
	}
	rest := p.at.Truncate(utc.Quarter) // a quarter of which some events are done
	p.at, p.after = until, uuid.Nil
	if n := len(events); n == limit {
		last := &events[n-1]
		p.at = last.At.Truncate(utc.Quarter)
		for n > 0 && !events[n-1].At.Before(p.at) {
			n--
		}
		if n == 0 {
			whole, rest, p.at, p.after = false, p.at, last.At, last.ID
		} else {
			events = events[:n]
		}
	}
	if err := p.book.Learn(ctx, tx, nil, events); err != nil {
		return 0, err
	}
	for i := range events {
		e := &events[i]
		if err := p.moveEvent(e, whole || !e.At.Truncate(utc.Quarter).Equal(rest)); err != nil {
			return 0, err
		}
	}
	return len(events), nil
}

// eventPrices writes the price and the cost of events.
var eventPrices = bulk.NewUpdate(
	usageevent.Table, bulk.ByID, usageevent.FieldPriceID, usageevent.FieldCost, usageevent.FieldCostStatus)

// apply checks the moves and writes them. A dry run only checks.
func (r *Registry) apply(ctx context.Context, tx *ent.Client, m *moves, dry bool) error {
	touched := maps.Clone(m.less)
	maps.Copy(touched, m.more)
	now, sorted := byPeriod{}, ledger.Sorted(touched)
	if err := ledger.Read(ctx, tx, r.db.Dialect(), sorted, now); err != nil {
		return err
	}
	write := make(byPeriod, len(sorted))
	var gone []ledger.Period
	for _, p := range sorted {
		s := now[p]
		must, known := m.whole[p]
		if known && (s.Amounts() != must.Amounts() || s.Cost != must.Cost) || !s.Subtract(m.less[p]) {
			return fmt.Errorf("%w: the usage of %s is not the sum of its requests: see VerifyLedger",
				ErrCorrupt, p.Start.Format(time.RFC3339))
		}
		if err := s.Merge(m.more[p]); err != nil {
			return err
		}
		if write[p] = s; s.Requests == 0 {
			delete(write, p)
			gone = append(gone, p)
		}
	}
	if dry {
		return nil
	}
	for _, p := range gone {
		under := "api_key_id"
		if p.ByValue {
			under = "value_id"
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM "+ledger.Tables[p.Table()].Name+
			" WHERE price_id = $1 AND "+under+" = $2 AND period_start = $3", p.Price, p.Key, p.Start)
		if err != nil {
			return err
		}
	}
	if err := ledger.Write(ctx, tx, r.db.Dialect(), ledger.Sorted(write), write); err != nil {
		return err
	}
	return eventPrices.Run(ctx, tx, r.db.Dialect(), m.events)
}

// readBook reads the dimensions, and up to which event the model's sums by value go.
func (p *repricing) readBook(ctx context.Context, tx *ent.Client) (err error) {
	if p.book, err = dimension.Read(ctx, tx); err != nil || len(p.book.All) == 0 {
		return err
	}
	p.folded, err = dimension.FoldedTo(ctx, tx, p.model)
	return err
}

// moveValues moves the periods of values that begin between an instant and where p is, in the periods of the model in
// which those of keys have been moved.
func (r *Registry) moveValues(
	ctx context.Context, tx *ent.Client, p *repricing, grain ledger.Grain, from time.Time,
) error {
	totals, err := p.readTotals(ctx, tx, r.db.Dialect())
	if err != nil {
		return err
	}
	for _, d := range p.book.All {
		of, begin := grain, from
		if d.DaysOnly {
			of, begin = ledger.DayGrain, utc.StartOfDay(from)
		}
		rows, err := p.readValues(ctx, tx, d, of, begin)
		if err != nil {
			return err
		}
		p.moves = moves{less: byPeriod{}, more: byPeriod{}, whole: byPeriod{}}
		for len(rows) > 0 {
			n := 1
			for n < len(rows) && rows[n].of.Start.Equal(rows[0].of.Start) {
				n++
			}
			if err := p.moveTogether(rows[:n], totals, !d.DaysOnly); err != nil {
				return err
			}
			rows = rows[n:]
		}
		if len(p.more) == 0 {
			continue
		}
		if err := r.apply(ctx, tx, &p.moves, false); err != nil {
			return err
		}
	}
	return nil
}

// readTotals reads the totals of the periods in which usage has been moved.
func (p *repricing) readTotals(ctx context.Context, tx *ent.Client, engine string) (byPeriod, error) {
	var moved []ledger.Period
	for of := range p.more {
		if of.IsTotal() {
			moved = append(moved, of)
		}
	}
	totals := byPeriod{}
	return totals, ledger.Read(ctx, tx, engine, moved, totals)
}

// readValues reads the periods of a dimension's values, in the order of time.
func (p *repricing) readValues(
	ctx context.Context, tx *ent.Client, d *dimension.Dimension, grain ledger.Grain, from time.Time,
) (rows []valueRow, err error) {
	of := ledger.Period{Model: p.model, Grain: grain, ByValue: true, Key: d.ID} // any key: a value has one
	cells := ledger.NewCells(&of.Key, &of.Price, &of.Start)
	query := "SELECT t.value_id, t.price_id, t.period_start, t." + strings.Join(ledger.SumColumns, ", t.") + " FROM " +
		ledger.Tables[of.Table()].Name + " AS t JOIN dimension_values AS v ON v.id = t.value_id WHERE t.model_id = $1" +
		" AND t.period_start >= $2 AND t.period_start < $3 AND v.dimension_id = $4 ORDER BY t.period_start"
	err = bulk.Scan(ctx, tx, query, []any{p.model, from, p.at, d.ID}, func(scan func(...any) error) error {
		if err := scan(cells.Addresses...); err != nil {
			return err
		}
		of.Start = utc.Of(of.Start)
		was, err := cells.Read()
		rows = append(rows, valueRow{of: of, was: was})
		return err
	})
	return rows, err
}
