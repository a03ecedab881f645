package registry_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/mattn/go-sqlite3" // the driver sqlite3, to make databases that are none of ours
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// ledgerSum is what requests amount to.
type ledgerSum struct {
	Requests, Errors, Unpriced, Input, Output, CacheRead, CacheWrite, Reasoning, Cost, Latency int64
	Histogram                                                                                  string
	ledgerFacts
}

// ledgerFacts is what requests say beside what they used.
type ledgerFacts struct {
	Estimated, Unknown, Retries, FirstToken, RetryCost, ProviderCost, ProviderCosts, ComparedCost int64
	FirstTokens                                                                                   string
}

func (f ledgerFacts) plus(tb testing.TB, o ledgerFacts) ledgerFacts {
	tb.Helper()
	return ledgerFacts{
		f.Estimated + o.Estimated, f.Unknown + o.Unknown, f.Retries + o.Retries, f.FirstToken + o.FirstToken,
		f.RetryCost + o.RetryCost, f.ProviderCost + o.ProviderCost, f.ProviderCosts + o.ProviderCosts,
		f.ComparedCost + o.ComparedCost, addHistograms(tb, f.FirstTokens, o.FirstTokens),
	}
}

// factsOf returns what an event says.
func factsOf(e *ent.UsageEvent) (f ledgerFacts) {
	f.Estimated, f.Unknown = count(e.UsageStatus == "estimated"), count(e.UsageStatus == "unknown")
	f.Retries, f.ProviderCosts = count(e.Attempt > 1), count(e.ProviderCost != nil)
	f.RetryCost, f.ComparedCost = f.Retries*nanos(e.Cost), f.ProviderCosts*nanos(e.Cost)
	f.ProviderCost = nanos(e.ProviderCost)
	if e.TtftMs != nil {
		f.FirstToken = *e.TtftMs
		var h latency.Histogram
		h.Add(f.FirstToken)
		f.FirstTokens = string(h.AppendBinary(nil))
	}
	return f
}

// sumOf returns what a row says.
func sumOf(u *ent.Usage) ledgerSum {
	return ledgerSum{
		u.RequestCount, u.ErrorCount, u.UnpricedCount, u.InputTokens, u.OutputTokens, u.CacheReadTokens,
		u.CacheWriteTokens, u.ReasoningTokens, nanos(u.TotalCost), u.LatencyMsSum, string(u.LatencyHistogram),
		ledgerFacts{
			u.EstimatedCount, u.UnknownCount, u.RetryCount, u.TtftMsSum, int64(u.RetryCost), int64(u.ProviderCost),
			u.ProviderCostCount, int64(u.ComparedCost), string(u.TtftHistogram),
		},
	}
}

// addHistograms adds up encoded histograms.
func addHistograms(tb testing.TB, a, b string) string {
	tb.Helper()
	var both latency.Histogram
	require.NoError(tb, both.MergeBinary([]byte(a)))
	require.NoError(tb, both.MergeBinary([]byte(b)))
	return string(both.AppendBinary(nil))
}

// ledgerRow is the period that a sum is of.
type ledgerRow struct {
	model, key, price uuid.UUID
	grain             string
	start             time.Time
}

func addSum(tb testing.TB, to map[ledgerRow]ledgerSum, at ledgerRow, s ledgerSum) {
	tb.Helper()
	have := to[at]
	to[at] = ledgerSum{
		have.Requests + s.Requests, have.Errors + s.Errors, have.Unpriced + s.Unpriced, have.Input + s.Input,
		have.Output + s.Output, have.CacheRead + s.CacheRead, have.CacheWrite + s.CacheWrite,
		have.Reasoning + s.Reasoning, have.Cost + s.Cost, have.Latency + s.Latency,
		addHistograms(tb, have.Histogram, s.Histogram), have.plus(tb, s.ledgerFacts),
	}
}

func nanos(usd *money.USD) int64 {
	if usd == nil {
		return 0
	}
	return int64(*usd)
}

