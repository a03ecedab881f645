package registry_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

const day = 24 * time.Hour

// today is the UTC day of registrytest.Start.
var today = registrytest.Start.Truncate(day)

// retained is a registry with models and keys to record for.
type retained struct {
	*registry.Registry
	clock  *registrytest.Clock
	models []*ent.Model
	keys   []*ent.APIKey
}

func newRetained(t *testing.T, reg *registry.Registry, clock *registrytest.Clock) retained {
	t.Helper()
	p := mustProvider(t, reg, "openai")
	r := retained{Registry: reg, clock: clock}
	for i := range 3 {
		r.models = append(r.models, mustModel(t, reg, p.ID, fmt.Sprint("m", i), gpt4()))
		r.keys = append(r.keys, mustKey(t, reg, p.ID, i))
	}
	return r
}

func (r retained) input(i int, at time.Time) registry.UsageInput {
	return registry.UsageInput{
		ModelID: r.models[i%3].ID, APIKeyID: r.keys[i/3%3].ID, At: at, Tokens: meter.Tokens{InputTokens: int64(i + 1)},
	}
}

// recordAt records one request at each of the times.
func (r retained) recordAt(t *testing.T, times ...time.Time) {
	t.Helper()
	inputs := make([]registry.UsageInput, len(times))
	for i, at := range times {
		inputs[i] = r.input(i, at)
	}
	require.NoError(t, r.RecordUsageBatch(t.Context(), inputs))
}

// kept returns the times of the events and the starts of the quarters that there are, ascending.
func (r retained) kept(t *testing.T) (events, quarters []time.Time) {
	t.Helper()
	for _, e := range must(r.Client().UsageEvent.Query().Order(usageevent.ByID()).All(t.Context())) {
		events = append(events, e.At)
	}
	for _, u := range must(r.Client().UsageQuarter.Query().Order(usagequarter.ByPeriodStart()).All(t.Context())) {
		quarters = append(quarters, u.PeriodStart)
	}
	return events, quarters
}

// rows returns how many events and quarters there are before two instants.
func (r retained) rows(t *testing.T, events, quarters time.Time) (n, m int64) {
	t.Helper()
	n = int64(must(r.Client().UsageEvent.Query().Where(usageevent.AtLT(events)).Count(t.Context())))
	m = int64(must(r.Client().UsageQuarter.Query().Where(usagequarter.PeriodStartLT(quarters)).Count(t.Context())))
	m += int64(
		must(r.Client().UsageTotalQuarter.Query().Where(usagetotalquarter.PeriodStartLT(quarters)).Count(t.Context())),
	)
	return n, m
}

// checkWhole shows that the rows that are there belong together: the totals are the sums of the rows by key, no
// quarter is without its day, and the days are what the keys have counted.
func (r retained) checkWhole(t *testing.T) {
	t.Helper()
	type sums struct {
		requests, tokens int64
		cost             money.USD
	}
	type period struct {
		model uuid.UUID
		grain string
		start time.Time
	}
	periods, keys := map[period]sums{}, map[uuid.UUID]int64{}
	days := map[[4]string]bool{}
	name := func(u *ent.Usage) [4]string {
		return [4]string{
			u.ModelID.String(), u.APIKeyID.String(), u.PriceID.String(), u.PeriodStart.Truncate(day).String(),
		}
	}
	all := byGrain(t, r.Registry)
	for grain, rows := range all {
		for _, u := range rows {
			of := period{u.ModelID, grain, u.PeriodStart}
			s := periods[of]
			periods[of] = sums{s.requests + u.RequestCount, s.tokens + u.InputTokens, s.cost + *u.TotalCost}
			if grain == "day" {
				days[name(u)] = true
				keys[u.APIKeyID] += u.RequestCount
			}
		}
	}
	for _, u := range all["quarter"] {
		require.True(t, days[name(u)], "a quarter of %s has no day", u.PeriodStart)
	}
	for grain, totals := range totalsByGrain(t, r.Registry) {
		for _, total := range totals {
			of := period{total.ModelID, grain, total.PeriodStart}
			require.Equal(t, periods[of], sums{total.RequestCount, total.InputTokens, *total.TotalCost}, of)
			delete(periods, of)
		}
	}
	require.Empty(t, periods, "rows without a total")
	for _, k := range must(r.Client().APIKey.Query().All(t.Context())) {
		require.Equal(t, k.UsageCount, keys[k.ID])
	}
}

func TestPrune(t *testing.T) { eachEngine(t, testPrune) }

