package registry

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// readBook reads the dimensions, and up to which event the model's sums by value go.
func (p *repricing) readBook(ctx context.Context, tx *ent.Client) (err error) {
	if p.book, err = dimension.Read(ctx, tx); err != nil || len(p.book.All) == 0 {
		return err
	}
	p.folded, err = dimension.FoldedTo(ctx, tx, p.model)
	return err
}

// moveInValues moves an event in the sums by value, if it is in them.
func (p *repricing) moveInValues(e *ledger.Event, was ledger.Sums, to uuid.UUID, is ledger.Sums) error {
	if bytes.Compare(e.ID[:], p.folded[:]) > 0 {
		return nil
	}
	values, err := p.book.Of(e, nil)
	if err != nil {
		return err
	}
	for _, v := range values {
		under := e.Quarter().Under(v.Value)
		if err := p.shift(under.Day(), was, to, is); err != nil {
			return err
		}
		if v.DaysOnly {
			continue
		}
		if err := p.shift(under, was, to, is); err != nil {
			return err
		}
	}
	return nil
}

// valueRow is a period of a value that may be moved.
type valueRow struct {
	of      ledger.Period
	was, is ledger.Sums
	to      uuid.UUID // its price then; zero: it stays
}

// moveValues moves the periods of values that begin between an instant and where p is, after those of keys have been
// moved. What they cost together is what the keys' cost, if the dimension counts all requests of the period.
func (r *Registry) moveValues(
	ctx context.Context, tx *ent.Client, p *repricing, grain ledger.Grain, from time.Time,
) error {
	for _, d := range p.book.All {
		of, begin := grain, from
		if d.DaysOnly && grain == ledger.QuarterGrain {
			if !p.at.Equal(p.at.Truncate(utc.Day)) { // its days are moved when their last quarter was
				continue
			}
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
			if err := p.moveTogether(ctx, tx, r.db.Dialect(), rows[:n], !d.DaysOnly); err != nil {
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

// readValues reads the periods of a dimension's values, in the order of time.
func (p *repricing) readValues(
	ctx context.Context, tx *ent.Client, d *dimension.Dimension, grain ledger.Grain, from time.Time,
) (rows []valueRow, err error) {
	of := ledger.Period{Model: p.model, Grain: grain, ByValue: true, Key: d.ID} // any key: a value has one
	cells := ledger.NewCells(&of.Key, &of.Price, &of.Start)
	query := "SELECT t.value_id, t.price_id, t.period_start, t." + strings.Join(ledger.SumColumns, ", t.") + " FROM " +
		ledger.Tables[of.Table()].Name + " AS t JOIN dimension_values AS v ON v.id = t.value_id WHERE t.model_id = $1" +
		" AND t.period_start >= $2 AND t.period_start < $3 AND v.dimension_id = $4 ORDER BY t.period_start"
	return rows, bulk.Scan(ctx, tx, query, []any{p.model, from, p.at, d.ID}, func(scan func(...any) error) error {
		if err := scan(cells.Addresses...); err != nil {
			return err
		}
		of.Start = utc.Of(of.Start)
		was, err := cells.Read()
		rows = append(rows, valueRow{of: of, was: was, is: was})
		return err
	})
}

// moveTogether moves the values of one dimension in a period.
func (p *repricing) moveTogether(ctx context.Context, tx *ent.Client, engine string, rows []valueRow, days bool) error {
	var requests int64
	moved := false
	for i := range rows {
		w := &rows[i]
		requests += w.was.Requests
		q := p.target(w.of.Price, w.of.Start, w.of.End())
		if q == nil || w.was.Requests == w.was.Unknown || p.unpricedAlone && w.was.Unpriced == w.was.Unknown {
			continue
		}
		known, err := ledger.CostAt(q, w.was.Meters())
		if err != nil {
			return err
		}
		if known != nil {
			w.to, moved = q.ID, true
			w.is.Reprice(*known)
		}
	}
	if !moved {
		return nil
	}
	total := ledger.Period{Model: p.model, Grain: rows[0].of.Grain, Start: rows[0].of.Start}
	stored := byPeriod{}
	if err := ledger.Read(ctx, tx, engine, []ledger.Period{total}, stored); err != nil {
		return err
	}
	if all := stored[total]; all.Requests == requests {
		allot(rows, all)
	}
	for _, w := range rows {
		if w.to == uuid.Nil {
			continue
		}
		if err := p.shift(w.of, w.was, w.to, w.is); err != nil {
			return err
		}
		if days && w.of.Grain == ledger.QuarterGrain {
			if err := p.shift(w.of.Day(), w.was, w.to, w.is); err != nil {
				return err
			}
		}
	}
	return nil
}

// allot gives the rows that are moved what the total costs beyond the others, in proportion to what their tokens cost.
func allot(rows []valueRow, total ledger.Sums) {
	for _, cost := range []func(s *ledger.Sums) *money.USD{
		func(s *ledger.Sums) *money.USD { return &s.Cost },
		func(s *ledger.Sums) *money.USD { return &s.RetryCost },
		func(s *ledger.Sums) *money.USD { return &s.ComparedCost },
	} {
		rest, weights, all := *cost(&total), make([]int64, len(rows)), int64(0)
		for i := range rows {
			if rows[i].to == uuid.Nil {
				rest -= *cost(&rows[i].is)
			} else {
				weights[i] = int64(*cost(&rows[i].is))
				all = max(all, weights[i])
			}
		}
		for i := range rows {
			if all == 0 && rows[i].to != uuid.Nil { // less than half a nano-dollar each
				weights[i] = rows[i].is.Requests
			}
		}
		for i, share := range ledger.Allot(int64(max(0, rest)), weights) {
			if rows[i].to != uuid.Nil {
				*cost(&rows[i].is) = money.USD(share)
			}
		}
	}
}
