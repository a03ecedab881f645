package registry_test

import (
	"bytes"
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// What is told of the ledger, and what is left of it.

// inRange returns the nearest time that there can be usage at.
func inRange(t time.Time) time.Time {
	switch t = micro(t); {
	case t.Before(firstTime):
		return firstTime
	case t.After(lastTime):
		return lastTime
	}
	return t
}

// widened rounds a range to whole quarters of an hour, and to whole days where there are no quarters any more.
func (w *world) widened(start, end time.Time) (from, to time.Time) {
	from, to = quarterOf(start), quarterOf(end)
	if to.Before(end) {
		to = to.Add(15 * time.Minute)
	}
	if start.Before(w.quartersFrom) {
		from = dayOf(start)
	}
	if end.Before(w.quartersFrom) {
		if to = dayOf(end); to.Before(end) {
			to = to.AddDate(0, 0, 1)
		}
	}
	return from, to
}

// figures adds up requests, whether their events are kept or not. It fails if the sum does not fit.
func figures(events []*ent.UsageEvent) (sum registry.UsageFigures, err error) {
	var took, first int64
	var histogram, firsts latency.Histogram
	cost := new(big.Int)
	for _, e := range events {
		sum.Requests++
		sum.Errors += count(!e.Success)
		sum.UnpricedRequests += count(e.Cost == nil)
		sum.InputTokens += e.InputTokens
		sum.OutputTokens += e.OutputTokens
		sum.CacheReadTokens += e.CacheReadTokens
		sum.CacheWriteTokens += e.CacheWriteTokens
		sum.ReasoningTokens += e.ReasoningTokens
		took += e.LatencyMs
		histogram.Add(e.LatencyMs)
		if e.Cost != nil {
			cost.Add(cost, big.NewInt(int64(*e.Cost)))
		}
		if e.TtftMs != nil {
			first += *e.TtftMs
			firsts.Add(*e.TtftMs)
		}
		addFacts(&sum, e)
	}
	if cost.Cmp(big.NewInt(mostCost)) > 0 {
		return sum, registry.ErrInvalidData
	}
	for to, q := range map[*time.Duration]float64{&sum.P50: 0.5, &sum.P95: 0.95, &sum.P99: 0.99} {
		*to = time.Duration(histogram.Quantile(q)) * time.Millisecond
	}
	for to, q := range map[*time.Duration]float64{
		&sum.FirstTokenP50: 0.5, &sum.FirstTokenP95: 0.95, &sum.FirstTokenP99: 0.99,
	} {
		*to = time.Duration(firsts.Quantile(q)) * time.Millisecond
	}
	if firsts.Count() > 0 {
		sum.AverageFirstToken = time.Duration(float64(first) / float64(firsts.Count()) * 1e6)
	}
	sum.TotalCost = money.USD(cost.Int64())
	if sum.Requests > 0 {
		sum.AverageLatency = time.Duration(float64(took) / float64(sum.Requests) * 1e6)
	}
	return sum, nil
}

// addFacts adds what an event says beside what it used.
func addFacts(sum *registry.UsageFigures, e *ent.UsageEvent) {
	usd := *cmp.Or(e.Cost, new(money.USD))
	sum.EstimatedRequests += count(e.UsageStatus == "estimated")
	sum.UnknownRequests += count(e.UsageStatus == "unknown")
	if e.Attempt > 1 {
		sum.Retries++
		sum.RetryCost += usd
	}
	if e.ProviderCost != nil {
		sum.ProviderCostRequests++
		sum.ProviderCost += *e.ProviderCost
		sum.CostDifference += *e.ProviderCost - usd
	}
}

// requests are all that were ever recorded from an instant until before another one.
func (w *world) requests(from, to time.Time) []*ent.UsageEvent {
	return where(slices.Concat(w.events, w.pruned),
		func(e *ent.UsageEvent) bool { return !e.At.Before(from) && e.At.Before(to) })
}

func (w *world) getUsageStats(modelID uuid.UUID, start, end time.Time) (stats registry.UsageStats, err error) {
	start, end = inRange(start), inRange(end)
	if !start.Before(end) {
		return stats, registry.ErrInvalidData
	}
	if w.model(modelID) == nil {
		return stats, registry.ErrNotFound
	}
	stats.Start, stats.End = w.widened(start, end)
	ofModel := func(e *ent.UsageEvent) bool { return e.ModelID == modelID }
	stats.UsageFigures, err = figures(where(w.requests(stats.Start, stats.End), ofModel))
	return stats, err
}

// usageReport makes reports in UTC, of all or of one provider.
func (w *world) usageReport(in registry.ReportInput) ([]registry.ReportRow, error) {
	start, end := inRange(in.Start), inRange(in.End)
	if !start.Before(end) {
		return nil, registry.ErrInvalidData
	}
	from, to := w.widened(start, end)
	if in.Step == registry.StepQuarter && from.Before(w.quartersFrom) {
		return nil, registry.ErrInvalidData
	}
	rows, parts, places := []registry.ReportRow{}, map[string][]*ent.UsageEvent{}, map[string]registry.ReportRow{}
	for _, e := range w.requests(from, to) {
		m := w.model(e.ModelID)
		if in.ProviderID != uuid.Nil && m.ProviderID != in.ProviderID {
			continue
		}
		row := registry.ReportRow{Start: from, End: to}
		switch in.Step {
		case registry.StepQuarter:
			row.Start, row.End = quarterOf(e.At), quarterOf(e.At).Add(15*time.Minute)
		case registry.StepDay:
			row.Start, row.End = latest(from, dayOf(e.At)), dayOf(e.At).AddDate(0, 0, 1)
			if row.End.After(to) {
				row.End = to
			}
		}
		w.describe(&row, in.By, m, w.key(e.APIKeyID))
		place := fmt.Sprint(row)
		parts[place], places[place] = append(parts[place], e), row
	}
	for place, events := range parts {
		row := places[place]
		sum, err := figures(events)
		if err != nil {
			return nil, err
		}
		row.UsageFigures, row.AttributedCost = sum, sum.TotalCost
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b registry.ReportRow) int {
		return cmp.Or(a.Start.Compare(b.Start), bytes.Compare(a.ProviderID[:], b.ProviderID[:]),
			bytes.Compare(a.ModelID[:], b.ModelID[:]), bytes.Compare(a.APIKeyID[:], b.APIKeyID[:]))
	})
	return rows, nil
}

