package registry_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// reportOf returns the requests of a report by a dimension, by tag.
func reportOf(t *testing.T, reg *registry.Registry, at time.Time, by registry.Dimension) map[string]int64 {
	t.Helper()
	rows, err := reg.UsageReport(t.Context(), registry.ReportInput{
		Start: at.Add(-24 * time.Hour), End: at.Add(24 * time.Hour), By: []registry.Dimension{by},
	})
	require.NoError(t, err)
	all := map[string]int64{}
	for _, row := range rows {
		all[row.Values[by]] = row.Requests
	}
	return all
}

// TestDimensions makes room for values, and retires a dimension with what combines it.
func TestDimensions(t *testing.T) { eachEngine(t, testDimensions) }

func testDimensions(t *testing.T, e engine) {
	t.Parallel()
	s, ctx := newSpenders(t, e), t.Context()
	d, err := s.reg.CreateDimension(ctx, registry.DimensionInput{Name: "feature", MaxValues: 1})
	require.NoError(t, err)
	require.Equal(t, s.clock.Now(), d.Since)
	record := func(feature string) error {
		in := registry.UsageInput{ModelID: s.model.ID, APIKeyID: s.key.ID, Tags: registry.Tags{"feature": {feature}}}
		return s.reg.RecordUsage(ctx, in)
	}
	for _, feature := range []string{"a", "b", "b", registry.OtherValue} {
		require.NoError(t, record(feature))
	}
	require.Equal(t, map[string]int64{"a": 1, registry.OtherValue: 3}, reportOf(t, s.reg, s.clock.Now(), "feature"))
	s.clock.Advance(time.Minute)
	d, err = s.reg.UpdateDimension(ctx, d.ID, registry.DimensionUpdate{MaxValues: ptr(2)})
	require.NoError(t, err)
	require.Equal(t, s.clock.Now().Add(time.Microsecond), d.OpenFrom)
	s.clock.Advance(time.Second)
	require.NoError(t, record("b"))
	require.Equal(t, map[string]int64{"a": 1, "b": 1, registry.OtherValue: 3},
		reportOf(t, s.reg, s.clock.Now(), "feature"), "what was other stays other")
	_, err = s.reg.UpdateDimension(ctx, d.ID, registry.DimensionUpdate{MaxValues: ptr(1)})
	require.ErrorIs(t, err, registry.ErrInvalidData)

	both, err := s.reg.CreateDimension(ctx, registry.DimensionInput{Name: "both", Of: []string{"consumer", "feature"}})
	require.NoError(t, err)
	s.clock.Advance(time.Minute)
	require.NoError(t, s.reg.RetireDimension(ctx, d.ID))
	both, err = s.reg.GetDimension(ctx, both.ID)
	require.NoError(t, err)
	require.Equal(t, s.clock.Now(), *both.RetiredAt)
	require.ErrorIs(t, record("a"), registry.ErrInvalidData)
	s.clock.Advance(time.Second)
	require.NoError(t, s.reg.RecordUsage(ctx, registry.UsageInput{ModelID: s.model.ID, APIKeyID: s.key.ID}))
	require.Equal(t, map[string]int64{"": 1, "a": 1, "b": 1, registry.OtherValue: 3},
		reportOf(t, s.reg, s.clock.Now(), "feature"))
	requireProven(t, s.reg)
	live, err := s.reg.ListDimensions(ctx, registry.DimensionFilter{})
	require.NoError(t, err)
	require.Len(t, live, 1)
	require.ErrorIs(t, s.reg.RetireDimension(ctx, live[0].ID), registry.ErrInvalidData, "of consumers")
	retired, err := s.reg.ListDimensions(ctx, registry.DimensionFilter{Retired: true})
	require.NoError(t, err)
	require.Len(t, retired, 2)
}

// TestDimensionRefuses: wrong dimensions are refused, and so are reports by unknown ones.
func TestDimensionRefuses(t *testing.T) { eachEngine(t, testDimensionRefuses) }

