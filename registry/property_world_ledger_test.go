package registry_test

import (
	"cmp"
	"math/big"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// The ledger.

// mostCost is what one row can hold, in nano-dollars.
const mostCost = 9_000_000_000_000_000_000

func (w *world) recordUsage(in registry.UsageInput) error {
	if err := w.checkUsage(in); err != nil {
		return err
	}
	return w.addUsage(in, nil)
}

// checkUsage returns what is wrong with a request on the face of it.
func (w *world) checkUsage(in registry.UsageInput) error {
	at, tier := w.timeOf(in), cmp.Or(in.ServiceTier, "standard")
	if !okTokens(in.InputTokens, in.OutputTokens, in.CacheReadTokens, in.CacheWriteTokens, in.ReasoningTokens) ||
		!within(at, firstTime, w.now.Add(time.Hour)) || in.Latency < 0 || in.Latency > 7*24*time.Hour ||
		!okText(tier, 1, 64) || !okText(in.RequestID, 0, 128) || !okText(in.ErrorClass, 0, 64) ||
		in.ErrorClass != "" && !in.Failed ||
		in.HTTPStatus != 0 && (in.HTTPStatus < 100 || in.HTTPStatus > 599) || !okFacts(in) {
		return registry.ErrInvalidData
	}
	return nil
}

// okFacts reports whether what a request says of itself beside what it used is right on the face of it.
func okFacts(in registry.UsageInput) bool {
	if in.Usage == registry.UsageUnknown && in.Tokens != (meter.Tokens{}) || in.Usage == "guessed" {
		return false
	}
	if in.TimeToFirstToken > in.Latency && in.Latency > 0 || in.Attempt < 0 || !okText(in.AttemptGroup, 0, 128) {
		return false
	}
	if in.ProviderCost == nil {
		return in.ProviderCostSource == ""
	}
	return *in.ProviderCost >= 0 && okText(in.ProviderCostSource, 0, 64)
}

// timeOf returns when a request happened.
func (w *world) timeOf(in registry.UsageInput) time.Time {
	if in.At.IsZero() {
		return w.now
	}
	return micro(in.At)
}

// isRecorded reports whether there is an event under the id of a request. It is a conflict if that is of another one.
func (w *world) isRecorded(in registry.UsageInput) (recorded bool, differs error) {
	e := first(w.events, func(e *ent.UsageEvent) bool { return in.RequestID != "" && e.RequestID == in.RequestID })
	if e != nil && w.prints[in.RequestID] != fingerprint(in) {
		differs = registry.ErrConflict
	}
	return e != nil, differs
}

// fingerprint returns the fingerprint of a request.
func fingerprint(in registry.UsageInput) int64 {
	e := ledger.Event{
		Model: in.ModelID, Tokens: ledger.InColumns(in.Tokens), Success: !in.Failed, ErrorClass: in.ErrorClass,
		HTTPStatus: in.HTTPStatus, Status: usageevent.UsageStatus(cmp.Or(in.Usage, registry.UsageReported)),
		ProviderCost: in.ProviderCost,
	}
	return e.Print()
}

// addUsage records a request; that of a lease ends it, and counts in its stead.
func (w *world) addUsage(in registry.UsageInput, l *lease) error {
	at, tier := w.timeOf(in), cmp.Or(in.ServiceTier, "standard")
	m, k := w.model(in.ModelID), w.key(in.APIKeyID)
	if m == nil || k == nil {
		return errMissing
	}
	if m.ProviderID != k.ProviderID {
		return registry.ErrInvalidData
	}
	if recorded, differs := w.isRecorded(in); recorded {
		return differs
	}
	if w.prints == nil {
		w.prints = map[string]int64{}
	}
	w.prints[in.RequestID] = fingerprint(in) // before anything is estimated
	input := in.InputTokens + in.CacheReadTokens + in.CacheWriteTokens
	supposed := in.Usage == registry.UsageUnknown && l != nil && l.ReservedTokens > 0
	if supposed {
		input = l.ReservedTokens - l.ReservedOutput
	}
	p := cmp.Or(w.priceOf(m.ID, tier, input, at), w.priceOf(m.ID, "standard", input, at))
	took := func(tokens int64, usd money.USD) (int64, money.USD) { return tokens, usd }
	if in.Usage == registry.UsageUnknown && l != nil && !l.away {
		took = func(tokens int64, usd money.USD) (int64, money.USD) {
			return max(tokens, l.ReservedTokens), max(usd, l.ReservedCost)
		}
	}
	if supposed {
		in.Tokens, in.Usage = estimated(l, registry.RatesOf(p)), registry.UsageEstimated
	}
	cost, priced := costOf(in, registry.RatesOf(p))
	event := &ent.UsageEvent{
		RequestID: in.RequestID, At: at, ModelID: m.ID, APIKeyID: k.ID, PriceID: p.ID, CostStatus: "unpriced",
		InputTokens: in.InputTokens, OutputTokens: in.OutputTokens, CacheReadTokens: in.CacheReadTokens,
		CacheWriteTokens: in.CacheWriteTokens, ReasoningTokens: in.ReasoningTokens,
		LatencyMs: int64(in.Latency / time.Millisecond), Success: !in.Failed, ErrorClass: in.ErrorClass,
		HTTPStatus: in.HTTPStatus, UsageStatus: usageevent.UsageStatus(cmp.Or(in.Usage, registry.UsageReported)),
		AttemptGroup: in.AttemptGroup, Attempt: in.Attempt, ProviderCost: in.ProviderCost,
		ProviderCostSource: in.ProviderCostSource,
	}
	if in.TimeToFirstToken > 0 {
		event.TtftMs = new(int64(in.TimeToFirstToken / time.Millisecond))
	}
	if priced && in.Usage != registry.UsageUnknown {
		if !cost.IsInt64() {
			return registry.ErrInvalidData
		}
		usd := money.USD(cost.Int64())
		event.Cost, event.CostStatus = &usd, "priced"
	}
	w.events = append(w.events, event)
	for _, total := range []bool{false, true} {
		for _, period := range []struct {
			usage      *[]*ent.Usage
			totals     *[]*ent.UsageTotal
			start, end time.Time
		}{
			{
				usage: &w.quarters, totals: &w.totalQuarters,
				start: quarterOf(at), end: quarterOf(at).Add(15 * time.Minute),
			},
			{usage: &w.usage, totals: &w.totals, start: dayOf(at), end: dayOf(at).AddDate(0, 0, 1)},
		} {
			u := ent.Usage{
				ModelID: m.ID, APIKeyID: k.ID, PriceID: p.ID,
				PeriodStart: period.start, PeriodEnd: period.end,
			}
			if err := w.addTo(period.usage, period.totals, u, event, total); err != nil {
				return err
			}
		}
	}
	tokens, usd := in.Total(), *cmp.Or(event.Cost, new(money.USD))
	w.used(k, tokens, at)
	if l != nil {
		held, spent := took(tokens, usd)
		w.over(l, 1, held, spent)
	}
	if l == nil || l.away {
		for _, q := range w.quotas(k) {
			w.count(q, at, tokens, usd)
		}
	}
	return nil
}

// addTo adds an event to the row for a period, or to the total of all keys and prices.
func (w *world) addTo(rows *[]*ent.Usage, totals *[]*ent.UsageTotal, u ent.Usage, e *ent.UsageEvent, total bool) error {
	if total {
		sum := first(*totals, func(o *ent.UsageTotal) bool {
			return o.ModelID == u.ModelID && o.PeriodStart.Equal(u.PeriodStart)
		})
		if sum == nil {
			sum = &ent.UsageTotal{ID: w.newID(), ModelID: u.ModelID, PeriodStart: u.PeriodStart, PeriodEnd: u.PeriodEnd}
			*totals = append(*totals, sum)
		}
		return addEvent(e, &sum.TotalCost, []*int64{
			&sum.RequestCount, &sum.ErrorCount, &sum.UnpricedCount, &sum.InputTokens, &sum.OutputTokens,
			&sum.CacheReadTokens, &sum.CacheWriteTokens, &sum.ReasoningTokens, &sum.EstimatedCount,
			&sum.UnknownCount, &sum.RetryCount, &sum.TtftMsSum, (*int64)(&sum.RetryCost),
			(*int64)(&sum.ProviderCost), &sum.ProviderCostCount, (*int64)(&sum.ComparedCost), &sum.LatencyMsSum,
		}, &sum.AverageLatencyMs)
	}
	row := first(*rows, func(o *ent.Usage) bool {
		return o.ModelID == u.ModelID && o.APIKeyID == u.APIKeyID && o.PriceID == u.PriceID &&
			o.PeriodStart.Equal(u.PeriodStart)
	})
	if row == nil {
		row = &u
		row.ID = w.newID()
		*rows = append(*rows, row)
	}
	return addEvent(e, &row.TotalCost, []*int64{
		&row.RequestCount, &row.ErrorCount, &row.UnpricedCount, &row.InputTokens, &row.OutputTokens,
		&row.CacheReadTokens, &row.CacheWriteTokens, &row.ReasoningTokens, &row.EstimatedCount, &row.UnknownCount,
		&row.RetryCount, &row.TtftMsSum, (*int64)(&row.RetryCost), (*int64)(&row.ProviderCost),
		&row.ProviderCostCount, (*int64)(&row.ComparedCost), &row.LatencyMsSum,
	}, &row.AverageLatencyMs)
}

// addEvent adds an event to the columns of a row, of which the first counts requests and the last sums latencies.
func addEvent(e *ent.UsageEvent, cost **money.USD, columns []*int64, average *float64) error {
	if e.Cost != nil {
		sum := new(big.Int).Add(big.NewInt(int64(*e.Cost)), big.NewInt(int64(*cmp.Or(*cost, new(money.USD)))))
		if sum.Cmp(big.NewInt(mostCost)) > 0 {
			return registry.ErrInvalidData
		}
		usd := money.USD(sum.Int64())
		*cost = &usd
	}
	usd := int64(*cmp.Or(e.Cost, new(money.USD)))
	for i, n := range []int64{
		1, count(!e.Success), count(e.Cost == nil), e.InputTokens, e.OutputTokens,
		e.CacheReadTokens, e.CacheWriteTokens, e.ReasoningTokens, count(e.UsageStatus == "estimated"),
		count(e.UsageStatus == "unknown"), count(e.Attempt > 1), *cmp.Or(e.TtftMs, new(int64)),
		count(e.Attempt > 1) * usd, int64(*cmp.Or(e.ProviderCost, new(money.USD))), count(e.ProviderCost != nil),
		count(e.ProviderCost != nil) * usd, e.LatencyMs,
	} {
		*columns[i] += n
	}
	*average = float64(*columns[len(columns)-1]) / float64(*columns[0])
	return nil
}

// compareEvents is an order of events that does not depend on what is random in their ids.
func compareEvents(a, b *ent.UsageEvent) int {
	return cmp.Or(a.At.Compare(b.At), strings.Compare(a.RequestID, b.RequestID),
		strings.Compare(render(*a), render(*b)))
}

// costOf returns what a request costs in nano-dollars, if that is known.
func costOf(in registry.UsageInput, rates money.Rates) (cost *big.Int, priced bool) {
	if len(rates) == 0 {
		return nil, false
	}
	sum := new(big.Int)
	for _, part := range []struct {
		tokens         int64
		name, fallback string
	}{
		{tokens: in.InputTokens, name: "input", fallback: "input"},
		{tokens: in.OutputTokens, name: "output", fallback: "output"},
		{tokens: in.CacheReadTokens, name: "cache_read", fallback: "input"},
		{tokens: in.CacheWriteTokens, name: "cache_write", fallback: "input"},
		{tokens: in.ReasoningTokens, name: "reasoning", fallback: "output"},
	} {
		if part.tokens == 0 {
			continue
		}
		rate, ok := rates[part.name]
		if !ok {
			rate, ok = rates[part.fallback]
		}
		if !ok {
			return nil, false
		}
		sum.Add(sum, new(big.Int).Mul(big.NewInt(part.tokens), big.NewInt(int64(rate))))
	}
	million := big.NewInt(1_000_000)
	cost, rest := new(big.Int).QuoRem(sum, million, new(big.Int))
	switch twice := rest.Lsh(rest, 1).Cmp(million); {
	case twice > 0, twice == 0 && cost.Bit(0) == 1:
		cost.Add(cost, big.NewInt(1))
	}
	return cost, true
}

// estimated returns the tokens that the request of a lease is supposed to have used: those that cost the most.
func estimated(l *lease, rates money.Rates) (t meter.Tokens) {
	all := map[string]*int64{
		"input": &t.InputTokens, "output": &t.OutputTokens, "cache_read": &t.CacheReadTokens,
		"cache_write": &t.CacheWriteTokens, "reasoning": &t.ReasoningTokens,
	}
	_, known := rates["output"]
	_, priced := rates["input"]
	output := "output"
	if known && rates["reasoning"] > rates["output"] {
		output = "reasoning"
	}
	if l.ReservedOutput == 0 {
		output = "input"
		for _, name := range meter.Names() {
			if priced && rates[name] > rates[output] {
				output = name
			}
		}
	}
	*all["input"] += l.ReservedTokens - l.ReservedOutput
	*all[output] += l.ReservedOutput
	if l.ReservedOutput == 0 {
		t.InputTokens = 0
		*all[output] = l.ReservedTokens
	}
	return t
}

func (w *world) getCostBreakdown(providerID uuid.UUID) (map[string]money.USD, error) {
	sums := map[string]*big.Int{}
	for _, u := range w.usage {
		m := w.model(u.ModelID)
		if m.ProviderID != providerID || u.TotalCost == nil {
			continue
		}
		if sums[m.ModelID] == nil {
			sums[m.ModelID] = new(big.Int)
		}
		sums[m.ModelID].Add(sums[m.ModelID], big.NewInt(int64(*u.TotalCost)))
	}
	costs := map[string]money.USD{}
	for name, sum := range sums {
		if !sum.IsInt64() {
			return nil, registry.ErrInvalidData
		}
		costs[name] = money.USD(sum.Int64())
	}
	return costs, nil
}
