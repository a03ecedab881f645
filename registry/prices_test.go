package registry_test

import (
	"testing"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

func TestUpdateModelPricing(t *testing.T) { eachEngine(t, testUpdateModelPricing) }

func testUpdateModelPricing(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "openai")
	m := mustModel(t, reg, p.ID, "gpt-4", gpt4())
	cheaper := money.Rates{meter.Input: 10 * money.Dollar, meter.CacheRead: money.Dollar}

	t.Run("OK", func(t *testing.T) {
		clock.Advance(time.Hour)
		next, err := reg.UpdateModelPricing(t.Context(), m.ID, registry.PriceInput{Rates: cheaper, Source: "list"})
		require.NoError(t, err)
		require.Equal(t, clock.Now(), next.EffectiveFrom)
		require.Nil(t, next.EffectiveTo)

		before, err := reg.PriceAt(t.Context(), m.ID, clock.Now().Add(-time.Microsecond))
		require.NoError(t, err)
		require.Equal(t, gpt4(), registry.RatesOf(before), "history stays")
		require.Equal(t, clock.Now(), *before.EffectiveTo)
		after, err := reg.PriceAt(t.Context(), m.ID, clock.Now())
		require.NoError(t, err)
		require.Equal(t, cheaper, registry.RatesOf(after))
		require.Equal(t, "list", after.Source)
		got, err := reg.GetModel(t.Context(), m.ID)
		require.NoError(t, err)
		require.Equal(t, 10*money.Dollar, *got.CostPer1mInput)
		require.Nil(t, got.CostPer1mOutput, "no longer known")
		require.Equal(t, clock.Now(), got.UpdatedAt)
	})
	t.Run("the first price held before", func(t *testing.T) {
		first, err := reg.PriceAt(t.Context(), m.ID, registrytest.Start.AddDate(-10, 0, 0))
		require.NoError(t, err)
		require.Equal(t, gpt4(), registry.RatesOf(first))
		for _, at := range []time.Time{time.Unix(-1, 0), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)} {
			_, err = reg.PriceAt(t.Context(), m.ID, at)
			require.ErrorIs(t, err, registry.ErrInvalidData)
		}
	})
	t.Run("the same rates change nothing", func(t *testing.T) {
		clock.Advance(time.Hour)
		n, err := reg.Client().Price.Query().Count(t.Context())
		require.NoError(t, err)
		same, err := reg.UpdateModelPricing(t.Context(), m.ID, registry.PriceInput{Rates: cheaper})
		require.NoError(t, err)
		require.Empty(t, same.Source, "but it is set by hand now")
		require.Equal(t, clock.Now().Add(-time.Hour), same.EffectiveFrom)
		again, err := reg.Client().Price.Query().Count(t.Context())
		require.NoError(t, err)
		require.Equal(t, n, again)
	})
	t.Run("another tier leaves the model's own price", func(t *testing.T) {
		_, err := reg.UpdateModelPricing(t.Context(), m.ID, registry.PriceInput{ServiceTier: "batch", Rates: gpt4()})
		require.NoError(t, err)
		got, err := reg.GetModel(t.Context(), m.ID)
		require.NoError(t, err)
		require.Equal(t, 10*money.Dollar, *got.CostPer1mInput)
		at, err := reg.PriceAt(t.Context(), m.ID, clock.Now())
		require.NoError(t, err)
		require.Equal(t, cheaper, registry.RatesOf(at))
	})
	t.Run("twice at one instant, and when the clock goes back", func(t *testing.T) {
		for i := range 3 {
			_, err := reg.UpdateModelPricing(
				t.Context(), m.ID, registry.PriceInput{Rates: money.Rates{meter.Input: money.USD(i)}},
			)
			require.NoError(t, err)
		}
		clock.Advance(-30 * time.Minute)
		last, err := reg.UpdateModelPricing(t.Context(), m.ID, registry.PriceInput{Rates: money.Rates{meter.Input: 77}})
		require.NoError(t, err)
		prices, err := reg.Client().Price.Query().
			Where(price.ModelID(m.ID), price.ServiceTier(registry.StandardTier)).
			Order(price.ByEffectiveFrom()).All(t.Context())
		require.NoError(t, err)
		for i, p := range prices[:len(prices)-1] {
			require.Equal(t, prices[i+1].EffectiveFrom, *p.EffectiveTo, "no gap, no overlap")
			require.True(t, p.EffectiveFrom.Before(*p.EffectiveTo))
		}
		require.Equal(t, last.ID, prices[len(prices)-1].ID)
	})
	t.Run("Err", func(t *testing.T) {
		for name, in := range map[string]registry.PriceInput{
			"negative":    {Rates: money.Rates{meter.Input: -1}},
			"overflowing": {Rates: money.Rates{meter.Input: money.Max}},
			"meter":       {Rates: money.Rates{"": 1}},
			"tier":        {ServiceTier: "a\nb"},
			"context":     {MinContextTokens: -1},
			"source":      {Source: "\xff"},
		} {
			in.Unknown = in.Rates == nil
			_, err := reg.UpdateModelPricing(t.Context(), m.ID, in)
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
		}
		_, err := reg.UpdateModelPricing(t.Context(), uuid.New(), registry.PriceInput{Unknown: true})
		require.ErrorIs(t, err, registry.ErrNotFound)
		_, err = reg.PriceAt(t.Context(), uuid.New(), clock.Now())
		require.ErrorIs(t, err, registry.ErrNotFound)
	})
}

