package registry_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// poolTest is a provider with a model and some keys.
type poolTest struct {
	*registry.Registry
	clock    *registrytest.Clock
	provider *ent.Provider
	model    *ent.Model
	keys     []*ent.APIKey
}

// newPoolTest adds a key for each input.
func (e engine) newPoolTest(tb testing.TB, inputs []registry.KeyInput, options ...registry.Option) *poolTest {
	tb.Helper()
	clock := registrytest.NewClock(registrytest.Start)
	p := &poolTest{Registry: e.new(tb, append(options, registry.WithClock(clock.Now))...), clock: clock}
	p.provider = mustProvider(tb, p.Registry, "pool")
	p.model = mustModel(tb, p.Registry, p.provider.ID, "gpt-4", gpt4())
	for i, in := range inputs {
		in.ProviderID, in.APIKey = p.provider.ID, secret(i)
		key, err := p.AddAPIKey(tb.Context(), in)
		require.NoError(tb, err)
		p.keys = append(p.keys, key)
	}
	return p
}

// acquire returns a lease, whose estimate is of some tokens.
func (p *poolTest) acquire(tb testing.TB, tokens int64) *registry.Lease {
	tb.Helper()
	lease, err := p.AcquireKey(tb.Context(), p.want(tokens))
	require.NoError(tb, err)
	return lease
}

func (p *poolTest) want(tokens int64) registry.AcquireInput {
	return registry.AcquireInput{
		ProviderID: p.provider.ID, ModelID: p.model.ID, EstimatedTokens: tokens, TTL: time.Minute,
	}
}

// refused returns why there is no key.
func (p *poolTest) refused(tb testing.TB, in registry.AcquireInput) *registry.NoKeyError {
	tb.Helper()
	_, err := p.AcquireKey(tb.Context(), in)
	require.ErrorIs(tb, err, registry.ErrNoKeyAvailable)
	var why *registry.NoKeyError
	require.ErrorAs(tb, err, &why)
	return why
}

func (p *poolTest) key(tb testing.TB, i int) *ent.APIKey {
	tb.Helper()
	key, err := p.Client().APIKey.Get(tb.Context(), p.keys[i].ID)
	require.NoError(tb, err)
	return key
}

// explain returns the verdict on each key.
func (p *poolTest) explain(tb testing.TB, tokens int64) []registry.KeyVerdict {
	tb.Helper()
	verdicts, err := p.ExplainKeys(tb.Context(), p.want(tokens))
	require.NoError(tb, err)
	return verdicts
}

// openLeases returns how many leases there are, of some only.
func (p *poolTest) openLeases(tb testing.TB, of ...predicate.KeyLease) int {
	tb.Helper()
	n, err := p.Client().KeyLease.Query().Where(of...).Count(tb.Context())
	require.NoError(tb, err)
	return n
}

// counters are those of a key's row: of what has ended.
func (p *poolTest) counters(tb testing.TB, i int) []int64 {
	tb.Helper()
	key := p.key(tb, i)
	return []int64{
		key.RequestsThisMinute, key.TokensThisMinute, key.RequestsToday, key.TokensToday, key.UsageCount,
		key.TokenCount,
	}
}

// counted is what a key's limits count, with what is under way.
func (p *poolTest) counted(tb testing.TB, i int) map[registry.LimitName]int64 {
	tb.Helper()
	used := map[registry.LimitName]int64{}
	for _, l := range p.explain(tb, 0)[i].Limits {
		used[l.Name] += l.Used
	}
	return used
}

func used(input int64) registry.UsageInput {
	return registry.UsageInput{Tokens: meter.Tokens{InputTokens: input}}
}

func TestLease(t *testing.T) { eachEngine(t, testLease) }

