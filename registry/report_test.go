package registry_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// reportWorld is what reports are compared with: the requests themselves.
type reportWorld struct {
	providers, families map[uuid.UUID]uuid.UUID // of a model
	requests            []registry.UsageInput
	ids                 []uuid.UUID // of the models
	keys                map[uuid.UUID][]uuid.UUID
	zones               []*time.Location
}

var reportEpoch = time.Date(2026, 3, 25, 0, 0, 0, 0, time.UTC) // Europe's clocks go forward on the 29th

const reportDays = 12

// newReportWorld records requests of some days, of two providers, one of which has families.
func newReportWorld(t *testing.T, reg *registry.Registry) reportWorld {
	t.Helper()
	ctx := t.Context()
	w := reportWorld{
		providers: map[uuid.UUID]uuid.UUID{}, families: map[uuid.UUID]uuid.UUID{}, keys: map[uuid.UUID][]uuid.UUID{},
	}
	for _, name := range []string{
		"UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati", "Australia/Lord_Howe",
	} {
		zone, err := time.LoadLocation(name)
		require.NoError(t, err)
		w.zones = append(w.zones, zone)
	}
	for i, name := range []string{"a", "b"} {
		p := mustProvider(t, reg, name)
		family, err := reg.CreateFamily(ctx, registry.FamilyInput{ProviderID: p.ID, Name: "f"})
		require.NoError(t, err)
		keys := []uuid.UUID{mustKey(t, reg, p.ID, 2*i).ID, mustKey(t, reg, p.ID, 2*i+1).ID}
		for n, rates := range []money.Rates{{meter.Input: 1_000_000}, nil} {
			in := registry.ModelInput{ProviderID: p.ID, ModelID: string(rune('m' + n)), Rates: rates}
			if n == 0 {
				in.FamilyID = family.ID
			}
			m, err := reg.CreateModel(ctx, in)
			require.NoError(t, err)
			w.providers[m.ID], w.families[m.ID], w.keys[m.ID] = p.ID, in.FamilyID, keys
			w.ids = append(w.ids, m.ID)
		}
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same in each run
	for range 1500 {
		m := w.ids[random.IntN(len(w.ids))]
		w.requests = append(w.requests, registry.UsageInput{
			ModelID: m, APIKeyID: w.keys[m][random.IntN(2)], Failed: random.IntN(5) == 0,
			At: reportEpoch.Add(time.Duration(random.Int64N(int64(reportDays * 24 * time.Hour)))).
				Truncate(time.Microsecond),
			Latency: time.Duration(random.Int64N(5000)) * time.Millisecond,
			Tokens:  meter.Tokens{InputTokens: random.Int64N(10_000)},
		})
	}
	require.NoError(t, reg.RecordUsageBatch(ctx, w.requests))
	return w
}

// figures returns what requests amount to.
func (w reportWorld) figures(requests []registry.UsageInput) (f registry.UsageFigures) {
	var (
		h    latency.Histogram
		took time.Duration
	)
	for _, r := range requests {
		f.Requests++
		if r.Failed {
			f.Errors++
		}
		if r.ModelID == w.ids[1] || r.ModelID == w.ids[3] { // which have no price
			f.UnpricedRequests++
		} else {
			f.TotalCost += money.USD(r.InputTokens)
		}
		f.InputTokens += r.InputTokens
		took += r.Latency
		h.Add(r.Latency.Milliseconds())
	}
	if f.Requests > 0 {
		f.AverageLatency = time.Duration(float64(took.Milliseconds()) / float64(f.Requests) * 1e6)
	}
	quantile := func(q float64) time.Duration { return time.Duration(h.Quantile(q)) * time.Millisecond }
	f.P50, f.P95, f.P99 = quantile(0.5), quantile(0.95), quantile(0.99)
	return f
}

// of returns the requests that a row is of.
func (w reportWorld) of(row registry.ReportRow, in registry.ReportInput) (some []registry.UsageInput) {
	wanted := func(id, want uuid.UUID) bool { return want == uuid.Nil || id == want }
	by := func(d registry.Dimension, id, want uuid.UUID) bool { return !slices.Contains(in.By, d) || id == want }
	for _, r := range w.requests {
		p, f := w.providers[r.ModelID], w.families[r.ModelID]
		if !r.At.Before(row.Start) && r.At.Before(row.End) && wanted(p, in.ProviderID) && wanted(f, in.FamilyID) &&
			wanted(r.ModelID, in.ModelID) && wanted(r.APIKeyID, in.APIKeyID) &&
			by(registry.ByProvider, p, row.ProviderID) && by(registry.ByFamily, f, row.FamilyID) &&
			by(registry.ByModel, r.ModelID, row.ModelID) && by(registry.ByKey, r.APIKeyID, row.APIKeyID) {
			some = append(some, r)
		}
	}
	return some
}

// check compares a report with the requests: each row is right, rows are in order, and no request is missing.
func (w reportWorld) check(t *testing.T, rows []registry.ReportRow, in registry.ReportInput) {
	t.Helper()
	var counted int64
	for i, row := range rows {
		require.Equal(t, w.figures(w.of(row, in)), row.UsageFigures, "%+v: %+v", in, row)
		require.True(t, row.Start.Before(row.End), "%+v: %+v", in, row)
		require.True(t, in.FillGaps || row.Requests > 0, "%+v: %+v", in, row)
		counted += row.Requests
		if i > 0 {
			last := rows[i-1]
			require.Negative(t, cmp.Or(
				last.Start.Compare(row.Start), slices.Compare(last.ProviderID[:], row.ProviderID[:]),
				slices.Compare(last.FamilyID[:], row.FamilyID[:]), slices.Compare(last.ModelID[:], row.ModelID[:]),
				slices.Compare(last.APIKeyID[:], row.APIKeyID[:]),
			), "%+v: %+v", in, row)
		}
	}
	all := registry.ReportRow{
		Start: in.Start.Truncate(15 * time.Minute), End: in.End.Add(15*time.Minute - 1).Truncate(15 * time.Minute),
	}
	in.By = nil
	if len(rows) > 0 { // which may be widened
		all.Start, all.End = utc.Min(all.Start, rows[0].Start), utc.Max(all.End, rows[len(rows)-1].End)
	}
	require.Equal(t, int64(len(w.of(all, in))), counted, "%+v", in)
}

var (
	reportDimensions = []registry.Dimension{registry.ByProvider, registry.ByFamily, registry.ByModel, registry.ByKey}
	reportSteps      = []registry.Step{
		"", registry.StepQuarter, registry.StepHour, registry.StepDay, registry.StepWeek, registry.StepMonth,
	}
)

// reportRandom returns random numbers by a seed that the log tells.
func reportRandom(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Log("seed", seed)
	return rand.New(rand.NewPCG(seed, 4)) //nolint:gosec // not for secrets
}

// ask returns an input by chance.
func (w reportWorld) ask(random *rand.Rand) (in registry.ReportInput) {
	at := func() time.Time {
		return reportEpoch.Add(time.Duration(random.Int64N(int64((reportDays+2)*24*time.Hour))) - 24*time.Hour)
	}
	in = registry.ReportInput{
		Start: at(), End: at(), Step: reportSteps[random.IntN(len(reportSteps))],
		Location: w.zones[random.IntN(len(w.zones))], FillGaps: random.IntN(4) == 0,
	}
	if in.End.Before(in.Start) {
		in.Start, in.End = in.End, in.Start
	}
	for _, d := range reportDimensions {
		if random.IntN(3) == 0 {
			in.By = append(in.By, d)
		}
	}
	m := w.ids[random.IntN(len(w.ids))]
	for to, id := range map[*uuid.UUID]uuid.UUID{
		&in.ProviderID: w.providers[m], &in.FamilyID: w.families[m], &in.ModelID: m, &in.APIKeyID: w.keys[m][0],
	} {
		if random.IntN(5) == 0 {
			*to = id
		}
	}
	return in
}

func TestUsageReport(t *testing.T) { eachEngine(t, testUsageReport) }

func testUsageReport(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	clock.Set(reportEpoch.AddDate(0, 0, reportDays))
	w := newReportWorld(t, reg)
	random := reportRandom(t)
	for range sample.Of(100) {
		in := w.ask(random)
		rows, err := reg.UsageReport(ctx, in)
		require.NoError(t, err, "%+v", in)
		w.check(t, rows, in)
	}

	t.Run("steps", func(t *testing.T) {
		berlin := w.zones[1]
		in := registry.ReportInput{
			Start: time.Date(2026, 3, 28, 12, 0, 0, 0, berlin), End: time.Date(2026, 3, 31, 0, 0, 0, 0, berlin),
			Step: registry.StepDay, Location: berlin, FillGaps: true,
		}
		rows, err := reg.UsageReport(ctx, in)
		require.NoError(t, err)
		require.Len(t, rows, 3)
		// clocks go forward on the 29th
		require.Equal(t, []time.Duration{12 * time.Hour, 23 * time.Hour, 24 * time.Hour},
			[]time.Duration{
				rows[0].End.Sub(rows[0].Start), rows[1].End.Sub(rows[1].Start), rows[2].End.Sub(rows[2].Start),
			})
		require.Equal(t, time.Date(2026, 3, 29, 0, 0, 0, 0, berlin), rows[1].Start)
		in.Step = registry.StepWeek
		in.Start, in.End = reportEpoch, reportEpoch.AddDate(0, 0, 8)
		rows, err = reg.UsageReport(ctx, in)
		require.NoError(t, err)
		require.Len(t, rows, 2)
		require.Equal(t, time.Monday, rows[1].Start.Weekday())
	})

	t.Run("no step is missing", func(t *testing.T) {
		for _, zone := range w.zones { // Lord Howe's clocks go back by half an hour on the 5th of April
			for _, step := range reportSteps[1:] {
				if !sample.Chance() {
					continue
				}
				in := registry.ReportInput{
					Start: reportEpoch, End: reportEpoch.AddDate(0, 0, reportDays), Step: step, Location: zone,
					FillGaps: true,
				}
				rows, err := reg.UsageReport(ctx, in)
				require.NoError(t, err)
				w.check(t, rows, in)
				for i, row := range rows[1:] {
					require.Equal(t, rows[i].End, row.Start, "%s of %s", step, zone)
				}
				require.True(t, rows[0].Start.Equal(in.Start) && rows[len(rows)-1].End.Equal(in.End))
			}
		}
	})
}

// TestUsageReportPruned reports what was used before the oldest quarters that are kept.
func TestUsageReportPruned(t *testing.T) { eachEngine(t, testUsageReportPruned) }

func testUsageReportPruned(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	clock.Set(reportEpoch.AddDate(0, 0, reportDays))
	w := newReportWorld(t, reg)
	random := reportRandom(t)
	t.Run("quarters that are gone", func(t *testing.T) {
		horizon := reportEpoch.AddDate(0, 0, 6)
		require.NoError(t, reg.Past().UsageHorizon.Create().SetID("quarters").SetCompleteFrom(horizon).Exec(ctx))
		must(reg.Past().UsageQuarter.Delete().Where(usagequarter.PeriodStartLT(horizon)).Exec(ctx))
		must(reg.Past().UsageTotalQuarter.Delete().Where(usagetotalquarter.PeriodStartLT(horizon)).Exec(ctx))
		refused := 0
		for n := 0; n < sample.Of(150) || refused == 0 && n < 150; n++ { // few questions may be answered, all of them
			in := w.ask(random)
			rows, err := reg.UsageReport(ctx, in)
			if short := in.Step == registry.StepQuarter || in.Step == registry.StepHour; short &&
				in.Start.Truncate(15*time.Minute).Before(horizon) {
				require.ErrorIs(t, err, registry.ErrInvalidData)
				refused++
				continue
			}
			require.NoError(t, err, "%+v", in)
			w.check(t, rows, in)
			for _, row := range rows {
				for _, bound := range []time.Time{row.Start, row.End} {
					require.True(
						t, !bound.Before(horizon) || bound.Equal(bound.Truncate(24*time.Hour)), "%+v: %+v", in, row,
					)
				}
			}
		}
		require.NotZero(t, refused)
		stats, err := reg.GetUsageStats(ctx, w.ids[0], reportEpoch.Add(30*time.Hour), horizon.Add(50*time.Minute))
		require.NoError(t, err)
		require.Equal(t, reportEpoch.AddDate(0, 0, 1), stats.Start, "the answer says which whole days it covers")
		require.Equal(t, horizon.Add(time.Hour), stats.End)
		row := registry.ReportRow{Start: stats.Start, End: stats.End}
		require.Equal(t, w.figures(w.of(row, registry.ReportInput{ModelID: w.ids[0]})), stats.UsageFigures)
	})
}

// TestUsageReportRefuses has questions that are refused, and one that has no answer.
func TestUsageReportRefuses(t *testing.T) { eachEngine(t, testUsageReportRefuses) }

func testUsageReportRefuses(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	clock.Set(reportEpoch.AddDate(0, 0, reportDays))
	newReportWorld(t, reg)
	t.Run("Err", func(t *testing.T) {
		good := registry.ReportInput{Start: reportEpoch, End: reportEpoch.AddDate(0, 0, 1)}
		for name, change := range map[string]func(*registry.ReportInput){
			"end before start":  func(in *registry.ReportInput) { in.End = in.Start.Add(-1) },
			"nothing":           func(in *registry.ReportInput) { in.End = in.Start },
			"unknown step":      func(in *registry.ReportInput) { in.Step = "year" },
			"unknown dimension": func(in *registry.ReportInput) { in.By = []registry.Dimension{"colour"} },
			"dimension twice": func(in *registry.ReportInput) {
				in.By = []registry.Dimension{registry.ByKey, registry.ByKey}
			},
			"too many rows": func(in *registry.ReportInput) {
				in.End, in.Step, in.FillGaps = in.Start.AddDate(300, 0, 0), registry.StepDay, true
			},
			"too many with groups": func(in *registry.ReportInput) {
				in.Start, in.End = in.Start.AddDate(0, 0, -3650), in.End.AddDate(100, 0, 0)
				in.Step, in.FillGaps, in.By = registry.StepDay, true, reportDimensions
			},
		} {
			in := good
			change(&in)
			_, err := reg.UsageReport(ctx, in)
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
		}
		in := good
		in.ModelID = uuid.New()
		rows, err := reg.UsageReport(ctx, in)
		require.NoError(t, err)
		require.Empty(t, rows)
	})
}

// TestUsageReportTooLarge has as many rows as a report may have, and then one more.
func TestUsageReportTooLarge(t *testing.T) {
	sample.OneGoroutine(t)
	long(t, "100,000 requests")
	t.Parallel()
	reg, clock := onSQLite.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "p")
	m, k := mustModel(t, reg, p.ID, "m", gpt4()), mustKey(t, reg, p.ID, 1)
	quarter := func(i int) time.Time { return reportEpoch.AddDate(-5, 0, 0).Add(time.Duration(i) * 15 * time.Minute) }
	clock.Set(quarter(registry.MaxReportRows + 100))
	require.NoError(t, reg.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, At: quarter(0)}))
	// The others are copies of the row of the first quarter: to record them takes long, and is nothing that is shown
	// here.
	const seconds = "strftime('%s', period_start) + 900 * n"
	const at = "strftime('%%Y-%%m-%%d %%H:%%M:%%S+00:00', %s, 'unixepoch')"
	_, err := reg.Client().ExecContext(ctx, "WITH RECURSIVE q (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM q WHERE"+
		" n + 1 < $1)"+
		" INSERT INTO usage_total_quarters (id, model_id, period_start, period_end, request_count)"+
		" SELECT printf('01980000-0000-7000-8000-%012x', n),"+
		" model_id, "+fmt.Sprintf(at, seconds)+", "+fmt.Sprintf(at, seconds+" + 900")+
		", 1 FROM usage_total_quarters, q", registry.MaxReportRows)
	require.NoError(t, err)
	in := registry.ReportInput{Start: quarter(0), End: clock.Now(), Step: registry.StepQuarter}
	rows, err := reg.UsageReport(ctx, in)
	require.NoError(t, err)
	require.Len(t, rows, registry.MaxReportRows)
	require.NoError(
		t,
		reg.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, At: quarter(registry.MaxReportRows)}),
	)
	_, err = reg.UsageReport(ctx, in)
	require.ErrorIs(t, err, registry.ErrInvalidData)
	require.ErrorContains(t, err, "more than 100000 rows")
}
