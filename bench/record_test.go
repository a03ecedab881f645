package bench_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// impls are the designs that are compared.
var impls = []struct {
	name string
	open func(database, *testing.B) design
}{
	{"registry", database.ours},
	{"brief", database.perCall},
	{"brief-1-conn", database.perCallOnOne},
	{"raw-group", database.rawGroup},
}

// BenchmarkRecordUsage compares, at full durability, the registry with the design of the brief, a transaction for each
// call, on its pool of 25 connections and on one; and with group commit written by hand.
//
//	go test -run '^$' -bench RecordUsage -count 6 | tee record.txt; benchstat -col /impl record.txt
func BenchmarkRecordUsage(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		for _, size := range []struct{ callers, models, keys int }{
			{1, 1, 1}, {64, 1, 64}, {64, 1, 1}, {64, 5, 10}, {256, 1, 64}, {256, 5, 10},
		} {
			for _, impl := range impls {
				b.Run(fmt.Sprintf(
					"engine=%s/callers=%d/models=%d/keys=%d/impl=%s", engine, size.callers, size.models, size.keys,
					impl.name,
				), func(b *testing.B) {
					d := newWarmDatabase(b, engine, size.models, size.keys)
					to := impl.open(d, b)
					benchmark(b, d, to, size.callers)
					require.NoError(b, to.close())
				})
			}
		}
	}
}

// BenchmarkLoneCaller compares the same designs with a lone caller. What a sync to disk takes changes from one second
// to the next, by more than the designs differ: therefore all are open at once, and take turns of a few records each.
// The ratios are how much longer the others take than the registry.
//
//	go test -run '^$' -bench LoneCaller -benchtime 100x -count 6
func BenchmarkLoneCaller(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		b.Run("engine="+engine, func(b *testing.B) {
			const turn = 20
			var (
				databases []database
				designs   []design
			)
			for _, impl := range impls {
				d := newWarmDatabase(b, engine, 1, 1)
				databases, designs = append(databases, d), append(designs, impl.open(d, b))
			}
			took, n := make([]time.Duration, len(impls)), 0
			b.ResetTimer()
			for range b.N {
				for i, to := range designs {
					began := time.Now()
					for k := range turn {
						require.NoError(b, to.record(b.Context(), databases[i].nth(n+k)))
					}
					took[i] += time.Since(began)
				}
				n += turn
			}
			b.StopTimer()
			for i, impl := range impls {
				require.NoError(b, designs[i].close())
				b.ReportMetric(float64(took[i].Microseconds())/float64(n), impl.name+"-us")
				if i > 0 {
					b.ReportMetric(took[i].Seconds()/took[0].Seconds(), impl.name+"/registry")
				}
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// newWarmDatabase has the partitions of today.
func newWarmDatabase(b *testing.B, engine string, models, keys int) database {
	b.Helper()
	d := newDatabase(b, engine, 1, models, keys)
	warm := d.ours(b)
	require.NoError(b, warm.record(b.Context(), d.nth(0)))
	require.NoError(b, warm.close())
	return d
}

// benchmark records b.N requests from some callers.
func benchmark(b *testing.B, d database, to design, callers int) {
	b.Helper()
	var n atomic.Int64
	b.ResetTimer()
	began := time.Now()
	if callers == 1 {
		for i := range b.N {
			if err := to.record(b.Context(), d.nth(i)); err != nil {
				b.Fatal(err)
			}
		}
	} else {
		b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := to.record(b.Context(), d.nth(int(n.Add(1)))); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "records/s")
}