// TestUnknownPrice takes a model's price away, which has to be asked for by name.
func TestUnknownPrice(t *testing.T) { eachEngine(t, testUnknownPrice) }

func testUnknownPrice(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "openai")
	m := mustModel(t, reg, p.ID, "gpt-4", gpt4())
	k := mustKey(t, reg, p.ID, 1)

	t.Run("Err", func(t *testing.T) {
		for name, in := range map[string]registry.PriceInput{
			"nothing":      {},
			"nil":          {ServiceTier: "batch", Source: "list"},
			"empty":        {Rates: money.Rates{}},
			"of the past":  {EffectiveFrom: clock.Now().Add(-time.Hour)},
			"of a context": {MinContextTokens: 1000},
		} {
			_, err := reg.UpdateModelPricing(t.Context(), m.ID, in)
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
			require.ErrorContains(t, err, "set Unknown", name)
		}
		_, err := reg.UpdateModelPricing(t.Context(), m.ID, registry.PriceInput{Rates: gpt4(), Unknown: true})
		require.ErrorIs(t, err, registry.ErrInvalidData)
		history, err := reg.PriceHistory(t.Context(), registry.PriceFilter{ModelID: m.ID})
		require.NoError(t, err)
		require.Len(t, history, 1)
		require.Equal(t, gpt4(), registry.RatesOf(history[0]))
	})
	t.Run("OK", func(t *testing.T) {
		clock.Advance(time.Hour)
		none, err := reg.UpdateModelPricing(t.Context(), m.ID, registry.PriceInput{Unknown: true})
		require.NoError(t, err)
		require.Empty(t, registry.RatesOf(none))
		got, err := reg.GetModel(t.Context(), m.ID)
		require.NoError(t, err)
		require.Nil(t, got.CostPer1mInput)
		require.Nil(t, got.CostPer1mOutput)
		record(t, reg, m, k, 10, 10)
		stats, err := reg.GetUsageStats(t.Context(), m.ID, clock.Now(), clock.Now().Add(time.Minute))
		require.NoError(t, err)
		require.EqualValues(t, 1, stats.UnpricedRequests)
	})
}

// TestPriceOfARequest records requests that differ in tier and size, and looks at what they cost.
func TestPriceOfARequest(t *testing.T) { eachEngine(t, testPriceOfARequest) }

