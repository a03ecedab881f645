package ledger

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

func TestJoined(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{0, 1, 1<<32 - 1, 1 << 32, 7<<32 + 5, fault.MaxAmount} {
		require.Equal(t, n, joined([2]int64{n >> 32, n & (1<<32 - 1)}))
		require.Equal(t, n, joined([2]int64{n>>32 + 2, n&(1<<32-1) - 2<<32}), "a part is subtracted")
	}
	require.Equal(t, int64(fault.MaxAmount), joined([2]int64{1 << 40, 0}))
}

// TestDays adds to the days of two consumers, and sums them up anew: rows that are wrong, missing, unreadable, or begin
// at another hour.
func TestDays(t *testing.T) {
	t.Parallel()
	db, ctx := newLedger(t), t.Context()
	a, b, tag := uuid.New(), uuid.New(), uuid.New()
	for _, id := range []uuid.UUID{a, b} {
		_, err := db.ExecContext(ctx, "INSERT INTO consumers (id, path, name, created_at, updated_at)"+
			" VALUES ($1, $1, $1, $2, $2)", id, noon)
		require.NoError(t, err)
	}
	day := utc.StartOfDay(noon)
	first, err := FirstDay(ctx, db, utc.Beginning)
	require.NoError(t, err)
	require.Nil(t, first)
	add := func(value uuid.UUID, model uuid.UUID, s Sums) {
		of := QuarterOf(model, key, model, noon).Under(value)
		sums := map[Period]Sums{of: s, of.Day(): s}
		if value != tag {
			sums[ConsumerDay(value, day)] = s
		}
		require.NoError(t, AddTo(ctx, db, db, db.Dialect(), sums, map[Period]Sums{}))
	}
	models := []uuid.UUID{uuid.New(), uuid.New()}
	add(a, models[0], Sums{Requests: 2, Tokens: [5]int64{1, 2, 3, 4, 5}, Cost: money.Dollar})
	add(a, models[1], Sums{Requests: 1, Unpriced: 1, Tokens: [5]int64{fault.MaxAmount}})
	add(b, models[0], Sums{Requests: 1, Tokens: [5]int64{1 << 40}, Cost: 1})
	add(tag, models[0], Sums{Requests: 1})
	want := map[Period]DayRow{
		ConsumerDay(a, day): {Amount: budget.Amount{
			Requests: 3, Tokens: fault.MaxAmount, Cost: money.Dollar, Unpriced: 1,
		}},
		ConsumerDay(b, day): {Amount: budget.Amount{Requests: 1, Tokens: 1 << 40, Cost: 1}},
	}
	read := func() map[Period]DayRow {
		rows, err := ReadDays(ctx, db, day)
		require.NoError(t, err)
		return rows
	}
	require.Equal(t, want, read())
	first, err = FirstDay(ctx, db, utc.Beginning)
	require.NoError(t, err)
	require.Equal(t, day, *first)

	for what, statement := range map[string]string{
		"wrong":             "UPDATE consumer_days SET cost = cost + 1",
		"missing":           "DELETE FROM consumer_days",
		"not a number":      "UPDATE consumer_days SET tokens = 1.5",
		"begins at another": "UPDATE consumer_days SET day = substr(day, 1, 11) || '04:00:00+00:00'",
	} {
		_, err := db.ExecContext(ctx, statement)
		require.NoError(t, err)
		rows := read()
		require.NotEqual(t, want, rows, what)
		days := map[Period]bool{ConsumerDay(a, day): true, ConsumerDay(b, day): true, ConsumerDay(tag, day): true}
		for p, row := range rows {
			days[p] = true
			require.Equal(t, what == "not a number", row.Unreadable != nil)
		}
		require.NoError(t, RecountDays(ctx, db, db.Dialect(), days))
		require.Equal(t, want, read(), what)
	}
}

// TestMergeCut: sums of days are cut where others overflow.
func TestMergeCut(t *testing.T) {
	t.Parallel()
	s := Sums{Requests: 1, Tokens: [5]int64{fault.MaxAmount - 1, 3}}
	s.MergeCut(&Sums{Requests: 2, Tokens: [5]int64{5, 4}, Cost: fault.MaxAmount})
	require.Equal(t, Sums{Requests: 3, Tokens: [5]int64{fault.MaxAmount, 7}, Cost: fault.MaxAmount}, s)
	require.Equal(t, budget.Amount{Requests: 3, Tokens: fault.MaxAmount, Cost: fault.MaxAmount}, s.Amount())
}
