package bench_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkLease compares, at full durability, leasing a key and settling the lease by the registry with a transaction
// for each of both calls, on a pool of 25 connections and on one. The times are those of both calls together.
//
//	go test -run '^$' -bench 'Lease$' -count 6 | tee lease.txt; benchstat -col /impl lease.txt
func BenchmarkLease(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		for _, callers := range []int{1, 64} {
			for _, keys := range []int{1, 100} {
				for _, impl := range leaseImpls {
					b.Run(fmt.Sprintf(
						"engine=%s/callers=%d/keys=%d/impl=%s", engine, callers, keys, impl.name,
					), func(b *testing.B) {
						d := newLeaseDatabase(b, engine, keys)
						benchmarkLease(b, d, impl.open(d, b), callers)
					})
				}
			}
		}
	}
}

func benchmarkLease(b *testing.B, d leaseDatabase, to design, callers int) {
	b.Helper()
	warm := warmUp(b, d.database, to, callers)
	b.ResetTimer()
	began := time.Now()
	times, err := recordAll(b.Context(), d.database, to, callers, b.N)
	took := time.Since(began)
	b.StopTimer()
	require.NoError(b, err)
	require.NoError(b, to.close())
	d.requireAtRest(b, warm+b.N)
	b.ReportMetric(float64(b.N)/took.Seconds(), "cycles/s")
	b.ReportMetric(quantile(times, 0.50), "p50-us")
	b.ReportMetric(quantile(times, 0.99), "p99-us")
}

// warmUp opens connections and prepares statements: of a few thousand requests, the first one of each caller would be
// the slowest of a hundred. It returns how many requests it has recorded.
func warmUp(b *testing.B, d database, to design, callers int) int {
	b.Helper()
	_, err := recordAll(b.Context(), d, to, callers, 2*callers)
	require.NoError(b, err)
	return 2 * callers
}

// recordAll records n requests from some callers at once, and returns how long each took.
func recordAll(ctx context.Context, d database, to design, callers, n int) ([]time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	times := make([]time.Duration, n)
	var (
		next atomic.Int64
		all  sync.WaitGroup
	)
	for range callers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				began := time.Now()
				if err := to.record(ctx, d.nth(int(i))); err != nil {
					cancel(err) // the first one counts
					return
				}
				times[i] = time.Since(began)
			}
		})
	}
	all.Wait()
	return times, context.Cause(ctx)
}

// quantile returns the time that a fraction of all does not exceed, in microseconds.
func quantile(times []time.Duration, fraction float64) float64 {
	sorted := slices.Sorted(slices.Values(times))
	return float64(sorted[int(math.Ceil(fraction*float64(len(sorted))))-1].Nanoseconds()) / 1e3
}

// contender is a design with a database of its own, which takes turns with others.
type contender struct {
	name                string
	keys, callers, impl int // impl: in leaseImpls
	cycles, warm        int // of a turn, and before the first one

	leaseDatabase
	design
	times []time.Duration
	took  time.Duration
}

// leaseContenders are all designs with 64 callers, and the registry with a lone one.
func leaseContenders() (all []*contender) {
	for _, keys := range []int{100, 1} {
		for i, impl := range leaseImpls {
			all = append(
				all,
				&contender{name: fmt.Sprintf("%s-%d", impl.name, keys), keys: keys, callers: 64, cycles: 640, impl: i},
			)
		}
		all = append(all, &contender{name: fmt.Sprintf("alone-%d", keys), keys: keys, callers: 1, cycles: 64})
	}
	return all
}

// turn has the contender record for a while.
func (c *contender) turn(b *testing.B) {
	b.Helper()
	began := time.Now()
	times, err := recordAll(b.Context(), c.database, c.design, c.callers, c.cycles)
	require.NoError(b, err, c.name)
	c.took += time.Since(began)
	c.times = append(c.times, times...)
}

// perCycle is how long a cycle took, in microseconds.
func (c *contender) perCycle() float64 {
	return float64(c.took.Nanoseconds()) / 1e3 / float64(len(c.times))
}

// BenchmarkLeaseTurns compares the same designs, all of them open at once and taking turns as in BenchmarkLoneCaller:
// each turn is 640 leases of 64 callers, and 64 of a lone caller of the registry. Names end with the number of keys. It
// reports how much longer the others take than the registry, the registry with 100 keys than with one, and the slowest
// of a hundred of 64 callers than a lone caller.
//
//	go test -run '^$' -bench LeaseTurns -benchtime 10x -count 6 -timeout 2h
func BenchmarkLeaseTurns(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		b.Run("engine="+engine, func(b *testing.B) {
			contenders := leaseContenders()
			byName := map[string]*contender{}
			for _, c := range contenders {
				c.leaseDatabase = newLeaseDatabase(b, engine, c.keys)
				c.design = leaseImpls[c.impl].open(c.leaseDatabase, b)
				c.warm = warmUp(b, c.database, c.design, c.callers)
				byName[c.name] = c
			}
			b.ResetTimer()
			for range b.N {
				for _, c := range contenders {
					c.turn(b)
				}
			}
			b.StopTimer()
			for _, c := range contenders {
				require.NoError(b, c.close())
				c.requireAtRest(b, c.warm+len(c.times))
			}
			reportTurns(b, byName)
			b.ReportMetric(0, "ns/op")
		})
	}
}

func reportTurns(b *testing.B, of map[string]*contender) {
	b.Helper()
	for name, c := range of {
		b.ReportMetric(1e6/c.perCycle(), name+"-cycles/s")
	}
	for _, keys := range []string{"-100", "-1"} {
		ours, alone := of["registry"+keys], of["alone"+keys]
		for _, impl := range leaseImpls[1:] {
			b.ReportMetric(of[impl.name+keys].perCycle()/ours.perCycle(), impl.name+"/registry"+keys)
		}
		p99, least, most := quantile(ours.times, 0.99), quantile(alone.times, 0.50), quantile(alone.times, 0.99)
		b.ReportMetric(p99, "registry"+keys+"-p99-us")
		b.ReportMetric(least, "alone"+keys+"-p50-us")
		b.ReportMetric(most, "alone"+keys+"-p99-us")
		b.ReportMetric(p99/least, "p99/alone-p50"+keys)
		b.ReportMetric(p99/most, "p99/alone-p99"+keys)
	}
	b.ReportMetric(of["registry-100"].perCycle()/of["registry-1"].perCycle(), "registry-100/registry-1")
}
