package registry_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// factual is a ledger of three requests that say all there is to be said: each token of input costs 1,000 nano-dollars.
func factual(t *testing.T, e engine) (reg *registry.Registry, m *ent.Model, now time.Time) {
	t.Helper()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "openai")
	m = mustModel(t, reg, p.ID, "m", money.Rates{meter.Input: money.Dollar})
	k := mustKey(t, reg, p.ID, 1)
	for _, in := range []registry.UsageInput{
		{
			Tokens: meter.Tokens{InputTokens: 10}, TimeToFirstToken: 10 * time.Millisecond, AttemptGroup: "g",
			Attempt: 1, ProviderCost: new(money.USD(11_000)), ProviderCostSource: "bill",
		},
		{
			Usage: registry.UsageEstimated, Tokens: meter.Tokens{InputTokens: 20},
			TimeToFirstToken: 20 * time.Millisecond, AttemptGroup: "g", Attempt: 2,
		},
		{Usage: registry.UsageUnknown, Attempt: 3, ProviderCost: new(money.USD(5000))},
	} {
		clock.Advance(time.Second)
		in.ModelID, in.APIKeyID, in.Latency = m.ID, k.ID, time.Second
		require.NoError(t, reg.RecordUsage(t.Context(), in))
	}
	return reg, m, clock.Now()
}

// TestUsageFacts shows what requests say of themselves wherever usage is shown.
func TestUsageFacts(t *testing.T) { eachEngine(t, testUsageFacts) }

func testUsageFacts(t *testing.T, e engine) {
	t.Parallel()
	reg, m, now := factual(t, e)
	ctx := t.Context()
	requireLedger(t, reg)
	report, err := reg.VerifyLedger(ctx)
	require.NoError(t, err)
	require.Empty(t, report.Differences)

	want := registry.UsageFigures{
		Requests: 3, UnpricedRequests: 1, Tokens: meter.Tokens{InputTokens: 30}, TotalCost: 30_000,
		AverageLatency: time.Second, P50: 1007 * time.Millisecond, P95: 1007 * time.Millisecond,
		P99:               1007 * time.Millisecond,
		EstimatedRequests: 1, UnknownRequests: 1, Retries: 2, RetryCost: 20_000,
		AverageFirstToken: 15 * time.Millisecond, FirstTokenP50: 10 * time.Millisecond,
		FirstTokenP95: 20 * time.Millisecond, FirstTokenP99: 20 * time.Millisecond,
		ProviderCostRequests: 2, ProviderCost: 16_000, CostDifference: 6000,
	}
	stats, err := reg.GetUsageStats(ctx, m.ID, now.Add(-time.Hour), now.Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, want, stats.UsageFigures)
	for _, by := range []registry.Dimension{registry.ByModel, registry.ByKey} {
		rows, err := reg.UsageReport(ctx, registry.ReportInput{
			Start: now.Add(-time.Hour), End: now.Add(time.Hour), By: []registry.Dimension{by},
		})
		require.NoError(t, err)
		require.Equal(t, want, rows[0].UsageFigures, by)
	}
	shown := inJSON(t, stats)
	require.Equal(t, []any{json.Number("0.00002"), json.Number("0.000016"), json.Number("0.000006")},
		[]any{shown["RetryCostUSD"], shown["ProviderCostUSD"], shown["CostDifferenceUSD"]})

	events, err := reg.ListUsageEvents(ctx, registry.EventFilter{AttemptGroup: "g"})
	require.NoError(t, err)
	require.Len(t, events, 2)
	require.Equal(t, []any{"estimated", int64(20), 2}, []any{
		events[0].UsageStatus.String(), *events[0].TtftMs, events[0].Attempt,
	})
	require.Equal(t, []any{"reported", money.USD(11_000), "bill"}, []any{
		events[1].UsageStatus.String(), *events[1].ProviderCost, events[1].ProviderCostSource,
	})
	unpriced, err := reg.ListUsageEvents(ctx, registry.EventFilter{Unpriced: true})
	require.NoError(t, err)
	require.Len(t, unpriced, 1)
	require.Equal(t, "unknown", unpriced[0].UsageStatus.String())
	_, err = reg.ListUsageEvents(ctx, registry.EventFilter{AttemptGroup: "a\x00"})
	require.ErrorIs(t, err, registry.ErrInvalidData)
}

// TestFactsVerified damages each column of what requests say: VerifyLedger names it, and RepairLedger mends it.
func TestFactsVerified(t *testing.T) { eachEngine(t, testFactsVerified) }

func testFactsVerified(t *testing.T, e engine) {
	t.Parallel()
	reg, _, _ := factual(t, e)
	ctx := t.Context()
	for _, column := range []string{
		"estimated_count", "unknown_count", "retry_count", "ttft_ms_sum", "retry_cost", "provider_cost",
		"provider_cost_count", "compared_cost", "ttft_histogram",
	} {
		for _, table := range []string{"usage_quarters", "usage_tracking", "usage_total_quarters", "usage_totals"} {
			to := column + " - 1"
			if column == "ttft_histogram" {
				to = "NULL"
			}
			_, err := reg.Client().ExecContext(ctx, "UPDATE "+table+" SET "+column+" = "+to)
			require.NoError(t, err)
			report, err := reg.VerifyLedger(ctx)
			require.NoError(t, err)
			require.NotEmpty(t, report.Differences)
			require.Equal(t, []string{table, column},
				[]string{report.Differences[0].Table, report.Differences[0].Field})
			repaired, err := reg.RepairLedger(ctx)
			require.NoError(t, err)
			require.Empty(t, repaired.Unrepaired)
			requireLedger(t, reg)
		}
	}
	_, err := reg.Client().ExecContext(ctx, "UPDATE usage_events SET usage_status = 'reported' WHERE attempt = 3")
	require.NoError(t, err)
	report, err := reg.VerifyLedger(ctx)
	require.NoError(t, err)
	require.Equal(t, registry.DifferenceWrongCost, report.Differences[0].Kind, "known usage has a cost")
}

