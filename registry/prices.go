package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// PriceInput describes a price of a model.
type PriceInput struct {
	// Rates are USD per one million tokens by meter name, none negative. A free model has rates of 0.
	Rates money.Rates
	// Unknown removes the price of a tier: its rates are unknown from now on, and usage is counted without a cost.
	// Rates must be empty.
	Unknown bool
	// ServiceTier is the tier that the rates are for, such as batch or priority, up to 64 characters. Defaults to
	// StandardTier.
	ServiceTier string
	// MinContextTokens is the total input from which on the rates hold. They hold for the whole request.
	MinContextTokens int64
	// Source says where the rates come from, up to 128 characters. Empty: set by hand.
	Source string
	// EffectiveFrom is when the price takes effect, from 1970 to now. Defaults to now.
	EffectiveFrom time.Time
}

func (in PriceInput) withDefaults() PriceInput {
	in.ServiceTier = cmp.Or(in.ServiceTier, StandardTier)
	if in.Rates == nil {
		in.Rates = money.Rates{}
	}
	if !in.EffectiveFrom.IsZero() {
		in.EffectiveFrom = utc.Of(in.EffectiveFrom)
	}
	return in
}

func (in PriceInput) faults(now time.Time) fault.List {
	f := judge(draft.Price.Create(), in)
	f.Check(!in.EffectiveFrom.After(now), "effective_from is in the future")
	checkRates(&f, in.Rates)
	f.Check(in.Unknown || len(in.Rates) > 0,
		"rates are empty: give rates, of 0 if the model is free, or set Unknown to remove the price")
	f.Check(!in.Unknown || len(in.Rates) == 0, "Unknown is set, but there are rates")
	return f
}

// maxRate is the highest price per one million tokens: a dollar a token.
const maxRate money.USD = rule.MaxRate

func checkRates(f *fault.List, rates money.Rates) {
	for _, name := range slices.Sorted(maps.Keys(rates)) {
		if !meter.Known(name) {
			f.Check(false, "rate of %.40q: there is no such meter", name)
			continue
		}
		f.Check(rates[name] >= 0 && rates[name] <= maxRate,
			"rate of %s %s is not between 0 and %s", name, rates[name], maxRate)
	}
}

// rate returns the rate of a meter, or nil if it is unknown.
func rate(rates money.Rates, name string) *money.USD {
	if usd, ok := rates[name]; ok {
		return &usd
	}
	return nil
}

func newPrice(tx *ent.Client, modelID uuid.UUID, in PriceInput) *ent.PriceCreate {
	return filled(tx.Price.Create(), in).SetModelID(modelID).
		SetNillableCostPer1mInput(rate(in.Rates, meter.Input)).
		SetNillableCostPer1mOutput(rate(in.Rates, meter.Output)).
		SetNillableCostPer1mCacheRead(rate(in.Rates, meter.CacheRead)).
		SetNillableCostPer1mCacheWrite(rate(in.Rates, meter.CacheWrite)).
		SetNillableCostPer1mReasoning(rate(in.Rates, meter.Reasoning))
}

// RatesOf returns the rates of a price, USD per one million tokens by meter name. It is empty if no rate is known.
func RatesOf(p *ent.Price) money.Rates { return ledger.RatesOf(p) }

// UpdateModelPricing sets a price of a live model and returns it. The price that was in effect ends when the new one
// begins. It stays in the history, as does the usage recorded at it. If the rates are the same as before, only the
// source changes, and the price in effect is returned. Unknown removes the price of a tier.
//
// Without EffectiveFrom the price holds from now on. A tier has at most one price in a microsecond, and no price begins
// before the one it follows: a second change within a microsecond, or after the clock went back, takes effect one
// microsecond after the change before it.
//
// With EffectiveFrom the price is inserted into the history, and holds until the next price there. A price that begins
// at the same instant is superseded. Then past usage is priced anew, as by [Registry.Reprice], if its cost is unknown
// and its price is no longer the one of its time. Usage with a cost keeps it until Reprice is called. In the end the
// counters of budgets are set, as by Reprice.
//
// If there is much such usage, the price is set in one transaction with some thousand requests, and the rest follows in
// pieces. Then each budget is counted. If a piece or a budget fails, the price is set, and calling again continues.
// Within a transaction all of this is one piece, and an error undoes it.
//
// It returns [ErrInvalidData] if the input breaks a rule, such as a time in the future or no rates, and [ErrNotFound]
// if there is no such live model.
func (r *Registry) UpdateModelPricing(ctx context.Context, id uuid.UUID, in PriceInput) (*ent.Price, error) {
	in = in.withDefaults()
	op := fmt.Sprintf("update pricing of model %s", id)
	past := !in.EffectiveFrom.IsZero()
	var backfill repricing
	p, err := change(ctx, r.writeAlone, op, in.faults(r.now()), func(tx *ent.Client) (*ent.Price, error) {
		if past {
			if err := r.lockBudgets(ctx, tx); err != nil {
				return nil, err
			}
		}
		if _, err := liveModel(ctx, tx, id); err != nil {
			return nil, err
		}
		p, err := changePrice(ctx, tx, id, in)
		if err != nil || !past {
			return p, err
		}
		end := timeOf(tx).Add(maxAhead)
		backfill = repricing{model: id, start: in.EffectiveFrom, end: end, unpricedAlone: true}
		return p, r.repricePiece(ctx, tx, &backfill)
	})
	if err != nil || !past {
		return p, err
	}
	if !backfill.done {
		err = translate(ctx, op, r.pause(ctx, longestPause))
	}
	if err == nil {
		err = r.reprice(ctx, op, &backfill)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; the price is set; call again to price the rest and count it in budgets", err)
	}
	return p, nil
}

