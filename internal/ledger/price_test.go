package ledger

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

func TestBestPrice(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	standard := &ent.Price{ID: uuid.New(), ServiceTier: StandardTier, EffectiveFrom: utc.Beginning, EffectiveTo: &noon}
	next := &ent.Price{ID: uuid.New(), ServiceTier: StandardTier, EffectiveFrom: noon}
	large := &ent.Price{ID: uuid.New(), ServiceTier: StandardTier, EffectiveFrom: noon, MinContextTokens: 1000}
	batch := &ent.Price{ID: uuid.New(), ServiceTier: "batch", EffectiveFrom: noon}
	all := []*ent.Price{large, standard, next, batch}
	for name, c := range map[string]struct {
		at     time.Time
		tier   string
		tokens int64
		want   *ent.Price
	}{
		"before it ends":                {at: noon.Add(-1), tier: StandardTier, tokens: 5000, want: standard},
		"when the next one begins":      {at: noon, tier: StandardTier, want: next},
		"a large context":               {at: noon, tier: StandardTier, tokens: 1000, want: large},
		"its tier":                      {at: noon, tier: "batch", tokens: 5000, want: batch},
		"the standard tier for another": {at: noon, tier: "flex", tokens: 999, want: next},
		"before the price of the tier":  {at: noon.Add(-1), tier: "batch", want: standard},
		"before there is any price":     {at: utc.Beginning.Add(-1), tier: StandardTier},
	} {
		require.Same(t, c.want, BestPrice(all, c.at, c.tier, c.tokens), name)
	}
}

func TestCostAt(t *testing.T) {
	t.Parallel()
	dollar, most := money.Dollar, money.USD(fault.MaxAmount)
	input := &ent.Price{CostPer1mInput: &dollar}
	require.Equal(t, money.Rates{meter.Input: dollar}, RatesOf(input))
	cost, err := CostAt(input, meter.Tokens{InputTokens: 2_000_000})
	require.NoError(t, err)
	require.Equal(t, 2*dollar, *cost)
	cost, err = CostAt(input, meter.Tokens{OutputTokens: 1})
	require.NoError(t, err)
	require.Nil(t, cost, "the rate is not known")
	_, err = CostAt(&ent.Price{CostPer1mInput: &most}, meter.Tokens{InputTokens: meter.MaxTokens})
	require.ErrorIs(t, err, fault.ErrInvalidData)
	require.ErrorIs(t, err, money.ErrRange)
	require.Len(t, RateCells(input), 5)
}
