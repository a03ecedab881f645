package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// RepriceInput says which usage to price anew.
type RepriceInput struct {
	ModelID    uuid.UUID // the model's id, live or deleted
	Start, End time.Time // from Start until before End. They default to the beginning and to now
	DryRun     bool      // report what would change, and change nothing
}

// RepriceResult says what repricing has changed.
type RepriceResult struct {
	Start, End    time.Time // the range that was examined, in whole quarters of an hour or whole days, UTC
	Requests      int64     // requests whose price changed
	Before        money.USD `json:"BeforeUSD"` // their known cost before
	After         money.USD `json:"AfterUSD"`  // their cost now
	Priced        int64     // those of them whose cost was unknown before
	StillUnpriced int64     // requests whose cost is still unknown; they were left alone
}

// Reprice prices past usage of a model anew where its price is no longer the one of its time, because that price was
// superseded, or was cut short by a price with an earlier effective time. Usage stays in its service tier and context
// size. Usage is left alone if its price is still in effect, or if the price of its time lacks a rate. Requests whose
// usage is unknown stay without a cost.
//
// It uses the finest grain that is kept:
//
//   - A request with an event is priced by its own time and rounded by itself.
//   - Where events are gone, a quarter of an hour is priced as a whole: its tokens at the rates in effect at its
//     beginning, rounded once. The costs of retries, and of requests for which the provider says a cost, keep their
//     shares of it.
//   - Where quarters are gone, so is a UTC day.
//
// Usage by consumers and tags follows. Where events are gone, nobody knows which requests were whose: the values of a
// dimension share what the model's usage of a period costs, and the requests that still have no cost.
//
// In the end the counters of budgets, in the windows that have not ended, are set to what their usage costs now, and
// thresholds that are passed are noted. Others wait for one budget at a time.
//
// A period keeps its price if that is in effect for at least a part of it.
//
// Reprice works by time, in pieces of some thousand requests. Each piece is a transaction that changes events, periods
// and totals together, and records the difference in the audit trail. Between pieces others read and record. They see
// the new prices before the current point and the old ones after it, in a ledger that adds up.
//
// After an error, what was done stays and is in the result; call Reprice again to continue. Within a transaction it is
// one piece, and an error undoes all of it. A dry run writes nothing and keeps no writer waiting.
//
// Errors:
//
//   - [ErrInvalidData]: the range is empty, or a cost would overflow
//   - [ErrNotFound]: there is no such model
//   - [ErrCorrupt]: a quarter is not the sum of its events
func (r *Registry) Reprice(ctx context.Context, in RepriceInput) (RepriceResult, error) {
	op := fmt.Sprintf("reprice usage of model %s", in.ModelID)
	p := repricing{model: in.ModelID, start: utc.Clamp(in.Start), end: utc.Clamp(in.End), dry: in.DryRun}
	if in.End.IsZero() {
		p.end = r.now().Add(maxAhead)
	}
	var f fault.List
	f.Span(p.start, p.end)
	if err := f.Err(); err != nil {
		return RepriceResult{}, translate(ctx, op, err)
	}
	exists, err := r.fresh.Model.Query().Where(model.ID(in.ModelID)).Exist(ctx)
	if err != nil || !exists {
		return RepriceResult{}, translate(ctx, op, cmp.Or(err, ErrNotFound))
	}
	err = r.reprice(ctx, op, &p)
	return p.report, err
}

// target returns the price that usage of a stretch of time should have. It is nil if its own price is in effect then,
// or if there is no other price.
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

// move moves the usage of a period, and of its day, to the price of a stretch of time. It returns that price, and the
// usage as it is then; moved is false if it stays as it is.
func (p *repricing) move(
	of ledger.Period, start, end time.Time, was ledger.Sums,
) (to uuid.UUID, is ledger.Sums, moved bool, err error) {
	if to, is, err = p.priceAnew(of.Price, start, end, was); err != nil || to == uuid.Nil {
		p.piece.StillUnpriced += was.Unpriced
		return uuid.Nil, was, false, err
	}
	err = p.piece.add(RepriceResult{
		Requests: was.Requests, Priced: was.Unpriced - is.Unpriced, StillUnpriced: is.Unpriced, Before: was.Cost,
		After: is.Cost,
	})
	if err == nil {
		err = p.shift(of, was, to, is)
	}
	if err == nil && of.Grain != ledger.DayGrain {
		err = p.shift(of.Day(), was, to, is)
	}
	return to, is, err == nil, err
}

// priceAnew returns the price that usage should have, and the usage at that price; a zero id if it stays as it is.
func (p *repricing) priceAnew(
	from uuid.UUID, start, end time.Time, was ledger.Sums,
) (to uuid.UUID, is ledger.Sums, err error) {
	q := p.target(from, start, end)
	if q == nil || was.Requests == was.Unknown || p.unpricedAlone && was.Unpriced == was.Unknown {
		return uuid.Nil, was, nil
	}
	known, err := ledger.CostAt(q, was.Meters())
	if err != nil || known == nil {
		return uuid.Nil, was, err
	}
	is = was
	is.Reprice(*known)
	return q.ID, is, nil
}

