package registry

import (
	"cmp"
	"slices"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Where events are gone, periods are priced as a whole. Keys and values divide the requests of a period differently, so
// a price that lacks a rate prices others of them by key than by value. What the keys have is right: what the values
// have is made to add up to it.

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
			if err := p.shiftValue(of, was, to, is); err != nil {
				return err
			}
		}
	}
	return nil
}

// shiftValue is shift for the period of a value. It notes which days of consumers change.
func (p *repricing) shiftValue(of ledger.Period, was ledger.Sums, to uuid.UUID, is ledger.Sums) error {
	if of.Grain == ledger.DayGrain {
		p.days[ledger.ConsumerDay(of.Key, of.Start)] = true
	}
	return p.shift(of, was, to, is)
}

// valueRow is a period of a value that may be moved.
type valueRow struct {
	of      ledger.Period
	was, is ledger.Sums
	to      uuid.UUID // its price then, which may be its own; zero: it stays as it is
}

// touch notes that a row changes. Unless it moves, it keeps its price.
func (w *valueRow) touch() {
	if w.to == uuid.Nil {
		w.to = w.of.Price
	}
}

// moveTogether moves the values of one dimension in a period, if those of keys have been moved in it. If the dimension
// counts all requests of the period, they add up to its total then.
func (p *repricing) moveTogether(rows []valueRow, totals byPeriod, days bool) error {
	total, moved := totals[ledger.Period{Model: p.model, Grain: rows[0].of.Grain, Start: rows[0].of.Start}]
	if !moved {
		return nil
	}
	requests, err := p.priceRows(rows)
	if err != nil {
		return err
	}
	if requests == total.Requests {
		if err := p.settleUnpriced(rows, total.Unpriced); err != nil {
			return err
		}
		allot(rows, &total)
	}
	return p.shiftRows(rows, days)
}

// priceRows prices the values of a period anew. It returns how many requests they have.
func (p *repricing) priceRows(rows []valueRow) (requests int64, err error) {
	for i := range rows {
		w := &rows[i]
		requests += w.was.Requests
		if w.to, w.is, err = p.priceAnew(w.of.Price, w.of.Start, w.of.End(), w.was); err != nil {
			return 0, err
		}
	}
	return requests, nil
}

// settleUnpriced has rows have as many unpriced requests as their total. If there are too few, rows that are moved get
// some of theirs back. If there are too many, rows that stay get a cost for some. It does nothing if that is not
// possible: the rows have not added up before.
func (p *repricing) settleUnpriced(rows []valueRow, total int64) error {
	lack, weights, most := total, make([]int64, len(rows)), int64(0)
	for i := range rows {
		lack -= rows[i].is.Unpriced
	}
	for i := range rows {
		w := &rows[i]
		if weights[i] = w.is.Unpriced - w.is.Unknown; lack > 0 {
			weights[i] = w.was.Unpriced - w.is.Unpriced
		}
		most += weights[i]
	}
	n := max(lack, -lack)
	if n > most {
		return nil
	}
	for i, share := range ledger.Allot(n, weights) {
		switch w := &rows[i]; {
		case share == 0:
		case lack > 0:
			w.unprice(share)
		default:
			if err := p.priceSome(w, share); err != nil {
				return err
			}
		}
	}
	return nil
}

// unprice takes the cost from some requests of a row.
func (w *valueRow) unprice(n int64) {
	priced := w.is.Requests - w.is.Unpriced
	for _, c := range costs {
		*c.of(&w.is) = share(*c.of(&w.is), priced-n, priced)
	}
	w.is.Unpriced += n
}

// priceSome gives some requests of a row their share of what its tokens cost, as far as the rates are known.
func (p *repricing) priceSome(w *valueRow, n int64) error {
	all, err := p.knownCost(w)
	if err != nil {
		return err
	}
	cost := share(all, n, w.is.Requests-w.is.Unknown)
	w.touch()
	w.is.Unpriced -= n
	return w.is.MergeNumbers(&ledger.Sums{Cost: cost, Said: ledger.Said{
		RetryCost:    share(cost, w.is.Retries, w.is.Requests),
		ComparedCost: share(cost, w.is.ProviderCosts, w.is.Requests),
	}})
}

