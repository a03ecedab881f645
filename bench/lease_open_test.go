package bench_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// openCase is a registry with some keys and some open leases.
type openCase struct {
	keys, open int

	ourLeases
	model uuid.UUID
	times []time.Duration
}

// acquire leases a key for longer than the benchmark takes.
func (c *openCase) acquire(ctx context.Context) (*registry.Lease, error) {
	return c.AcquireKey(ctx, registry.AcquireInput{
		ProviderID: c.provider, ModelID: c.model, EstimatedTokens: leaseEstimate, TTL: 12 * time.Hour,
	})
}

// lease leases n keys, from many callers at once.
func (c *openCase) lease(b *testing.B, n int) {
	b.Helper()
	const callers = 50
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range n / callers {
				if _, err := c.acquire(b.Context()); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkOpenLeases has a lone caller lease keys while other leases are open, and reports the median of AcquireKey:
// with none and with 4,000 of them, with one key and with 100. The cases take turns of 50 leases. The ratios are to
// the case of one key and no open lease.
//
//	go test -run '^$' -bench OpenLeases -benchtime 10x -count 6
func BenchmarkOpenLeases(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		b.Run("engine="+engine, func(b *testing.B) {
			cases := []*openCase{{keys: 1}, {keys: 1, open: 4000}, {keys: 100}, {keys: 100, open: 4000}}
			for _, c := range cases {
				d := newLeaseDatabase(b, engine, c.keys)
				c.ourLeases, c.model = d.ours(b).(ourLeases), d.nth(0).model
				c.lease(b, c.open)
			}
			b.ResetTimer()
			for range b.N {
				for _, c := range cases {
					for range 50 {
						began := time.Now()
						lease, err := c.acquire(b.Context())
						c.times = append(c.times, time.Since(began))
						require.NoError(b, err)
						require.NoError(b, lease.Release(b.Context()))
					}
				}
			}
			b.StopTimer()
			first := quantile(cases[0].times, 0.50)
			for _, c := range cases {
				median := quantile(c.times, 0.50)
				name := fmt.Sprintf("keys-%d-open-%d", c.keys, c.open)
				b.ReportMetric(median, name+"-us")
				if c != cases[0] {
					b.ReportMetric(median/first, name+"-ratio")
				}
				require.NoError(b, c.close())
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
