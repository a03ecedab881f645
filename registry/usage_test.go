package registry_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// requireBothPeriods demands that two requests of a model, one of which failed, are in a quarter and in a day.
func requireBothPeriods(t *testing.T, reg *registry.Registry, model uuid.UUID) {
	t.Helper()
	all := byGrain(t, reg)
	require.Len(t, all["quarter"], 1)
	require.Len(t, all["day"], 1)
	rows := []*ent.Usage{all["quarter"][0], all["day"][0]}
	require.Equal(t, time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC), rows[0].PeriodStart)
	require.Equal(t, time.Date(2026, 7, 15, 12, 15, 0, 0, time.UTC), rows[0].PeriodEnd)
	require.Equal(t, time.Date(2026, 7, 15, 0, 0, 0, 0, time.UTC), rows[1].PeriodStart)
	require.Equal(t, time.Date(2026, 7, 16, 0, 0, 0, 0, time.UTC), rows[1].PeriodEnd)
	for _, row := range rows {
		require.Equal(t, []int64{2, 1, 0, 150, 80, 1, 2, 3, 300}, []int64{
			row.RequestCount, row.ErrorCount, row.UnpricedCount, row.InputTokens, row.OutputTokens,
			row.CacheReadTokens, row.CacheWriteTokens, row.ReasoningTokens, row.LatencyMsSum,
		})
		require.InDelta(t, 150, row.AverageLatencyMs, 1e-9)
		// 150×30 + 80×60 + 1×3 + 2×30 + 3×60 dollars per million
		require.Equal(t, "0.009543", row.TotalCost.String())
		require.Equal(t, model, must(reg.Client().Price.Get(t.Context(), row.PriceID)).ModelID)
	}
}

// badUsage spoils a request.
func badUsage(now time.Time, foreignKey uuid.UUID) map[string]func(*registry.UsageInput) {
	return map[string]func(*registry.UsageInput){
		"negative input":          func(in *registry.UsageInput) { in.InputTokens = -1 },
		"negative output":         func(in *registry.UsageInput) { in.OutputTokens = -1 },
		"negative cache read":     func(in *registry.UsageInput) { in.CacheReadTokens = -1 },
		"negative cache write":    func(in *registry.UsageInput) { in.CacheWriteTokens = -1 },
		"negative reasoning":      func(in *registry.UsageInput) { in.ReasoningTokens = -1 },
		"overflowing tokens":      func(in *registry.UsageInput) { in.InputTokens = 1 << 62 },
		"negative latency":        func(in *registry.UsageInput) { in.Latency = -1 },
		"overflowing latency":     func(in *registry.UsageInput) { in.Latency = 1 << 62 },
		"before 1970":             func(in *registry.UsageInput) { in.At = time.Unix(-1, 0) },
		"in the future":           func(in *registry.UsageInput) { in.At = now.Add(2 * time.Hour) },
		"tier":                    func(in *registry.UsageInput) { in.ServiceTier = "a\x00" },
		"key of another provider": func(in *registry.UsageInput) { in.APIKeyID = foreignKey },
	}
}

func TestRecordUsage(t *testing.T) { eachEngine(t, testRecordUsage) }