func testPrune(t *testing.T, e engine) {
	t.Parallel()
	first := func(days int) time.Time { return today.AddDate(0, 0, -days) } // that is kept
	last := func(days int) time.Time { return first(days).Add(-time.Microsecond) }
	for name, test := range map[string]struct {
		now              time.Time
		keep             registry.PruneInput
		events, quarters int // days that are kept whole, and of today and then what there is
	}{
		"by default": {now: registrytest.Start, keep: registry.PruneInput{}, events: 7, quarters: 35},
		"at the end of the day": {
			now: today.Add(day - time.Microsecond), keep: registry.PruneInput{}, events: 7, quarters: 35,
		},
		"at its beginning": {now: today, keep: registry.PruneInput{}, events: 7, quarters: 35},
		"a moment before it": {
			now: today.Add(-time.Microsecond), keep: registry.PruneInput{}, events: 8, quarters: 36,
		},
		"the least": {
			now: registrytest.Start, keep: registry.PruneInput{Events: day, Quarters: day}, events: 1, quarters: 1,
		},
		"quarters of long events": {
			now: registrytest.Start, keep: registry.PruneInput{Events: 50 * day}, events: 50, quarters: 50,
		},
		"not only whole days": {
			now:  registrytest.Start,
			keep: registry.PruneInput{Events: 2*day - 13*time.Hour, Quarters: 3*day - 12*time.Hour - 1}, events: 1,
			quarters: 2,
		},
		"over noon": {
			now:  registrytest.Start,
			keep: registry.PruneInput{Events: 2*day + 13*time.Hour, Quarters: 3*day + 12*time.Hour + 1}, events: 3,
			quarters: 4,
		},
		"longer than there is any": {
			now: registrytest.Start, keep: registry.PruneInput{Events: 36_500 * day}, events: 0, quarters: 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, clock := e.setup(t)
			r := newRetained(t, reg, clock)
			clock.Set(test.now)
			times := []time.Time{
				time.Unix(0, 0).UTC(), last(400), first(400), last(test.quarters), first(test.quarters),
				last(test.events), first(test.events), test.now,
			}
			r.recordAt(t, times...)
			usageBefore, costs := days(t, reg), must(reg.GetCostBreakdown(t.Context(), r.models[0].ProviderID))
			report, err := reg.Prune(t.Context(), test.keep)
			require.NoError(t, err)

			from := func(days int) time.Time {
				if test.events == 0 { // nothing is removed
					return time.Unix(0, 0).UTC()
				}
				return first(days)
			}
			require.Equal(t, from(test.events), report.EventsFrom)
			require.Equal(t, from(test.quarters), report.QuartersFrom)
			var events, quarters []time.Time
			for _, at := range times {
				if !at.Before(report.EventsFrom) {
					events = append(events, at)
				}
				if !at.Before(report.QuartersFrom) {
					quarters = append(quarters, at.Truncate(15*time.Minute))
				}
			}
			gotEvents, gotQuarters := r.kept(t)
			require.ElementsMatch(t, events, gotEvents)
			require.ElementsMatch(t, quarters, gotQuarters)
			require.EqualValues(t, len(times)-len(events), report.Events)
			require.EqualValues(
				t, 2*(len(times)-len(quarters)), report.Quarters, "each has a row by key and one by model",
			)
			require.Zero(t, report.EventsLeft+report.QuartersLeft)
			require.Equal(t, usageBefore, days(t, reg), "days stay as they are")
			require.Equal(t, costs, must(reg.GetCostBreakdown(t.Context(), r.models[0].ProviderID)))
			r.checkWhole(t)

			again, err := reg.Prune(t.Context(), test.keep)
			require.NoError(t, err)
			require.Equal(
				t, registry.PruneResult{EventsFrom: report.EventsFrom, QuartersFrom: report.QuartersFrom}, again,
			)
		})
	}
}

// days returns all rows by day.
func days(t *testing.T, reg *registry.Registry) (rows []string) {
	t.Helper()
	for _, u := range must(reg.Client().Usage.Query().Order(usage.ByID()).All(t.Context())) {
		rows = append(rows, u.String())
	}
	for _, u := range must(reg.Client().UsageTotal.Query().Order(usagetotal.ByID()).All(t.Context())) {
		rows = append(rows, u.String())
	}
	return rows
}

func TestPruneRefuses(t *testing.T) { eachEngine(t, testPruneRefuses) }