func testLease(t *testing.T, e engine) {
	t.Run("Settle", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{
			RequestsPerMinute: 9, TokensPerMinute: 9000, RequestsPerDay: 9, TokensPerDay: 9000, Concurrency: 9,
			CostPerDay: money.Dollar,
		}}})
		in := p.want(1000)
		in.EstimatedCost = 5 * money.Cent
		lease, err := p.AcquireKey(t.Context(), in)
		require.NoError(t, err)
		require.Equal(t, p.keys[0].ID, lease.KeyID)
		require.Equal(t, p.clock.Now().Add(time.Minute), lease.ExpiresAt)
		require.Equal(t, []int64{0, 0, 0, 0, 0, 0}, p.counters(t, 0), "they are of what has ended")
		require.Equal(t, map[registry.LimitName]int64{
			registry.LimitRequestsPerMinute: 1, registry.LimitTokensPerMinute: 1000, registry.LimitRequestsPerDay: 1,
			registry.LimitTokensPerDay: 1000,
			registry.LimitConcurrency:  1, registry.LimitCostPerDay: int64(5 * money.Cent),
		}, p.counted(t, 0))
		require.EqualValues(t, 1, p.explain(t, 0)[0].InFlight)
		require.NoError(t, lease.Settle(t.Context(), used(1200)))
		require.Equal(t, []int64{1, 1200, 1, 1200, 1, 1200}, p.counters(t, 0))
		require.Equal(t, 36*money.Dollar/1000, p.key(t, 0).CostToday)
		require.Equal(t, map[registry.LimitName]int64{
			registry.LimitRequestsPerMinute: 1, registry.LimitTokensPerMinute: 1200, registry.LimitRequestsPerDay: 1,
			registry.LimitTokensPerDay: 1200,
			registry.LimitConcurrency:  0, registry.LimitCostPerDay: int64(36 * money.Dollar / 1000),
		}, p.counted(t, 0))
		events, err := p.ListUsageEvents(t.Context(), registry.EventFilter{})
		require.NoError(t, err)
		require.Len(t, events, 1)
		require.Equal(t, lease.ID.String(), events[0].RequestID)
		for _, again := range []func() error{
			func() error { return lease.Settle(t.Context(), used(1)) },
			func() error { return errOf(lease.Fail(t.Context(), registry.Failure{Status: 500})) },
			func() error { return lease.Release(t.Context()) },
		} {
			require.ErrorIs(t, again(), registry.ErrLeaseEnded)
		}
		require.Zero(t, p.openLeases(t))
		report, err := p.VerifyLedger(t.Context())
		require.NoError(t, err)
		require.Empty(t, report.Differences)
	})
	t.Run("Release", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		require.NoError(t, p.acquire(t, 1000).Release(t.Context()))
		require.Equal(t, []int64{0, 0, 0, 0, 0, 0}, p.counters(t, 0))
		require.Zero(t, p.openLeases(t))
	})
	t.Run("Expiry", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{Concurrency: 2, TokensPerDay: 2000}}})
		crashed, late := p.acquire(t, 1000), p.acquire(t, 1000)
		require.Equal(t, registry.KeyLimited, p.refused(t, p.want(1000)).Keys[0].Reason)
		p.clock.Advance(time.Minute - time.Microsecond)
		_ = p.refused(t, p.want(1000))
		p.clock.Advance(time.Microsecond)
		require.Empty(t, p.explain(t, 1000)[0].Reason, "what has expired counts no more")
		next := p.acquire(t, 1000)
		require.Equal(
			t, map[registry.LimitName]int64{registry.LimitConcurrency: 1, registry.LimitTokensPerDay: 1000},
			p.counted(t, 0),
		)
		// Its request happened all the same.
		require.NoError(t, late.Settle(t.Context(), used(300)))
		require.NoError(t, errOf(crashed.Fail(t.Context(), registry.Failure{Status: 500})))
		require.NoError(t, next.Settle(t.Context(), used(100)))
		require.Equal(t, []int64{3, 400, 3, 400}, p.counters(t, 0)[2:])
		require.Zero(t, p.openLeases(t))
	})
	t.Run("Windows", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{TokensPerMinute: 1000}}})
		lease := p.acquire(t, 600)
		p.clock.Advance(time.Minute - time.Second)
		require.NoError(t, lease.Settle(t.Context(), used(900))) // in the minute in which it began
		require.Equal(t, registry.KeyLimited, p.refused(t, p.want(200)).Keys[0].Reason)
		p.clock.Advance(time.Second)
		lease = p.acquire(t, 1000)
		p.clock.Advance(time.Minute)
		require.NoError(t, lease.Settle(t.Context(), used(5000)))
		p.acquire(t, 1000)
	})
}

