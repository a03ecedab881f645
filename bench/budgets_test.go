package bench_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	"github.com/jeffersonwarrior/modelscan/registry"
)

const beginCallers = 8

// BenchmarkBudgetBegins opens empty budgets of a month over a ledger of requests for 1,000 consumers below one
// organisation to 50 models: one that all share, one for each user, one whose month begins at another hour than a UTC
// day, so that quarters of an hour are read, and one for a single model. It reports how long CreateBudget takes; and
// while 8 callers lease and settle keys for the consumers, how long one of them waited at most for a key until
// CreateBudget was over.
//
// With -kept, one engine's ledger is kept for another run.
//
//	go test -run '^$' -bench BudgetBegins -benchtime 5x -requests 10000000 -timeout 2h
func BenchmarkBudgetBegins(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		if *yearKept != "" && engine != *yearEngine {
			continue
		}
		b.Run("engine="+engine, func(b *testing.B) {
			l := newSpentLedger(b, engine)
			reg, err := registry.Open(b.Context(), l.name, registry.WithBusyTimeout(time.Hour))
			require.NoError(b, err)
			o := newBeginner(b, reg, l)
			inZone := l.month
			inZone.Zone = "America/New_York"
			for _, in := range []registry.BudgetInput{
				{Name: "shared", Window: l.month}, {Name: "each", Window: l.month, Each: true, EachKind: "user"},
				{Name: "zone", Window: inZone},
				{
					Name: "model", Window: l.month, ProviderID: o.models[0].ProviderID,
					Models: []string{o.models[0].ModelID},
				},
			} {
				in.ConsumerID, in.Ceilings = o.org, plenty
				b.Run("budget="+in.Name+"/load=idle", func(b *testing.B) { o.idle(b, in) })
				b.Run("budget="+in.Name+"/load=busy", func(b *testing.B) { o.busy(b, in) })
			}
			b.Run("budget=none/load=busy", o.none)
			require.NoError(b, reg.Close())
		})
	}
}

// beginner creates budgets, and leases keys for the consumers of a ledger.
type beginner struct {
	*registry.Registry
	org    uuid.UUID
	users  []uuid.UUID
	models []*ent.Model
	next   atomic.Int64
}

func newBeginner(b *testing.B, reg *registry.Registry, l spentLedger) *beginner {
	b.Helper()
	o := &beginner{Registry: reg}
	consumers := reg.Client().Consumer.Query()
	var err error
	o.users, err = consumers.Clone().Where(consumer.Kind("user")).IDs(b.Context())
	require.NoError(b, err)
	o.org, err = consumers.Where(consumer.Kind("org")).OnlyID(b.Context())
	require.NoError(b, err)
	for _, id := range l.models {
		m, err := reg.GetModel(b.Context(), id)
		require.NoError(b, err)
		o.models = append(o.models, m)
	}
	return o
}

// create creates a budget, and removes it while the clock of the benchmark stands.
func (o *beginner) create(b *testing.B, in registry.BudgetInput) {
	b.Helper()
	b.StartTimer()
	row, err := o.CreateBudget(b.Context(), in)
	b.StopTimer()
	require.NoError(b, err)
	windows, err := row.QueryWindows().All(b.Context())
	require.NoError(b, err)
	var requests int64
	for _, w := range windows {
		requests += w.Requests
	}
	least := *yearRequests / 2
	if in.Models != nil {
		least /= len(o.models)
	}
	require.Greater(b, requests, int64(least))
	require.NoError(b, o.DeleteBudget(b.Context(), row.ID))
}

func (o *beginner) idle(b *testing.B, in registry.BudgetInput) {
	b.StopTimer()
	b.ResetTimer()
	for range b.N {
		o.create(b, in)
	}
}

func (o *beginner) busy(b *testing.B, in registry.BudgetInput) {
	b.StopTimer()
	b.ResetTimer()
	var most time.Duration
	for range b.N {
		waited := o.lease(b)
		o.create(b, in)
		most = max(most, waited())
	}
	b.ReportMetric(float64(most.Milliseconds()), "ms-longest-wait")
}

// none shows how long a caller waits while no budget begins.
func (o *beginner) none(b *testing.B) {
	var most time.Duration
	for range b.N {
		waited := o.lease(b)
		<-time.After(time.Second)
		most = max(most, waited())
	}
	b.ReportMetric(float64(most.Milliseconds()), "ms-longest-wait")
}

// lease has callers lease and settle keys until the function is called that it returns, which says how long one of
// them waited at most for a key since they had got going.
func (o *beginner) lease(b *testing.B) (waited func() time.Duration) {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	var all sync.WaitGroup
	var cycles, most atomic.Int64
	var counts atomic.Bool
	for range beginCallers {
		all.Go(func() {
			for ctx.Err() == nil {
				took, err := o.cycle(b.Context())
				if err != nil {
					b.Error(err)
					return
				}
				cycles.Add(1)
				for was := most.Load(); counts.Load() && int64(took) > was; was = most.Load() {
					most.CompareAndSwap(was, int64(took))
				}
			}
		})
	}
	for cycles.Load() < 50*beginCallers && !b.Failed() {
		<-time.After(time.Millisecond)
	}
	counts.Store(true)
	return func() time.Duration {
		stop()
		all.Wait()
		return time.Duration(most.Load())
	}
}

// cycle leases a key for a consumer, and settles the lease. It returns how long the key took.
func (o *beginner) cycle(ctx context.Context) (time.Duration, error) {
	n := o.next.Add(1)
	m := o.models[n/benchUsers%int64(len(o.models))]
	began := time.Now()
	lease, err := o.AcquireKey(ctx, registry.AcquireInput{
		ProviderID: m.ProviderID, ModelID: m.ID, ConsumerID: o.users[n%benchUsers], EstimatedTokens: leaseEstimate,
		TTL: leaseTTL,
	})
	took := time.Since(began)
	if err != nil {
		return took, err
	}
	return took, lease.Settle(ctx, registry.UsageInput{
		Tokens: benchRequest.tokens, Latency: benchRequest.latency,
	})
}

var benchRequest = (database{models: make([]uuid.UUID, 1), keys: [][]uuid.UUID{{{}}}}).nth(1)
