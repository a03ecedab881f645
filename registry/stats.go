package registry

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// UsageFigures are what requests amount to.
type UsageFigures struct {
	Requests         int64 // failed ones included
	Errors           int64 // requests that failed
	UnpricedRequests int64 // requests whose cost is not known and not in TotalCost
	meter.Tokens
	TotalCost      money.USD `json:"TotalCostUSD"`
	AverageLatency time.Duration
	// P50, P95 and P99 are the latencies that so many percent of the requests did not exceed, by nearest rank. They are
	// exact below 32 milliseconds, and less than 1/32 away from what they stand for above. Requests that
	// were recorded before percentiles were kept are not in them.
	P50, P95, P99 time.Duration
}

// ErrorRate returns the share of requests that failed, 0 to 1; 0 for none at all.
func (s UsageFigures) ErrorRate() float64 {
	if s.Requests == 0 {
		return 0
	}
	return float64(s.Errors) / float64(s.Requests)
}

// figuresOf shows sums to users.
func figuresOf(s *ledger.Sums) UsageFigures {
	quantile := func(q float64) time.Duration { return time.Duration(s.Histogram.Quantile(q)) * time.Millisecond }
	return UsageFigures{
		Requests: s.Requests, Errors: s.Errors, UnpricedRequests: s.Unpriced, Tokens: s.Meters(), TotalCost: s.Cost,
		AverageLatency: time.Duration(s.AverageLatency() * float64(time.Millisecond)),
		P50:            quantile(0.50), P95: quantile(0.95), P99: quantile(0.99),
	}
}

// UsageStats is what was used of a model.
type UsageStats struct {
	Start, End time.Time // the range that was summed, in whole quarters of an hour, or days, UTC
	UsageFigures
}

// GetUsageStats returns what was used of a model, live or deleted, from start until before end.
// Usage is kept by quarters of an hour, so the range is widened to whole ones; to whole UTC days where
// Prune has removed the quarters. The answer says to which. It returns [ErrInvalidData] unless start is
// before end, and for a sum that does not fit; or [ErrNotFound].
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

// GetCostBreakdown returns what each model of a provider has cost since the beginning, by
// model_id. Deleted models count too. A model is missing while none of its usage has a known
// cost. Models of one name, of which all but one are deleted, count together. An unknown provider
// has none. It returns [ErrInvalidData] for a cost that does not fit into [money.USD].
func (r *Registry) GetCostBreakdown(ctx context.Context, providerID uuid.UUID) (map[string]money.USD, error) {
	var rows []struct {
		ModelID string `sql:"model_id"`
		Dollars int64  `sql:"dollars"`
		Nanos   int64  `sql:"nanos"`
	}
	err := r.client.UsageTotal.Query().
		Where(usagetotal.TotalCostNotNil()).
		Modify(func(s *sql.Selector) {
			models := sql.Table(model.Table)
			s.Join(models).On(s.C(usagetotal.FieldModelID), models.C(model.FieldID)).
				Where(sql.EQ(models.C(model.FieldProviderID), providerID)).
				GroupBy(models.C(model.FieldModelID)).
				Select(
					append(
						sumCosts(s.C(usagetotal.FieldTotalCost)), sql.As(models.C(model.FieldModelID), "model_id"),
					)...,
				)
		}).Scan(ctx, &rows)
	if err != nil {
		return nil, translate(ctx, "cost breakdown", err)
	}
	costs := make(map[string]money.USD, len(rows))
	for _, row := range rows {
		if costs[row.ModelID], err = costSum(row.Dollars, row.Nanos); err != nil {
			return nil, translate(ctx, "cost breakdown", err)
		}
	}
	return costs, nil
}

// sumCosts returns columns that sum costs in whole dollars and in what each cost has beyond them,
// so that a sum which does not fit is noticed by costSum and not half-way by the database.
func sumCosts(column string) []string {
	return []string{
		sql.As(fmt.Sprintf("COALESCE(SUM(%s / %d), 0)", column, money.Dollar), "dollars"),
		sql.As(fmt.Sprintf("COALESCE(SUM(%s %% %d), 0)", column, money.Dollar), "nanos"),
	}
}

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