func testPriceOfARequest(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "openai")
	k := mustKey(t, reg, p.ID, 1)
	m := mustModel(t, reg, p.ID, "m", money.Rates{meter.Input: 1_000_000})
	for _, in := range []registry.PriceInput{
		{MinContextTokens: 200, Rates: money.Rates{meter.Input: 2_000_000}},
		{MinContextTokens: 1000, Rates: money.Rates{meter.Input: 3_000_000}},
		{ServiceTier: "batch", Rates: money.Rates{meter.Input: 500_000}},
		{ServiceTier: "priority", MinContextTokens: 500, Rates: money.Rates{meter.Input: 9_000_000}},
	} {
		_, err := reg.UpdateModelPricing(t.Context(), m.ID, in)
		require.NoError(t, err)
	}
	clock.Advance(time.Hour)
	var total money.USD
	for _, test := range []struct {
		tier   string
		tokens meter.Tokens
		want   money.USD
	}{
		{"", meter.Tokens{InputTokens: 199}, 199},
		{"", meter.Tokens{InputTokens: 200}, 400},
		{"", meter.Tokens{InputTokens: 100, CacheReadTokens: 60, CacheWriteTokens: 40}, 400}, // cached input counts
		{"", meter.Tokens{InputTokens: 1500}, 4500},                                          // the whole request
		{"batch", meter.Tokens{InputTokens: 1500}, 750},
		{"priority", meter.Tokens{InputTokens: 500}, 4500},
		{"priority", meter.Tokens{InputTokens: 300}, 600}, // too small for its tier: the standard one
		{"unheard-of", meter.Tokens{InputTokens: 100}, 100},
	} {
		require.NoError(t, reg.RecordUsage(t.Context(), registry.UsageInput{
			ModelID: m.ID, APIKeyID: k.ID, Tokens: test.tokens, ServiceTier: test.tier,
		}))
		stats, err := reg.GetUsageStats(t.Context(), m.ID, clock.Now(), clock.Now().Add(time.Minute))
		require.NoError(t, err)
		require.Equal(t, test.want, stats.TotalCost-total, "%s %+v", test.tier, test.tokens)
		total = stats.TotalCost
	}
}

// TestPricesByRate asks for prices by their rates, and sorts them, in Ent.
func TestPricesByRate(t *testing.T) { eachEngine(t, testPricesByRate) }

func testPricesByRate(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	p := mustProvider(t, reg, "openai")
	all := money.Rates{
		meter.Input: 37_500_000_000, meter.Output: 5, meter.CacheRead: 4, meter.CacheWrite: 1_000_000 * money.Dollar,
		meter.Reasoning: 0,
	}
	for id, rates := range map[string]money.Rates{
		"all": all, "cheap": {
			meter.Input: 1, meter.Output: 7,
		}, "dear": {meter.Input: 100 * money.Dollar}, "free": {meter.Input: 0}, "unknown": nil,
	} {
		mustModel(t, reg, p.ID, id, rates)
	}
	names := func(where ...predicate.Price) (list []string) {
		prices, err := reg.Client().Price.Query().Where(where...).WithModel().
			Order(price.ByCostPer1mInput(sql.OrderNullsLast()), price.ByID()).All(t.Context())
		require.NoError(t, err)
		for _, p := range prices {
			list = append(list, p.Edges.Model.ModelID)
		}
		return list
	}
	require.Equal(t, []string{"free", "cheap", "all", "dear", "unknown"}, names())
	require.Equal(t, []string{"all", "dear"}, names(price.CostPer1mInputGTE(37_500_000_000)))
	require.Equal(t, []string{"unknown"}, names(price.CostPer1mInputIsNil()))
	require.Equal(t, []string{"all"}, names(price.CostPer1mOutputLT(6)))
	require.Equal(t, []string{"all"}, names(price.CostPer1mCacheRead(4)))
	require.Equal(t, []string{"all"}, names(price.CostPer1mCacheWriteGT(999_999*money.Dollar)))
	require.Equal(t, []string{"all"}, names(price.CostPer1mReasoning(0)))
	require.Equal(
		t, all, registry.RatesOf(reg.Client().Price.Query().Where(price.CostPer1mOutput(5)).OnlyX(t.Context())),
	)

	m, err := reg.FindModel(t.Context(), p.ID, "all")
	require.NoError(t, err)
	_, err = reg.Client().ExecContext(
		t.Context(), "UPDATE prices SET cost_per_1m_reasoning = -1 WHERE model_id = $1", m.ID,
	)
	require.ErrorContains(t, err, "prices_rates")
}
