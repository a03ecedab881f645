package registry_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestLeaseLimits asks for keys until a limit is reached.
func TestLeaseLimits(t *testing.T) { eachEngine(t, testLeaseLimits) }

func testLeaseLimits(t *testing.T, e engine) {
	minute, midnight := registrytest.Start.Add(time.Minute), registrytest.Start.Add(12*time.Hour)
	for name, c := range map[string]struct {
		limits registry.Limits
		fit    int // requests of 100 tokens and 10 cents each
		limit  registry.LimitName
		reason registry.KeyReason
		opens  time.Time
	}{
		"requests per minute": {
			limits: registry.Limits{RequestsPerMinute: 3}, fit: 3, limit: registry.LimitRequestsPerMinute,
			reason: registry.KeyLimited, opens: minute,
		},
		"tokens per minute": {
			limits: registry.Limits{TokensPerMinute: 399}, fit: 3, limit: registry.LimitTokensPerMinute,
			reason: registry.KeyLimited, opens: minute,
		},
		"requests per day": {
			limits: registry.Limits{RequestsPerDay: 3}, fit: 3, limit: registry.LimitRequestsPerDay,
			reason: registry.KeyLimited, opens: midnight,
		},
		"tokens per day": {
			limits: registry.Limits{TokensPerDay: 400}, fit: 4, limit: registry.LimitTokensPerDay,
			reason: registry.KeyLimited, opens: midnight,
		},
		"cost per day": {
			limits: registry.Limits{CostPerDay: 29 * money.Cent}, fit: 2, limit: registry.LimitCostPerDay,
			reason: registry.KeyLimited, opens: midnight,
		},
		"concurrency": {
			limits: registry.Limits{Concurrency: 2}, fit: 2, limit: registry.LimitConcurrency, reason: registry.KeyBusy,
			opens: time.Time{},
		},
		"the later one": {
			limits: registry.Limits{RequestsPerMinute: 2, RequestsPerDay: 2}, fit: 2,
			limit: registry.LimitRequestsPerDay, reason: registry.KeyLimited, opens: midnight,
		},
	} {
		for _, shared := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/shared=%v", name, shared), func(t *testing.T) {
				t.Parallel()
				p := e.newPoolTest(t, nil)
				inputs, group := []registry.KeyInput{{Limits: c.limits}}, ""
				if shared { // by two keys, which have none of their own
					g, err := p.CreateQuotaGroup(
						t.Context(),
						registry.QuotaGroupInput{ProviderID: p.provider.ID, Name: "account", Limits: c.limits},
					)
					require.NoError(t, err)
					inputs, group = []registry.KeyInput{{QuotaGroupID: g.ID}, {QuotaGroupID: g.ID}}, "account"
				}
				for i, in := range inputs {
					in.ProviderID, in.APIKey = p.provider.ID, secret(i)
					key, err := p.AddAPIKey(t.Context(), in)
					require.NoError(t, err)
					p.keys = append(p.keys, key)
				}
				in := p.want(100)
				in.EstimatedCost, in.TTL = 10*money.Cent, 12*time.Hour
				for range c.fit {
					_, err := p.AcquireKey(t.Context(), in)
					require.NoError(t, err)
				}
				why := p.refused(t, in)
				require.Len(t, why.Keys, len(inputs))
				require.Equal(t, c.opens, why.OpensAt)
				for _, v := range why.Keys {
					require.Equal(t, c.reason, v.Reason)
					require.Equal(t, c.opens, v.Until)
					require.Contains(t, v.Detail, string(c.limit))
					last := v.Limits[len(v.Limits)-1]
					require.Equal(t, registry.LimitState{
						Name: c.limit, Group: group, Limit: last.Limit, Used: last.Used, Closed: true, OpensAt: c.opens,
					}, last)
					require.Positive(t, last.Used)
				}
				require.Equal(t, why.Keys, func() []registry.KeyVerdict {
					verdicts, err := p.ExplainKeys(t.Context(), in)
					require.NoError(t, err)
					return verdicts
				}(), "they are explained alike")
				if c.opens.IsZero() {
					return
				}
				p.clock.Set(c.opens.Add(-time.Microsecond))
				_ = p.refused(t, in)
				p.clock.Set(c.opens)
				_, err := p.AcquireKey(t.Context(), in)
				require.NoError(t, err)
			})
		}
	}
}