// TestLeaseEnds ends leases twice, over another handle, and when what they are of is gone.
func TestLeaseEnds(t *testing.T) { eachEngine(t, testLeaseEnds) }

func testLeaseEnds(t *testing.T, e engine) {
	t.Run("GetLease", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Label: "l"}})
		lease := p.acquire(t, 10)
		other, err := p.GetLease(t.Context(), lease.ID)
		require.NoError(t, err)
		require.Equal(t, []any{
			lease.ID, lease.KeyID, lease.ModelID, "sk-test-", "l", lease.AcquiredAt, lease.ExpiresAt,
		},
			[]any{
				other.ID, other.KeyID, other.ModelID, other.KeyPrefix, other.KeyLabel, other.AcquiredAt,
				other.ExpiresAt,
			})
		require.NoError(t, other.Settle(t.Context(), used(10)))
		_, err = p.GetLease(t.Context(), lease.ID)
		require.ErrorIs(t, err, registry.ErrNotFound)
		require.NoError(t, lease.Settle(t.Context(), used(10)), "as if the answer to the first had been lost")
		require.EqualValues(t, 1, p.key(t, 0).UsageCount)
		require.EqualValues(t, 1, p.key(t, 0).RequestsToday)
	})
	t.Run("recorded before", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		in := used(5)
		in.RequestID = "r"
		require.NoError(t, p.acquire(t, 10).Settle(t.Context(), in))
		require.NoError(t, p.acquire(t, 10).Settle(t.Context(), in), "the same request again")
		require.Equal(t, []int64{1, 5, 1, 5}, p.counters(t, 0)[2:])
		require.Zero(t, p.openLeases(t))
	})
	t.Run("a key that is gone", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		lease, purged := p.acquire(t, 10), p.acquire(t, 10)
		require.NoError(t, p.DeleteAPIKey(t.Context(), p.keys[0].ID))
		require.NoError(t, lease.Settle(t.Context(), used(5)))
		require.EqualValues(t, 1, p.key(t, 0).UsageCount)
		require.ErrorIs(t, p.PurgeAPIKey(t.Context(), p.keys[0].ID), registry.ErrForeignKey)
		require.NoError(t, purged.Release(t.Context()))
		require.Zero(t, p.openLeases(t))
	})
}

// TestLeaseRefuses shows what is refused of a lease, and that it stays as open as it was.
func TestLeaseRefuses(t *testing.T) { eachEngine(t, testLeaseRefuses) }

