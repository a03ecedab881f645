package bench_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// BenchmarkExact records requests of random tokens at random rates, and compares what the ledger says they cost with
// math/big, digit by digit.
//
//	go test -run '^$' -bench Exact -benchtime 1x -requests 10000000 -timeout 3h
func BenchmarkExact(b *testing.B) {
	d := newDatabase(b, *yearEngine, 1, 3, 2)
	reg, err := registry.Open(b.Context(), d.name)
	require.NoError(b, err)
	defer func() { require.NoError(b, reg.Close()) }()
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same in each run
	rates, want := make([]money.Rates, len(d.models)), map[string]*big.Int{}
	for i, id := range d.models {
		rates[i] = money.Rates{}
		for _, name := range meter.Names() {
			rates[i][name] = money.USD(random.Int64N(int64(100 * money.Dollar)))
		}
		_, err := reg.UpdateModelPricing(b.Context(), id, registry.PriceInput{Rates: rates[i]})
		require.NoError(b, err)
		want[fmt.Sprint("m", i)] = new(big.Int)
	}
	at := time.Now()
	for n := 0; n < *yearRequests; {
		batch := make([]registry.UsageInput, min(registry.MaxUsageBatch, *yearRequests-n))
		for i := range batch {
			m := random.IntN(len(d.models))
			batch[i] = registry.UsageInput{ModelID: d.models[m], APIKeyID: d.keys[m][random.IntN(2)], At: at,
				Tokens: meter.Tokens{
					InputTokens: random.Int64N(5000), OutputTokens: random.Int64N(3000),
					CacheReadTokens:  random.Int64N(9000),
					CacheWriteTokens: random.Int64N(2000), ReasoningTokens: random.Int64N(4000),
				}}
			sum := want[fmt.Sprint("m", m)]
			sum.Add(sum, exactCost(batch[i].Tokens, rates[m]))
		}
		require.NoError(b, reg.RecordUsageBatch(b.Context(), batch))
		n += len(batch)
	}
	provider, err := reg.FindProvider(b.Context(), "p0")
	require.NoError(b, err)
	costs, err := reg.GetCostBreakdown(b.Context(), provider.ID)
	require.NoError(b, err)
	for name, sum := range want {
		require.Equal(b, sum.String(), big.NewInt(int64(costs[name])).String(), name)
		b.Logf("%s: %s nano-dollars", name, sum)
	}
}

// exactCost rounds half to even, as money.Cost says it does.
func exactCost(t meter.Tokens, rates money.Rates) *big.Int {
	sum := new(big.Int)
	for name, n := range map[string]int64{
		meter.Input: t.InputTokens, meter.Output: t.OutputTokens, meter.CacheRead: t.CacheReadTokens,
		meter.CacheWrite: t.CacheWriteTokens, meter.Reasoning: t.ReasoningTokens,
	} {
		sum.Add(sum, new(big.Int).Mul(big.NewInt(n), big.NewInt(int64(rates[name]))))
	}
	million := big.NewInt(1_000_000)
	cost, rest := new(big.Int).QuoRem(sum, million, new(big.Int))
	if half := rest.Lsh(rest, 1).Cmp(million); half > 0 || half == 0 && cost.Bit(0) == 1 {
		cost.Add(cost, big.NewInt(1))
	}
	return cost
}

// BenchmarkMemory records from 256 callers and tells what the heap held after each tenth, and what a record takes that
// waits to be recorded.
//
//	go test -run '^$' -bench Memory -benchtime 1x -requests 1000000 -timeout 1h
func BenchmarkMemory(b *testing.B) {
	d := newDatabase(b, *yearEngine, 1, 5, 10)
	reg, err := registry.Open(b.Context(), d.name)
	require.NoError(b, err)
	defer func() { require.NoError(b, reg.Close()) }()
	var least, most uint64
	for tenth := range 10 {
		var wg sync.WaitGroup
		for c := range 256 {
			wg.Go(func() {
				for i := range *yearRequests / 10 / 256 {
					if err := (ours{reg}).record(b.Context(), d.nth(c*7919+i)); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		held := heap()
		if tenth == 1 { // after caches have filled
			least, most = held, held
		}
		least, most = min(least, held), max(most, held)
		b.Logf("after %d requests: %d KiB", (tenth+1)*(*yearRequests/10/256*256), held>>10)
	}
	b.ReportMetric(float64(most)/float64(least), "most/least-heap")
	b.ReportMetric(queued(b, d, reg), "B/queued")
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// queued returns the bytes of heap that a waiting record takes: callers wait while a transaction keeps the ledger.
func queued(b *testing.B, d database, reg *registry.Registry) float64 {
	b.Helper()
	const callers = 4000
	var (
		wg                  sync.WaitGroup
		calling             atomic.Int64
		before, after, last uint64
	)
	require.NoError(b, reg.InTx(b.Context(), func(tx *registry.Registry) error {
		first := d.nth(0)
		if err := (ours{tx}).record(b.Context(), first); err != nil { // holds what the others need
			return err
		}
		before = heap()
		for i := range callers {
			wg.Go(func() {
				r := d.nth(0)
				r.tokens.InputTokens += int64(i)
				calling.Add(1)
				if err := (ours{reg}).record(b.Context(), r); err != nil {
					b.Error(err)
				}
			})
		}
		for calling.Load() < callers || after != last || after == 0 { // until all of them wait
			last, after = after, heap()
		}
		return nil
	}))
	wg.Wait()
	return float64(after-before) / callers
}