// TestLeaseLimitsChange has limits that no request fits, that are raised, and that others use up.
func TestLeaseLimitsChange(t *testing.T) { eachEngine(t, testLeaseLimitsChange) }

func testLeaseLimitsChange(t *testing.T, e engine) {
	t.Run("too small", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{TokensPerMinute: 10}}})
		in := p.want(11)
		in.Wait = true // for what never comes
		why := p.refused(t, in)
		require.Equal(t, registry.KeyTooSmall, why.Keys[0].Reason)
		require.True(t, why.OpensAt.IsZero())
		p.acquire(t, 10)
	})
	t.Run("raised", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{RequestsPerDay: 1}}})
		p.acquire(t, 1)
		_ = p.refused(t, p.want(1))
		_, err := p.UpdateAPIKey(
			t.Context(), p.keys[0].ID, registry.KeyUpdate{Limits: &registry.Limits{RequestsPerDay: 2}},
		)
		require.NoError(t, err)
		p.acquire(t, 1)
		_ = p.refused(t, p.want(1))
		p.clock.Advance(time.Microsecond) // what began before counts no more
		n, err := p.ResetDailyUsage(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, n)
		p.acquire(t, 1)
	})
	t.Run("recorded without a lease", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{RequestsPerMinute: 2}}})
		record(t, p.Registry, p.model, p.keys[0], 1, 1)
		require.NoError(t, p.IncrementUsage(t.Context(), p.keys[0].ID, 1, 1))
		_ = p.refused(t, p.want(1))
	})
}

// TestLeaseCostLimit: a limit of a cent a day lets no more requests run at once than it can pay, though nobody says
// what they cost. A model without a price has no estimate, and no cost is reserved where no limit asks.
func TestLeaseCostLimit(t *testing.T) { eachEngine(t, testLeaseCostLimit) }

func testLeaseCostLimit(t *testing.T, e engine) {
	cent := registry.Limits{CostPerDay: money.Cent}
	for name, c := range map[string]struct {
		own, shared registry.Limits
		change      func(p *poolTest, in *registry.AcquireInput)
		fit         int
		reserved    money.USD // by each
	}{
		"all as the dearest meter": {own: cent, fit: 1, reserved: 6 * money.Cent / 10},
		"with the output": {
			own: cent, fit: 2, reserved: 42 * money.Cent / 100,
			change: func(_ *poolTest, in *registry.AcquireInput) { in.EstimatedOutputTokens = 40 },
		},
		"of a group": {shared: cent, fit: 1, reserved: 6 * money.Cent / 10},
		"said": {
			own: cent, fit: 5, reserved: 2 * money.Cent / 10,
			change: func(_ *poolTest, in *registry.AcquireInput) { in.EstimatedCost = 2 * money.Cent / 10 },
		},
		"no limit of cost": {own: registry.Limits{RequestsPerDay: 9}, fit: 9},
		"no model": {
			own: cent, fit: 16, change: func(_ *poolTest, in *registry.AcquireInput) { in.ModelID = uuid.Nil },
		},
		"no price": {
			own: cent, fit: 16,
			change: func(p *poolTest, in *registry.AcquireInput) {
				in.ModelID = mustModel(t, p.Registry, p.provider.ID, "unpriced", nil).ID
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := e.newPoolTest(t, nil)
			p.inGroup(t, "account", c.shared)
			_, err := p.UpdateAPIKey(t.Context(), p.keys[0].ID, registry.KeyUpdate{Limits: &c.own})
			require.NoError(t, err)
			in := p.want(100)
			if c.change != nil {
				c.change(p, &in)
			}
			var all sync.WaitGroup
			errs := make([]error, 16)
			for i := range errs {
				all.Go(func() { _, errs[i] = p.AcquireKey(t.Context(), in) })
			}
			all.Wait()
			refused := slices.DeleteFunc(errs, func(err error) bool { return err == nil })
			require.Len(t, refused, 16-c.fit)
			for _, err := range refused {
				require.ErrorIs(t, err, registry.ErrNoKeyAvailable)
			}
			rows, err := p.Client().KeyLease.Query().All(t.Context())
			require.NoError(t, err)
			for _, l := range rows {
				require.Equal(t, c.reserved, l.ReservedCost)
			}
			verdicts, err := p.ExplainKeys(t.Context(), in)
			require.NoError(t, err)
			require.Equal(t, c.fit < 16, verdicts[0].Reason == registry.KeyLimited, "it is explained alike")
		})
	}
}
