package registry_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestUsageEdges sums the rows that the edges of the graph lead to: whoever walks the graph counts each request once.
func TestUsageEdges(t *testing.T) { eachEngine(t, testUsageEdges) }

func testUsageEdges(t *testing.T, e engine) {
	t.Parallel()
	ctx := t.Context()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "openai")
	m, k, other := mustModel(t, reg, p.ID, "gpt-4", gpt4()), mustKey(t, reg, p.ID, 1), mustKey(t, reg, p.ID, 2)
	const requests = 20
	for i := range requests {
		key := k
		if i%3 == 0 {
			key = other
		}
		require.NoError(
			t, reg.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: key.ID, Latency: time.Second}),
		)
		clock.Advance(7 * time.Minute)
	}
	sum := func(counts []int64, err error) (n int64) {
		require.NoError(t, err)
		for _, count := range counts {
			n += count
		}
		return n
	}
	counts := func(rows []*ent.Usage) (all []int64) {
		for _, u := range rows {
			all = append(all, u.RequestCount)
		}
		return all
	}

	walked, err := reg.Client().Model.Query().Where(model.ID(m.ID)).WithUsage().WithUsageTotals().Only(ctx)
	require.NoError(t, err)
	var totals int64
	for _, u := range walked.Edges.UsageTotals {
		totals += u.RequestCount
	}
	require.EqualValues(t, requests, sum(counts(walked.Edges.Usage), nil), "Model.usage")
	require.EqualValues(t, requests, totals, "Model.usage_totals")
	keys, err := reg.Client().APIKey.Query().WithUsage().All(ctx)
	require.NoError(t, err)
	var ofKeys int64
	for _, key := range keys {
		ofKeys += sum(counts(key.Edges.Usage), nil)
	}
	require.EqualValues(t, requests, ofKeys, "APIKey.usage")
	events, err := walked.QueryUsageEvents().Count(ctx)
	require.NoError(t, err)
	require.Equal(t, requests, events)
}
