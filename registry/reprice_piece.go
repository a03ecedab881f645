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
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// repricing is the state of pricing usage anew.
type repricing struct {
	model         uuid.UUID
	start, end    time.Time
	unpricedAlone bool // leave usage with a known cost alone
	dry           bool // write nothing

	at     time.Time // everything before this is done
	after  uuid.UUID // and so are events up to this one, unless zero
	done   bool
	report RepriceResult

	// The piece that is under way:

	piece RepriceResult
	most  int // the most rows of the piece
	ledger.Horizons
	prices map[uuid.UUID]*ent.Price // all prices of the model
	book   *dimension.Book
	folded uuid.UUID // the last event that is in the sums by value
	moves                           // of the step that is under way
}

// reprice prices usage anew, piece by piece, from where p is.
func (r *Registry) reprice(ctx context.Context, op string, p *repricing) error {
	return r.pieces(ctx, op, func() (more bool, err error) {
		before := *p
		piece := func(tx *ent.Client) error {
			*p = before // forget an attempt that was rolled back
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
}

// repricePiece prices some thousand events and periods anew, and records the result in the audit trail.
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
	p.piece = RepriceResult{Start: p.at}
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
	if err := p.report.add(p.piece); err != nil || p.dry || p.piece.Requests == 0 {
		return err
	}
	note(tx, auditEntry{action: ActionReprice, entity: EntityModel, id: p.model.String(), after: p.piece})
	return nil
}

// add adds another result, such as that of a piece.
func (report *RepriceResult) add(piece RepriceResult) (err error) {
	report.Requests += piece.Requests
	report.Priced += piece.Priced
	report.StillUnpriced += piece.StillUnpriced
	if report.Before, err = money.Sum(report.Before, piece.Before); err == nil {
		report.After, err = money.Sum(report.After, piece.After)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", fault.ErrOverflow, err)
	}
	return err
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
	if err == nil && len(p.more) > 0 {
		err = r.apply(ctx, tx, &p.moves, p.dry)
	}
	if err == nil && !p.dry && len(p.book.All) > 0 && table < len(ledger.Tables) {
		err = r.moveValues(ctx, tx, p, ledger.Tables[table].Grain, from)
	}
	return rows, err
}

const (
	quarterTable = 0 // of ledger.Tables
	dayTable     = 1
)

// moves are the changes of usage that moves from one price to another.
type moves struct {
	less, more byPeriod // to subtract from periods, and to add to them
	whole      byPeriod // what some periods must be before, without histograms
	events     [][]any  // price, cost, status and id of each event
}

type byPeriod map[ledger.Period]ledger.Sums

// shift notes that usage moves from a period to that of another price, and within their totals.
func (m *moves) shift(from ledger.Period, was ledger.Sums, to uuid.UUID, is ledger.Sums) error {
	p := from
	p.Price = to
	for _, one := range []struct {
		of byPeriod
		ledger.Period
		ledger.Sums
	}{{m.less, from, was}, {m.more, p, is}, {m.less, from.Total(), was}, {m.more, p.Total(), is}} {
		if from.ByValue && one.IsTotal() {
			continue // the totals are those of keys
		}
		s := one.of[one.Period]
		if err := s.Merge(one.Sums); err != nil {
			return err
		}
		one.of[one.Period] = s
	}
	return nil
}

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

// moveEvent moves an event, if its price is not the one of its time. For an event of a whole quarter, it also adds up
// what the quarter must be.
func (p *repricing) moveEvent(e *ledger.Event, whole bool) error {
	of, was := e.Quarter(), e.Sums()
	if whole {
		for _, q := range []ledger.Period{of, of.Total()} {
			s := p.whole[q]
			if err := s.MergeNumbers(&was); err != nil {
				return err
			}
			p.whole[q] = s
		}
	}
	to, is, moved, err := p.move(of, e.At, e.At.Add(time.Microsecond), was)
	if moved {
		p.events = append(p.events, []any{to, int64(is.Cost), string(usageevent.CostStatusRepriced), e.ID})
		err = p.moveInValues(e, was, to, is)
	}
	return err
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
