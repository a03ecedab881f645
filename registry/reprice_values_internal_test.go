package registry

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// allotted is a row with its costs, of which those of retries are of one request.
func allotted(moved bool, requests int64, cost, retries money.USD) valueRow {
	w := valueRow{
		of: ledger.Period{Price: uuid.New()},
		is: ledger.Sums{Requests: requests, Cost: cost, Said: ledger.Said{RetryCost: retries}},
	}
	if retries > 0 {
		w.is.Retries = 1
	}
	if moved {
		w.to = uuid.New()
	}
	return w
}

// unpriced returns a row none of whose requests has a cost.
func unpriced(w valueRow) valueRow {
	w.is.Unpriced = w.is.Requests
	return w
}

// allotCase has what rows cost when they have shared the total, and that of retries.
type allotCase struct {
	total, retries money.USD
	rows           []valueRow
	want           [][2]money.USD
	stay           []bool
}

func (c allotCase) check(t *testing.T, name string) {
	t.Helper()
	before := slices.Clone(c.rows)
	allot(c.rows, &ledger.Sums{Cost: c.total, Said: ledger.Said{RetryCost: c.retries}})
	for i, w := range c.rows {
		require.Equal(t, c.want[i], [2]money.USD{w.is.Cost, w.is.RetryCost}, "%s: %d", name, i)
		to := cmp.Or(before[i].to, w.of.Price)
		if c.stay[i] {
			to = uuid.Nil
		}
		require.Equal(t, to, w.to, "%s: %d", name, i)
	}
}

// TestAllot: rows that are moved share what the total costs beyond the others, by what their own tokens cost.
func TestAllot(t *testing.T) {
	t.Parallel()
	retried := allotted(true, 1, 100, 0)
	retried.is.Retries = 1
	for name, c := range map[string]allotCase{
		"by cost": {
			total: 453, retries: 20,
			rows: []valueRow{allotted(true, 1, 300, 0), allotted(false, 1, 50, 7), allotted(true, 1, 100, 5)},
			want: [][2]money.USD{{302, 0}, {50, 7}, {101, 13}}, stay: []bool{false, true, false},
		},
		"by requests": {
			total: 2, rows: []valueRow{allotted(true, 1, 0, 0), allotted(true, 3, 0, 0)},
			want: [][2]money.USD{{1, 0}, {1, 0}}, stay: []bool{false, false},
		},
		"by retries": {
			total: 400, retries: 9, rows: []valueRow{allotted(true, 3, 300, 0), retried},
			want: [][2]money.USD{{300, 0}, {100, 9}}, stay: []bool{false, false},
		},
	} {
		c.check(t, name)
	}
}

// TestAllotAll: all rows share the total if those that are moved cannot.
func TestAllotAll(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]allotCase{
		"others cost more than all": {
			total: 4, rows: []valueRow{allotted(false, 1, 9, 0), allotted(true, 1, 3, 0), allotted(false, 0, 0, 0)},
			want: [][2]money.USD{{3, 0}, {1, 0}, {0, 0}}, stay: []bool{false, false, true},
		},
		"nothing is moved": {
			total: 300, retries: 5, rows: []valueRow{allotted(false, 1, 10, 2), allotted(false, 1, 20, 0)},
			want: [][2]money.USD{{100, 5}, {200, 0}}, stay: []bool{false, false},
		},
		"what is moved has no cost": {
			total: 30,
			rows: []valueRow{
				unpriced(allotted(true, 1, 10, 0)), allotted(false, 1, 20, 0), unpriced(allotted(false, 1, 0, 0)),
			},
			want: [][2]money.USD{{0, 0}, {30, 0}, {0, 0}}, stay: []bool{false, false, true},
		},
		"it fits": {
			total: 30, retries: 2, rows: []valueRow{allotted(false, 1, 10, 2), allotted(false, 1, 20, 0)},
			want: [][2]money.USD{{10, 2}, {20, 0}}, stay: []bool{true, true},
		},
	} {
		c.check(t, name)
	}
}

// TestSettleUnpriced: values have as many requests without a cost as the keys have. Those that are moved give some
// back, the others get a cost for some.
func TestSettleUnpriced(t *testing.T) {
	t.Parallel()
	start := utc.Beginning.Add(time.Hour)
	was, now := &ent.Price{ID: uuid.New(), EffectiveTo: &start}, &ent.Price{ID: uuid.New(), EffectiveFrom: start}
	now.CostPer1mInput = new(money.USD(1_000_000)) // a nano-dollar a token
	// row has an input token for each request, and output if some have no cost.
	row := func(requests, unpriced, unknown, output int64) valueRow {
		s := ledger.Sums{Requests: requests, Unpriced: unpriced, Said: ledger.Said{Unknown: unknown, Retries: requests}}
		s.Tokens[0], s.Tokens[1] = 100*(requests-unknown), output
		return valueRow{of: ledger.Period{Price: was.ID, Grain: ledger.QuarterGrain, Start: start}, was: s}
	}
	settled := func(total int64, rows ...valueRow) []valueRow {
		p := repricing{prices: map[uuid.UUID]*ent.Price{was.ID: was, now.ID: now}}
		_, err := p.priceRows(rows)
		require.NoError(t, err)
		require.NoError(t, p.settleUnpriced(rows, total))
		return rows
	}
	requireRow := func(w valueRow, to uuid.UUID, unpriced int64, cost, retries money.USD) {
		t.Helper()
		require.Equal(t, []any{to, unpriced, cost, retries}, []any{w.to, w.is.Unpriced, w.is.Cost, w.is.RetryCost})
	}

	rows := settled(3, row(2, 2, 0, 0), row(5, 5, 1, 0), row(1, 1, 0, 7))
	requireRow(rows[0], now.ID, 0, 200, 200) // a third of one request has the smallest fraction
	requireRow(rows[1], now.ID, 2, 300, 300)
	requireRow(rows[2], uuid.Nil, 1, 0, 0)

	rows = settled(1, row(2, 2, 0, 7), row(5, 5, 1, 7), row(1, 1, 0, 0))
	requireRow(rows[0], was.ID, 0, 200, 200)
	requireRow(rows[1], was.ID, 1, 400, 400)
	requireRow(rows[2], now.ID, 0, 100, 100)

	rows = settled(2, row(2, 1, 0, 7), row(4, 4, 1, 7))
	requireRow(rows[0], was.ID, 0, 100, 100)
	requireRow(rows[1], was.ID, 2, 200, 200)

	for _, total := range []int64{0, 10} { // less than is unknown, and more than there were
		rows = settled(total, row(2, 2, 0, 0), row(5, 5, 1, 7))
		requireRow(rows[0], now.ID, 0, 200, 200)
		requireRow(rows[1], uuid.Nil, 5, 0, 0)
	}
}