func testLeaseRefuses(t *testing.T, e engine) {
	t.Run("ErrForeignKey", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		in := p.want(1)
		in.ModelID = uuid.New()
		_, err := p.AcquireKey(t.Context(), in)
		require.ErrorIs(t, err, registry.ErrForeignKey)
		lease := p.acquire(t, 1)
		err = lease.Settle(t.Context(), registry.UsageInput{ModelID: uuid.New()})
		require.ErrorIs(t, err, registry.ErrForeignKey)
		require.Equal(t, 1, p.openLeases(t))
		require.EqualValues(t, 1, p.explain(t, 0)[0].InFlight, "it is as open as it was")
		require.NoError(t, lease.Settle(t.Context(), used(1)))
	})
	t.Run("ErrInvalidData", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		other := mustProvider(t, p.Registry, "other")
		foreign := mustModel(t, p.Registry, other.ID, "m", gpt4())
		for name, change := range map[string]func(*registry.AcquireInput){
			"no TTL":          func(in *registry.AcquireInput) { in.TTL = 0 },
			"negative TTL":    func(in *registry.AcquireInput) { in.TTL = -time.Second },
			"a day":           func(in *registry.AcquireInput) { in.TTL = 24 * time.Hour },
			"negative tokens": func(in *registry.AcquireInput) { in.EstimatedTokens = -1 },
			"absurd tokens":   func(in *registry.AcquireInput) { in.EstimatedTokens = 9_000_000_000_000_000_001 },
			"negative cost":   func(in *registry.AcquireInput) { in.EstimatedCost = -1 },
			"too many":        func(in *registry.AcquireInput) { in.Exclude = make([]uuid.UUID, 101) },
			"another's model": func(in *registry.AcquireInput) { in.ModelID = foreign.ID },
		} {
			in := p.want(1)
			change(&in)
			_, err := p.AcquireKey(t.Context(), in)
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
		}
		require.ErrorIs(t, p.InTx(t.Context(), func(tx *registry.Registry) error {
			in := p.want(1)
			in.Wait = true
			_, err := tx.AcquireKey(t.Context(), in)
			return err
		}), registry.ErrInvalidData)
		lease := p.acquire(t, 1)
		in := used(1)
		in.APIKeyID = uuid.New()
		require.ErrorIs(t, lease.Settle(t.Context(), in), registry.ErrInvalidData)
		require.ErrorIs(t, lease.Settle(t.Context(), used(-1)), registry.ErrInvalidData)
		require.NoError(t, lease.Settle(t.Context(), used(1)), "it is as open as it was")
	})
	t.Run("InTx", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		require.ErrorIs(t, p.InTx(t.Context(), func(tx *registry.Registry) error {
			lease, err := tx.AcquireKey(t.Context(), p.want(1))
			require.NoError(t, err)
			require.NoError(t, lease.Settle(t.Context(), used(5)))
			return errRollback
		}), errRollback)
		require.Zero(t, p.key(t, 0).RequestsToday)
		var lease *registry.Lease
		require.NoError(t, p.InTx(t.Context(), func(tx *registry.Registry) (err error) {
			lease, err = tx.AcquireKey(t.Context(), p.want(1))
			return err
		}))
		require.NoError(t, lease.Settle(t.Context(), used(5)), "after the commit")
		require.EqualValues(t, 1, p.key(t, 0).UsageCount)
		require.ErrorIs(t, lease.Release(t.Context()), registry.ErrLeaseEnded)
	})
}

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

// served leases n keys, settles each, and returns how often each key was handed out.
func (p *poolTest) served(t *testing.T, n int, change func(*registry.AcquireInput)) []int {
	t.Helper()
	counts := make([]int, len(p.keys))
	for range n {
		in := p.want(1)
		if change != nil {
			change(&in)
		}
		next := -1
		for i, v := range func() []registry.KeyVerdict {
			verdicts, err := p.ExplainKeys(t.Context(), in)
			require.NoError(t, err)
			return verdicts
		}() {
			if v.Next {
				next = i
			}
		}
		lease, err := p.AcquireKey(t.Context(), in)
		require.NoError(t, err)
		require.Equal(t, p.keys[next].ID, lease.KeyID, "as ExplainKeys said")
		require.NoError(t, lease.Settle(t.Context(), used(1)))
		counts[next]++
	}
	return counts
}

// TestLeaseChoice shows which key is handed out.
func TestLeaseChoice(t *testing.T) { eachEngine(t, testLeaseChoice) }

