package registry_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/ent/dimensionvalue"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// attribution is a registry with dimensions, and what was recorded in it.
type attribution struct {
	*spenders

	rand   *rand.Rand
	models []*ent.Model
	said   []saidRequest
	first  time.Time // of the dimensions
}

// saidRequest is a request as it was recorded.
type saidRequest struct {
	at       time.Time
	model    uuid.UUID
	consumer *ent.Consumer // nil: nobody
	tags     registry.Tags
	cost     money.USD
	latency  time.Duration
}

// newAttribution has dimensions feature with room for three values, label with several tags, and their company.
func newAttribution(t *testing.T, e engine, start time.Time) *attribution {
	t.Helper()
	clock := registrytest.NewClock(start)
	s := &spenders{reg: e.new(t, registry.WithClock(clock.Now)), clock: clock}
	s.provider = mustProvider(t, s.reg, "openai")
	a := &attribution{spenders: s, rand: rand.New(rand.NewPCG(1, 2))} //nolint:gosec // not for secrets
	for i := range 2 {
		a.models = append(a.models, mustModel(t, s.reg, s.provider.ID, fmt.Sprint("m", i), money.Rates{
			meter.Input: 1_000_000,
		}))
	}
	s.model, s.key = a.models[0], mustKey(t, s.reg, s.provider.ID, 1)
	a.record(t, nil, nil) // before there is any dimension
	clock.Advance(7 * time.Minute)
	s.org = mustConsumer(t, s.reg, "org", uuid.Nil)
	s.team = mustConsumer(t, s.reg, "team", s.org.ID)
	s.user = mustConsumer(t, s.reg, "user", s.team.ID)
	for _, in := range []registry.DimensionInput{
		{Name: "feature", MaxValues: 3}, {Name: "label", Multi: true}, {Name: "env", DaysOnly: true},
		{Name: "consumer-feature", Of: []string{"feature", "consumer"}},
	} {
		_, err := s.reg.CreateDimension(t.Context(), in)
		require.NoError(t, err, in.Name)
	}
	a.first = clock.Now()
	return a
}

func (a *attribution) record(t *testing.T, who *ent.Consumer, tags registry.Tags) {
	t.Helper()
	r := saidRequest{
		at: a.clock.Now(), model: a.models[a.rand.IntN(len(a.models))].ID, consumer: who, tags: tags,
		cost:    money.USD(a.rand.Int64N(1000)) * money.NanoDollar,
		latency: time.Duration(a.rand.Int64N(4000)) * time.Millisecond,
	}
	if a.rand.IntN(4) == 0 && r.at.Add(-20*time.Minute).After(a.first) { // late
		r.at = r.at.Add(-20 * time.Minute)
	}
	in := registry.UsageInput{
		ModelID: r.model, APIKeyID: a.key.ID, At: r.at, Tags: tags, Tokens: meter.Tokens{InputTokens: int64(r.cost)},
		Latency: r.latency,
	}
	if who != nil {
		in.ConsumerID = who.ID
	}
	require.NoError(t, a.reg.RecordUsage(t.Context(), in))
	a.said = append(a.said, r)
}

// cells are requests, cost and attributed cost of the rows of a report, by what it is grouped by.
func cells(t *testing.T, rows []registry.ReportRow, err error, by ...registry.Dimension) map[string][3]int64 {
	t.Helper()
	require.NoError(t, err)
	all := map[string][3]int64{}
	for _, row := range rows {
		var parts []string
		for _, d := range by {
			switch d {
			case registry.ByConsumer, registry.BySubtree:
				parts = append(parts, row.Consumer)
			case registry.ByModel:
				parts = append(parts, row.Model)
			default:
				parts = append(parts, row.Values[d])
			}
		}
		all[strings.Join(parts, "|")] = [3]int64{row.Requests, int64(row.TotalCost), int64(row.AttributedCost)}
	}
	return all
}

// want adds up requests under the names that `of` returns for each, with its share of the cost.
func (a *attribution) want(of func(saidRequest) []string) map[string][3]int64 {
	type sum struct{ requests, cost int64 }
	sets := map[string]sum{}
	for _, r := range a.said {
		names := strings.Join(of(r), "\x00")
		sets[names] = sum{sets[names].requests + 1, sets[names].cost + int64(r.cost)}
	}
	all := map[string][3]int64{}
	for set, s := range sets {
		names := strings.Split(set, "\x00")
		for i, name := range names {
			share := s.cost / int64(len(names))
			if int64(i) < s.cost%int64(len(names)) {
				share++
			}
			all[name] = [3]int64{all[name][0] + s.requests, all[name][1] + s.cost, all[name][2] + share}
		}
	}
	return all
}

// TestReportByValue records at random, folding now and then, and compares reports with what was recorded. The clock
// starts today, so that folds find something, or before the models were created, so that each request is late.
func TestReportByValue(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		t.Helper()
		for name, start := range map[string]time.Time{"today": time.Now().UTC(), "past": registrytest.Start} {
			t.Run(name, func(t *testing.T) { testReportByValue(t, newAttribution(t, e, start)) })
		}
	})
}

