package ledger

import (
	"errors"
	"time"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// StandardTier is the service tier whose price applies to tiers without one.
const StandardTier = "standard"

// BestPrice returns the price that applies to a request at an instant: of its service tier, or else of the standard
// tier; and within the tier, for the largest context that the request reaches.
func BestPrice(prices []*ent.Price, at time.Time, tier string, totalInput int64) (best *ent.Price) {
	for _, p := range prices {
		switch {
		case p.MinContextTokens > totalInput, p.EffectiveFrom.After(at),
			p.EffectiveTo != nil && !p.EffectiveTo.After(at), p.ServiceTier != tier && p.ServiceTier != StandardTier:
		case best == nil,
			p.ServiceTier == best.ServiceTier && p.MinContextTokens > best.MinContextTokens,
			p.ServiceTier == tier && best.ServiceTier != tier:
			best = p
		}
	}
	return best
}

// CostAt returns the cost of tokens at the rates of a price, nil if it is unknown. It returns fault.ErrInvalidData if
// the cost does not fit.
func CostAt(p *ent.Price, tokens meter.Tokens) (*money.USD, error) {
	cost, err := tokens.Cost(RatesOf(p))
	switch {
	case errors.Is(err, meter.ErrUnpriced):
		return nil, nil //nolint:nilnil // an unknown cost is no error
	case err != nil:
		return nil, fault.OfAmount("cost", err)
	}
	return &cost, nil
}

// CostAt returns the cost of an event at the rates of a price, as the function of this name does. The cost of unknown
// usage is unknown.
func (e *Event) CostAt(p *ent.Price) (*money.USD, error) {
	if e.Status == usageevent.UsageStatusUnknown {
		return nil, nil //nolint:nilnil // an unknown cost is no error
	}
	return CostAt(p, e.Meters())
}

// meterNames are the meters in the order of a price's columns.
var meterNames = [...]string{meter.Input, meter.Output, meter.CacheRead, meter.CacheWrite, meter.Reasoning}

// RatesOf returns the known rates of a price, USD per one million tokens by meter name.
func RatesOf(p *ent.Price) money.Rates {
	rates := make(money.Rates, len(meterNames))
	for i, usd := range [...]*money.USD{
		p.CostPer1mInput, p.CostPer1mOutput, p.CostPer1mCacheRead, p.CostPer1mCacheWrite, p.CostPer1mReasoning,
	} {
		if usd != nil {
			rates[meterNames[i]] = *usd
		}
	}
	return rates
}

// RateColumns are the rates of a price p, in the order of RateCells.
const RateColumns = "p.cost_per_1m_input, p.cost_per_1m_output, p.cost_per_1m_cache_read, p.cost_per_1m_cache_write," +
	" p.cost_per_1m_reasoning"

// RateCells are what RateColumns are scanned into.
func RateCells(p *ent.Price) []any {
	return []any{
		&p.CostPer1mInput, &p.CostPer1mOutput, &p.CostPer1mCacheRead, &p.CostPer1mCacheWrite, &p.CostPer1mReasoning,
	}
}