// describe says what a row is of.
func (w *world) describe(row *registry.ReportRow, by []registry.Dimension, m *ent.Model, k *ent.APIKey) {
	for _, d := range by {
		switch d {
		case registry.ByProvider:
			row.ProviderID, row.Provider = m.ProviderID, w.provider(m.ProviderID).Name
		case registry.ByModel:
			row.ModelID, row.Model = m.ID, m.ModelID
		case registry.ByKey:
			row.APIKeyID, row.KeyLabel, row.KeyPrefix = k.ID, k.Label, k.KeyPrefix
		}
	}
}

// listUsageEvents returns them in the order of compareEvents, for those of one instant have none.
func (w *world) listUsageEvents(f registry.EventFilter) ([]*ent.UsageEvent, error) {
	start, end := firstTime, lastTime.AddDate(1, 0, 0)
	if !f.Start.IsZero() {
		start = inRange(f.Start)
	}
	if !f.End.IsZero() {
		end = inRange(f.End)
	}
	if !f.Start.IsZero() && !f.End.IsZero() && !start.Before(end) {
		return nil, registry.ErrInvalidData
	}
	found := where(w.events, func(e *ent.UsageEvent) bool {
		return (f.ModelID == uuid.Nil || e.ModelID == f.ModelID) &&
			(f.APIKeyID == uuid.Nil || e.APIKeyID == f.APIKeyID) &&
			!e.At.Before(start) && e.At.Before(end) && (!f.Failed || !e.Success) && (!f.Unpriced || e.Cost == nil)
	})
	slices.SortFunc(found, compareEvents)
	return found, nil
}

// prune removes events, quarters and discovery logs that are past their time; days stay.
func (w *world) prune(keep registry.PruneInput) (report registry.PruneResult, err error) {
	const day = 24 * time.Hour
	keep.Events = cmp.Or(keep.Events, 7*day)
	keep.Quarters = cmp.Or(keep.Quarters, max(35*day, keep.Events))
	keep.Discoveries = cmp.Or(keep.Discoveries, 90*day)
	if keep.Events < day || keep.Quarters < keep.Events || keep.Discoveries < day || w.inTx {
		return report, registry.ErrInvalidData
	}
	events, quarters := dayOf(w.now.Add(-keep.Events)), dayOf(w.now.Add(-keep.Quarters))
	discoveries := w.now.Add(-keep.Discoveries)
	w.pruned = append(w.pruned, where(w.events, func(e *ent.UsageEvent) bool { return e.At.Before(events) })...)
	report.Events = removed(&w.events, func(e *ent.UsageEvent) bool { return e.At.Before(events) })
	report.Quarters = removed(&w.quarters, func(u *ent.Usage) bool { return u.PeriodStart.Before(quarters) })
	report.Quarters += removed(&w.totalQuarters, func(u *ent.UsageTotal) bool { return u.PeriodStart.Before(quarters) })
	report.Discoveries = removed(&w.logs, func(l *ent.DiscoveryLog) bool { return l.StartedAt.Before(discoveries) })
	// What is missing stays missing.
	w.eventsFrom, w.quartersFrom = latest(w.eventsFrom, events), latest(w.quartersFrom, quarters)
	report.EventsFrom, report.QuartersFrom = w.eventsFrom, w.quartersFrom
	return report, nil
}

// removed removes rows, and returns how many those were.
func removed[T any](rows *[]*T, gone func(*T) bool) int64 {
	left := where(*rows, func(row *T) bool { return !gone(row) })
	n := int64(len(*rows) - len(left))
	*rows = left
	return n
}