// repricing is the state of pricing usage anew.
type repricing struct {
	model         uuid.UUID
	start, end    time.Time
	unpricedAlone bool // leave usage with a known cost alone
	dry           bool // write nothing

	at     time.Time // everything before this is done
	after  uuid.UUID // and so are events up to this one, unless zero
	done   bool
	report RepriceResult

	// The piece that is under way:

	piece RepriceResult
	most  int // the most rows of the piece
	ledger.Horizons
	prices map[uuid.UUID]*ent.Price // all prices of the model
	book   *dimension.Book
	folded uuid.UUID              // the last event that is in the sums by value
	days   map[ledger.Period]bool // of consumers, in which usage was moved
	moves                         // of the step that is under way
}

// add adds another result, such as that of a piece.
func (report *RepriceResult) add(piece RepriceResult) (err error) {
	report.Requests += piece.Requests
	report.Priced += piece.Priced
	report.StillUnpriced += piece.StillUnpriced
	if report.Before, err = money.Sum(report.Before, piece.Before); err == nil {
		report.After, err = money.Sum(report.After, piece.After)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", fault.ErrOverflow, err)
	}
	return err
}

// moves are the changes of usage that moves from one price to another.
type moves struct {
	less, more byPeriod // to subtract from periods, and to add to them
	whole      byPeriod // what some periods must be before, without histograms
	events     [][]any  // price, cost, status and id of each event
}

type byPeriod map[ledger.Period]ledger.Sums

// shift notes that usage moves from a period to that of another price, and within their totals.
func (m *moves) shift(from ledger.Period, was ledger.Sums, to uuid.UUID, is ledger.Sums) error {
	p := from
	p.Price = to
	for _, one := range []struct {
		of byPeriod
		ledger.Period
		ledger.Sums
	}{{m.less, from, was}, {m.more, p, is}, {m.less, from.Total(), was}, {m.more, p.Total(), is}} {
		if from.ByValue && one.IsTotal() {
			continue // the totals are those of keys
		}
		s := one.of[one.Period]
		if err := s.Merge(one.Sums); err != nil {
			return err
		}
		one.of[one.Period] = s
	}
	return nil
}

// moveEvent moves an event, if its price is not the one of its time. For an event of a whole quarter, it also adds up
// what the quarter must be.
func (p *repricing) moveEvent(e *ledger.Event, whole bool) error {
	of, was := e.Quarter(), e.Sums()
	if whole {
		for _, q := range []ledger.Period{of, of.Total()} {
			s := p.whole[q]
			if err := s.MergeNumbers(&was); err != nil {
				return err
			}
			p.whole[q] = s
		}
	}
	to, is, moved, err := p.move(of, e.At, e.At.Add(time.Microsecond), was)
	if moved {
		p.events = append(p.events, []any{to, int64(is.Cost), string(usageevent.CostStatusRepriced), e.ID})
		err = p.moveInValues(e, was, to, is)
	}
	return err
}

// UnpricedModel is a model with usage whose cost is unknown.
type UnpricedModel struct {
	ModelID    uuid.UUID
	ProviderID uuid.UUID
	Provider   string // the provider's name
	Name       string // the provider's name for the model, model_id
	Requests   int64  // requests whose cost is unknown
	// UnknownUsage is how many of them have no cost because their usage is unknown: no price changes that.
	UnknownUsage int64
	First, Last  time.Time // from the first UTC day with such a request until the end of the last one
}

// UnpricedUsage returns the models, live or deleted, with usage whose cost is unknown. The models with the most such
// requests come first. To price their usage, set their price with an effective time: [Registry.UpdateModelPricing].
//
// It is a report, not a list with pages: it has at most one row for each model, and their order is known only when all
// days have been added up.
func (r *Registry) UnpricedUsage(ctx context.Context) ([]UnpricedModel, error) {
	var rows []UnpricedModel
	// CROSS JOIN makes SQLite begin with the models, and so use the index.
	err := bulk.Scan(ctx, r.client, "SELECT m.id, m.provider_id,"+
		" (SELECT p.name FROM providers AS p WHERE p.id = m.provider_id), m.model_id, t.period_start, t.period_end,"+
		" t.unpriced_count, t.unknown_count"+
		" FROM models AS m CROSS JOIN usage_totals AS t WHERE t.model_id = m.id AND t.unpriced_count > 0"+
		" ORDER BY m.id, t.period_start", nil, func(scan func(...any) error) error {
		var u UnpricedModel
		err := scan(
			&u.ModelID, &u.ProviderID, &u.Provider, &u.Name, &u.First, &u.Last, &u.Requests, &u.UnknownUsage)
		if err != nil {
			return err
		}
		if n := len(rows); n > 0 && rows[n-1].ModelID == u.ModelID {
			rows[n-1].Last = u.Last
			rows[n-1].Requests += u.Requests
			rows[n-1].UnknownUsage += u.UnknownUsage
			return nil
		}
		rows = append(rows, u)
		return nil
	})
	slices.SortStableFunc(rows, func(a, b UnpricedModel) int { return cmp.Compare(b.Requests, a.Requests) })
	return rows, translate(ctx, "unpriced usage", err)
}
