package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/money"
)

// RepriceInput says which usage to price anew.
type RepriceInput struct {
	ModelID    uuid.UUID // the model's id, live or deleted
	Start, End time.Time // from Start until before End. Default to the beginning and to now
	DryRun     bool      // change nothing, only report
}

// RepriceReport is what became of usage.
type RepriceReport struct {
	Start, End    time.Time // the range that was looked at, in whole quarters of an hour, or days, UTC
	Requests      int64     // whose price changed
	Before        money.USD `json:"BeforeUSD"` // what they cost, as far as that was known
	After         money.USD `json:"AfterUSD"`
	Priced        int64     // those of them whose cost was not known
	StillUnpriced int64     // requests whose cost is not known even so; they were left as they are
}

var errDryRun = errors.New("dry run")

// Reprice prices the past usage of a model anew where its price is no longer the one of its time: where that
// was superseded, or shortened, by a price with an earlier effective time. Usage stays in its service tier and
// context size. Usage whose price is still in effect is left alone, and so is usage for which the price of its
// time lacks a rate. Reprice leaves an entry of the difference in the audit trail.
//
// A request that has its event still is priced by its own time and rounded by itself. Where events are gone, a quarter of
// an hour is priced as a whole, by the price in effect at its beginning, and where quarters are gone, a UTC day:
// its tokens at that price's rates, rounded once. A period in which its own price is in effect at least for a
// part stays at that.
//
// It is one transaction: whoever records usage of the model waits for it, and on SQLite all who write. It returns
// [ErrInvalidData], also for a cost that does not fit, or [ErrNotFound].
func (r *Registry) Reprice(ctx context.Context, in RepriceInput) (report RepriceReport, err error) {
	op := fmt.Sprintf("reprice usage of model %s", in.ModelID)
	now := r.now()
	p := repricing{model: in.ModelID, start: clamp(in.Start), end: clamp(in.End)}
	if in.End.IsZero() {
		p.end = now.Add(maxAhead)
	}
	var f faults
	f.span(p.start, p.end)
	if err := f.err(); err != nil {
		return RepriceReport{}, translate(ctx, op, err)
	}
	err = r.writeAlone(ctx, op, func(tx *ent.Client) error {
		if exists, err := tx.Model.Query().Where(model.ID(in.ModelID)).Exist(ctx); err != nil || !exists {
			if err == nil {
				err = ErrNotFound
			}
			return err
		}
		if report, err = r.reprice(ctx, tx, p, now); err == nil && in.DryRun {
			err = errDryRun
		}
		return err
	})
	if err != nil && !isDryRun(err) {
		return RepriceReport{}, err
	}
	return report, nil
}

// isDryRun tells whether an error is that of a dry run alone. One that could not be undone has others beside it.
func isDryRun(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if err == errDryRun { //nolint:errorlint // the chain is walked
			return true
		}
	}
	return false
}

// repricing is what is to be priced anew, and how far that has come.
type repricing struct {
	model         uuid.UUID
	start, end    time.Time
	unpricedAlone bool // leave usage that has a cost

	horizons
	prices map[uuid.UUID]*ent.Price // of the model
	report RepriceReport
}

// reprice prices usage anew, day by day, and records in the audit trail what became of it.
func (r *Registry) reprice(ctx context.Context, tx *ent.Client, p repricing, now time.Time) (RepriceReport, error) {
	if r.db.Dialect() == dialect.Postgres {
		if err := lockModels(ctx, tx, []uuid.UUID{p.model}); err != nil {
			return RepriceReport{}, err
		}
	}
	var err error
	if p.horizons, err = readHorizons(ctx, tx); err != nil {
		return RepriceReport{}, err
	}
	p.start, p.end = p.widen(p.start, floor), p.widen(p.end, ceil)
	p.report.Start, p.report.End = p.start, p.end
	all, err := tx.Price.Query().Where(price.ModelID(p.model)).All(ctx)
	if err != nil {
		return RepriceReport{}, err
	}
	p.prices = map[uuid.UUID]*ent.Price{}
	for _, q := range all {
		p.prices[q.ID] = q
	}
	days, err := tx.UsageTotal.Query().Where(usagetotal.ModelID(p.model),
		usagetotal.PeriodStartGTE(p.start.Truncate(day)), usagetotal.PeriodStartLT(p.end)).
		Order(usagetotal.ByPeriodStart()).Select(usagetotal.FieldID, usagetotal.FieldPeriodStart).All(ctx)
	if err != nil {
		return RepriceReport{}, err
	}
	for _, d := range days {
		if err := r.repriceDay(ctx, tx, &p, d.PeriodStart); err != nil {
			return RepriceReport{}, err
		}
	}
	if p.report.Requests == 0 {
		return p.report, nil
	}
	return p.report, r.audit(ctx, tx, now, auditEntry{action: ActionReprice, entity: EntityModel, id: p.model.String(), after: p.report})
}

