package registry_test

import (
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// BenchmarkYearByConsumer compares a year's report by consumers with one by keys, of as many rows: 100 of each use five
// models every day.
//
//	go test -run '^$' -bench YearByConsumer -benchtime 5x -count 6 ./registry
func BenchmarkYearByConsumer(b *testing.B) {
	for _, e := range []engine{onSQLite, onPostgres} {
		b.Run("engine="+e.name, func(b *testing.B) { benchmarkYear(b, e) })
	}
}

func benchmarkYear(b *testing.B, e engine) {
	b.Helper()
	const days, each, models = 365, 100, 5
	reg, clock := e.setup(b)
	p := mustProvider(b, reg, "p")
	var keys, consumers []uuid.UUID
	for i := range each {
		keys = append(keys, mustKey(b, reg, p.ID, i).ID)
		consumers = append(consumers, mustConsumer(b, reg, uuid.NewString(), uuid.Nil).ID)
	}
	clock.Advance(days * 24 * time.Hour)
	start := clock.Now().Truncate(24*time.Hour).AddDate(0, 0, -days+1)
	engineName := map[string]string{"sqlite": dialect.SQLite, "postgres": dialect.Postgres}[e.name]
	for range models {
		m := mustModel(b, reg, p.ID, uuid.NewString(), money.Rates{meter.Input: money.Dollar})
		price, err := reg.PriceAt(b.Context(), m.ID, clock.Now())
		require.NoError(b, err)
		for day := range days {
			periods := map[ledger.Period]ledger.Sums{}
			for i := range each {
				s := ledger.Sums{Requests: 10, Tokens: [5]int64{1000}, Cost: money.USD(i + day), Latency: 5000}
				for n := range int64(10) {
					s.Histogram.Add(100 * n)
				}
				of := ledger.QuarterOf(m.ID, keys[i], price.ID, start.AddDate(0, 0, day)).Day()
				periods[of], periods[of.Under(consumers[i])] = s, s
			}
			err := ledger.Write(b.Context(), reg.Past(), engineName, ledger.Sorted(periods), periods)
			require.NoError(b, err)
		}
	}
	times := map[registry.Dimension]time.Duration{}
	b.ResetTimer()
	for range b.N {
		for _, by := range []registry.Dimension{registry.ByKey, registry.ByConsumer} {
			began := time.Now()
			rows, err := reg.UsageReport(b.Context(), registry.ReportInput{
				Start: start, End: clock.Now(), By: []registry.Dimension{by}, Step: registry.StepMonth,
			})
			times[by] += time.Since(began)
			require.NoError(b, err)
			require.GreaterOrEqual(b, len(rows), 12*each)
		}
	}
	b.StopTimer()
	for by, took := range times {
		b.ReportMetric(float64(took.Milliseconds())/float64(b.N), string(by)+"-ms")
	}
	b.ReportMetric(float64(times[registry.ByConsumer])/float64(times[registry.ByKey]), "consumer/key")
	b.ReportMetric(0, "ns/op")
}
