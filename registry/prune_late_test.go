package registry_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestPruneLate records for a day that was removed, from another process, which had seen its partition: it is
// counted in its day, and removed again.
func TestPruneLate(t *testing.T) {
	t.Parallel()
	for name, database := range map[string]string{
		"sqlite": filepath.Join(t.TempDir(), "registry.db"), "postgres": registrytest.PostgresURL(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := registrytest.NewClock(registrytest.Start)
			open := func() *registry.Registry {
				reg, err := registry.Open(t.Context(), database, registry.WithClock(clock.Now))
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, reg.Close()) })
				return reg
			}
			other := open()
			r := newRetained(t, open(), clock)
			old := today.AddDate(0, 0, -50)
			named, unnamed := r.input(0, old), r.input(0, old.Add(time.Hour))
			named.RequestID = "late"
			for i, record := range []func(registry.UsageInput) error{
				func(in registry.UsageInput) error { return r.RecordUsage(t.Context(), in) },
				func(in registry.UsageInput) error {
					return r.RecordUsageBatch(t.Context(), []registry.UsageInput{in})
				},
				func(in registry.UsageInput) error {
					return r.InTx(t.Context(), func(tx *registry.Registry) error {
						return errors.Join(
							tx.SetSetting(t.Context(), "before", "1"), tx.RecordUsage(t.Context(), in),
							tx.RecordUsage(t.Context(), in),
						)
					})
				},
			} {
				once := must(r.Client().APIKey.Get(t.Context(), r.keys[0].ID)).UsageCount
				for range 2 { // the second time the partition is known
					require.NoError(t, record(named), i)
				}
				require.NoError(t, record(unnamed), i)
				counted := int64(2 + i/2)
				require.Equal(
					t, once+counted, must(r.Client().APIKey.Get(t.Context(), r.keys[0].ID)).UsageCount,
					"the named one counts once",
				)

				report, err := other.Prune(t.Context(), registry.PruneInput{})
				require.NoError(t, err)
				require.Equal(t, counted, report.Events)
				require.EqualValues(t, 4, report.Quarters)
				require.NoError(t, record(named), "its event is gone: it is counted again")
				events, quarters := r.kept(t)
				require.Equal(t, []time.Time{old}, events)
				require.Equal(t, []time.Time{old}, quarters)
				report, err = other.Prune(t.Context(), registry.PruneInput{})
				require.NoError(t, err)
				require.EqualValues(t, 1, report.Events)
				require.EqualValues(t, 2, report.Quarters)
				require.Equal(t, once+counted+1, must(r.Client().APIKey.Get(t.Context(), r.keys[0].ID)).UsageCount)
				r.checkWhole(t)
			}
		})
	}
}

// TestPruneBudget ends the budget after each step there is: the report says what is left, and further calls end
// the work.
func TestPruneBudget(t *testing.T) { eachEngine(t, testPruneBudget) }

func testPruneBudget(t *testing.T, e engine) {
	t.Parallel()
	var jump atomic.Int64 // calls of the clock until it jumps over the end of the budget
	jump.Store(1 << 40)
	clock := registrytest.NewClock(registrytest.Start)
	reg := e.new(t, registry.WithClock(func() time.Time {
		if jump.Add(-1) < 0 {
			return clock.Now().Add(time.Minute)
		}
		return clock.Now()
	}))
	r := newRetained(t, reg, clock)
	ago := func(days int) time.Time { return today.AddDate(0, 0, -days) }
	fill := func() {
		var times []time.Time
		for i := range 18 {
			times = append(times, ago(100+i/6))
		}
		r.recordAt(t, times...)
	}
	stops := 0
	for steps := int64(1); ; steps++ {
		jump.Store(1 << 40)
		fill()
		var events, quarters int64
		haveEvents, haveQuarters := r.rows(t, ago(7), ago(35))
		for left := int64(1); left > 0; {
			jump.Store(steps)
			report, err := reg.Prune(t.Context(), registry.PruneInput{})
			require.NoError(t, err)
			events += report.Events
			quarters += report.Quarters
			leftEvents, leftQuarters := r.rows(t, ago(7), ago(35))
			require.Equal(t, leftEvents, report.EventsLeft, steps)
			require.Equal(t, leftQuarters, report.QuartersLeft, steps)
			require.Equal(t, haveEvents, events+leftEvents, steps)
			require.Equal(t, haveQuarters, quarters+leftQuarters, steps)
			r.checkWhole(t)
			left = leftEvents + leftQuarters
			if left == 0 {
				break
			}
			stops++
			if report.Events+report.Quarters == 0 {
				steps++ // it ended before the first step
			}
		}
		require.Equal(t, ago(7), must(reg.Prune(t.Context(), registry.PruneInput{})).EventsFrom)
		if steps > 10 {
			break
		}
	}
	require.Greater(t, stops, 3)
	// The machine's clock ends it too.
	jump.Store(1 << 40)
	fill()
	report, err := reg.Prune(t.Context(), registry.PruneInput{Budget: 1})
	require.NoError(t, err)
	require.Zero(t, report.Events+report.Quarters)
	require.EqualValues(t, 18, report.EventsLeft)
	require.NotZero(t, report.QuartersLeft)
}

// TestPruneCanceled ends the context after each step: what was removed is removed, and the rest is whole.
func TestPruneCanceled(t *testing.T) { eachEngine(t, testPruneCanceled) }

func testPruneCanceled(t *testing.T, e engine) {
	t.Parallel()
	var (
		calls  atomic.Int64
		cancel atomic.Pointer[context.CancelFunc]
	)
	reg := e.new(t, registry.WithClock(func() time.Time {
		if calls.Add(-1) == 0 {
			(*cancel.Load())()
		}
		return registrytest.Start
	}))
	r := newRetained(t, reg, nil)
	for after := int64(1); after <= 9; after++ {
		calls.Store(0)
		r.recordAt(t, today.AddDate(0, 0, -100), today.AddDate(0, 0, -101), today.AddDate(0, 0, -102))
		ctx, stop := context.WithCancel(t.Context())
		cancel.Store(&stop)
		calls.Store(after)
		_, err := reg.Prune(ctx, registry.PruneInput{})
		if calls.Load() <= 0 {
			require.ErrorIs(t, err, context.Canceled, after)
		} else {
			require.NoError(t, err)
			require.Greater(t, after, int64(5), "it has several steps")
		}
		stop()
		r.checkWhole(t)
	}
	_, err := reg.Prune(t.Context(), registry.PruneInput{})
	require.NoError(t, err)
	events, quarters := r.rows(t, today, today)
	require.Zero(t, events+quarters)
}
