package registry_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestReportByValueZones reports the days of a zone by tags, with percentiles, and compares them with what was
// recorded.
func TestReportByValueZones(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		t.Helper()
		for name, start := range map[string]time.Time{"today": time.Now().UTC(), "past": registrytest.Start} {
			t.Run(name, func(t *testing.T) { testReportByValueZones(t, newAttribution(t, e, start)) })
		}
	})
}

func testReportByValueZones(t *testing.T, a *attribution) {
	t.Helper()
	kolkata, err := time.LoadLocation("Asia/Kolkata") // half an hour apart from UTC's hours
	require.NoError(t, err)
	for i := range 150 {
		tags := registry.Tags{}
		if i%4 > 0 {
			tags["feature"] = []string{[]string{"chat", "search", "code"}[i%3]}
		}
		tags["label"] = []string{"a", "b", "c"}[:i%3]
		if i%5 > 0 {
			tags["env"] = []string{"prod"}
		}
		a.record(t, []*ent.Consumer{nil, a.team, a.user}[a.rand.IntN(3)], tags)
		if i >= 100 { // so close together that no fold takes them
			a.clock.Advance(time.Second)
			continue
		}
		a.clock.Advance(time.Duration(a.rand.IntN(180)) * time.Minute)
		if a.rand.IntN(10) == 0 {
			require.NoError(t, registry.Fold(t.Context(), a.reg, a.models[a.rand.IntN(2)].ID))
		}
	}
	a.checkDays(t, kolkata)
	for _, m := range a.models {
		require.NoError(t, registry.Fold(t.Context(), a.reg, m.ID))
	}
	a.checkDays(t, kolkata)
}

// valueDay is a row of a report: a tag on a day.
type valueDay struct{ day, tag string }

// valueSums are requests and their cost.
type valueSums struct {
	requests int64
	cost     money.USD
}

// checkDays compares reports of each day of a zone with what was recorded.
func (a *attribution) checkDays(t *testing.T, zone *time.Location) {
	t.Helper()
	for tag, in := range map[registry.Dimension]*time.Location{
		"feature": zone, "label": zone,
		"env": time.UTC, // it has UTC days alone, whose noon is on the same date in the zone
	} {
		want := map[valueDay]valueSums{}
		latencies := map[valueDay][]time.Duration{}
		for _, r := range a.said {
			tags := r.tags[string(tag)]
			if len(tags) == 0 {
				tags = []string{""}
			}
			for _, one := range tags {
				at := valueDay{r.at.In(in).Format(time.DateOnly), one}
				latencies[at] = append(latencies[at], r.latency)
				want[at] = valueSums{want[at].requests + 1, want[at].cost + r.cost}
			}
		}
		rows, err := a.reg.UsageReport(t.Context(), registry.ReportInput{
			Start: a.said[0].at.Add(-time.Hour), End: a.clock.Now().Add(time.Hour), Location: zone,
			By: []registry.Dimension{tag}, Step: registry.StepDay,
		})
		require.NoError(t, err)
		have, p95 := map[valueDay]valueSums{}, map[valueDay]time.Duration{}
		for _, row := range rows {
			at := valueDay{row.Start.Format(time.DateOnly), row.Values[tag]}
			have[at], p95[at] = valueSums{row.Requests, row.TotalCost}, row.P95
		}
		require.Equal(t, want, have, tag)
		require.Greater(t, len(have), 10, tag)
		for at, all := range latencies {
			slices.Sort(all)
			nearest := all[(len(all)*95+99)/100-1]
			require.InDelta(t, nearest, p95[at], float64(max(nearest/32, time.Millisecond)), "%s: %v", tag, at)
		}
	}
}
