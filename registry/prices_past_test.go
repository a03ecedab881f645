package registry_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestPriceAtPastTime puts prices into the history.
func TestPriceAtPastTime(t *testing.T) { eachEngine(t, testPriceAtPastTime) }

func testPriceAtPastTime(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	m := mustModel(t, reg, mustProvider(t, reg, "p").ID, "m", money.Rates{meter.Input: 1 * money.Dollar})
	hour := func(h int) time.Time { return registrytest.Start.Add(time.Duration(h) * time.Hour) }
	set := func(dollars money.USD, at time.Time) *ent.Price {
		p, err := reg.UpdateModelPricing(
			ctx, m.ID, registry.PriceInput{Rates: money.Rates{meter.Input: dollars * money.Dollar}, EffectiveFrom: at},
		)
		require.NoError(t, err)
		return p
	}
	at := func(h int) money.USD {
		p, err := reg.PriceAt(ctx, m.ID, hour(h))
		require.NoError(t, err)
		require.Nil(t, p.SupersededAt)
		return registry.RatesOf(p)[meter.Input] / money.Dollar
	}
	clock.Set(hour(10))
	set(2, time.Time{}) // from hour 10
	require.Equal(t, []money.USD{1, 1, 2}, []money.USD{at(0), at(9), at(10)})
	inner := set(3, hour(5))
	require.Equal(t, hour(10), *inner.EffectiveTo, "it holds until the next one")
	require.Equal(t, []money.USD{1, 1, 3, 3, 2}, []money.USD{at(0), at(4), at(5), at(9), at(10)})
	got, err := reg.GetModel(ctx, m.ID)
	require.NoError(t, err)
	require.Equal(t, 2*money.Dollar, *got.CostPer1mInput, "the current price did not change")
	set(4, hour(5))
	require.Equal(t, []money.USD{1, 4, 4, 2}, []money.USD{at(4), at(5), at(9), at(10)})
	superseded, err := reg.Client().Price.Get(ctx, inner.ID)
	require.NoError(t, err)
	require.Equal(t, clock.Now(), *superseded.SupersededAt)
	set(5, hour(10))
	got, err = reg.GetModel(ctx, m.ID)
	require.NoError(t, err)
	require.Equal(t, 5*money.Dollar, *got.CostPer1mInput)
	require.Equal(t, []money.USD{4, 5}, []money.USD{at(9), at(10)})
	set(6, time.Unix(0, 0))
	require.Equal(t, []money.USD{6, 6, 4}, []money.USD{at(-100000), at(4), at(5)})
	n := len(must(reg.PriceHistory(ctx, registry.PriceFilter{ModelID: m.ID})))
	same := set(4, hour(7))
	require.Equal(t, hour(5), same.EffectiveFrom, "the same rates")
	history, err := reg.PriceHistory(ctx, registry.PriceFilter{ModelID: m.ID})
	require.NoError(t, err)
	require.Len(t, history, n)
	var rates []money.USD
	for _, p := range history {
		rates = append(rates, registry.RatesOf(p)[meter.Input]/money.Dollar)
	}
	require.Equal(t, []money.USD{1, 6, 3, 4, 2, 5}, rates)

	// Another tier has no price before its first.
	batch, err := reg.UpdateModelPricing(
		ctx, m.ID,
		registry.PriceInput{ServiceTier: "batch", Rates: money.Rates{meter.Input: 1}, EffectiveFrom: hour(8)},
	)
	require.NoError(t, err)
	earlier, err := reg.UpdateModelPricing(
		ctx, m.ID,
		registry.PriceInput{ServiceTier: "batch", Rates: money.Rates{meter.Input: 2}, EffectiveFrom: hour(3)},
	)
	require.NoError(t, err)
	require.Equal(t, batch.EffectiveFrom, *earlier.EffectiveTo)

	for name, when := range map[string]time.Time{
		"future": clock.Now().Add(time.Microsecond), "before 1970": time.Unix(-1, 0),
	} {
		_, err := reg.UpdateModelPricing(ctx, m.ID, registry.PriceInput{Unknown: true, EffectiveFrom: when})
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
	}
	_, err = reg.PriceHistory(ctx, registry.PriceFilter{ModelID: uuid.New()})
	require.ErrorIs(t, err, registry.ErrNotFound)
}
