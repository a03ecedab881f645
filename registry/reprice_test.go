package registry_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestReprice corrects a price, with events, from quarters and from days alone.
func TestReprice(t *testing.T) { eachEngine(t, testReprice) }

func testReprice(t *testing.T, e engine) {
	t.Parallel()
	for name, left := range map[string]struct{ events, quarters bool }{
		"events": {true, true}, "quarters": {false, true}, "days": {false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, clock := e.setup(t)
			ctx := t.Context()
			p := mustProvider(t, reg, "p")
			m := mustModel(t, reg, p.ID, "m", money.Rates{meter.Input: 1_000_000})
			other := mustModel(t, reg, p.ID, "other", gpt4())
			keys := []*ent.APIKey{mustKey(t, reg, p.ID, 1), mustKey(t, reg, p.ID, 2)}
			midnight := registrytest.Start.Truncate(24 * time.Hour)
			clock.Set(midnight.AddDate(0, 0, 4))
			// A request a quarter for three days, of a third of a nano-dollar more at the corrected price.
			for i := range 96 * 3 {
				require.NoError(t, reg.RecordUsage(ctx, registry.UsageInput{
					ModelID: m.ID, APIKeyID: keys[i%2].ID,
					At:     midnight.Add(time.Duration(i)*15*time.Minute + time.Minute),
					Tokens: meter.Tokens{InputTokens: 100}, Latency: time.Duration(i) * time.Millisecond,
				}))
			}
			record(t, reg, other, keys[0], 1, 1)
			forget(t, reg, left.events, left.quarters, midnight.AddDate(0, 0, 4))
			requireLedger(t, reg)
			stats := func() registry.UsageStats {
				s, err := reg.GetUsageStats(ctx, m.ID, midnight, midnight.AddDate(0, 0, 4))
				require.NoError(t, err)
				return s
			}
			was := stats()
			require.Equal(t, money.USD(96*3*100), was.TotalCost)

			// From the second day on it should have been two and a third nano-dollars a token.
			day := midnight.AddDate(0, 0, 1)
			_, err := reg.UpdateModelPricing(
				ctx, m.ID, registry.PriceInput{Rates: money.Rates{meter.Input: 2_333_333}, EffectiveFrom: day},
			)
			require.NoError(t, err)
			require.Equal(t, was, stats(), "what had a cost keeps it")
			before := dump(t, reg)
			dry, err := reg.Reprice(ctx, registry.RepriceInput{ModelID: m.ID, DryRun: true})
			require.NoError(t, err)
			require.Equal(t, before, dump(t, reg), "a dry run changes nothing")
			entries := len(must(reg.ListAudit(ctx, registry.AuditFilter{})))
			wet, err := reg.As("alice").Reprice(ctx, registry.RepriceInput{ModelID: m.ID})
			require.NoError(t, err)
			require.Equal(t, dry, wet)
			require.EqualValues(t, 96*2, wet.Requests)
			require.Equal(t, money.USD(96*2*100), wet.Before)
			want := money.USD(96 * 2 * 233) // each request rounded by itself: 233.3333
			if !left.quarters {
				want = 4 * 11200 // 48 requests of a key a day: 11199.9984
			}
			require.Equal(t, want, wet.After)
			got := stats()
			require.Equal(t, was.TotalCost+wet.After-wet.Before, got.TotalCost)
			got.TotalCost = was.TotalCost
			require.Equal(t, was, got, "nothing else changed")
			requireLedger(t, reg)

			trail := must(reg.ListAudit(ctx, registry.AuditFilter{}))
			require.Len(t, trail, entries+1)
			require.Equal(t, []string{"alice", registry.ActionReprice, registry.EntityModel, m.ID.String()},
				[]string{trail[0].Actor, trail[0].Action, trail[0].Entity, trail[0].EntityID})
			var told registry.RepriceResult
			require.NoError(t, json.Unmarshal(trail[0].After, &told))
			require.Equal(t, wet, told)

			again, err := reg.Reprice(ctx, registry.RepriceInput{ModelID: m.ID})
			require.NoError(t, err)
			require.Zero(t, again.Requests)
			require.Len(t, must(reg.ListAudit(ctx, registry.AuditFilter{})), entries+1)
			if left.events {
				n := must(
					reg.Client().UsageEvent.Query().Where(usageevent.CostStatusEQ(usageevent.CostStatusRepriced)).
						Count(ctx),
				)
				require.Equal(t, 96*2, n)
			}
		})
	}
}

// TestRepriceRefuses has ledgers and questions that are no good.
func TestRepriceRefuses(t *testing.T) { eachEngine(t, testRepriceRefuses) }