func testRecordUsage(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	clock.Set(time.Date(2026, 7, 15, 12, 7, 30, 123456000, time.UTC))
	p, other := mustProvider(t, reg, "openai"), mustProvider(t, reg, "other")
	m := mustModel(t, reg, p.ID, "gpt-4", money.Rates{
		meter.Input: 30 * money.Dollar, meter.Output: 60 * money.Dollar, meter.CacheRead: 3 * money.Dollar,
	})
	k, foreign := mustKey(t, reg, p.ID, 1), mustKey(t, reg, other.ID, 1)
	ok := registry.UsageInput{
		ModelID: m.ID, APIKeyID: k.ID, Latency: 245 * time.Millisecond,
		Tokens: meter.Tokens{
			InputTokens: 150, OutputTokens: 80, CacheReadTokens: 1, CacheWriteTokens: 2, ReasoningTokens: 3,
		},
	}

	t.Run("both periods and the key", func(t *testing.T) {
		require.NoError(t, reg.RecordUsage(t.Context(), ok))
		failed := ok
		failed.Failed, failed.Tokens, failed.Latency = true, meter.Tokens{}, 55*time.Millisecond
		require.NoError(t, reg.RecordUsage(t.Context(), failed))

		requireBothPeriods(t, reg, m.ID)
		got, err := reg.FindAPIKey(t.Context(), p.ID, secret(1))
		require.NoError(t, err)
		require.Equal(
			t, []int64{2, 236, 2, 236}, []int64{got.UsageCount, got.TokenCount, got.RequestsToday, got.TokensToday},
		)
		require.Equal(t, clock.Now(), *got.LastUsedAt)
	})
	t.Run("unknown is not zero", func(t *testing.T) {
		unpriced := mustModel(t, reg, p.ID, "unpriced", nil)
		half := mustModel(t, reg, p.ID, "half", money.Rates{meter.Input: money.Dollar})
		free := mustModel(t, reg, p.ID, "free", money.Rates{meter.Input: 0, meter.Output: 0})
		for _, id := range []uuid.UUID{unpriced.ID, half.ID, free.ID} {
			in := ok
			in.ModelID = id
			require.NoError(t, reg.RecordUsage(t.Context(), in))
		}
		cost := func(id uuid.UUID) (*money.USD, int64) {
			row, err := reg.Client().Usage.Query().Where(usage.ModelID(id)).Only(t.Context())
			require.NoError(t, err)
			return row.TotalCost, row.UnpricedCount
		}
		usd, n := cost(unpriced.ID)
		require.Nil(t, usd)
		require.EqualValues(t, 1, n)
		usd, n = cost(free.ID)
		require.Zero(t, *usd)
		require.Zero(t, n)
		usd, _ = cost(half.ID)
		require.Nil(t, usd, "it used output, whose rate is not known")

		in := registry.UsageInput{ModelID: half.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: 1_000_000}}
		require.NoError(t, reg.RecordUsage(t.Context(), in))
		usd, n = cost(half.ID)
		require.Equal(t, money.Dollar, *usd, "what is known is added to what is not")
		require.EqualValues(t, 1, n)
		in.OutputTokens = 1
		require.NoError(t, reg.RecordUsage(t.Context(), in))
		usd, n = cost(half.ID)
		require.Equal(t, money.Dollar, *usd)
		require.EqualValues(t, 2, n)
	})
	t.Run("a new price opens a new row", func(t *testing.T) {
		clock.Advance(time.Minute)
		_, err := reg.UpdateModelPricing(t.Context(), m.ID, registry.PriceInput{Rates: gpt4()})
		require.NoError(t, err)
		require.NoError(t, reg.RecordUsage(t.Context(), ok))
		late := ok // happened before the change, arrives after it
		late.At = clock.Now().Add(-time.Second)
		require.NoError(t, reg.RecordUsage(t.Context(), late))
		rows, err := reg.Client().Usage.Query().
			Where(usage.ModelID(m.ID)).Order(usage.ByID()).All(t.Context())
		require.NoError(t, err)
		require.Len(t, rows, 2)
		require.EqualValues(t, 3, rows[0].RequestCount)
		require.EqualValues(t, 1, rows[1].RequestCount)
	})
	t.Run("Err", func(t *testing.T) {
		before := dump(t, reg)
		for name, change := range badUsage(clock.Now(), foreign.ID) {
			in := ok
			change(&in)
			require.ErrorIs(t, reg.RecordUsage(t.Context(), in), registry.ErrInvalidData, name)
		}
		in := ok
		in.ModelID = uuid.New()
		require.ErrorIs(t, reg.RecordUsage(t.Context(), in), registry.ErrForeignKey)
		in = ok
		in.APIKeyID = uuid.New()
		require.ErrorIs(t, reg.RecordUsage(t.Context(), in), registry.ErrForeignKey)
		require.Equal(t, before, dump(t, reg), "nothing was written")
	})
}

// TestRecordUsageOverflow shows that sums past the range of an integer are refused: SQLite by
// itself would go on in floating point.
func TestRecordUsageOverflow(t *testing.T) { eachEngine(t, testRecordUsageOverflow) }

