package bench_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkRecordUsage compares, at full durability, the registry with the design of the brief, a transaction for each
// call, on its pool of 25 connections and on one; and with group commit written by hand.
//
//	go test -run '^$' -bench RecordUsage -count 6 | tee record.txt; benchstat -col /impl record.txt
func BenchmarkRecordUsage(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		for _, size := range []struct{ callers, models, keys int }{{1, 1, 1}, {64, 1, 64}, {64, 1, 1}, {64, 5, 10}, {256, 1, 64}, {256, 5, 10}} {
			for _, impl := range []struct {
				name string
				open func(database, *testing.B) design
			}{
				{"registry", database.ours},
				{"brief", func(d database, b *testing.B) design { b.Helper(); return d.perCall(b, 25) }},
				{"brief-1-conn", func(d database, b *testing.B) design { b.Helper(); return d.perCall(b, 1) }},
				{"raw-group", database.rawGroup},
			} {
				b.Run(fmt.Sprintf("engine=%s/callers=%d/models=%d/keys=%d/impl=%s", engine, size.callers, size.models, size.keys, impl.name), func(b *testing.B) {
					d := newDatabase(b, engine, 1, size.models, size.keys)
					warm := d.ours(b) // makes the partitions of today
					require.NoError(b, warm.record(b.Context(), d.nth(0)))
					require.NoError(b, warm.close())
					to := impl.open(d, b)
					benchmark(b, d, to, size.callers)
					require.NoError(b, to.close())
				})
			}
		}
	}
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
