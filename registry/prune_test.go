package registry_test

import (
	"fmt"
	"os"
	"path/filepath"
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
	"github.com/jeffersonwarrior/modelscan/internal/sample"
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
		events, quarters int // days that are kept as wholes, before today
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

// TestPruneShrinks measures the file.
func TestPruneShrinks(t *testing.T) {
	sample.OneGoroutine(t)
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
