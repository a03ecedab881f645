package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/money"
)

// modelDay are the periods of a model and a UTC day, by key and price. Their totals follow from them.
type modelDay struct {
	model          uuid.UUID
	start          time.Time
	quarters, days map[period]sums
}

func (d *modelDay) clone() *modelDay {
	c := *d
	c.quarters, c.days = maps.Clone(d.quarters), maps.Clone(d.days)
	return &c
}

// readDay reads the periods of a model and a UTC day.
func (r *Registry) readDay(ctx context.Context, tx *ent.Client, model uuid.UUID, start time.Time) (*modelDay, error) {
	d := &modelDay{model: model, start: start, quarters: map[period]sums{}, days: map[period]sums{}}
	for grain, to := range map[usage.Grain]map[period]sums{usage.GrainQuarter: d.quarters, usage.GrainDay: d.days} {
		rows, err := tx.Usage.Query().Where(usage.ModelID(model), usage.GrainEQ(grain),
			usage.PeriodStartGTE(start), usage.PeriodStartLT(start.Add(day))).All(ctx)
		if err != nil {
			return nil, err
		}
		for _, u := range rows {
			s, err := usageSums(u)
			if err != nil {
				return nil, err
			}
			to[period{u.ModelID, u.APIKeyID, u.PriceID, u.Grain, u.PeriodStart}] = s
		}
	}
	return d, nil
}

// replaceDay writes the periods that differ from what they were, and their totals.
func (r *Registry) replaceDay(ctx context.Context, tx *ent.Client, before, after *modelDay) error {
	write := map[period]sums{}
	for _, grain := range []struct{ was, is map[period]sums }{{before.quarters, after.quarters}, {before.days, after.days}} {
		changed := map[time.Time]bool{}
		for p := range grain.was {
			if _, ok := grain.is[p]; ok {
				continue
			}
			changed[p.start] = true
			if err := deletePeriod(ctx, tx, p); err != nil {
				return err
			}
		}
		for p, s := range grain.is {
			if was, ok := grain.was[p]; !ok || !was.equal(&s) {
				changed[p.start] = true
				write[p] = s
			}
		}
		totals, err := coarser(grain.is, period.total)
		if err != nil {
			return err
		}
		for p, s := range totals {
			if changed[p.start] {
				write[p] = s
			}
		}
	}
	return writePeriods(ctx, tx, sortedPeriods(write), write)
}

func deletePeriod(ctx context.Context, tx *ent.Client, p period) error {
	_, err := tx.Usage.Delete().Where(usage.PriceID(p.price), usage.APIKeyID(p.key), usage.GrainEQ(p.grain), usage.PeriodStart(p.start)).Exec(ctx)
	return err
}

// coarser sums periods in others.
func coarser(all map[period]sums, into func(period) period) (map[period]sums, error) {
	coarse := map[period]sums{}
	for _, p := range sortedPeriods(all) {
		s := coarse[into(p)]
		if err := s.merge(all[p]); err != nil {
			return nil, err
		}
		coarse[into(p)] = s
	}
	return coarse, nil
}

func sortedPeriods(all map[period]sums) []period {
	sorted := slices.AppendSeq(make([]period, 0, len(all)), maps.Keys(all))
	slices.SortFunc(sorted, comparePeriods)
	return sorted
}

func (s *sums) equal(o *sums) bool {
	return s.requests == o.requests && s.errors == o.errors && s.unpriced == o.unpriced && s.tokens == o.tokens &&
		s.cost == o.cost && s.latency == o.latency &&
		slices.Equal(s.histogram.AppendBinary(nil), o.histogram.AppendBinary(nil))
}

// usageSums are the sums that a row says.
func usageSums(u *ent.Usage) (sums, error) {
	s := sums{
		requests: u.RequestCount, errors: u.ErrorCount, unpriced: u.UnpricedCount, cost: value(u.TotalCost), latency: u.LatencyMsSum,
		tokens: [5]int64{u.InputTokens, u.OutputTokens, u.CacheReadTokens, u.CacheWriteTokens, u.ReasoningTokens},
	}
	if err := s.histogram.MergeBinary(u.LatencyHistogram); err != nil {
		return sums{}, fmt.Errorf("%w: latency_histogram: %w", ErrCorrupt, err)
	}
	return s, nil
}

// eventSums are an event as the sums of a period with nothing else.
func eventSums(e *ent.UsageEvent) (sums, error) {
	if e.LatencyMs < 0 || e.LatencyMs > latency.Max {
		return sums{}, fmt.Errorf("%w: latency_ms", ErrCorrupt)
	}
	s := sums{
		requests: 1, errors: count(!e.Success), unpriced: count(e.Cost == nil), cost: value[money.USD](e.Cost), latency: e.LatencyMs,
		tokens: [5]int64{e.InputTokens, e.OutputTokens, e.CacheReadTokens, e.CacheWriteTokens, e.ReasoningTokens},
	}
	s.histogram.Add(e.LatencyMs)
	return s, nil
}
