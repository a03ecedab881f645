package registry_test

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// onManyDays records a request of each of the last days.
func onManyDays(
	tb testing.TB, c *pgtest.Cluster, days int, clock *registrytest.Clock,
) (*registry.Registry, *ent.Model, *ent.APIKey) {
	tb.Helper()
	reg, err := registry.Open(tb.Context(), c.URL("postgres"), registry.WithClock(clock.Now))
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, reg.Close()) })
	p := mustProvider(tb, reg, "p"+strconv.Itoa(days))
	m, k := mustModel(tb, reg, p.ID, "m", gpt4()), mustKey(tb, reg, p.ID, days)
	const atOnce = 250
	for first := 0; first < days; first += atOnce {
		var inputs []registry.UsageInput
		for i := first; i < min(first+atOnce, days); i++ {
			inputs = append(inputs, registry.UsageInput{
				RequestID: fmt.Sprint("day ", i), ModelID: m.ID, APIKeyID: k.ID, At: clock.Now().AddDate(0, 0, i-days),
				Tokens: meter.Tokens{InputTokens: 1},
			})
		}
		require.NoError(tb, reg.RecordUsageBatch(tb.Context(), inputs))
	}
	return reg, m, k
}

// TestManyDays records requests of more days than a server with few connections could lock the partitions of, and does
// with them what looks at all of them.
func TestManyDays(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	c := pgCluster(t, "max_connections = 24")
	clock := registrytest.NewClock(registrytest.Start)
	const days = 500
	reg, m, k := onManyDays(t, c, days, clock)
	parts := func() int {
		t.Helper()
		return must(
			pgQuery[int](
				t.Context(), reg, "SELECT count(*) FROM pg_inherits WHERE inhparent = CAST('usage_events' AS regclass)",
			),
		)
	}
	require.LessOrEqual(t, parts(), 70, "what looks at all days costs no more than that")
	for range 7 { // a connection plans a statement for all partitions when it has been used some times
		for _, i := range []int{0, 1, days / 2, days - 1} {
			again := registry.UsageInput{
				RequestID: fmt.Sprint("day ", i), ModelID: m.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: 1},
			}
			require.NoError(t, reg.RecordUsage(t.Context(), again))
			require.Len(t, must(reg.ListUsageEvents(t.Context(), registry.EventFilter{RequestID: again.RequestID})), 1)
		}
		require.Len(
			t, must(reg.ListUsageEvents(t.Context(), registry.EventFilter{ModelID: m.ID})), registry.DefaultLimit,
		)
	}
	require.EqualValues(t, days, recorded(t, reg), "each of them once")

	// What is kept begins within a partition of many days.
	const kept = 365
	report, err := reg.Prune(t.Context(), registry.PruneInput{Events: kept * day, Quarters: 4000 * day})
	require.NoError(t, err)
	require.EqualValues(t, days-kept, report.Events)
	require.Zero(t, report.EventsLeft)
	require.Equal(t, kept, must(reg.Client().UsageEvent.Query().Count(t.Context())))
	report, err = reg.Prune(t.Context(), registry.PruneInput{Quarters: 4000 * day})
	require.NoError(t, err)
	require.EqualValues(t, kept-7, report.Events)
	require.Less(t, parts(), 10)
	record(t, reg, m, k, 1, 1)
}

// BenchmarkRecordAfterDays records requests with ids when there are events of many days, on a server whose settings are
// PostgreSQL's own.
func BenchmarkRecordAfterDays(b *testing.B) {
	for _, days := range []int{0, 40, 90, 400, 2500} {
		b.Run(strconv.Itoa(days), func(b *testing.B) {
			c, err := pgtest.Start(b.Context(), "shared_buffers = 128MB", "max_connections = 100")
			require.NoError(b, err)
			defer func() { require.NoError(b, c.Close()) }()
			reg, m, k := onManyDays(b, c, days, registrytest.NewClock(registrytest.Start))
			var n atomic.Int64
			b.SetParallelism(16)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					err := reg.RecordUsage(b.Context(), registry.UsageInput{
						RequestID: fmt.Sprint("r", n.Add(1)), ModelID: m.ID, APIKeyID: k.ID,
						Tokens: meter.Tokens{InputTokens: 1},
					})
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
			parts, err := pgQuery[int](
				b.Context(), reg, "SELECT count(*) FROM pg_inherits WHERE inhparent = CAST('usage_events' AS regclass)",
			)
			require.NoError(b, err)
			b.ReportMetric(float64(parts), "partitions")
			require.NoError(b, reg.Close())
		})
	}
}