// knownCost returns what the tokens of a row cost at the rates that are known.
func (p *repricing) knownCost(w *valueRow) (money.USD, error) {
	price := cmp.Or(p.target(w.of.Price, w.of.Start, w.of.End()), p.prices[w.of.Price])
	if price == nil { // the row is damaged
		return 0, nil
	}
	rates := ledger.RatesOf(price)
	for _, name := range []string{meter.Input, meter.Output} { // the other meters fall back to these
		if _, known := rates[name]; !known {
			rates[name] = 0
		}
	}
	cost, err := w.is.Meters().Cost(rates)
	if err != nil {
		return 0, fault.OfAmount("cost", err)
	}
	return cost, nil
}

// share returns what n of some requests cost if all of them cost the same.
func share(cost money.USD, n, of int64) money.USD {
	return money.USD(ledger.Allot(int64(cost), []int64{n, of - n})[0])
}

// costOf is one of the costs of a period, and how many requests can have a part of it.
type costOf struct {
	of       func(*ledger.Sums) *money.USD
	requests func(*ledger.Sums) int64
}

var costs = []costOf{
	{
		func(s *ledger.Sums) *money.USD { return &s.Cost },
		func(s *ledger.Sums) int64 { return s.Requests - s.Unpriced },
	},
	{
		func(s *ledger.Sums) *money.USD { return &s.RetryCost },
		func(s *ledger.Sums) int64 { return s.Retries },
	},
	{
		func(s *ledger.Sums) *money.USD { return &s.ComparedCost },
		func(s *ledger.Sums) int64 { return s.ProviderCosts },
	},
}

// allot gives the rows that change what the total costs beyond the others, in proportion to what their tokens cost. If
// the others cost more than the total, or no row that changes can have a cost, all rows change.
func allot(rows []valueRow, total *ledger.Sums) {
	for _, c := range costs {
		rest, weights := c.rest(rows, total)
		if rest < 0 || rest > 0 && slices.Max(weights) == 0 {
			for i := range rows {
				if w := &rows[i]; *c.of(&w.is) > 0 || c.requests(&w.is) > 0 {
					w.touch()
				}
			}
			rest, weights = c.rest(rows, total)
		}
		for i, cost := range ledger.Allot(int64(rest), weights) {
			if rows[i].to != uuid.Nil {
				*c.of(&rows[i].is) = money.USD(cost)
			}
		}
	}
}

// rest returns what the total costs beyond the rows that stay, and the weights by which the others share it.
func (c costOf) rest(rows []valueRow, total *ledger.Sums) (rest money.USD, weights []int64) {
	rest, weights = *c.of(total), make([]int64, len(rows))
	for i := range rows {
		switch w := &rows[i]; {
		case w.to == uuid.Nil:
			rest -= *c.of(&w.is)
		case c.requests(&w.is) > 0:
			weights[i] = int64(*c.of(&w.is))
		}
	}
	if slices.Max(weights) > 0 {
		return rest, weights
	}
	for i := range rows { // less than half a nano-dollar each
		if w := &rows[i]; w.to != uuid.Nil {
			weights[i] = c.requests(&w.is)
		}
	}
	return rest, weights
}

// shiftRows notes which values move, and that their days do, if they have any.
func (p *repricing) shiftRows(rows []valueRow, days bool) error {
	for _, w := range rows {
		if w.to == uuid.Nil {
			continue
		}
		if err := p.shiftValue(w.of, w.was, w.to, w.is); err != nil {
			return err
		}
		if days && w.of.Grain == ledger.QuarterGrain {
			if err := p.shiftValue(w.of.Day(), w.was, w.to, w.is); err != nil {
				return err
			}
		}
	}
	return nil
}