func testLeaseChoice(t *testing.T, e engine) {
	t.Run("equal", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 3))
		require.Equal(t, []int{10, 10, 10}, p.served(t, 30, nil))
	})
	t.Run("weights", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Weight: 1}, {Weight: 2}, {Weight: 3}})
		counts := p.served(t, 60, nil)
		for i, want := range []int{10, 20, 30} {
			require.InDelta(t, want, counts[i], 1, counts)
		}
	})
	t.Run("priority", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(
			t,
			[]registry.KeyInput{
				{}, {Priority: 5, Limits: registry.Limits{RequestsPerDay: 4}}, {Priority: 5}, {Priority: -1},
			},
		)
		require.Equal(t, []int{0, 4, 6, 0}, p.served(t, 10, nil))
		require.Equal(
			t, []int{5, 0, 0, 0},
			p.served(t, 5, func(in *registry.AcquireInput) { in.Exclude = []uuid.UUID{p.keys[2].ID} }),
		)
	})
	t.Run("new", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 2))
		p.served(t, 100, nil)
		key, err := p.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.provider.ID, APIKey: secret(9)})
		require.NoError(t, err)
		p.keys = append(p.keys, key)
		counts := p.served(t, 30, nil)
		for _, n := range counts {
			require.InDelta(t, 10, n, 1, counts)
		}
	})
	t.Run("back", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 2))
		require.NoError(t, p.DegradeKey(t.Context(), p.keys[0].ID, "", time.Minute))
		require.Equal(t, []int{0, 50}, p.served(t, 50, nil))
		p.clock.Advance(time.Minute)
		counts := p.served(t, 20, nil)
		require.InDelta(t, 10, counts[0], 1, "it does not make up for what it missed")
	})
	t.Run("least used among new ones", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 2))
		record(t, p.Registry, p.model, p.keys[0], 1, 1)
		require.Equal(t, p.keys[1].ID, p.acquire(t, 1).KeyID)
	})
}

// TestLeaseChoiceOf shows what else the choice depends on: models, strategies and whether keys are usable.
func TestLeaseChoiceOf(t *testing.T) { eachEngine(t, testLeaseChoiceOf) }

func testLeaseChoiceOf(t *testing.T, e engine) {
	t.Run("models", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{
			{AllowedModels: []string{"gpt-5"}}, {DeniedModels: []string{"gpt-4"}},
			{AllowedModels: []string{"gpt-*"}, DeniedModels: []string{"gpt-4*"}}, {AllowedModels: []string{"gpt-*"}},
		})
		require.Equal(t, []int{0, 0, 0, 5}, p.served(t, 5, nil))
		for i, v := range p.explain(t, 1)[:3] {
			require.Equal(t, registry.KeyDenied, v.Reason, i)
		}
		five := mustModel(t, p.Registry, p.provider.ID, "gpt-5", gpt4())
		for _, n := range p.served(t, 8, func(in *registry.AcquireInput) { in.ModelID = five.ID }) {
			require.InDelta(t, 2, n, 1)
		}
		for i := range p.keys {
			_, err := p.UpdateAPIKey(
				t.Context(), p.keys[i].ID, registry.KeyUpdate{AllowedModels: &[]string{}, DeniedModels: &[]string{"*"}},
			)
			require.NoError(t, err)
		}
		in := p.want(1)
		in.Wait = true
		require.Equal(t, registry.KeyDenied, p.refused(t, in).Keys[3].Reason)
	})
	t.Run("round robin", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Weight: 100}, {}, {}}, registry.WithKeyStrategy(registry.RoundRobin))
		require.Equal(t, []int{4, 4, 4}, p.served(t, 12, nil))
	})
	t.Run("most headroom", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{
			{Limits: registry.Limits{RequestsPerDay: 10}}, {Limits: registry.Limits{RequestsPerDay: 40}},
		}, registry.WithKeyStrategy(registry.MostHeadroom))
		require.Equal(t, []int{8, 32}, p.served(t, 40, nil))
	})
	t.Run("not usable", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 3))
		_, err := p.UpdateAPIKey(t.Context(), p.keys[0].ID, registry.KeyUpdate{Disabled: ptr(true)})
		require.NoError(t, err)
		_, err = p.UpdateAPIKey(t.Context(), p.keys[1].ID, registry.KeyUpdate{Disabled: ptr(true)})
		require.NoError(t, err)
		_, err = p.UpdateAPIKey(t.Context(), p.keys[1].ID, registry.KeyUpdate{Disabled: ptr(false)})
		require.NoError(t, err)
		entries, err := p.ListAudit(t.Context(), registry.AuditFilter{Entity: registry.EntityAPIKey, Limit: 3})
		require.NoError(t, err)
		require.Equal(
			t, []string{"enable", "disable", "disable"},
			[]string{entries[0].Action, entries[1].Action, entries[2].Action},
		)
		_, err = p.RotateAPIKey(t.Context(), p.keys[1].ID, registry.KeyRotationInput{APIKey: secret(50)})
		require.NoError(t, err)
		require.NoError(t, p.DeleteAPIKey(t.Context(), p.keys[2].ID))
		in := p.want(1)
		in.Exclude = []uuid.UUID{p.acquire(t, 1).KeyID}
		why := p.refused(t, in)
		require.Equal(t, []registry.KeyReason{registry.KeyDisabled, registry.KeyExpired, registry.KeyExcluded},
			[]registry.KeyReason{why.Keys[0].Reason, why.Keys[1].Reason, why.Keys[2].Reason})
		in.ProviderID, in.ModelID = uuid.New(), uuid.Nil
		require.Empty(t, p.refused(t, in).Keys)
	})
}

