package bench_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkConsumerCrowd has 1,000 goroutines, each for another consumer with six ceilings on three levels, lease a
// key and settle the lease at once; it compares them with 1,000 goroutines for nobody. There are 100 keys of one
// provider, with limits that bind nobody. They work on databases of their own, and take turns of 4,000 cycles.
//
//	go test -run '^$' -bench ConsumerCrowd -benchtime 3x -count 6
func BenchmarkConsumerCrowd(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		b.Run("engine="+engine, func(b *testing.B) {
			all := map[string]*contender{}
			kinds := consumerKinds[:2]
			for _, kind := range kinds {
				c := &contender{
					name: kind, callers: benchUsers, cycles: 4 * benchUsers,
					leaseDatabase: newBenchConsumers(b, engine),
				}
				c.design = c.forKind(b, kind)
				c.warm = warmUp(b, c.database, c.design, c.callers)
				all[kind] = c
			}
			b.ResetTimer()
			for range b.N {
				for _, kind := range kinds {
					all[kind].turn(b)
				}
			}
			b.StopTimer()
			for _, kind := range kinds {
				require.NoError(b, all[kind].close())
				b.ReportMetric(1e6/all[kind].perCycle(), kind+"-cycles/s")
				b.ReportMetric(quantile(all[kind].times, 0.50)/1e3, kind+"-p50-ms")
				b.ReportMetric(quantile(all[kind].times, 0.99)/1e3, kind+"-p99-ms")
			}
			b.ReportMetric(all["ceilings"].perCycle()/all["nobody"].perCycle(), "ceilings-time")
			b.ReportMetric(0, "ns/op")
		})
	}
}
