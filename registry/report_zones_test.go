package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestUsageReportZones asks for reports where the clocks of a zone were set in unusual ways: steps leave nothing out,
// and begin on their date.
func TestUsageReportZones(t *testing.T) { eachEngine(t, testUsageReportZones) }

func testUsageReportZones(t *testing.T, e engine) {
	long(t, "thousands of requests around changes of clocks")
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "p")
	m, k := mustModel(t, reg, p.ID, "m", gpt4()), mustKey(t, reg, p.ID, 1)
	for _, test := range []struct {
		zone string
		at   string // UTC
	}{
		{"America/St_Johns", "2010-11-07T02:31:00Z"},
		{"Asia/Gaza", "2011-03-31T22:01:00Z"},
		{"Antarctica/Casey", "2020-10-03T16:01:00Z"},
		{"Asia/Amman", "2014-03-27T22:00:00Z"},
		{"Pacific/Apia", "2011-12-30T10:00:00Z"},
		{"Pacific/Kwajalein", "1993-08-20T12:00:00Z"},
		{"Africa/Monrovia", "1972-01-07T00:44:30Z"},
		{"Australia/Lord_Howe", "2026-04-04T15:00:00Z"},
	} {
		zone, err := time.LoadLocation(test.zone)
		require.NoError(t, err)
		change, err := time.Parse(time.RFC3339, test.at)
		require.NoError(t, err)
		in := registry.ReportInput{
			Start: change.AddDate(0, 0, -3).Truncate(time.Hour), End: change.AddDate(0, 0, 3).
				Truncate(time.Hour), Location: zone, FillGaps: true,
		}
		clock.Set(utc.Max(clock.Now(), in.End))
		var batch []registry.UsageInput
		for at := in.Start; at.Before(in.End); at = at.Add(15 * time.Minute) {
			batch = append(batch, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, At: at})
		}
		require.NoError(t, reg.RecordUsageBatch(ctx, batch))
		for _, in.Step = range []registry.Step{
			registry.StepQuarter, registry.StepHour, registry.StepDay, registry.StepWeek, registry.StepMonth,
		} {
			rows, err := reg.UsageReport(ctx, in)
			require.NoError(t, err)
			at := in.Start
			for i, row := range rows {
				require.True(
					t, row.Start.Equal(at) && row.Start.Before(row.End), "%s of %s: %s begins at %s", in.Step, zone, at,
					row.Start,
				)
				require.Zero(t, row.End.Sub(row.Start)%(15*time.Minute), "%s of %s: %s", in.Step, zone, at)
				require.EqualValues(
					t, row.End.Sub(row.Start)/(15*time.Minute), row.Requests, "%s of %s: %s", in.Step, zone, at,
				)
				if in.Step == registry.StepDay && i > 0 {
					before := row.Start.Add(-15 * time.Minute)
					require.Less(
						t, before.Format(time.DateOnly), row.Start.Format(time.DateOnly), "%s: no day begins at %s",
						zone, at,
					)
				}
				at = row.End
			}
			require.True(t, at.Equal(in.End), "%s of %s: it ends at %s", in.Step, zone, at)
		}
	}

	t.Run("ErrCanceled", func(t *testing.T) {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		_, err := reg.UsageReport(
			ended,
			registry.ReportInput{Start: time.Unix(0, 0), End: clock.Now(), Step: registry.StepDay, FillGaps: true},
		)
		require.ErrorIs(t, err, context.Canceled)
	})
}
