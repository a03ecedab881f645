package proof

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

var midnight = time.Date(2026, 7, 15, 0, 0, 0, 0, time.UTC)

// newDay is a day of one request of a million tokens at a dollar, of which all rows are right.
func newDay() (d *Day, quarter ledger.Period) {
	model, price := uuid.New(), uuid.New()
	dollar := money.Dollar
	d = &Day{
		book:     new(dimension.Book),
		Horizons: ledger.Horizons{Events: utc.Beginning, Quarters: utc.Beginning}, Start: midnight,
		rows: map[ledger.Period]*row{}, recorded: map[ledger.Period]*ledger.Sums{}, doubtful: map[time.Time]bool{},
		prices: map[uuid.UUID]*ent.Price{price: {ID: price, ModelID: model, CostPer1mInput: &dollar}},
	}
	e := ledger.Event{
		ID: uuid.New(), Model: model, Key: uuid.New(), Price: price, At: midnight, Success: true, Cost: &dollar,
		Latency: 5,
		Tokens:  [5]int64{1_000_000},
	}
	s := e.Sums()
	quarter = e.Quarter()
	d.recorded[quarter] = &s
	for _, p := range []ledger.Period{quarter, quarter.Day(), quarter.Total(), quarter.Day().Total()} {
		d.rows[p] = newRow(p, s)
	}
	return d, quarter
}

func newRow(p ledger.Period, s ledger.Sums) *row {
	r := &row{
		Sums: s, id: uuid.New(), end: p.End(), average: s.AverageLatency(), encoded: s.Encode(),
	}
	if cost := s.KnownCost(); cost != nil {
		r.total = (*int64)(cost)
	}
	digest := ledger.DigestOf(p, &r.Sums, r.encoded)
	r.digest = &digest
	return r
}

// prune takes away the events and quarters of the day.
func (d *Day) prune() {
	d.Horizons = ledger.Horizons{Events: midnight.Add(utc.Day), Quarters: midnight.Add(utc.Day)}
	clear(d.recorded)
	for p := range d.rows {
		if p.Grain == ledger.QuarterGrain {
			delete(d.rows, p)
		}
	}
}

// TestJudge damages one row of a day: what is wrong is found in it alone, and can be mended or not.
func TestJudge(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage   func(d *Day, quarter ledger.Period)
		found    []string
		mendable bool
	}{
		"OK": {damage: func(*Day, ledger.Period) {}},
		"unknown usage, and no rates": {
			damage: func(d *Day, q ledger.Period) {
				d.prune()
				d.prices[q.Price] = &ent.Price{ID: q.Price, ModelID: q.Model}
				s := ledger.Sums{Requests: 1, Unpriced: 1, Said: ledger.Said{Unknown: 1}}
				for _, p := range []ledger.Period{q.Day(), q.Day().Total()} {
					d.rows[p] = newRow(p, s)
				}
			},
		},
		"a missing quarter": {
			damage: func(d *Day, q ledger.Period) { delete(d.rows, q) },
			found:  []string{"missing row in usage_quarters: "}, mendable: true,
		},
		"a missing total": {
			damage:   func(d *Day, q ledger.Period) { delete(d.rows, q.Day().Total()) },
			found:    []string{"missing row in usage_totals: "},
			mendable: true,
		},
		"a surplus row": {
			damage: func(d *Day, q ledger.Period) { q.Key = uuid.New(); d.rows[q] = d.rows[q.Total()] },
			found:  []string{"surplus row in usage_quarters: "}, mendable: true,
		},
		"a wrong sum": {
			damage:   func(d *Day, q ledger.Period) { d.rows[q.Day()].Tokens[0]++ },
			found:    []string{"wrong sum in usage_tracking: input_tokens", "wrong digest in usage_tracking: digest"},
			mendable: true,
		},
		"a wrong end": {
			damage: func(d *Day, q ledger.Period) { d.rows[q].end = midnight },
			found:  []string{"wrong sum in usage_quarters: period_end"}, mendable: true,
		},
		"a wrong average": {
			damage: func(d *Day, q ledger.Period) { d.rows[q].average = 6 },
			found:  []string{"wrong sum in usage_quarters: average_latency_ms"}, mendable: true,
		},
		"an unreadable row": {
			damage: func(d *Day, q ledger.Period) { d.rows[q].unreadable = ent.ErrTxStarted },
			found:  []string{"unreadable row in usage_quarters: "}, mendable: true,
		},
		"a damaged row with nothing below it": {
			damage: func(d *Day, q ledger.Period) { d.prune(); d.rows[q.Day()].Requests++ },
			found: []string{
				"wrong sum in usage_tracking: average_latency_ms", "wrong digest in usage_tracking: digest",
			},
		},
		"a row that contradicts what is below it": {
			damage: func(d *Day, q ledger.Period) {
				d.Events = midnight.Add(utc.Day)
				clear(d.recorded)
				s := d.rows[q].Sums
				s.Requests++
				d.rows[q.Day()] = newRow(q.Day(), s)
			},
			found: []string{
				"wrong sum in usage_tracking: request_count", "wrong sum in usage_tracking: average_latency_ms",
			},
		},
		"a cost that the tokens do not have": {
			damage: func(d *Day, q ledger.Period) {
				d.prune()
				s := d.rows[q.Day()].Sums
				s.Cost += 2
				for _, p := range []ledger.Period{q.Day(), q.Day().Total()} {
					d.rows[p] = newRow(p, s)
				}
			},
			found: []string{"wrong cost in usage_tracking: total_cost"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, quarter := newDay()
			c.damage(d, quarter)
			var found Differences
			d.Differences(&found)
			var places []string
			for _, x := range found.List {
				places = append(places, fmt.Sprintf("%s in %s: %s", x.Kind, x.Table, x.Field))
				require.Equal(t, quarter.Model, x.Model)
				require.Equal(t, midnight, x.Start)
			}
			require.Equal(t, c.found, places)
			pieces, left := d.Mend(10)
			require.Equal(t, c.mendable, len(pieces) > 0, "%+v", pieces)
			require.Equal(t, len(c.found) > 0 && !c.mendable, len(left) > 0, "%+v", left)
		})
	}
}

// TestDifferencesMore: what is listed does not fill the memory.
func TestDifferencesMore(t *testing.T) {
	t.Parallel()
	var d Differences
	d.Add(make([]Difference, MaxDifferences-1)...)
	d.Add(make([]Difference, 3)...)
	require.Len(t, d.List, MaxDifferences)
	require.EqualValues(t, 2, d.More)
}
