package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/internal/store"
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
	for i, to := range []map[period]sums{d.quarters, d.days} {
		t := ledgerTables[i]
		p := period{model: model, grain: t.grain}
		cells := newSumCells(&p.key, &p.price, &p.start)
		err := scanRows(ctx, tx, modelPeriodsSQL(t), []any{model, start, start.Add(day)}, func(scan func(...any) error) (err error) {
			if err := scan(cells.addresses...); err != nil {
				return err
			}
			p.start = store.Time(p.start)
			to[p], err = cells.read()
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return d, nil
}

// modelPeriodsSQL reads the periods of a model, by key and price, that begin in a range.
func modelPeriodsSQL(t *ledgerTable) string {
	return "SELECT api_key_id, price_id, period_start, " + strings.Join(sumColumns, ", ") +
		" FROM " + t.name + " WHERE model_id = $1 AND period_start >= $2 AND period_start < $3"
}

// replaceDay writes the periods that differ from what they were, and their totals.
func (r *Registry) replaceDay(ctx context.Context, tx *ent.Client, before, after *modelDay) error {
	write := map[period]sums{}
	for _, all := range []struct{ was, is map[period]sums }{{before.quarters, after.quarters}, {before.days, after.days}} {
		changed := map[time.Time]bool{}
		for p := range all.was {
			if _, ok := all.is[p]; ok {
				continue
			}
			changed[p.start] = true
			if err := deletePeriod(ctx, tx, p); err != nil {
				return err
			}
		}
		for p, s := range all.is {
			if was, ok := all.was[p]; !ok || !was.equal(&s) {
				changed[p.start] = true
				write[p] = s
			}
		}
		totals, err := coarser(all.is, period.total)
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
	_, err := tx.ExecContext(ctx, "DELETE FROM "+ledgerTables[p.table()].name+
		" WHERE price_id = $1 AND api_key_id = $2 AND period_start = $3", p.price, p.key, p.start)
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