func testRecordUsageOverflow(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	p := mustProvider(t, reg, "openai")
	m := mustModel(t, reg, p.ID, "dear", money.Rates{meter.Input: 1_000_000 * money.Dollar})
	k := mustKey(t, reg, p.ID, 1)
	in := registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: 8_000_000_000}}
	require.NoError(t, reg.RecordUsage(t.Context(), in)) // 8 billion dollars
	before := dump(t, reg)
	require.ErrorIs(t, reg.RecordUsage(t.Context(), in), registry.ErrInvalidData)
	in.InputTokens = meter.MaxTokens
	require.ErrorIs(t, reg.RecordUsage(t.Context(), in), registry.ErrInvalidData)
	require.Equal(t, before, dump(t, reg))

	// The sum over all keys of a model has to fit too.
	other := mustKey(t, reg, p.ID, 2)
	before = dump(t, reg)
	in.APIKeyID, in.InputTokens = other.ID, 8_000_000_000
	require.ErrorIs(t, reg.RecordUsage(t.Context(), in), registry.ErrInvalidData)
	require.Equal(t, before, dump(t, reg))

	// Two days: each sum fits into its rows, but not both into one answer.
	in.At = registrytest.Start.Add(-24 * time.Hour)
	require.NoError(t, reg.RecordUsage(t.Context(), in))
	_, err := reg.GetUsageStats(t.Context(), m.ID, in.At, registrytest.Start.Add(time.Hour))
	require.ErrorIs(t, err, registry.ErrInvalidData)
	_, err = reg.GetCostBreakdown(t.Context(), p.ID)
	require.ErrorIs(t, err, registry.ErrInvalidData)
}

func TestGetUsageStats(t *testing.T) { eachEngine(t, testGetUsageStats) }

func testGetUsageStats(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "openai")
	m := mustModel(t, reg, p.ID, "m", money.Rates{meter.Input: 1_000_000}) // a nano-dollar a token
	other := mustModel(t, reg, p.ID, "other", money.Rates{meter.Input: 1_000_000})
	keys := []uuid.UUID{mustKey(t, reg, p.ID, 1).ID, mustKey(t, reg, p.ID, 2).ID}
	clock.Set(time.Date(2026, 7, 20, 0, 0, 0, 0, time.UTC))

	// A request every 7 minutes for three days. The model the sums must be equal to is a slice.
	start := time.Date(2026, 7, 15, 0, 0, 0, 0, time.UTC)
	type request struct {
		at     time.Time
		tokens int64
	}
	var all []request
	var inputs []registry.UsageInput
	for i := range 3 * 24 * 60 / 7 {
		r := request{start.Add(time.Duration(i) * 7 * time.Minute), int64(i%97)*1000 + 1}
		all = append(all, r)
		for _, id := range []uuid.UUID{m.ID, other.ID} {
			inputs = append(inputs, registry.UsageInput{
				ModelID: id, APIKeyID: keys[i%2], At: r.at, Failed: i%10 == 0, Latency: 100 * time.Millisecond,
				Tokens: meter.Tokens{InputTokens: r.tokens},
			})
		}
	}
	require.NoError(t, reg.RecordUsageBatch(t.Context(), inputs))
	var histogram latency.Histogram
	histogram.Add(100)
	hundred := time.Duration(histogram.Quantile(1)) * time.Millisecond
	plus := func(d time.Duration) time.Time { return start.Add(d) }
	for name, test := range map[string]struct{ from, to, wantFrom, wantTo time.Time }{
		"whole days": {from: start, to: plus(48 * time.Hour), wantFrom: start, wantTo: plus(48 * time.Hour)},
		"one quarter": {
			from: plus(15 * time.Minute), to: plus(30 * time.Minute), wantFrom: plus(15 * time.Minute),
			wantTo: plus(30 * time.Minute),
		},
		"within a quarter": {
			from: plus(16 * time.Minute), to: plus(17 * time.Minute), wantFrom: plus(15 * time.Minute),
			wantTo: plus(30 * time.Minute),
		},
		"across midnight": {
			from: plus(23 * time.Hour), to: plus(25 * time.Hour), wantFrom: plus(23 * time.Hour),
			wantTo: plus(25 * time.Hour),
		},
		"edges and a day": {
			from: plus(20 * time.Hour), to: plus(50*time.Hour + time.Second), wantFrom: plus(20 * time.Hour),
			wantTo: plus(50*time.Hour + 15*time.Minute),
		},
		"everything": {
			from: start.AddDate(-1, 0, 0), to: start.AddDate(1, 0, 0), wantFrom: start.AddDate(-1, 0, 0),
			wantTo: start.AddDate(1, 0, 0),
		},
		"nothing": {from: start.AddDate(-1, 0, 0), to: start, wantFrom: start.AddDate(-1, 0, 0), wantTo: start},
		"a day of Kathmandu": {
			from: plus(18*time.Hour + 15*time.Minute).In(time.FixedZone("+0545", 20700)),
			to:   plus(42*time.Hour + 15*time.Minute), wantFrom: plus(18*time.Hour + 15*time.Minute),
			wantTo: plus(42*time.Hour + 15*time.Minute),
		},
	} {
		var want registry.UsageStats
		want.Start, want.End = test.wantFrom, test.wantTo
		for i, r := range all {
			if !r.at.Before(test.wantFrom) && r.at.Before(test.wantTo) {
				want.Requests++
				want.InputTokens += r.tokens
				want.TotalCost += money.USD(r.tokens)
				want.AverageLatency = 100 * time.Millisecond
				want.P50, want.P95, want.P99 = hundred, hundred, hundred
				if i%10 == 0 {
					want.Errors++
				}
			}
		}
		got, err := reg.GetUsageStats(t.Context(), m.ID, test.from, test.to)
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
		if got.Requests > 0 {
			require.InDelta(t, float64(want.Errors)/float64(want.Requests), got.ErrorRate(), 1e-12)
		} else {
			require.Zero(t, got.ErrorRate())
		}
	}
	// Years that cannot be stored are the ends of time.
	ever, err := reg.GetUsageStats(t.Context(), m.ID, time.Time{}, time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC))
	require.NoError(t, err)
	require.EqualValues(t, len(all), ever.Requests)

	require.NoError(t, reg.DeleteModel(t.Context(), m.ID))
	got, err := reg.GetUsageStats(t.Context(), m.ID, start, plus(24*time.Hour))
	require.NoError(t, err, "the ledger outlives the model")
	require.NotZero(t, got.Requests)

	_, err = reg.GetUsageStats(t.Context(), m.ID, start, start)
	require.ErrorIs(t, err, registry.ErrInvalidData)
	_, err = reg.GetUsageStats(t.Context(), m.ID, plus(1), start)
	require.ErrorIs(t, err, registry.ErrInvalidData)
	_, err = reg.GetUsageStats(t.Context(), uuid.New(), start, plus(time.Second))
	require.ErrorIs(t, err, registry.ErrNotFound)
}