// requireLedger demands that quarters are the sums of events, days those of quarters and totals those of keys and
// prices, as far back as the horizons say; and that a request costs its tokens at its price.
func requireLedger(tb testing.TB, reg *registry.Registry) {
	tb.Helper()
	ctx, c := tb.Context(), reg.Client()
	horizon := map[string]time.Time{}
	for _, h := range must(c.UsageHorizon.Query().All(ctx)) {
		horizon[h.ID] = h.CompleteFrom
	}
	prices := map[uuid.UUID]*ent.Price{}
	for _, p := range must(c.Price.Query().All(ctx)) {
		prices[p.ID] = p
	}
	type sums = map[ledgerRow]ledgerSum
	fromEvents, fromQuarters, fromDays := sums{}, sums{}, sums{}
	quarters, days, totals := sums{}, sums{}, sums{}
	for _, e := range must(c.UsageEvent.Query().All(ctx)) {
		usd, err := meter.Tokens{
			InputTokens: e.InputTokens, OutputTokens: e.OutputTokens, CacheReadTokens: e.CacheReadTokens,
			CacheWriteTokens: e.CacheWriteTokens, ReasoningTokens: e.ReasoningTokens,
		}.Cost(registry.RatesOf(prices[e.PriceID]))
		if err != nil || e.UsageStatus == "unknown" {
			require.Nil(tb, e.Cost)
		} else {
			require.Equal(tb, usd, *e.Cost, "%v", e)
		}
		if e.At.Before(horizon["events"]) {
			continue
		}
		var h latency.Histogram
		h.Add(e.LatencyMs)
		s := ledgerSum{
			1, 0, 0, e.InputTokens, e.OutputTokens, e.CacheReadTokens, e.CacheWriteTokens, e.ReasoningTokens,
			nanos(e.Cost), e.LatencyMs, string(h.AppendBinary(nil)), factsOf(e),
		}
		if !e.Success {
			s.Errors = 1
		}
		if e.Cost == nil {
			s.Unpriced = 1
		}
		at := ledgerRow{e.ModelID, e.APIKeyID, e.PriceID, "quarter", e.At.Truncate(15 * time.Minute)}
		addSum(tb, fromEvents, at, s)
	}
	useOf := func(grain string, u *ent.Usage) {
		at := ledgerRow{u.ModelID, u.APIKeyID, u.PriceID, grain, u.PeriodStart}
		require.Equal(tb, u.UnpricedCount == u.RequestCount, u.TotalCost == nil, "%v", u)
		require.NotZero(tb, u.RequestCount)
		s := sumOf(u)
		switch {
		case grain == "day":
			if !u.PeriodStart.Before(horizon["quarters"]) {
				days[at] = s
			}
		case !u.PeriodStart.Before(horizon["quarters"]):
			day := at
			day.grain, day.start = "day", u.PeriodStart.Truncate(24*time.Hour)
			addSum(tb, fromQuarters, day, s)
			if !u.PeriodStart.Before(horizon["events"]) {
				quarters[at] = s
			}
		}
		at.key, at.price = uuid.Nil, uuid.Nil
		addSum(tb, fromDays, at, s)
	}
	for grain, rows := range byGrain(tb, reg) {
		for _, u := range rows {
			useOf(grain, u)
		}
	}
	for grain, rows := range totalsByGrain(tb, reg) {
		for _, u := range like[ent.Usage](tb, rows) {
			totals[ledgerRow{model: u.ModelID, grain: grain, start: u.PeriodStart}] = sumOf(u)
		}
	}
	require.Equal(tb, fromEvents, quarters, "quarters")
	require.Equal(tb, fromQuarters, days, "days")
	require.Equal(tb, fromDays, totals, "totals")
}

// forget removes events, or quarters too, as Prune does, that lie before a horizon.
func forget(tb testing.TB, reg *registry.Registry, events, quarters bool, horizon time.Time) {
	tb.Helper()
	ctx, c := tb.Context(), reg.Past()
	if !events {
		must(c.UsageEvent.Delete().Where(usageevent.AtLT(horizon)).Exec(ctx))
		require.NoError(tb, c.UsageHorizon.Create().SetID("events").SetCompleteFrom(horizon).Exec(ctx))
	}
	if !quarters {
		must(c.UsageQuarter.Delete().Where(usagequarter.PeriodStartLT(horizon)).Exec(ctx))
		must(c.UsageTotalQuarter.Delete().Where(usagetotalquarter.PeriodStartLT(horizon)).Exec(ctx))
		require.NoError(tb, c.UsageHorizon.Create().SetID("quarters").SetCompleteFrom(horizon).Exec(ctx))
	}
}

// byGrain returns what was used by key and price, "quarter" and "day".
func byGrain(tb testing.TB, reg *registry.Registry) map[string][]*ent.Usage {
	tb.Helper()
	ctx, c := tb.Context(), reg.Client()
	return map[string][]*ent.Usage{
		"quarter": like[ent.Usage](tb, must(c.UsageQuarter.Query().Order(usagequarter.ByPeriodStart()).All(ctx))),
		"day":     must(c.Usage.Query().Order(usage.ByPeriodStart()).All(ctx)),
	}
}

// totalsByGrain returns what was used by model, "quarter" and "day".
func totalsByGrain(tb testing.TB, reg *registry.Registry) map[string][]*ent.UsageTotal {
	tb.Helper()
	ctx, c := tb.Context(), reg.Client()
	return map[string][]*ent.UsageTotal{
		"quarter": like[ent.UsageTotal](
			tb, must(c.UsageTotalQuarter.Query().Order(usagetotalquarter.ByPeriodStart()).All(ctx)),
		),
		"day": must(c.UsageTotal.Query().Order(usagetotal.ByPeriodStart()).All(ctx)),
	}
}