// target returns the price that usage of a stretch of time moves to: none if its own is in effect then, or if there is no
// other.
func (p *repricing) target(from uuid.UUID, start, end time.Time) (to *ent.Price) {
	own := p.prices[from]
	if own == nil {
		return nil
	}
	for _, q := range p.prices {
		switch {
		case q.SupersededAt != nil, q.ServiceTier != own.ServiceTier, q.MinContextTokens != own.MinContextTokens,
			!q.EffectiveFrom.Before(end), q.EffectiveTo != nil && !q.EffectiveTo.After(start):
		case q == own:
			return nil
		case to == nil || q.EffectiveFrom.Before(to.EffectiveFrom):
			to = q
		}
	}
	return to
}

// move prices usage at the price of its time. Moved is false when it stays as it is.
func (p *repricing) move(from uuid.UUID, start, end time.Time, s sums) (to uuid.UUID, cost money.USD, moved bool, err error) {
	q := p.target(from, start, end)
	if q == nil || p.unpricedAlone && s.unpriced == 0 {
		p.report.StillUnpriced += s.unpriced
		return uuid.Nil, 0, false, nil
	}
	known, err := costOf(s.meters(), RatesOf(q))
	if err != nil {
		return uuid.Nil, 0, false, err
	}
	if known == nil {
		p.report.StillUnpriced += s.unpriced
		return uuid.Nil, 0, false, nil
	}
	p.report.Requests += s.requests
	p.report.Priced += s.unpriced
	if p.report.Before, err = money.Sum(p.report.Before, s.cost); err == nil {
		p.report.After, err = money.Sum(p.report.After, *known)
	}
	if err != nil {
		return uuid.Nil, 0, false, fmt.Errorf("%w: %w", errOverflow, err)
	}
	return q.ID, *known, true, nil
}

// repriceDay prices the usage of a UTC day anew, from the finest that there is: events, quarters or the day.
func (r *Registry) repriceDay(ctx context.Context, tx *ent.Client, p *repricing, start time.Time) error {
	moved := p.report.Requests
	d, err := r.readDay(ctx, tx, p.model, start)
	if err != nil {
		return err
	}
	before := d.clone()
	if start.Before(p.quarters) {
		if err := p.movePeriods(d.days, time.Time{}); err != nil {
			return err
		}
	} else {
		if err := r.moveEvents(ctx, tx, p, d); err != nil {
			return err
		}
		if err := p.movePeriods(d.quarters, p.events); err != nil {
			return err
		}
		if d.days, err = coarser(d.quarters, func(q period) period {
			q.grain, q.start = grainDay, start
			return q
		}); err != nil {
			return err
		}
	}
	if p.report.Requests == moved {
		return nil
	}
	return r.replaceDay(ctx, tx, before, d)
}

// movePeriods moves periods of one grain in the range, but those from an instant on, which events have moved.
func (p *repricing) movePeriods(all map[period]sums, until time.Time) error {
	for _, q := range sortedPeriods(all) {
		if q.start.Before(p.start) || !q.start.Before(p.end) || !until.IsZero() && !q.start.Before(until) {
			continue
		}
		s := all[q]
		to, cost, moved, err := p.move(q.price, q.start, q.end(), s)
		if err != nil {
			return err
		}
		if !moved {
			continue
		}
		delete(all, q)
		q.price, s.cost, s.unpriced = to, cost, 0
		merged := all[q]
		if err := merged.merge(s); err != nil {
			return err
		}
		all[q] = merged
	}
	return nil
}

