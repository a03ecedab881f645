package ledger

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// TestEstimate: an estimate costs the most that its tokens can cost.
func TestEstimate(t *testing.T) {
	t.Parallel()
	rate := func(dollars int64) *money.USD { return new(money.USD(dollars) * money.Dollar) }
	usual := &ent.Price{CostPer1mInput: rate(1), CostPer1mOutput: rate(2), CostPer1mCacheRead: rate(0)}
	thinks := &ent.Price{CostPer1mInput: rate(1), CostPer1mOutput: rate(2), CostPer1mReasoning: rate(3)}
	caches := &ent.Price{CostPer1mInput: rate(4), CostPer1mOutput: rate(2), CostPer1mCacheWrite: rate(5)}
	for name, c := range map[string]struct {
		Estimate
		price *ent.Price
		want  meter.Tokens
		cost  money.USD
	}{
		"input and output":    {Estimate{100, 40}, usual, meter.Tokens{InputTokens: 60, OutputTokens: 40}, 140_000},
		"reasoning is dearer": {Estimate{100, 40}, thinks, meter.Tokens{InputTokens: 60, ReasoningTokens: 40}, 180_000},
		"output alone":        {Estimate{40, 40}, usual, meter.Tokens{OutputTokens: 40}, 80_000},
		"output unknown":      {Estimate{100, 0}, usual, meter.Tokens{OutputTokens: 100}, 200_000},
		"all reasoning":       {Estimate{100, 0}, thinks, meter.Tokens{ReasoningTokens: 100}, 300_000},
		"all to the cache":    {Estimate{100, 0}, caches, meter.Tokens{CacheWriteTokens: 100}, 500_000},
		"input alone has a rate": {
			Estimate{100, 0}, &ent.Price{CostPer1mInput: rate(1)}, meter.Tokens{InputTokens: 100}, 100_000,
		},
		"output has no rate": {
			Estimate{100, 40}, &ent.Price{CostPer1mInput: rate(1), CostPer1mReasoning: rate(9)},
			meter.Tokens{InputTokens: 60, OutputTokens: 40}, 0,
		},
		"input has no rate": {
			Estimate{100, 0}, &ent.Price{CostPer1mOutput: rate(9)}, meter.Tokens{InputTokens: 100}, 0,
		},
		"no rates": {Estimate{100, 40}, &ent.Price{}, meter.Tokens{InputTokens: 60, OutputTokens: 40}, 0},
		"more than fits": {
			Estimate{fault.MaxAmount, 0}, usual, meter.Tokens{OutputTokens: fault.MaxAmount}, fault.MaxAmount,
		},
	} {
		require.Equal(t, c.want, c.Meters(c.price), name)
		require.Equal(t, c.cost, c.Cost(c.price), name)
	}
	require.EqualValues(t, 60, Estimate{100, 40}.TotalInput())
	require.EqualValues(t, 100, Estimate{100, 0}.TotalInput(), "it may all be input")

	var e Event
	e.Suppose(Estimate{fault.MaxAmount, 0}, usual)
	require.Equal(t, meter.Tokens{OutputTokens: meter.MaxTokens}, e.Meters(), "no request uses more")
	require.EqualValues(t, "estimated", e.Status)
}
