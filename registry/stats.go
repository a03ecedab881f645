package registry

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// UsageFigures are sums over requests.
type UsageFigures struct {
	Requests         int64 // all requests, failed ones included
	Errors           int64 // requests that failed
	UnpricedRequests int64 // requests whose cost is unknown, and not in TotalCost
	meter.Tokens
	TotalCost      money.USD `json:"TotalCostUSD"`
	AverageLatency time.Duration
	// P50, P95 and P99 are percentiles of latency, by nearest rank. They are exact below 32 milliseconds, and off by
	// less than 1/32 above. Requests that were recorded before percentiles were kept are not included.
	P50, P95, P99 time.Duration

	EstimatedRequests int64 // requests whose tokens are an estimate
	// UnknownRequests are requests whose tokens are unknown. They are unpriced too.
	UnknownRequests int64
	Retries         int64     // requests that were a second or later attempt
	RetryCost       money.USD `json:"RetryCostUSD"` // what they cost, as far as that is known; part of TotalCost
	// AverageFirstToken and the percentiles after it are of the time to the first token, of the requests that said it.
	AverageFirstToken                           time.Duration
	FirstTokenP50, FirstTokenP95, FirstTokenP99 time.Duration
	// ProviderCost is what the provider says that ProviderCostRequests requests cost, and CostDifference is by how much
	// that is more than what they cost here. A cost that is unknown here counts as nothing.
	ProviderCostRequests int64
	ProviderCost         money.USD `json:"ProviderCostUSD"`
	CostDifference       money.USD `json:"CostDifferenceUSD"`
}

// ErrorRate returns the share of requests that failed, from 0 to 1. It is 0 if there are no requests.
func (s UsageFigures) ErrorRate() float64 {
	if s.Requests == 0 {
		return 0
	}
	return float64(s.Errors) / float64(s.Requests)
}

// figuresOf converts sums for users.
func figuresOf(s *ledger.Sums) UsageFigures {
	f := UsageFigures{
		Requests: s.Requests, Errors: s.Errors, UnpricedRequests: s.Unpriced, Tokens: s.Meters(), TotalCost: s.Cost,
		AverageLatency:    time.Duration(s.AverageLatency() * float64(time.Millisecond)),
		EstimatedRequests: s.Estimated, UnknownRequests: s.Unknown, Retries: s.Retries, RetryCost: s.RetryCost,
		AverageFirstToken:    time.Duration(s.AverageFirstToken() * float64(time.Millisecond)),
		ProviderCostRequests: s.ProviderCosts, ProviderCost: s.ProviderCost,
		CostDifference: s.ProviderCost - s.ComparedCost,
	}
	f.P50, f.P95, f.P99 = percentiles(s.Histogram)
	f.FirstTokenP50, f.FirstTokenP95, f.FirstTokenP99 = percentiles(s.FirstTokens)
	return f
}

func percentiles(h latency.Histogram) (p50, p95, p99 time.Duration) {
	quantile := func(q float64) time.Duration { return time.Duration(h.Quantile(q)) * time.Millisecond }
	return quantile(0.50), quantile(0.95), quantile(0.99)
}

// UsageStats is the usage of a model over a range of time.
type UsageStats struct {
	Start, End time.Time // the range that was summed, in whole quarters of an hour or whole days, UTC
	UsageFigures
}

// GetUsageStats returns the usage of a model, live or deleted, from start until before end. Usage is kept by quarters
// of an hour, so the range is widened to whole quarters; and to whole UTC days where Prune has removed the quarters.
// Start and End of the result say what was summed.
//
// It returns [ErrInvalidData] if start is not before end, or a sum would overflow, and [ErrNotFound] if there is no
// such model.
func (r *Registry) GetUsageStats(ctx context.Context, modelID uuid.UUID, start, end time.Time) (UsageStats, error) {
	op := fmt.Sprintf("usage stats of model %s", modelID)
	start, end = utc.Clamp(start), utc.Clamp(end)
	var f fault.List
	f.Span(start, end)
	if err := f.Err(); err != nil {
		return UsageStats{}, translate(ctx, op, err)
	}
	if exists, err := r.client.Model.Query().Where(model.ID(modelID)).Exist(ctx); err != nil || !exists {
		return UsageStats{}, translate(ctx, op, cmp.Or(err, ErrNotFound))
	}
	var stats UsageStats
	err := r.steadily(ctx, func(h ledger.Horizons) error {
		var all ledger.Sums
		stats = UsageStats{Start: h.Widen(start, utc.Floor), End: h.Widen(end, utc.Ceil)}
		q := ledger.Query{Totals: true, Model: modelID}
		err := ledger.Each(
			ctx, r.client, r.db.Dialect(), q, ledger.Parts(stats.Start, stats.End, nil),
			func(row ledger.Row) error { return row.AddTo(&all) },
		)
		stats.UsageFigures = figuresOf(&all)
		return err
	})
	if err != nil {
		return UsageStats{}, translate(ctx, op, err)
	}
	return stats, nil
}

// GetCostBreakdown returns the cost of each model of a provider since the beginning, by model_id. Deleted models are
// included; models with the same model_id, of which at most one is live, are added up. A model is missing if none of
// its usage has a known cost. An unknown provider has no costs.
//
// It returns [ErrInvalidData] if a cost does not fit into [money.USD].
func (r *Registry) GetCostBreakdown(ctx context.Context, providerID uuid.UUID) (map[string]money.USD, error) {
	// Each cost is divided, so that a sum that does not fit is noticed before the database overflows.
	query := fmt.Sprintf("SELECT m.model_id, CAST(SUM(total_cost / %[1]d) AS bigint),"+
		" CAST(SUM(total_cost %% %[1]d) AS bigint) FROM usage_totals JOIN models AS m ON m.id = usage_totals.model_id"+
		" WHERE m.provider_id = $1 AND total_cost IS NOT NULL GROUP BY m.model_id", money.Dollar)
	costs := map[string]money.USD{}
	err := bulk.Scan(ctx, r.client, query, []any{providerID}, func(scan func(...any) error) error {
		var name string
		var dollars, nanos int64
		err := scan(&name, &dollars, &nanos)
		if err == nil {
			costs[name], err = costSum(dollars, nanos)
		}
		return err
	})
	if err != nil {
		return nil, translate(ctx, "cost breakdown", err)
	}
	return costs, nil
}

// costSum adds up sums of whole dollars and of the rest of each cost.
func costSum(dollars, nanos int64) (money.USD, error) {
	const million = 1_000_000 // rates are per million
	usd, err := money.Cost(
		money.Usage{Quantity: dollars, Rate: million * money.Dollar},
		money.Usage{Quantity: nanos, Rate: million * money.NanoDollar},
	)
	if err != nil {
		return 0, fault.OfAmount("sum of costs", err)
	}
	return usd, nil
}
