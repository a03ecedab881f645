package registry

import (
	"context"
	"fmt"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// UsageStats is what was used of a model.
type UsageStats struct {
	Start, End       time.Time // the range that was summed, in whole quarters of an hour, UTC
	Requests         int64     // failed ones included
	Errors           int64     // requests that failed
	UnpricedRequests int64     // requests whose cost is not known and not in TotalCost
	meter.Tokens
	TotalCost      money.USD
	AverageLatency time.Duration
}

// ErrorRate returns the share of requests that failed, 0 to 1; 0 for none at all.
func (s UsageStats) ErrorRate() float64 {
	if s.Requests == 0 {
		return 0
	}
	return float64(s.Errors) / float64(s.Requests)
}

// GetUsageStats returns what was used of a model, live or deleted, from start until before end.
// Usage is kept by quarters of an hour, so the range is widened to whole ones; the answer says
// to which. It returns [ErrInvalidData] unless start is before end, and for a cost that does not fit
// into [money.USD]; or [ErrNotFound].
func (r *Registry) GetUsageStats(ctx context.Context, modelID uuid.UUID, start, end time.Time) (UsageStats, error) {
	op := fmt.Sprintf("usage stats of model %s", modelID)
	start, end = clamp(start), clamp(end)
	var f faults
	f.check(start.Before(end), "start %s is not before end %s", start.Format(time.RFC3339), end.Format(time.RFC3339))
	if err := f.err(); err != nil {
		return UsageStats{}, translate(ctx, op, err)
	}
	if exists, err := r.client.Model.Query().Where(model.ID(modelID)).Exist(ctx); err != nil || !exists {
		if err == nil {
			err = ErrNotFound
		}
		return UsageStats{}, translate(ctx, op, err)
	}
	stats := UsageStats{Start: start.Truncate(quarter), End: ceil(end, quarter)}
	err := stats.sum(ctx, r.client.Usage.Query().
		Where(within(modelID, stats.Start, stats.End)))
	if err != nil {
		return UsageStats{}, translate(ctx, op, err)
	}
	return stats, nil
}

// within selects the periods of a model that make up a range of whole quarters, none twice: whole
// days, and quarters before the first and after the last of them. Each part names the model, so that
// each can use the index (model_id, grain, period_start).
func within(modelID uuid.UUID, start, end time.Time) predicate.Usage {
	firstDay, lastDay := ceil(start, day), end.Truncate(day)
	between := func(grain usage.Grain, from, to time.Time) predicate.Usage {
		return usage.And(usage.ModelID(modelID), usage.GrainEQ(grain), usage.PeriodStartGTE(from), usage.PeriodStartLT(to))
	}
	if !firstDay.Before(lastDay) {
		return between(usage.GrainQuarter, start, end)
	}
	return usage.Or(
		between(usage.GrainDay, firstDay, lastDay),
		between(usage.GrainQuarter, start, firstDay),
		between(usage.GrainQuarter, lastDay, end),
	)
}

// ceil returns the first multiple of a length at or after t.
func ceil(t time.Time, length time.Duration) time.Time {
	if floor := t.Truncate(length); floor.Before(t) {
		return floor.Add(length)
	}
	return t
}

// sum adds up the periods of a query.
func (s *UsageStats) sum(ctx context.Context, periods *ent.UsageQuery) error {
	var sums []struct {
		Requests   int64 `sql:"request_count"`
		Errors     int64 `sql:"error_count"`
		Unpriced   int64 `sql:"unpriced_count"`
		Input      int64 `sql:"input_tokens"`
		Output     int64 `sql:"output_tokens"`
		CacheRead  int64 `sql:"cache_read_tokens"`
		CacheWrite int64 `sql:"cache_write_tokens"`
		Reasoning  int64 `sql:"reasoning_tokens"`
		Latency    int64 `sql:"latency_ms_sum"`
		Dollars    int64 `sql:"dollars"`
		Nanos      int64 `sql:"nanos"`
	}
	err := periods.Modify(func(sel *sql.Selector) {
		sel.Select()
		for _, column := range []string{
			usage.FieldRequestCount, usage.FieldErrorCount, usage.FieldUnpricedCount,
			usage.FieldInputTokens, usage.FieldOutputTokens, usage.FieldCacheReadTokens,
			usage.FieldCacheWriteTokens, usage.FieldReasoningTokens,
			usage.FieldLatencyMsSum,
		} {
			sel.AppendSelect(sql.As("COALESCE("+sql.Sum(sel.C(column))+", 0)", column))
		}
		sel.AppendSelect(sumCosts(sel.C(usage.FieldTotalCost))...)
	}).Scan(ctx, &sums)
	if err != nil {
		return err
	}
	sum := sums[0] // a sum without GROUP BY is one row
	if s.TotalCost, err = costSum(sum.Dollars, sum.Nanos); err != nil {
		return err
	}
	s.Requests, s.Errors, s.UnpricedRequests = sum.Requests, sum.Errors, sum.Unpriced
	s.Tokens = meter.Tokens{
		InputTokens: sum.Input, OutputTokens: sum.Output, CacheReadTokens: sum.CacheRead,
		CacheWriteTokens: sum.CacheWrite, ReasoningTokens: sum.Reasoning,
	}
	if sum.Requests > 0 {
		s.AverageLatency = time.Duration(float64(sum.Latency) / float64(sum.Requests) * float64(time.Millisecond))
	}
	return nil
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
	err := r.client.Usage.Query().
		Where(usage.GrainEQ(usage.GrainDay), usage.TotalCostNotNil()).
		Modify(func(s *sql.Selector) {
			models := sql.Table(model.Table)
			s.Join(models).On(s.C(usage.FieldModelID), models.C(model.FieldID)).
				Where(sql.EQ(models.C(model.FieldProviderID), providerID)).
				GroupBy(models.C(model.FieldModelID)).
				Select(append(sumCosts(s.C(usage.FieldTotalCost)), sql.As(models.C(model.FieldModelID), "model_id"))...)
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
		return 0, fmt.Errorf("%w: sum of costs: %w", ErrInvalidData, err)
	}
	return usd, nil
}

// endOfTime is the last day that can be stored: times are text that sorts, which ends with the
// year 9999.
var endOfTime = time.Date(9999, time.December, 31, 0, 0, 0, 0, time.UTC)

// clamp returns the bound of a range as a time that can be compared with stored ones.
func clamp(t time.Time) time.Time {
	t = store.Time(t)
	switch {
	case t.Before(beginning):
		return beginning
	case t.After(endOfTime):
		return endOfTime
	}
	return t
}

// time notes a fault unless t can be stored.
func (f *faults) time(field string, t time.Time) {
	f.check(!t.Before(beginning) && !t.After(endOfTime), "%s is not within 1970 and 9999", field)
}