func testDimensionRefuses(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	for _, in := range []registry.DimensionInput{
		{Name: "one"}, {Name: "days", DaysOnly: true}, {Name: "many", Multi: true}, {Name: "gone"},
		{Name: "both", Of: []string{"one", "days"}, DaysOnly: true},
	} {
		d, err := reg.CreateDimension(ctx, in)
		require.NoError(t, err)
		if in.Name == "gone" {
			require.NoError(t, reg.RetireDimension(ctx, d.ID))
		}
	}
	type input = registry.DimensionInput
	before := dump(t, reg)
	for text, in := range map[string]input{
		"name is empty":                    {},
		"name is not a slug":               {Name: "Feature"},
		"name has 65 characters":           {Name: strings.Repeat("x", 65)},
		`name "model" cannot be`:           {Name: "model"},
		`name "trace_id" cannot be`:        {Name: "trace_id"},
		"max_values 10001 is not between":  {Name: "d", MaxValues: 10_001},
		"max_values -1 is not between":     {Name: "d", MaxValues: -1},
		"a composite has 1 parts":          {Name: "d", Of: []string{"one"}},
		"a composite has 5 parts":          {Name: "d", Of: []string{"a", "b", "c", "d", "e"}},
		"a composite has no tags":          {Name: "d", Of: []string{"one", "days"}, Multi: true},
		`part "one" is given twice`:        {Name: "d", Of: []string{"one", "one"}},
		`"many" takes several tags`:        {Name: "d", Of: []string{"one", "many"}},
		`"both" takes several tags, or is`: {Name: "d", Of: []string{"one", "both"}},
		`dimension "gone" is retired`:      {Name: "d", Of: []string{"one", "gone"}},
		`dimension "days" has days alone`:  {Name: "d", Of: []string{"one", "days"}},
	} {
		_, err := reg.CreateDimension(ctx, in)
		require.ErrorIs(t, err, registry.ErrInvalidData, text)
		require.ErrorContains(t, err, text)
	}
	_, err := reg.CreateDimension(ctx, input{Name: "d", Of: []string{"one", "consumer"}})
	require.ErrorIs(t, err, registry.ErrForeignKey, "there is no consumer yet")
	_, err = reg.CreateDimension(ctx, input{Name: "gone"})
	require.ErrorIs(t, err, registry.ErrConflict)
	_, err = reg.FindDimension(ctx, "d")
	require.ErrorIs(t, err, registry.ErrNotFound)
	_, err = reg.UpdateDimension(ctx, uuid.New(), registry.DimensionUpdate{})
	require.ErrorIs(t, err, registry.ErrNotFound)
	one := must(reg.FindDimension(ctx, "one"))
	for _, most := range []int{0, 999, 10_001} {
		_, err = reg.UpdateDimension(ctx, one.ID, registry.DimensionUpdate{MaxValues: &most})
		require.ErrorIs(t, err, registry.ErrInvalidData, most)
	}
	require.ErrorIs(t, reg.RetireDimension(ctx, uuid.New()), registry.ErrNotFound)
	require.Equal(t, before, dump(t, reg))

	span := registry.ReportInput{Start: clock.Now().Add(-48 * time.Hour), End: clock.Now()}
	for text, change := range map[string]func(in *registry.ReportInput){
		`there is no dimension "new"`: func(in *registry.ReportInput) { in.By = []registry.Dimension{"new"} },
		"there is no consumer": func(in *registry.ReportInput) {
			in.By = []registry.Dimension{registry.ByConsumer}
		},
		"no composite dimension combines many and one": func(in *registry.ReportInput) {
			in.By = []registry.Dimension{"one", "many"}
		},
		"by keys, or by consumers and tags": func(in *registry.ReportInput) {
			in.By = []registry.Dimension{"one", registry.ByKey}
		},
		"by consumers or by subtrees": func(in *registry.ReportInput) {
			in.By = []registry.Dimension{registry.ByConsumer, registry.BySubtree}
		},
		"only whole days are kept": func(in *registry.ReportInput) {
			in.By, in.Step = []registry.Dimension{"days"}, registry.StepHour
		},
	} {
		in := span
		change(&in)
		_, err := reg.UsageReport(ctx, in)
		require.ErrorIs(t, err, registry.ErrInvalidData, text)
		require.ErrorContains(t, err, text)
	}
}