func testReportByValue(t *testing.T, a *attribution) {
	t.Helper()
	features := []string{"chat", "search", "code", "late 1", "late 2", registry.OtherValue}
	labels := []string{"a", "b", "c"}
	who := []*ent.Consumer{nil, a.org, a.team, a.user}
	for i := range 120 {
		tags := registry.Tags{}
		if f := a.rand.IntN(8); f < len(features) {
			tags["feature"] = features[min(f, 2+i/40):][:1]
		}
		for _, label := range labels {
			if a.rand.IntN(2) == 0 {
				tags["label"] = append(tags["label"], label)
			}
		}
		if i%3 == 0 {
			tags["env"] = []string{"prod"}
		}
		a.record(t, who[a.rand.IntN(len(who))], tags)
		a.clock.Advance(time.Duration(a.rand.IntN(20)) * time.Minute)
		if a.rand.IntN(10) == 0 {
			require.NoError(t, registry.Fold(t.Context(), a.reg, a.models[a.rand.IntN(2)].ID))
		}
	}
	a.clock.Advance(time.Hour)
	a.check(t)
	require.Equal(t, 3, a.reg.Client().DimensionValue.Query().Where(
		dimensionvalue.KindEQ(dimensionvalue.KindValue), dimensionvalue.HasDimensionWith(dimension.Name("feature")),
	).CountX(t.Context()))
	requireProven(t, a.reg)
	for _, m := range a.models {
		require.NoError(t, registry.Fold(t.Context(), a.reg, m.ID))
	}
	a.check(t)
	requireProven(t, a.reg)
}

// requireProven requires that the ledger adds up.
func requireProven(t *testing.T, reg *registry.Registry) {
	t.Helper()
	report, err := reg.VerifyLedger(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Differences)
}

// check compares all reports with what was recorded.
func (a *attribution) check(t *testing.T) {
	t.Helper()
	kept := map[string]bool{registry.OtherValue: true}
	for _, v := range a.reg.Client().DimensionValue.Query().AllX(t.Context()) {
		kept[v.Name] = true
	}
	feature := func(r saidRequest) string {
		if len(r.tags["feature"]) == 0 {
			return ""
		}
		if !kept[r.tags["feature"][0]] {
			return registry.OtherValue
		}
		return r.tags["feature"][0]
	}
	consumer := func(r saidRequest) string {
		if r.consumer == nil {
			return ""
		}
		return r.consumer.Name
	}
	whole := registry.ReportInput{Start: a.said[0].at.Add(-time.Hour), End: a.clock.Now().Add(time.Hour)}
	report := func(in registry.ReportInput, by ...registry.Dimension) map[string][3]int64 {
		in.Start, in.End, in.By = whole.Start, whole.End, by
		rows, err := a.reg.UsageReport(t.Context(), in)
		return cells(t, rows, err, by...)
	}
	require.Equal(t, a.want(func(r saidRequest) []string { return []string{feature(r)} }),
		report(registry.ReportInput{}, "feature"))
	require.Equal(t, a.want(func(r saidRequest) []string {
		if len(r.tags["label"]) == 0 {
			return []string{""}
		}
		return r.tags["label"]
	}), report(registry.ReportInput{}, "label"))
	require.Equal(t, a.want(func(r saidRequest) []string { return []string{consumer(r)} }),
		report(registry.ReportInput{}, registry.ByConsumer))
	require.Equal(t, a.want(func(r saidRequest) []string { return []string{feature(r) + "|" + consumer(r)} }),
		report(registry.ReportInput{}, "feature", registry.ByConsumer))
	require.Equal(t, a.want(func(r saidRequest) []string {
		if len(r.tags["env"]) == 0 {
			return []string{""}
		}
		return r.tags["env"]
	}), report(registry.ReportInput{}, "env"))
	bySubtree := report(registry.ReportInput{}, registry.BySubtree)
	levels := []string{"user", "team", "org"}
	for i, name := range levels {
		var sum [3]int64
		for _, r := range a.said {
			if slices.Contains(levels[:i+1], consumer(r)) {
				sum[0], sum[1] = sum[0]+1, sum[1]+int64(r.cost)
			}
			if consumer(r) == name {
				sum[2] += int64(r.cost)
			}
		}
		require.Equal(t, sum, bySubtree[name], name)
	}
	ofTeam := report(registry.ReportInput{
		ConsumerID: a.team.ID, Values: map[registry.Dimension]string{"feature": "chat"},
	}, registry.ByModel)
	var requests int64
	for _, r := range a.said {
		if feature(r) == "chat" && (consumer(r) == "team" || consumer(r) == "user") {
			requests++
		}
	}
	require.Equal(t, requests, ofTeam["m0"][0]+ofTeam["m1"][0])
}