// TestLeaseWait waits for keys.
func TestLeaseWait(t *testing.T) { eachEngineAtOnce(t, testLeaseWait) }

func testLeaseWait(t *testing.T, e engine) {
	limits := []registry.KeyInput{{Limits: registry.Limits{Concurrency: 1, RequestsPerMinute: 2}}}
	t.Run("for a lease", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, limits)
		first := p.acquire(t, 1)
		got := make(chan error)
		go func() {
			in := p.want(1)
			in.Wait = true
			_, err := p.AcquireKey(t.Context(), in)
			got <- err
		}()
		require.NoError(t, first.Settle(t.Context(), used(1)))
		require.NoError(t, <-got)
	})
	t.Run("for time", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, limits)
		for range 2 {
			require.NoError(t, p.acquire(t, 1).Settle(t.Context(), used(1)))
		}
		got := make(chan error)
		go func() {
			in := p.want(1)
			in.Wait = true
			_, err := p.AcquireKey(t.Context(), in)
			got <- err
		}()
		p.clock.Advance(time.Minute)
		require.NoError(t, <-got)
	})
	t.Run("not for what comes after the deadline", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 2))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		in := p.want(1)
		in.Wait, in.Exclude = true, []uuid.UUID{p.keys[1].ID}
		require.NoError(t, p.DegradeKey(t.Context(), p.keys[1].ID, "excluded, and back before", time.Second))
		for name, out := range map[string]func(){
			"degraded": func() { require.NoError(t, p.DegradeKey(t.Context(), p.keys[0].ID, "", time.Hour)) },
			"limited": func() {
				p.clock.Advance(time.Hour)
				_, err := p.UpdateAPIKey(
					t.Context(), p.keys[0].ID, registry.KeyUpdate{Limits: &registry.Limits{RequestsPerDay: 1}},
				)
				require.NoError(t, err)
				require.NoError(t, p.acquire(t, 1).Settle(t.Context(), used(1)))
				record(t, p.Registry, p.model, p.keys[0], 1, 1)
			},
		} {
			out()
			_, err := p.AcquireKey(ctx, in)
			require.NoError(t, ctx.Err(), "%s: it returns at once", name)
			require.ErrorIs(t, err, registry.ErrNoKeyAvailable, name)
			require.NotErrorIs(t, err, context.DeadlineExceeded, name)
			require.ErrorContains(t, err, "before the context's deadline", name)
		}
	})
	t.Run("for what a request may give back before", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{TokensPerDay: 10}}})
		p.acquire(t, 10)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		in := p.want(10)
		in.Wait = true
		_, err := p.AcquireKey(ctx, in)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
	t.Run("until the context ends", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, limits)
		p.acquire(t, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		in := p.want(1)
		in.Wait = true
		_, err := p.AcquireKey(ctx, in)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, registry.ErrNoKeyAvailable, "and says what it waited for")
	})
}