// TestTagsRefused: a request with tags that it may not have is refused, and nobody else of its batch.
func TestTagsRefused(t *testing.T) { eachEngineAtOnce(t, testTagsRefused) }

func testTagsRefused(t *testing.T, e engine) {
	t.Parallel()
	s, ctx := newSpenders(t, e), t.Context()
	for _, in := range []registry.DimensionInput{{Name: "one"}, {Name: "many", Multi: true}} {
		_, err := s.reg.CreateDimension(ctx, in)
		require.NoError(t, err)
	}
	long := strings.Repeat("é", 256)
	many := make([]string, 17)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	refused := map[string]registry.Tags{
		`there is no dimension "new" for tags`:      {"new": {"x"}},
		`there is no dimension "consumer" for tags`: {"consumer": {"x"}},
		`dimension "one" takes one tag, not 2`:      {"one": {"a", "b"}},
		`tag of "one" has 257 characters`:           {"one": {long + "x"}},
		`tag of "one" is empty`:                     {"one": {""}},
		`tag of "one" has control characters`:       {"one": {"a\nb"}},
		`17 tags of "many" are more than 16`:        {"many": many},
		`the tags of "many" have more than 512`:     {"many": {long, strings.Repeat("x", 256)}},
	}
	request := func(tags registry.Tags) registry.UsageInput {
		return registry.UsageInput{
			ModelID: s.model.ID, APIKeyID: s.key.ID, ConsumerID: s.user.ID, Tags: tags,
			Tokens: meter.Tokens{InputTokens: 1},
		}
	}
	errs := make(chan error)
	for range 20 {
		go func() { errs <- s.reg.RecordUsage(ctx, request(registry.Tags{"one": {long}})) }()
	}
	for text, tags := range refused {
		err := s.reg.RecordUsage(ctx, request(tags))
		require.ErrorIs(t, err, registry.ErrInvalidData, text)
		require.ErrorContains(t, err, text)
		in := s.ask(1)
		in.Tags = tags
		_, err = s.reg.AcquireKey(ctx, in)
		require.ErrorIs(t, err, registry.ErrInvalidData, text)
	}
	for range 20 {
		require.NoError(t, <-errs)
	}
	require.Equal(t, map[string]int64{long: 20}, reportOf(t, s.reg, s.clock.Now(), "one"))

	in := s.ask(1)
	in.Tags = registry.Tags{"one": {"leased"}, "many": {"b", "a", "b"}}
	lease := s.acquire(t, in)
	again, err := s.reg.GetLease(ctx, lease.ID) // another process ends it
	require.NoError(t, err)
	require.NoError(t, again.Settle(ctx, used(1)))
	require.Equal(t, map[string]int64{long: 20, "leased": 1}, reportOf(t, s.reg, s.clock.Now(), "one"))
	require.Equal(t, map[string]int64{"": 20, "a": 1, "b": 1}, reportOf(t, s.reg, s.clock.Now(), "many"))
	requireProven(t, s.reg)
}

// TestManyValues records requests with ever new tags: the dimension keeps as many as it has room for.
func TestManyValues(t *testing.T) { eachEngine(t, testManyValues) }

func testManyValues(t *testing.T, e engine) {
	t.Parallel()
	long(t, "it records thousands of requests")
	s, ctx := newSpenders(t, e), t.Context()
	_, err := s.reg.CreateDimension(ctx, registry.DimensionInput{Name: "one"})
	require.NoError(t, err)
	inputs := make([]registry.UsageInput, 4000)
	for i := range inputs {
		inputs[i] = registry.UsageInput{
			ModelID: s.model.ID, APIKeyID: s.key.ID, Tags: registry.Tags{"one": {uuid.NewString()}},
		}
	}
	require.NoError(t, s.reg.RecordUsageBatch(ctx, inputs))
	all := reportOf(t, s.reg, s.clock.Now(), "one")
	require.Len(t, all, 1001)
	require.EqualValues(t, 3000, all[registry.OtherValue])
	requireProven(t, s.reg)
}