func testRepriceRefuses(t *testing.T, e engine) {
	t.Run("Err of a damaged ledger", func(t *testing.T) {
		t.Parallel()
		reg, clock := e.setup(t)
		ctx := t.Context()
		p := mustProvider(t, reg, "p")
		m, k := mustModel(t, reg, p.ID, "m", gpt4()), mustKey(t, reg, p.ID, 1)
		record(t, reg, m, k, 1, 1)
		record(t, reg, m, k, 2, 2)
		_, err := reg.UpdateModelPricing(
			ctx, m.ID,
			registry.PriceInput{Rates: money.Rates{meter.Input: 1, meter.Output: 1}, EffectiveFrom: clock.Now()},
		)
		require.NoError(t, err)
		one := must(reg.ListUsageEvents(ctx, registry.EventFilter{Limit: 1}))[0]
		require.NoError(t, reg.Past().UsageEvent.DeleteOne(one).Exec(ctx))
		before := dump(t, reg)
		_, err = reg.Reprice(ctx, registry.RepriceInput{ModelID: m.ID})
		require.ErrorIs(t, err, registry.ErrCorrupt)
		require.Equal(t, before, dump(t, reg))
	})
	t.Run("Err", func(t *testing.T) {
		t.Parallel()
		reg, _ := e.setup(t)
		_, err := reg.Reprice(t.Context(), registry.RepriceInput{ModelID: uuid.New()})
		require.ErrorIs(t, err, registry.ErrNotFound)
		_, err = reg.Reprice(
			t.Context(),
			registry.RepriceInput{
				ModelID: uuid.New(), Start: registrytest.Start, End: registrytest.Start.Add(-time.Hour),
			},
		)
		require.ErrorIs(t, err, registry.ErrInvalidData)
	})
}

// TestBackfill prices usage that had no price, by setting one for the past.
func TestBackfill(t *testing.T) { eachEngine(t, testBackfill) }

func testBackfill(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "p")
	m, free := mustModel(t, reg, p.ID, "m", nil), mustModel(
		t, reg, p.ID, "free", money.Rates{meter.Input: 0, meter.Output: 0},
	)
	k := mustKey(t, reg, p.ID, 1)
	start := clock.Now()
	for range 10 {
		record(t, reg, m, k, 1000, 0)
		record(t, reg, free, k, 1000, 0)
		clock.Advance(7 * time.Hour)
	}
	record(t, reg, m, k, 0, 5)
	unpriced, err := reg.UnpricedUsage(ctx)
	require.NoError(t, err)
	require.Equal(t, []registry.UnpricedModel{{
		ModelID: m.ID, ProviderID: p.ID, Provider: "p", Name: "m", Requests: 11,
		First: start.Truncate(24 * time.Hour), Last: clock.Now().Truncate(24*time.Hour).AddDate(0, 0, 1),
	}}, unpriced)

	_, err = reg.UpdateModelPricing(
		ctx, m.ID,
		registry.PriceInput{Rates: money.Rates{meter.Input: money.Dollar}, EffectiveFrom: start.Add(7 * time.Hour)},
	)
	require.NoError(t, err)
	requireLedger(t, reg)
	stats, err := reg.GetUsageStats(ctx, m.ID, start, clock.Now().Add(time.Hour))
	require.NoError(t, err)
	require.EqualValues(t, 2, stats.UnpricedRequests, "the one before that time, and the one whose output has no rate")
	require.Equal(t, 9*1000*money.MicroDollar, stats.TotalCost)
	unpriced, err = reg.UnpricedUsage(ctx)
	require.NoError(t, err)
	require.Len(t, unpriced, 1)
	require.EqualValues(t, 2, unpriced[0].Requests)
	trail := must(reg.ListAudit(ctx, registry.AuditFilter{Action: registry.ActionReprice}))
	require.Len(t, trail, 1)

	_, err = reg.UpdateModelPricing(
		ctx, m.ID,
		registry.PriceInput{
			Rates: money.Rates{meter.Input: money.Dollar, meter.Output: money.Dollar}, EffectiveFrom: start,
		},
	)
	require.NoError(t, err)
	_, err = reg.UpdateModelPricing(
		ctx, m.ID,
		registry.PriceInput{
			Rates:         money.Rates{meter.Input: money.Dollar, meter.Output: money.Dollar},
			EffectiveFrom: start.Add(7 * time.Hour),
		},
	)
	require.NoError(t, err)
	unpriced, err = reg.UnpricedUsage(ctx)
	require.NoError(t, err)
	require.Empty(t, unpriced)
	requireLedger(t, reg)
}

// TestRepriceAnything changes prices and records at random, and then demands of every event that its price is the one
// in force at its time.
func TestRepriceAnything(t *testing.T) {
	long(t, "hundreds of random steps")
	eachEngine(t, testRepriceAnything)
}

