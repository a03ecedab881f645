package registry

import (
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/money"
)

// moveInValues moves an event in the sums by value, if it is in them.
func (p *repricing) moveInValues(e *ledger.Event, was ledger.Sums, to uuid.UUID, is ledger.Sums) error {
	if !e.IsFolded(p.folded) {
		return nil
	}
	values, err := p.book.Of(e, nil)
	if err != nil {
		return err
	}
	for _, v := range values {
		for _, of := range v.Periods(e.Quarter()) {
			if err := p.shift(of, was, to, is); err != nil {
				return err
			}
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

// priceRows prices the values of a period anew. It returns how many requests they have, and whether any is moved.
func (p *repricing) priceRows(rows []valueRow) (requests int64, moved bool, err error) {
	for i := range rows {
		w := &rows[i]
		requests += w.was.Requests
		if w.to, w.is, err = p.priceAnew(w.of.Price, w.of.Start, w.of.End(), w.was); err != nil {
			return 0, false, err
		}
		moved = moved || w.to != uuid.Nil
	}
	return requests, moved, nil
}

// shiftRows notes which values move, and that their days do, if they have any.
func (p *repricing) shiftRows(rows []valueRow, days bool) error {
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
