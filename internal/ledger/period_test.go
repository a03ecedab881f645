package ledger

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

var (
	noon              = time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	model, key, price = uuid.UUID{15: 1}, uuid.UUID{15: 2}, uuid.UUID{15: 3}
)

func TestPeriod(t *testing.T) {
	t.Parallel()
	at := noon.Add(16 * time.Minute)
	quarter := QuarterOf(model, key, price, at)
	require.Equal(t, noon.Add(15*time.Minute), quarter.Start)
	require.Equal(t, noon.Add(30*time.Minute), quarter.End())
	day := quarter.Day()
	require.Equal(t, utc.StartOfDay(noon), day.Start)
	require.Equal(t, utc.StartOfDay(noon).Add(utc.Day), day.End())
	for i, p := range []Period{quarter, day, quarter.Total(), day.Total()} {
		require.Equal(t, i, p.Table())
		require.Equal(t, i > 1, p.IsTotal())
		require.Equal(t, p.Grain, Tables[i].Grain)
		require.Equal(t, p.IsTotal(), Tables[i].Totals)
	}
	require.Equal(t, []Period{quarter.Total(), day.Total(), quarter, day},
		Sorted(map[Period]Sums{quarter: {}, day: {}, quarter.Total(): {}, day.Total(): {}}))
	require.Equal(t, uuid.Nil, quarter.Place().Model, "the price says of which model it is")
	require.Equal(t, model, quarter.Total().Place().Model)
}

func TestHorizons(t *testing.T) {
	t.Parallel()
	h := Horizons{Events: noon, Quarters: noon.Add(-utc.Day)}
	at := noon.Add(time.Minute)
	require.Equal(t, noon, h.Widen(at, utc.Floor))
	require.Equal(t, noon.Add(utc.Quarter), h.Widen(at, utc.Ceil))
	long := at.Add(-10 * utc.Day)
	require.Equal(t, utc.StartOfDay(long), h.Widen(long, utc.Floor), "there are days alone")
	require.Equal(t, h.Quarters, h.CompleteFrom(Tables[0], utc.Beginning))
	require.Equal(t, noon, h.CompleteFrom(Tables[0], noon))
	require.Equal(t, utc.Beginning, h.CompleteFrom(Tables[1], utc.Beginning))
}