func testPruneRefuses(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	r := newRetained(t, reg, clock)
	r.recordAt(t, today.AddDate(-1, 0, 0), today)
	before := dump(t, reg)
	for name, keep := range map[string]registry.PruneInput{
		"negative events":          {Events: -day},
		"events below a day":       {Events: day - 1},
		"events above 36,500 days": {Events: 36_501 * day},
		"negative quarters":        {Quarters: -1},
		"quarters below a day":     {Events: day, Quarters: day - 1},
		"quarters above":           {Quarters: 36_501 * day},
		"quarters before events":   {Events: 8 * day, Quarters: 8*day - 1},
		"key events below a day":   {KeyEvents: day - 1},
		"key events above":         {KeyEvents: 36_501 * day},
		"negative discoveries":     {Discoveries: -day},
		"discoveries above":        {Discoveries: 36_501 * day},
		"negative budget":          {Budget: -1},
		"budget above a day":       {Budget: day + 1},
	} {
		_, err := reg.Prune(t.Context(), keep)
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
	}
	require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
		_, err := tx.Prune(t.Context(), registry.PruneInput{})
		require.ErrorIs(t, err, registry.ErrInvalidData)
		require.ErrorContains(t, err, "inside of a transaction")
		return nil
	}))
	require.Equal(t, before, dump(t, reg))
}

// TestPruneHorizons changes the retention: what was removed does not come back, and nothing says so.
func TestPruneHorizons(t *testing.T) { eachEngine(t, testPruneHorizons) }

func testPruneHorizons(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	r := newRetained(t, reg, clock)
	ago := func(days int) time.Time { return today.AddDate(0, 0, -days) }
	prune := func(events, quarters time.Duration) registry.PruneResult {
		report, err := reg.Prune(t.Context(), registry.PruneInput{Events: events, Quarters: quarters})
		require.NoError(t, err)
		return report
	}
	r.recordAt(t, ago(40), ago(20), ago(5))
	report := prune(7*day, 30*day)
	require.Equal(
		t, registry.PruneResult{Events: 2, Quarters: 2, Freed: report.Freed, EventsFrom: ago(7), QuartersFrom: ago(30)},
		report,
	)

	// Late ones between the old horizon and a longer retention are kept, but the horizon knows that they are not all.
	r.recordAt(t, ago(25), ago(10))
	report = prune(21*day, 90*day)
	require.Equal(
		t, registry.PruneResult{Events: 1, Freed: report.Freed, EventsFrom: ago(7), QuartersFrom: ago(30)}, report,
	)
	clock.Advance(day) // one day later, the longer retention is not yet reached
	require.Equal(t, registry.PruneResult{EventsFrom: ago(7), QuartersFrom: ago(30)}, prune(21*day, 90*day))
	clock.Advance(14 * day)
	report = prune(21*day, 90*day)
	require.Equal(
		t, registry.PruneResult{Events: 1, Freed: report.Freed, EventsFrom: ago(6), QuartersFrom: ago(30)}, report,
	)
	clock.Advance(-200 * day) // a clock that went back
	require.Equal(t, registry.PruneResult{EventsFrom: ago(6), QuartersFrom: ago(30)}, prune(21*day, 90*day))
	r.checkWhole(t)
}

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

// TestPruneShrinks measures the file.
func TestPruneShrinks(t *testing.T) {
	long(t, "files grow and shrink")
	t.Parallel()
	for name, test := range map[string]struct {
		before  string // is done to the file
		shrinks bool
	}{
		"a file of the library": {"", true},
		"another one":           {"PRAGMA auto_vacuum = NONE; VACUUM", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, clock := filepath.Join(t.TempDir(), "registry.db"), registrytest.NewClock(registrytest.Start)
			openOnce(t, path)
			if test.before != "" {
				openForeign(t, path, test.before)
			}
			reg, err := registry.Open(t.Context(), path, registry.WithClock(clock.Now))
			require.NoError(t, err)
			r := newRetained(t, reg, clock)
			const requests = 20_000 // more than a transaction removes, on more pages than one gives back
			for range requests / 5000 {
				times := make([]time.Time, 5000)
				for i := range times {
					times[i] = today.AddDate(0, 0, -100).Add(time.Duration(i) * 15 * time.Minute)
				}
				r.recordAt(t, times...)
			}
			reopen := func() { // all is in the file then
				require.NoError(t, r.Close())
				reg, err := registry.Open(t.Context(), path, registry.WithClock(clock.Now))
				require.NoError(t, err)
				r.Registry = reg
			}
			size := func() int64 { return must(os.Stat(path)).Size() }
			reopen()
			before := size()
			report, err := r.Prune(t.Context(), registry.PruneInput{})
			require.NoError(t, err)
			events, quarters := r.rows(t, today.AddDate(0, 0, -7), today.AddDate(0, 0, -35))
			require.Zero(t, events+quarters)
			if test.shrinks {
				require.Equal(t, before-size(), report.Freed)
				require.Less(t, size(), before/2)
			} else {
				require.Zero(t, report.Freed)
				require.GreaterOrEqual(t, size(), before)
			}
			r.checkWhole(t)
			require.NoError(t, r.Close())
		})
	}
}
