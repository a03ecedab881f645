package registry_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestPruneUnderLoad prunes, twice at once, while requests are recorded, early and late ones: none is lost or
// counted twice.
func TestPruneUnderLoad(t *testing.T) { eachEngineAtOnce(t, testPruneUnderLoad) }

func testPruneUnderLoad(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	r := newRetained(t, reg, clock)
	var (
		all           sync.WaitGroup
		acked, failed atomic.Int64
		removed       [2]atomic.Int64
		ctx, stop     = context.WithCancel(t.Context())
	)
	defer stop()
	for g := range 8 {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				at := registrytest.Start.AddDate(0, 0, -[]int{0, 1, 6, 30, 33, 34, 36, 90}[(g+i)%8])
				in := r.input(g+i, at)
				if i%2 == 0 {
					in.RequestID = fmt.Sprint(g, "/", i)
				}
				var err error
				if i%10 == 9 {
					err = reg.InTx(
						t.Context(), func(tx *registry.Registry) error { return tx.RecordUsage(t.Context(), in) },
					)
				} else {
					err = reg.RecordUsage(t.Context(), in)
				}
				if err != nil {
					failed.Add(1)
					t.Errorf("record: %v", err)
					return
				}
				acked.Add(1)
			}
		})
	}
	var runs sync.WaitGroup
	for range 2 {
		runs.Go(func() {
			for n := acked.Load(); acked.Load() < n+400 && failed.Load() == 0; {
				report, err := reg.Prune(t.Context(), registry.PruneInput{})
				if err != nil {
					failed.Add(1)
					t.Errorf("prune: %v", err)
				}
				removed[0].Add(report.Events)
				removed[1].Add(report.Quarters)
			}
		})
	}
	runs.Wait()
	stop()
	all.Wait()
	require.Zero(t, failed.Load())
	require.NotZero(t, removed[0].Load())
	require.NotZero(t, removed[1].Load())
	for {
		report, err := reg.Prune(t.Context(), registry.PruneInput{})
		require.NoError(t, err)
		removed[0].Add(report.Events)
		if report.EventsLeft+report.QuartersLeft == 0 {
			break
		}
	}
	var requests int64
	for _, u := range must(reg.Client().Usage.Query().All(t.Context())) {
		requests += u.RequestCount
	}
	require.Equal(t, acked.Load(), requests)
	left := must(reg.Client().UsageEvent.Query().Count(t.Context()))
	require.LessOrEqual(t, removed[0].Load()+int64(left), acked.Load())
	events, quarters := r.rows(t, today.AddDate(0, 0, -7), today.AddDate(0, 0, -35))
	require.Zero(t, events+quarters)
	r.checkWhole(t)
	t.Logf("%d recorded, %d events removed, %d left", acked.Load(), removed[0].Load(), left)
}

// TestPruneHeld has others hold what is to be removed: they are not waited for beyond the budget, and whoever comes
// later is not kept waiting behind the one who waits.
func TestPruneHeld(t *testing.T) {
	t.Parallel()
	reg, clock := onPostgres.setup(t)
	r := newRetained(t, reg, clock)
	ago := func(days int) time.Time { return today.AddDate(0, 0, -days) }
	r.recordAt(t, ago(100), ago(50), ago(10), today)
	brief := registry.PruneInput{Budget: 200 * time.Millisecond}
	require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
		// Who has read from when on the ledger is complete may rely on it to his end.
		require.NoError(t, openSecond(tx.Client().UsageHorizon.Query().All(t.Context())))
		report, err := reg.Prune(t.Context(), brief)
		require.NoError(t, err)
		ever := time.Unix(0, 0).UTC()
		require.Equal(
			t, registry.PruneResult{EventsLeft: 3, QuartersLeft: 4, EventsFrom: ever, QuartersFrom: ever}, report,
		)
		return nil
	}))

	var recorded int
	p := mustProvider(t, reg, "another")
	m, k := mustModel(t, reg, p.ID, "m", gpt4()), mustKey(t, reg, p.ID, 0)
	others := registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, At: today}
	require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
		// It holds today's events, the pool of a provider and the periods of a model.
		require.NoError(t, tx.RecordUsage(t.Context(), r.input(0, today)))
		var all sync.WaitGroup
		ctx, stop := context.WithCancel(t.Context())
		all.Go(func() {
			for ; ctx.Err() == nil; recorded++ {
				if err := reg.RecordUsage(t.Context(), others); err != nil {
					t.Errorf("record: %v", err)
					return
				}
			}
		})
		report, err := reg.Prune(t.Context(), registry.PruneInput{Budget: 2 * time.Second})
		stop()
		all.Wait()
		require.NoError(t, err)
		// Of the two old quarters one is the first model's.
		require.Equal(
			t,
			registry.PruneResult{
				Quarters: 2, EventsLeft: 3, QuartersLeft: 2, EventsFrom: ago(7), QuartersFrom: ago(35),
			},
			report,
		)
		return nil
	}))
	require.Greater(t, recorded, 5, "others went on")
	report, err := reg.Prune(t.Context(), registry.PruneInput{})
	require.NoError(t, err)
	require.NotZero(t, report.Freed)
	require.Equal(
		t, registry.PruneResult{Events: 3, Quarters: 2, Freed: report.Freed, EventsFrom: ago(7), QuartersFrom: ago(35)},
		report,
	)
	r.checkWhole(t)
}
