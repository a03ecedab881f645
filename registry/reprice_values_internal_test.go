package registry

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/money"
)

// TestAllot: rows that are moved share what the total costs beyond the others, by what their own tokens cost.
func TestAllot(t *testing.T) {
	t.Parallel()
	row := func(moved bool, requests int64, cost, retries money.USD) valueRow {
		w := valueRow{is: ledger.Sums{Requests: requests, Cost: cost, Said: ledger.Said{RetryCost: retries}}}
		if moved {
			w.to = uuid.New()
		}
		return w
	}
	rows := []valueRow{row(true, 1, 300, 0), row(false, 1, 50, 7), row(true, 1, 100, 5)}
	allot(rows, ledger.Sums{Cost: 453, Said: ledger.Said{RetryCost: 20}})
	for i, want := range [][2]money.USD{{302, 0}, {50, 7}, {101, 13}} {
		require.Equal(t, want, [2]money.USD{rows[i].is.Cost, rows[i].is.RetryCost}, i)
	}
	rows = []valueRow{row(true, 1, 0, 0), row(true, 3, 0, 0)}
	allot(rows, ledger.Sums{Cost: 2})
	require.Equal(t, []money.USD{1, 1}, []money.USD{rows[0].is.Cost, rows[1].is.Cost}, "by requests")
	rows = []valueRow{row(false, 1, 9, 0), row(true, 1, 5, 0)}
	allot(rows, ledger.Sums{Cost: 4})
	require.Zero(t, rows[1].is.Cost, "no cost is below zero")
}