// TestFactsRepriced: the costs of retries, and of requests with a provider's cost, follow, whether events are kept or
// not. Unknown usage stays without a cost.
func TestFactsRepriced(t *testing.T) { eachEngine(t, testFactsRepriced) }

func testFactsRepriced(t *testing.T, e engine) {
	t.Parallel()
	for name, kept := range map[string]struct{ events, quarters bool }{
		"events": {events: true, quarters: true}, "quarters": {quarters: true}, "days": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, m, now := factual(t, e)
			ctx := t.Context()
			if !kept.events {
				forget(t, reg, kept.events, kept.quarters, now.Add(48*time.Hour).Truncate(24*time.Hour))
			}
			unpriced, err := reg.UnpricedUsage(ctx)
			require.NoError(t, err)
			require.Equal(t, []int64{1, 1}, []int64{unpriced[0].Requests, unpriced[0].UnknownUsage})
			_, err = reg.UpdateModelPricing(ctx, m.ID, registry.PriceInput{
				Rates: money.Rates{meter.Input: 5 * money.Dollar}, EffectiveFrom: now.Add(-48 * time.Hour),
			})
			require.NoError(t, err)
			result, err := reg.Reprice(ctx, registry.RepriceInput{ModelID: m.ID})
			require.NoError(t, err)
			require.Equal(t, []any{int64(0), int64(1), money.USD(30_000), money.USD(150_000)},
				[]any{result.Priced, result.StillUnpriced, result.Before, result.After})
			stats, err := reg.GetUsageStats(ctx, m.ID, now.Add(-24*time.Hour), now.Add(24*time.Hour))
			require.NoError(t, err)
			require.Equal(t, []any{money.USD(150_000), int64(1)}, []any{stats.TotalCost, stats.UnpricedRequests})
			require.Equal(t, money.USD(16_000-50_000), stats.CostDifference)
			require.Equal(t, money.USD(100_000), stats.RetryCost)
			requireLedger(t, reg)
			report, err := reg.VerifyLedger(ctx)
			require.NoError(t, err)
			require.Empty(t, report.Differences)
			again, err := reg.Reprice(ctx, registry.RepriceInput{ModelID: m.ID})
			require.NoError(t, err)
			require.Zero(t, again.Requests)
		})
	}
}

// TestBrokenStream: an answer that broke off is not free of charge, unless somebody says that nothing was used.
func TestBrokenStream(t *testing.T) { eachEngine(t, testBrokenStream) }

func testBrokenStream(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "openai")
	m, k := mustModel(t, reg, p.ID, "m", gpt4()), mustKey(t, reg, p.ID, 1)
	used := meter.Tokens{InputTokens: 1}
	for _, c := range []struct {
		in   registry.UsageInput
		want string
	}{
		{registry.UsageInput{Failed: true, HTTPStatus: 200}, "unknown"},
		{registry.UsageInput{Failed: true, HTTPStatus: 206}, "unknown"},
		{registry.UsageInput{Failed: true, HTTPStatus: 200, Usage: registry.UsageReported}, "reported"},
		{registry.UsageInput{Failed: true, HTTPStatus: 200, Tokens: used}, "reported"},
		{registry.UsageInput{Failed: true, HTTPStatus: 429}, "reported"},
		{registry.UsageInput{Failed: true}, "reported"},
		{registry.UsageInput{HTTPStatus: 200}, "reported"},
		{registry.UsageInput{Usage: registry.UsageUnknown}, "unknown"},
	} {
		clock.Advance(time.Second)
		c.in.ModelID, c.in.APIKeyID = m.ID, k.ID
		require.NoError(t, reg.RecordUsage(t.Context(), c.in))
		events, err := reg.ListUsageEvents(t.Context(), registry.EventFilter{ModelID: m.ID, Limit: 1})
		require.NoError(t, err)
		require.Equal(t, c.want, events[0].UsageStatus.String(), "%+v", c.in)
		require.Equal(t, c.want == "unknown", events[0].Cost == nil, "%+v", c.in)
	}
}

// TestFactsRefused refuses what cannot be true.
func TestFactsRefused(t *testing.T) {
	t.Parallel()
	reg, _ := onSQLite.setup(t)
	text := make([]byte, 129)
	for i := range text {
		text[i] = 'x'
	}
	for want, in := range map[string]registry.UsageInput{
		`there is no usage status "guessed"`: {Usage: "guessed"},
		"the usage is unknown, but has tokens": {
			Usage: registry.UsageUnknown, Tokens: meter.Tokens{InputTokens: 1},
		},
		"is not between 0 and 168h0m0s":            {TimeToFirstToken: -1},
		"time to first token 2ms is not between 0": {TimeToFirstToken: 2 * time.Millisecond, Latency: time.Millisecond},
		"attempt -1 is not between 0 and 1000000":  {Attempt: -1},
		"attempt_group":                           {AttemptGroup: string(text)},
		"the provider's cost is not between 0":    {ProviderCost: new(money.USD(-1))},
		"provider_cost_source is set without":     {ProviderCostSource: "x"},
		"provider_cost_source has 129 characters": {ProviderCost: new(money.USD), ProviderCostSource: string(text)},
	} {
		err := reg.RecordUsage(t.Context(), in)
		require.ErrorIs(t, err, registry.ErrInvalidData, want)
		require.ErrorContains(t, err, want)
	}
}