func testRepriceAnything(t *testing.T, e engine) {
	t.Parallel()
	for range sample.Of(6) {
		seed := rand.Uint64()
		t.Log("seed", seed)
		reg, clock := e.setup(t)
		ctx := t.Context()
		random := rand.New(rand.NewPCG(seed, 9)) //nolint:gosec // not for secrets
		p := mustProvider(t, reg, "p")
		m := mustModel(t, reg, p.ID, "m", nil)
		keys := []*ent.APIKey{mustKey(t, reg, p.ID, 1), mustKey(t, reg, p.ID, 2)}
		start := clock.Now()
		tiers := []string{"", "batch"}
		for range 120 {
			clock.Advance(time.Duration(random.Int64N(int64(90 * time.Minute))))
			past := start.Add(time.Duration(random.Int64N(int64(clock.Now().Sub(start)) + 1)))
			if random.IntN(6) == 0 {
				in := registry.PriceInput{ServiceTier: tiers[random.IntN(2)],
					MinContextTokens: int64(random.IntN(2)) * 3000, EffectiveFrom: past,
					Rates: money.Rates{
						meter.Input:  money.USD(random.Int64N(5_000_000)),
						meter.Output: money.USD(random.Int64N(9_000_000)),
					}}
				if random.IntN(3) == 0 {
					in.EffectiveFrom = time.Time{}
				}
				_, err := reg.UpdateModelPricing(ctx, m.ID, in)
				require.NoError(t, err)
				requireLedger(t, reg)
				continue
			}
			require.NoError(t, reg.RecordUsage(ctx, registry.UsageInput{
				ModelID: m.ID, APIKeyID: keys[random.IntN(2)].ID, At: past, ServiceTier: tiers[random.IntN(2)],
				Tokens: meter.Tokens{
					InputTokens: random.Int64N(6000), OutputTokens: random.Int64N(50),
				}, Failed: random.IntN(9) == 0,
			}))
		}
		dry, err := reg.Reprice(ctx, registry.RepriceInput{ModelID: m.ID, DryRun: true})
		require.NoError(t, err)
		was, err := reg.GetCostBreakdown(ctx, p.ID)
		require.NoError(t, err)
		wet, err := reg.Reprice(ctx, registry.RepriceInput{ModelID: m.ID})
		require.NoError(t, err)
		require.Equal(t, dry, wet)
		is, err := reg.GetCostBreakdown(ctx, p.ID)
		require.NoError(t, err)
		require.Equal(t, was["m"]+wet.After-wet.Before, is["m"])
		requireLedger(t, reg)
		for _, e := range must(reg.Client().UsageEvent.Query().WithPrice().All(ctx)) {
			own := e.Edges.Price
			inForce := must(reg.Client().Price.Query().Where(price.ModelID(m.ID), price.ServiceTier(own.ServiceTier),
				price.MinContextTokens(own.MinContextTokens), price.SupersededAtIsNil(), price.EffectiveFromLTE(e.At),
				price.Or(price.EffectiveToIsNil(), price.EffectiveToGT(e.At))).All(ctx))
			require.LessOrEqual(t, len(inForce), 1)
			if len(inForce) == 1 && len(registry.RatesOf(inForce[0])) > 0 {
				require.Equal(t, inForce[0].ID, own.ID, fmt.Sprint(seed))
			}
		}
	}
}

// TestRepriceUnderLoad prices anew while others record.
func TestRepriceUnderLoad(t *testing.T) { eachEngineAtOnce(t, testRepriceUnderLoad) }

func testRepriceUnderLoad(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "p")
	m := mustModel(t, reg, p.ID, "m", money.Rates{meter.Input: 1_000_000})
	var keys []*ent.APIKey
	for i := range 4 {
		keys = append(keys, mustKey(t, reg, p.ID, i))
	}
	start := clock.Now()
	clock.Advance(24 * time.Hour)
	var wg sync.WaitGroup
	const each = 60
	for g := range 8 {
		wg.Go(func() {
			for i := range each {
				err := reg.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: keys[(g+i)%4].ID,
					At: start.Add(time.Duration(i*20) * time.Minute), Tokens: meter.Tokens{InputTokens: int64(g + i)}})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 10 {
		_, err := reg.UpdateModelPricing(ctx, m.ID, registry.PriceInput{Rates: money.Rates{
			meter.Input: money.USD(1_000_000 + i),
		},
			EffectiveFrom: start.Add(time.Duration(i) * time.Hour)})
		require.NoError(t, err)
		_, err = reg.Reprice(ctx, registry.RepriceInput{ModelID: m.ID})
		require.NoError(t, err)
	}
	wg.Wait()
	requireLedger(t, reg)
	require.EqualValues(t, 8*each, recorded(t, reg))
}
