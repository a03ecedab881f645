package registry

import (
	"context"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// EventFilter selects recorded requests. All conditions must hold; a zero condition is ignored.
type EventFilter struct {
	ModelID   uuid.UUID
	APIKeyID  uuid.UUID
	RequestID string
	// AttemptGroup selects the attempts of one user's request. There is no index of it: give Start and End, too.
	AttemptGroup string
	Start        time.Time // the first instant
	End          time.Time // the first instant after it
	Failed       bool      // only failed requests
	Unpriced     bool      // only requests whose cost is unknown

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last event of the page before; older ones follow. Zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl EventFilter) Next(last *ent.UsageEvent) (EventFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

func (fl EventFilter) faults() (f fault.List) {
	f.Text("request_id", fl.RequestID, 0, maxRequestID)
	f.Text("attempt_group", fl.AttemptGroup, 0, maxAttemptGroup)
	if !fl.Start.IsZero() && !fl.End.IsZero() {
		f.Span(utc.Clamp(fl.Start), utc.Clamp(fl.End))
	}
	checkLimit(&f, fl.Limit)
	return f
}

func (fl EventFilter) predicates() []predicate.UsageEvent {
	return append(matching[predicate.UsageEvent](fl), wanted([]condition[predicate.UsageEvent]{
		{!fl.Start.IsZero(), usageevent.IDGTE(ledger.FirstEventID(utc.Clamp(fl.Start)))},
		{!fl.End.IsZero(), usageevent.IDLT(ledger.FirstEventID(utc.Clamp(fl.End)))},
		{fl.Failed, usageevent.Success(false)},
		{fl.Unpriced, usageevent.CostIsNil()},
		{fl.After != uuid.Nil, usageevent.IDLT(fl.After)},
	})...)
}

// ListUsageEvents returns a page of recorded requests that Prune has not removed, newest first. Requests of one key are
// found through the quarters of an hour in which the key was used, so only as long as those are kept. The event that
// After names need not exist any more.
//
// It returns [ErrInvalidData] if the filter breaks a rule, or its end is not after its start.
func (r *Registry) ListUsageEvents(ctx context.Context, filter EventFilter) ([]*ent.UsageEvent, error) {
	if err := filter.faults().Err(); err != nil {
		return nil, translate(ctx, "list usage events", err)
	}
	limit := pageSize(filter.Limit)
	var page []*ent.UsageEvent
	var err error
	if filter.APIKeyID != uuid.Nil && filter.RequestID == "" {
		page, err = r.eventsOfKey(ctx, filter, limit)
	} else {
		page, err = r.listEvents(ctx, filter, limit)
	}
	return allTied(r, page), translate(ctx, "list usage events", err)
}

// listEvents reads up to limit events that match the filter and further predicates.
func (r *Registry) listEvents(
	ctx context.Context, filter EventFilter, limit int, also ...predicate.UsageEvent,
) ([]*ent.UsageEvent, error) {
	return r.client.UsageEvent.Query().Where(filter.predicates()...).Where(also...).
		Order(usageevent.ByID(sql.OrderDesc())).Limit(limit).All(ctx)
}

// quartersAtOnce is the number of rows of quarters that eventsOfKey reads at a time.
const quartersAtOnce = 1000

// eventsOfKey reads events of one key. There is no index of events by key: the quarters in which the key was used say
// where to look, and nothing is read in between.
func (r *Registry) eventsOfKey(ctx context.Context, filter EventFilter, limit int) (page []*ent.UsageEvent, err error) {
	for until := utc.End; ; {
		quarters, err := r.client.UsageQuarter.Query().Where(filter.quarters()...).
			Where(usagequarter.PeriodStartLTE(until)).
			Order(usagequarter.ByPeriodStart(sql.OrderDesc())).Limit(quartersAtOnce).
			Select(usagequarter.FieldPeriodStart).All(ctx)
		if err != nil {
			return nil, err
		}
		for i := 0; i < len(quarters) && len(page) < limit; {
			from, to := quarters[i].PeriodStart, quarters[i].PeriodStart.Add(utc.Quarter)
			for ; i < len(quarters) && !quarters[i].PeriodStart.Before(from.Add(-utc.Quarter)); i++ {
				from = quarters[i].PeriodStart
			}
			some, err := r.listEvents(
				ctx, filter, limit-len(page), usageevent.IDGTE(ledger.FirstEventID(from)),
				usageevent.IDLT(ledger.FirstEventID(to)),
			)
			if err != nil {
				return nil, err
			}
			page = append(page, some...)
		}
		if len(quarters) < quartersAtOnce || len(page) == limit {
			return page, nil
		}
		until = quarters[len(quarters)-1].PeriodStart.Add(-utc.Quarter)
	}
}

// quarters selects the quarters in which the key has requests that match the filter.
func (fl EventFilter) quarters() []predicate.UsageQuarter {
	return wanted([]condition[predicate.UsageQuarter]{
		{true, usagequarter.APIKeyID(fl.APIKeyID)},
		{fl.ModelID != uuid.Nil, usagequarter.ModelID(fl.ModelID)},
		{!fl.Start.IsZero(), usagequarter.PeriodStartGT(utc.Clamp(fl.Start).Add(-utc.Quarter))},
		{!fl.End.IsZero(), usagequarter.PeriodStartLT(utc.Clamp(fl.End))},
		{fl.Failed, usagequarter.ErrorCountGT(0)},
		{fl.Unpriced, usagequarter.UnpricedCountGT(0)},
		{fl.After != uuid.Nil, usagequarter.PeriodStartLTE(utc.Clamp(ledger.EventTime(fl.After)))},
	})
}