// moveEvents moves the events of a day that are in the range and complete, and makes anew the quarters in which one did.
func (r *Registry) moveEvents(ctx context.Context, tx *ent.Client, p *repricing, d *modelDay) error {
	from, until := maxTime(maxTime(d.start, p.events), p.start), minTime(d.start.Add(day), p.end)
	if !from.Before(until) {
		return nil
	}
	events, err := tx.UsageEvent.Query().Where(usageevent.ModelID(p.model),
		usageevent.IDGTE(firstEventID(from)), usageevent.IDLT(firstEventID(until))).Order(usageevent.ByID()).All(ctx)
	if err != nil {
		return err
	}
	var changed []*ent.UsageEvent
	touched, anew := map[time.Time]bool{}, map[period]sums{}
	for _, e := range events {
		s, err := eventSums(e)
		if err != nil {
			return err
		}
		to, cost, moved, err := p.move(e.PriceID, e.At, e.At.Add(time.Microsecond), s)
		if err != nil {
			return err
		}
		if moved {
			e.PriceID, e.Cost, e.CostStatus = to, &cost, usageevent.CostStatusRepriced
			s.cost, s.unpriced = cost, 0
			changed = append(changed, e)
			touched[e.At.Truncate(quarter)] = true
		}
		q := period{e.ModelID, e.APIKeyID, e.PriceID, grainQuarter, e.At.Truncate(quarter)}
		sum := anew[q]
		if err := sum.merge(s); err != nil {
			return err
		}
		anew[q] = sum
	}
	var was, is sums // what changes nothing but prices and costs
	for q, s := range d.quarters {
		if touched[q.start] {
			delete(d.quarters, q)
			was.requests, was.tokens[0], was.latency = was.requests+s.requests, was.tokens[0]+s.tokens[0], was.latency+s.latency
		}
	}
	for q, s := range anew {
		if touched[q.start] {
			d.quarters[q] = s
			is.requests, is.tokens[0], is.latency = is.requests+s.requests, is.tokens[0]+s.tokens[0], is.latency+s.latency
		}
	}
	if !was.equal(&is) {
		return fmt.Errorf("%w: quarters of %s are not the sum of their events: see VerifyLedger", ErrCorrupt, d.start.Format(time.DateOnly))
	}
	return r.updateEvents(ctx, tx, changed)
}

// updateEvents writes the price and the cost of events.
func (r *Registry) updateEvents(ctx context.Context, tx *ent.Client, events []*ent.UsageEvent) error {
	return chunks(events, func(some []*ent.UsageEvent) error {
		args := make([]any, 0, 3*len(some))
		for _, e := range some {
			args = append(args, e.ID, e.PriceID, int64(*e.Cost))
		}
		_, err := tx.ExecContext(ctx, updateEventsSQL[r.db.Dialect()](len(some)), args...)
		return err
	})
}

var updateEventsSQL = map[string]func(n int) string{
	dialect.SQLite: statements(func(n int) string { return updateEventsText(placeholders(n, "$%d", "$%d", "$%d")) }),
	dialect.Postgres: statements(func(n int) string {
		return updateEventsText(placeholders(n, "CAST($%d AS uuid)", "CAST($%d AS uuid)", "CAST($%d AS bigint)"))
	}),
}

func updateEventsText(values string) string {
	return "UPDATE usage_events SET price_id = v.column2, cost = v.column3, cost_status = 'repriced'" +
		" FROM (VALUES " + values + ") AS v WHERE usage_events.id = v.column1"
}

// UnpricedModel is a model that was used without a known cost.
type UnpricedModel struct {
	ModelID     uuid.UUID
	ProviderID  uuid.UUID
	Provider    string    // its name
	Name        string    // the provider's name for the model, model_id
	Requests    int64     // whose cost is not known
	First, Last time.Time // first instant of the first UTC day with such a request, and first instant after the last
}

// UnpricedUsage returns the models, live or deleted, that were used without a price for what was used: those with the most
// such requests first. To price them, set their price with an effective time: [Registry.UpdateModelPricing].
func (r *Registry) UnpricedUsage(ctx context.Context) ([]UnpricedModel, error) {
	var rows []UnpricedModel
	// A CROSS JOIN, because SQLite then goes by models, and so by the index.
	err := scanRows(ctx, r.client, "SELECT m.id, m.provider_id,"+
		" (SELECT p.name FROM providers AS p WHERE p.id = m.provider_id), m.model_id, t.period_start, t.period_end, t.unpriced_count"+
		" FROM models AS m CROSS JOIN usage_totals AS t WHERE t.model_id = m.id AND t.unpriced_count > 0"+
		" ORDER BY m.id, t.period_start", nil, func(scan func(...any) error) error {
		var u UnpricedModel
		if err := scan(&u.ModelID, &u.ProviderID, &u.Provider, &u.Name, &u.First, &u.Last, &u.Requests); err != nil {
			return err
		}
		if n := len(rows); n > 0 && rows[n-1].ModelID == u.ModelID {
			rows[n-1].Last = u.Last
			rows[n-1].Requests += u.Requests
			return nil
		}
		rows = append(rows, u)
		return nil
	})
	slices.SortStableFunc(rows, func(a, b UnpricedModel) int { return int(min(max(b.Requests-a.Requests, -1), 1)) })
	return rows, translate(ctx, "unpriced usage", err)
}