// changePrice inserts a price into the history of its tier, and returns it.
func changePrice(ctx context.Context, tx *ent.Client, modelID uuid.UUID, in PriceInput) (*ent.Price, error) {
	now := timeOf(tx)
	history, err := tx.Price.Query().Where(
		price.ModelID(modelID), price.ServiceTier(in.ServiceTier), price.MinContextTokens(in.MinContextTokens),
		price.SupersededAtIsNil(), price.Or(
			price.EffectiveToIsNil(), price.EffectiveToGT(cmp.Or(in.EffectiveFrom, now)),
		),
	).Order(price.ByEffectiveFrom()).All(ctx)
	if err != nil {
		return nil, err
	}
	from := in.EffectiveFrom
	if from.IsZero() {
		from = now
		// the same microsecond, or the clock went back
		if n := len(history); n > 0 && !from.After(history[n-1].EffectiveFrom) {
			from = history[n-1].EffectiveFrom.Add(time.Microsecond)
		}
	}
	var current *ent.Price // in effect at that instant
	var to *time.Time
	for _, p := range history {
		if p.EffectiveFrom.After(from) {
			to = &p.EffectiveFrom
			break
		}
		current, to = p, p.EffectiveTo
	}
	action := ActionCreate
	if current != nil {
		action = ActionUpdate
		if maps.Equal(RatesOf(current), in.Rates) {
			return save(ctx, tx, ActionUpdate, current, current.Update().SetSource(in.Source))
		}
		closing := current.Update().SetEffectiveTo(from)
		if current.EffectiveFrom.Equal(from) {
			closing = current.Update().SetSupersededAt(now)
		}
		if err := closing.Exec(ctx); err != nil {
			return nil, err
		}
	}
	next, err := save(ctx, tx, action, current,
		newPrice(tx, modelID, in).SetEffectiveFrom(from).SetNillableEffectiveTo(to).SetRecordedAt(now))
	if err != nil || in.ServiceTier != StandardTier || in.MinContextTokens != 0 || to != nil {
		return next, err
	}
	return next, setCurrentCosts(ctx, tx, modelID, in.Rates)
}

// setCurrentCosts copies the rates of the standard price to the model.
func setCurrentCosts(ctx context.Context, tx *ent.Client, modelID uuid.UUID, rates money.Rates) error {
	update := tx.Model.UpdateOneID(modelID)
	if usd := rate(rates, meter.Input); usd != nil {
		update.SetCostPer1mInput(*usd)
	} else {
		update.ClearCostPer1mInput()
	}
	if usd := rate(rates, meter.Output); usd != nil {
		update.SetCostPer1mOutput(*usd)
	} else {
		update.ClearCostPer1mOutput()
	}
	return update.Exec(ctx)
}

// PriceAt returns the standard price of a model, live or deleted, at a time. Its rates are empty if no price was known.
// The first price of a model holds for all times before it.
//
// It returns [ErrInvalidData] if the time is outside of the years 1970 to 9999, and [ErrNotFound] if there is no such
// model.
func (r *Registry) PriceAt(ctx context.Context, modelID uuid.UUID, at time.Time) (*ent.Price, error) {
	op := fmt.Sprintf("price of model %s", modelID)
	var f fault.List
	f.Time("at", at)
	if err := f.Err(); err != nil {
		return nil, translate(ctx, op, err)
	}
	at = utc.Of(at)
	candidates, err := r.client.Price.Query().Where(
		price.ModelID(modelID), price.ServiceTier(StandardTier), price.MinContextTokens(0), price.SupersededAtIsNil(),
		price.EffectiveFromLTE(at), price.Or(price.EffectiveToIsNil(), price.EffectiveToGT(at)),
	).All(ctx)
	best := ledger.BestPrice(candidates, at, StandardTier, 0)
	if err == nil && best == nil {
		err = ErrNotFound
	}
	return tied(r, best), translate(ctx, op, err)
}

// GetPrice returns a price, also one that has ended or was superseded, such as the price of a recorded request. Prices
// are neither changed nor deleted, because usage points at them: UpdateModelPricing ends one and begins the next, and
// PurgeModel removes them with their model. It returns [ErrNotFound] if there is no such price.
func (r *Registry) GetPrice(ctx context.Context, id uuid.UUID) (*ent.Price, error) {
	p, err := r.client.Price.Get(ctx, id)
	return tied(r, p), translate(ctx, fmt.Sprintf("get price %s", id), err)
}

// PriceFilter selects the prices of a model.
type PriceFilter struct {
	ModelID uuid.UUID // live or deleted

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last price of the page before; zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl PriceFilter) Next(last *ent.Price) (PriceFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

// PriceHistory returns a page of the prices of a model, ordered by service tier, by the context size from which they
// hold, and by the time they took effect. Superseded prices are included at their place, with superseded_at set.
//
// It returns [ErrInvalidData] if the limit is out of range, and [ErrNotFound] if there is no such model, or no price
// that After names.
func (r *Registry) PriceHistory(ctx context.Context, filter PriceFilter) ([]*ent.Price, error) {
	op := fmt.Sprintf("price history of model %s", filter.ModelID)
	l := listing[uuid.UUID]{ascending(price.FieldServiceTier, price.FieldMinContextTokens, price.FieldEffectiveFrom,
		price.FieldRecordedAt, price.FieldID), filter.Limit, filter.After}
	c := l.client(r)
	page, err := list(ctx, r, op, nil, l, c.Price.Get, c.Price.Query().Where(price.ModelID(filter.ModelID)))
	if err == nil && len(page) == 0 && filter.After == uuid.Nil { // every model has a price from its beginning
		err = translate(ctx, op, ErrNotFound)
	}
	return page, err
}