func TestGetCostBreakdown(t *testing.T) { eachEngine(t, testGetCostBreakdown) }

func testGetCostBreakdown(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p, other := mustProvider(t, reg, "openai"), mustProvider(t, reg, "other")
	k, ok := mustKey(t, reg, p.ID, 1), mustKey(t, reg, other.ID, 1)
	a, b := mustModel(t, reg, p.ID, "a", gpt4()), mustModel(t, reg, p.ID, "b", nil)
	mustModel(t, reg, p.ID, "unused", gpt4())
	c := mustModel(t, reg, other.ID, "c", gpt4())
	for range 3 {
		record(t, reg, a, k, 1000, 0)
		record(t, reg, b, k, 1000, 0)
		record(t, reg, c, ok, 1000, 0)
		clock.Advance(24 * time.Hour)
	}
	require.NoError(t, reg.DeleteModel(t.Context(), a.ID))
	record(t, reg, mustModel(t, reg, p.ID, "a", gpt4()), k, 1000, 0) // another one of the same name

	costs, err := reg.GetCostBreakdown(t.Context(), p.ID)
	require.NoError(t, err)
	require.Equal(t, map[string]money.USD{"a": 120 * money.Cent / 10}, costs)
	costs, err = reg.GetCostBreakdown(t.Context(), uuid.New())
	require.NoError(t, err)
	require.Empty(t, costs)
}

func TestTimeZones(t *testing.T) { eachEngine(t, testTimeZones) }

func testTimeZones(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	p := mustProvider(t, reg, "openai")
	m := mustModel(t, reg, p.ID, "m", gpt4())
	k := mustKey(t, reg, p.ID, 1)
	// The same instant, told in four ways, is one period.
	at := registrytest.Start.Add(-time.Hour)
	for _, zone := range []*time.Location{
		time.UTC, time.FixedZone("", 2*3600), time.FixedZone("", -9*3600-1800), time.Local,
	} {
		require.NoError(t, reg.RecordUsage(t.Context(), registry.UsageInput{
			ModelID: m.ID, APIKeyID: k.ID, At: at.In(zone).
					Add(999 * time.Nanosecond), Tokens: meter.Tokens{InputTokens: 1},
		}))
	}
	n, err := reg.Client().Usage.Query().Count(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	stats, err := reg.GetUsageStats(t.Context(), m.ID, at, at.Add(time.Second))
	require.NoError(t, err)
	require.EqualValues(t, 4, stats.Requests)
}
