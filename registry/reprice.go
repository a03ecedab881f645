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
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// RepriceInput says which usage to price anew.
type RepriceInput struct {
	ModelID    uuid.UUID // the model's id, live or deleted
	Start, End time.Time // from Start until before End. Default to the beginning and to now
	DryRun     bool      // change nothing, only report
}

// RepriceResult is what became of usage.
type RepriceResult struct {
	Start, End    time.Time // the range that was looked at, in whole quarters of an hour, or days, UTC
	Requests      int64     // whose price changed
	Before        money.USD `json:"BeforeUSD"` // what they cost, as far as that was known
	After         money.USD `json:"AfterUSD"`
	Priced        int64     // those of them whose cost was not known
	StillUnpriced int64     // requests whose cost is not known even so; they were left as they are
}

// Reprice prices the past usage of a model anew where its price is no longer the one of its time: where that
// was superseded, or shortened, by a price with an earlier effective time. Usage stays in its service tier and
// context size. Usage whose price is still in effect is left alone, and so is usage for which the price of its
// time lacks a rate.
//
// A request that has its event still is priced by its own time and rounded by itself. Where events are gone, a quarter
// of an hour is priced as a whole, by the price in effect at its beginning, and where quarters are gone, a UTC day:
// its tokens at that price's rates, rounded once. A period in which its own price is in effect at least for a part
// stays at that.
//
// It goes through the usage by time, in pieces of some thousand requests. Each piece is a transaction that moves
// events, periods and totals together, and leaves an entry of its difference in the audit trail. Others read and
// record between two pieces: they see what lies before at the new price, and what lies after at the old one, in a
// ledger without differences. After an error, what was done stays done and is in the report, and another call goes on
// there. Within a transaction it is one piece, and all is undone on an error. A dry run writes nothing and keeps no
// writer waiting.
//
// It returns [ErrInvalidData], also for a cost that does not fit; [ErrNotFound]; or [ErrCorrupt] for quarters that
// are not the sum of their events.
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

// target returns the price that usage of a stretch of time moves to: none if its own is in effect then, or if there is
// no other.
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
func (p *repricing) move(
	from uuid.UUID, start, end time.Time, s ledger.Sums,
) (to uuid.UUID, cost money.USD, moved bool, err error) {
	q := p.target(from, start, end)
	if q == nil || p.unpricedAlone && s.Unpriced == 0 {
		p.piece.StillUnpriced += s.Unpriced
		return uuid.Nil, 0, false, nil
	}
	known, err := ledger.CostAt(q, s.Meters())
	if err != nil {
		return uuid.Nil, 0, false, err
	}
	if known == nil {
		p.piece.StillUnpriced += s.Unpriced
		return uuid.Nil, 0, false, nil
	}
	p.piece.Requests += s.Requests
	p.piece.Priced += s.Unpriced
	if p.piece.Before, err = money.Sum(p.piece.Before, s.Cost); err == nil {
		p.piece.After, err = money.Sum(p.piece.After, *known)
	}
	if err != nil {
		return uuid.Nil, 0, false, fmt.Errorf("%w: %w", fault.ErrOverflow, err)
	}
	return q.ID, *known, true, nil
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

// UnpricedUsage returns the models, live or deleted, that were used without a price for what was used: those with the
// most such requests first. To price them, set their price with an effective time: [Registry.UpdateModelPricing]. It
// is a report and no page: it has a row for each such model at the most, few beside the days that it adds up, and its
// order is known when all have been.
func (r *Registry) UnpricedUsage(ctx context.Context) ([]UnpricedModel, error) {
	var rows []UnpricedModel
	// A CROSS JOIN, because SQLite then goes by models, and so by the index.
	err := bulk.Scan(ctx, r.client, "SELECT m.id, m.provider_id,"+
		" (SELECT p.name FROM providers AS p WHERE p.id = m.provider_id), m.model_id, t.period_start, t.period_end,"+
		" t.unpriced_count"+
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
