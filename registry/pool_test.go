package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/keylease"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestLeaseClocks leases by clocks of which one is ahead.
func TestLeaseClocks(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			open := openByClocks(t, engine)
			late, clock := open(registrytest.Start)
			early, _ := open(registrytest.Start.Add(time.Minute))
			p := mustProvider(t, late, "p")
			m := mustModel(t, late, p.ID, "m", gpt4())
			_, err := late.AddAPIKey(
				t.Context(),
				registry.KeyInput{
					ProviderID: p.ID, APIKey: secret(1),
					Limits: registry.Limits{TokensPerMinute: 10, TokensPerDay: 1000},
				},
			)
			require.NoError(t, err)
			in := registry.AcquireInput{ProviderID: p.ID, ModelID: m.ID, EstimatedTokens: 5, TTL: time.Minute}
			_, err = early.AcquireKey(t.Context(), in)
			require.NoError(t, err)
			lease, err := late.AcquireKey(t.Context(), in)
			require.NoError(t, err)
			require.Equal(t, registrytest.Start.Add(time.Minute), lease.AcquiredAt, "in the minute that is counted")
			_, err = late.AcquireKey(t.Context(), in)
			require.ErrorIs(t, err, registry.ErrNoKeyAvailable, "a clock that is behind opens no minute anew")
			require.NoError(t, lease.Settle(t.Context(), used(1)))
			key, err := late.FindAPIKey(t.Context(), p.ID, secret(1))
			require.NoError(t, err)
			require.Equal(t, registrytest.Start.Add(time.Minute), *key.Minute)
			require.EqualValues(
				t, []int64{1, 1}, []int64{key.RequestsThisMinute, key.TokensThisMinute},
				"it ends in the minute in which it began",
			)
			in.EstimatedTokens = 4
			lease, err = late.AcquireKey(t.Context(), in)
			require.NoError(t, err, "what was not used is given back")
			require.NoError(t, lease.Release(t.Context()))

			wrong, _ := open(registrytest.Start.Add(1000 * time.Hour))
			in.EstimatedTokens = 5
			for range 2 {
				_, err = wrong.AcquireKey(t.Context(), in)
				require.NoError(t, err)
			}
			clock.Advance(2 * time.Minute)
			_, err = late.AcquireKey(t.Context(), in)
			require.NoError(t, err, "a clock that was wrong closes no key for weeks")
			verdicts, err := late.ExplainKeys(t.Context(), in)
			require.NoError(t, err)
			for i, name := range []registry.LimitName{registry.LimitTokensPerMinute, registry.LimitTokensPerDay} {
				l := verdicts[0].Limits[i]
				require.Equal(t, name, l.Name)
				require.EqualValues(t, 5, l.Used, "and its windows are counted anew")
			}
		})
	}
}

// openByClocks opens one database as processes do whose clocks differ.
func openByClocks(t *testing.T, engine string) func(at time.Time) (*registry.Registry, *registrytest.Clock) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "registry.db")
	if engine == "postgres" {
		name = registrytest.PostgresURL(t)
	}
	return func(at time.Time) (*registry.Registry, *registrytest.Clock) {
		t.Helper()
		clock := registrytest.NewClock(at)
		reg, err := registry.Open(t.Context(), name, registry.WithClock(clock.Now))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, reg.Close()) })
		return reg, clock
	}
}

// TestLeaseClockBehind has a process lease keys whose clock is behind that of who made the key, reset its day, and
// observed what the provider had left.
func TestLeaseClockBehind(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			open := openByClocks(t, engine)
			ahead, clock := open(registrytest.Start.Add(10 * time.Second))
			behind, _ := open(registrytest.Start)
			p := mustProvider(t, ahead, "p")
			k, err := ahead.AddAPIKey(
				t.Context(),
				registry.KeyInput{ProviderID: p.ID, APIKey: secret(1), Limits: registry.Limits{RequestsPerDay: 2}},
			)
			require.NoError(t, err)
			in := registry.AcquireInput{ProviderID: p.ID, TTL: time.Minute}
			two := func(what string) {
				t.Helper()
				for range 2 {
					lease, err := behind.AcquireKey(t.Context(), in)
					require.NoError(t, err, what)
					require.NoError(t, errOf(lease.Fail(t.Context(), registry.Failure{Status: 400})))
				}
				_, err := behind.AcquireKey(t.Context(), in)
				require.ErrorIs(t, err, registry.ErrNoKeyAvailable, what)
			}
			two("a new key")
			other := mustProvider(t, ahead, "other")
			mustKey(t, ahead, other.ID, 2)
			_, err = ahead.AcquireKey(t.Context(), registry.AcquireInput{ProviderID: other.ID, TTL: time.Minute})
			require.NoError(t, err)
			clock.Advance(time.Second)
			n, err := ahead.ResetDailyUsage(t.Context())
			require.NoError(t, err)
			require.Equal(t, 2, n)
			n, err = ahead.ResetDailyUsage(t.Context())
			require.NoError(t, err)
			require.Zero(t, n, "there is nothing left to reset")
			two("its day was reset")
			_, err = ahead.UpdateAPIKey(t.Context(), k.ID, registry.KeyUpdate{Limits: &registry.Limits{}})
			require.NoError(t, err)
			clock.Advance(time.Second)
			require.NoError(t, ahead.ObserveHeaders(t.Context(), k.ID, http.Header{
				"X-Ratelimit-Remaining-Requests": {"2"}, "X-Ratelimit-Reset-Requests": {"50s"},
			}))
			two("the provider has two left")
		})
	}
}

// TestDayLimitsOfClocksBehind has a process lease keys whose clock is behind that of who began the day: none is leased
// more often than its limits say, and its minutes are counted too.
func TestDayLimitsOfClocksBehind(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		for _, behindBy := range []time.Duration{4 * time.Minute, 8 * time.Minute, 30 * time.Minute, time.Hour} {
			for begun, at := range map[string]time.Time{
				"reset": registrytest.Start, "midnight": registrytest.Start.Add(12 * time.Hour),
			} {
				t.Run(fmt.Sprintf("%s/%s/%s", engine, begun, behindBy), func(t *testing.T) {
					t.Parallel()
					open := openByClocks(t, engine)
					ahead, clock := open(at.Add(-2 * time.Hour))
					behind, behindClock := open(at.Add(-behindBy))
					p := mustProvider(t, ahead, "p")
					m := mustModel(t, ahead, p.ID, "m", gpt4())
					_, err := ahead.AddAPIKey(t.Context(), registry.KeyInput{
						ProviderID: p.ID, APIKey: secret(1), Limits: registry.Limits{
							RequestsPerDay: 6, TokensPerMinute: 45,
						},
					})
					require.NoError(t, err)
					in := registry.AcquireInput{ProviderID: p.ID, ModelID: m.ID, EstimatedTokens: 10, TTL: time.Hour}
					lease := func(reg *registry.Registry) *registry.Lease {
						t.Helper()
						lease, err := reg.AcquireKey(t.Context(), in)
						require.NoError(t, err)
						return lease
					}
					refused := func(reg *registry.Registry, limit registry.LimitName) {
						t.Helper()
						_, err := reg.AcquireKey(t.Context(), in)
						var none *registry.NoKeyError
						require.ErrorAs(t, err, &none)
						require.Equal(t, string(limit), none.Keys[0].Detail)
					}
					require.NoError(t, lease(ahead).Settle(t.Context(), used(1)))
					clock.Set(at)
					if begun == "reset" {
						_, err := ahead.ResetDailyUsage(t.Context())
						require.NoError(t, err)
					}
					require.NoError(t, lease(ahead).Settle(t.Context(), used(1))) // one of six
					clock.Advance(time.Minute)
					behindClock.Advance(time.Minute)
					var held []*registry.Lease
					for range 4 {
						held = append(held, lease(behind))
					}
					refused(behind, registry.LimitTokensPerMinute)
					for _, l := range held[:2] { // what is under way counts, and what has ended
						require.NoError(t, l.Settle(t.Context(), used(10)))
					}
					refused(behind, registry.LimitTokensPerMinute)
					clock.Advance(6 * time.Minute)
					behindClock.Advance(6 * time.Minute)
					require.NoError(t, lease(behind).Settle(t.Context(), used(1))) // the sixth
					refused(behind, registry.LimitRequestsPerDay)
					refused(ahead, registry.LimitRequestsPerDay)
				})
			}
		}
	}
}

// TestExplainAtOnce looks at a key while others lease it: what it was used for never falls.
func TestExplainAtOnce(t *testing.T) { eachEngineAtOnce(t, testExplainAtOnce) }

func testExplainAtOnce(t *testing.T, e engine) {
	t.Parallel()
	p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{RequestsPerDay: 1_000_000}}})
	var all sync.WaitGroup
	var left atomic.Int64
	for range 4 {
		left.Add(1)
		all.Go(func() {
			defer left.Add(-1)
			for range 100 {
				lease, err := p.AcquireKey(t.Context(), p.want(1))
				if err == nil {
					err = lease.Settle(t.Context(), used(1))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	looks := 0
	for before := int64(0); left.Load() > 0; looks++ {
		now := p.counted(t, 0)[registry.LimitRequestsPerDay]
		require.GreaterOrEqual(t, now, before)
		before = now
	}
	all.Wait()
	require.Positive(t, looks)
}

// TestQuotaGroups changes quota groups and who is in them.
func TestQuotaGroups(t *testing.T) { eachEngine(t, testQuotaGroups) }

func testQuotaGroups(t *testing.T, e engine) {
	t.Parallel()
	p := e.newPoolTest(t, make([]registry.KeyInput, 2))
	ctx := t.Context()
	one, err := p.CreateQuotaGroup(
		ctx, registry.QuotaGroupInput{ProviderID: p.provider.ID, Name: "one", Limits: registry.Limits{Concurrency: 2}},
	)
	require.NoError(t, err)
	two, err := p.CreateQuotaGroup(
		ctx, registry.QuotaGroupInput{ProviderID: p.provider.ID, Name: "two", Limits: registry.Limits{Concurrency: 1}},
	)
	require.NoError(t, err)
	for _, k := range p.keys {
		_, err := p.UpdateAPIKey(ctx, k.ID, registry.KeyUpdate{QuotaGroupID: &one.ID})
		require.NoError(t, err)
	}
	lease := p.acquire(t, 1)
	require.NotEqual(t, lease.KeyID, p.acquire(t, 1).KeyID)
	require.Equal(t, registry.KeyBusy, p.refused(t, p.want(1)).Keys[0].Reason)
	// What is under way stays where it began.
	_, err = p.UpdateAPIKey(ctx, lease.KeyID, registry.KeyUpdate{QuotaGroupID: &two.ID})
	require.NoError(t, err)
	requireCounted := func(first, second int64) {
		t.Helper()
		require.Equal(
			t, []int64{first, second},
			[]int64{p.counted(t, 1)[registry.LimitConcurrency], p.counted(t, 0)[registry.LimitConcurrency]},
		)
	}
	require.Equal(t, p.keys[0].ID, lease.KeyID)
	requireCounted(2, 0)
	groups, err := p.ListQuotaGroups(ctx, registry.QuotaGroupFilter{ProviderID: p.provider.ID})
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two"}, []string{groups[0].Name, groups[1].Name})
	require.NoError(t, lease.Settle(ctx, used(1)))
	requireCounted(1, 0)

	changed, err := p.UpdateQuotaGroup(
		ctx, two.ID, registry.QuotaGroupUpdate{Name: ptr("2"), Limits: &registry.Limits{RequestsPerDay: 1}},
	)
	require.NoError(t, err)
	require.Equal(t, "2", changed.Name)
	require.EqualValues(t, []int64{1, 0}, []int64{changed.RequestsPerDay, changed.Concurrency})
	require.ErrorIs(t, p.DeleteQuotaGroup(ctx, two.ID), registry.ErrForeignKey)
	_, err = p.UpdateAPIKey(ctx, lease.KeyID, registry.KeyUpdate{QuotaGroupID: &uuid.Nil})
	require.NoError(t, err)
	require.NoError(t, p.DeleteQuotaGroup(ctx, two.ID))
	require.ErrorIs(t, p.DeleteQuotaGroup(ctx, two.ID), registry.ErrNotFound)
	_, err = p.UpdateQuotaGroup(ctx, two.ID, registry.QuotaGroupUpdate{})
	require.ErrorIs(t, err, registry.ErrNotFound)

	other := mustProvider(t, p.Registry, "other")
	foreign, err := p.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: other.ID, Name: "one"})
	require.NoError(t, err)
	_, err = p.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: other.ID, Name: "one"})
	require.ErrorIs(t, err, registry.ErrConflict)
	_, err = p.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: uuid.New(), Name: "one"})
	require.ErrorIs(t, err, registry.ErrForeignKey)
	_, err = p.UpdateAPIKey(ctx, p.keys[0].ID, registry.KeyUpdate{QuotaGroupID: &foreign.ID})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	_, err = p.UpdateAPIKey(ctx, p.keys[0].ID, registry.KeyUpdate{QuotaGroupID: ptr(uuid.New())})
	require.ErrorIs(t, err, registry.ErrForeignKey)
	for name := range badTexts {
		_, err := p.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: other.ID, Name: badTexts[name]})
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
		_, err = p.UpdateQuotaGroup(ctx, foreign.ID, registry.QuotaGroupUpdate{Name: ptr(badTexts[name])})
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
	}
}

// TestPoolInput gives keys what no key may have, by the API and past it.
func TestPoolInput(t *testing.T) { eachEngine(t, testPoolInput) }

func testPoolInput(t *testing.T, e engine) {
	t.Parallel()
	p := e.newPoolTest(t, make([]registry.KeyInput, 1))
	ctx := t.Context()
	for name, in := range map[string]registry.KeyInput{
		"requests per minute": {Limits: registry.Limits{RequestsPerMinute: -1}},
		"tokens per minute":   {Limits: registry.Limits{TokensPerMinute: -1}},
		"requests per day":    {Limits: registry.Limits{RequestsPerDay: -1}},
		"tokens per day":      {Limits: registry.Limits{TokensPerDay: -9e18}},
		"concurrency":         {Limits: registry.Limits{Concurrency: 9_000_000_000_000_000_001}},
		"cost per day":        {Limits: registry.Limits{CostPerDay: -1}},
		"weight":              {Weight: -1},
		"weight above":        {Weight: 1001},
		"priority":            {Priority: 1001},
		"priority below":      {Priority: -1001},
		"models":              {AllowedModels: make([]string, 1001)},
		"model":               {AllowedModels: []string{"a\x00"}},
		"denied model":        {DeniedModels: []string{""}},
	} {
		in.ProviderID, in.APIKey = p.provider.ID, secret(100)
		_, err := p.AddAPIKey(ctx, in)
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
		require.NotContains(t, err.Error(), secret(100)[8:])
		up := registry.KeyUpdate{
			Limits: &in.Limits, Priority: &in.Priority, AllowedModels: &in.AllowedModels,
			DeniedModels: &in.DeniedModels,
		}
		if in.Weight != 0 {
			up.Weight = &in.Weight
		}
		_, err = p.UpdateAPIKey(ctx, p.keys[0].ID, up)
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
		if in.Limits != (registry.Limits{}) {
			_, err = p.CreateQuotaGroup(
				ctx, registry.QuotaGroupInput{ProviderID: p.provider.ID, Name: "g", Limits: in.Limits},
			)
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
		}
	}
	_, err := p.UpdateAPIKey(ctx, p.keys[0].ID, registry.KeyUpdate{Weight: ptr(0)})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	_, err = p.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: p.provider.ID, Name: "g"})
	require.NoError(t, err)
	lease := p.acquire(t, 1)
	for _, set := range []string{
		"api_keys SET requests_per_minute = -1", "api_keys SET cost_per_day = -1",
		"api_keys SET tokens_today = 9000000000000000001",
		"api_keys SET weight = 0", "api_keys SET priority = 1001", "api_keys SET pass = -1",
		"api_keys SET failures = -1", "api_keys SET failure_class = 'auth'",
		"api_keys SET degraded_by = 'auth'", "quota_groups SET concurrency = -1", "quota_groups SET cost_today = -1",
		"quota_groups SET name = ''",
		"key_leases SET reserved_tokens = -1", "key_leases SET pass = -1", "key_leases SET expires_at = acquired_at",
		"providers SET incidents = -1", "providers SET cooling_reason = 'server'",
	} {
		_, err := p.Client().ExecContext(ctx, "UPDATE "+set)
		require.ErrorContains(t, err, "constraint", set)
	}
	require.NoError(t, lease.Release(ctx))
}

// TestGroupAtOnce records usage of two keys of a group at once, and leases them.
func TestGroupAtOnce(t *testing.T) { eachEngineAtOnce(t, testGroupAtOnce) }

func testGroupAtOnce(t *testing.T, e engine) {
	t.Parallel()
	p := e.newPoolTest(t, make([]registry.KeyInput, 4))
	g, err := p.CreateQuotaGroup(
		t.Context(),
		registry.QuotaGroupInput{
			ProviderID: p.provider.ID, Name: "g", Limits: registry.Limits{RequestsPerMinute: 1_000_000},
		},
	)
	require.NoError(t, err)
	for _, k := range p.keys {
		_, err := p.UpdateAPIKey(t.Context(), k.ID, registry.KeyUpdate{QuotaGroupID: &g.ID})
		require.NoError(t, err)
	}
	// IncrementUsage is a transaction of its own, so that they meet.
	var all sync.WaitGroup
	const rounds = 25
	for i, k := range p.keys {
		all.Go(func() {
			for range rounds {
				if i%2 == 0 {
					if err := p.IncrementUsage(t.Context(), k.ID, 1, 1); err != nil {
						t.Error(err)
					}
					continue
				}
				lease, err := p.AcquireKey(t.Context(), p.want(5))
				if err == nil {
					err = lease.Settle(t.Context(), used(2))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	groups, err := p.ListQuotaGroups(t.Context(), registry.QuotaGroupFilter{ProviderID: p.provider.ID})
	require.NoError(t, err)
	require.EqualValues(t, []int64{4 * rounds, 8 * rounds}, []int64{groups[0].RequestsToday, groups[0].TokensToday})
}

// TestPoolHealth shows a pool whose keys are in many states.
func TestPoolHealth(t *testing.T) { eachEngine(t, testPoolHealth) }

func testPoolHealth(t *testing.T, e engine) {
	t.Parallel()
	p := e.newPoolTest(
		t, []registry.KeyInput{{}, {}, {Limits: registry.Limits{Concurrency: 1}, Priority: 1}, {}},
		registry.WithKeyring(ring(t, "a")),
	)
	ctx := t.Context()
	empty := mustProvider(t, p.Registry, "empty")
	p.acquire(t, 1)
	_, err := p.UpdateAPIKey(ctx, p.keys[0].ID, registry.KeyUpdate{Disabled: ptr(true)})
	require.NoError(t, err)
	p.fail(t, 1, denied)
	health := func() registry.ProviderHealth {
		all, err := p.PoolHealth(ctx)
		require.NoError(t, err)
		require.Len(t, all, 2)
		require.Equal(
			t, registry.ProviderHealth{ProviderID: empty.ID, Name: "empty", Unusable: map[registry.KeyReason]int{}},
			all[0],
		)
		require.False(t, all[0].Alert())
		return all[1]
	}
	h := health()
	require.Equal(t, registry.ProviderHealth{
		ProviderID: p.provider.ID, Name: "pool", Keys: 4, Usable: 1, InFlight: 1, Probation: 1,
		Unusable: map[registry.KeyReason]int{registry.KeyDisabled: 1, registry.KeyDegraded: 1, registry.KeyBusy: 1},
	}, h)
	require.False(t, h.Alert())
	require.NoError(t, p.DegradeKey(ctx, p.keys[3].ID, "", time.Second))
	require.Equal(t, p.clock.Now().Add(time.Second), health().OpensAt)
	for i := range p.keys {
		_, err = p.UpdateAPIKey(ctx, p.keys[i].ID, registry.KeyUpdate{Disabled: ptr(true)})
		require.NoError(t, err)
	}
	require.True(t, health().Alert(), "no key opens by itself")
	_, err = p.UpdateAPIKey(ctx, p.keys[3].ID, registry.KeyUpdate{Disabled: ptr(false)})
	require.NoError(t, err)
	require.False(t, health().Alert())
	_, err = p.Client().ExecContext(
		ctx, "UPDATE api_keys SET sealed = (SELECT sealed FROM api_keys WHERE id = $1) WHERE id = $2", p.keys[0].ID,
		p.keys[3].ID,
	)
	require.NoError(t, err)
	h = health()
	require.Equal(
		t, []registry.UnreadableKey{{ID: p.keys[3].ID, Label: p.keys[3].Label, Prefix: "sk-test-"}}, h.Unreadable,
	)
	require.True(t, h.Alert())
}

// TestLeaseCommitLost loses the answer to the commit in which a lease begins or ends, on its way.
func TestLeaseCommitLost(t *testing.T) {
	long(t, "connections are cut at each message")
	t.Parallel()
	proxy, through := newFaultProxy(t, registrytest.PostgresURL(t))
	reg := failoverOpen(t, through)
	t.Cleanup(proxy.close) // first
	provider := mustProvider(t, reg, "p")
	model := mustModel(t, reg, provider.ID, "m", gpt4())
	mustKey(t, reg, provider.ID, 1)
	in := registry.AcquireInput{ProviderID: provider.ID, ModelID: model.ID, EstimatedTokens: 10, TTL: time.Minute}
	count := func() (leases int, requests, tokens int64) {
		leases, err := reg.Client().KeyLease.Query().Count(t.Context())
		require.NoError(t, err)
		keys, err := reg.ListAPIKeys(t.Context(), registry.KeyFilter{ProviderID: provider.ID})
		require.NoError(t, err)
		return leases, keys[0].RequestsToday, keys[0].TokensToday
	}
	requests, tokens := int64(0), int64(0)
	for _, lost := range []faultSnag{{is: commitQuery}, {is: commitAnswer, fromServer: true}} {
		for _, how := range []func(*faultWire){(*faultWire).hangUp, (*faultWire).reset} {
			lost.how = how
			for _, end := range []func(context.Context, *registry.Lease) error{
				func(ctx context.Context, l *registry.Lease) error { tokens += 7; return l.Settle(ctx, used(7)) },
				func(ctx context.Context, l *registry.Lease) error {
					return errOf(l.Fail(ctx, registry.Failure{Status: 500}))
				},
				func(ctx context.Context, l *registry.Lease) error { requests--; return l.Release(ctx) },
			} {
				done := proxy.lose(lost)
				lease, err := reg.AcquireKey(t.Context(), in)
				require.NoError(t, err)
				require.True(t, done())
				requests++
				leases, _, _ := count()
				require.Equal(t, 1, leases)
				done = proxy.lose(lost)
				require.NoError(t, end(t.Context(), lease))
				require.True(t, done())
				leases, r, n := count()
				require.EqualValues(t, []int64{0, requests, tokens}, []int64{int64(leases), r, n})
			}
		}
	}
	// A caller who did not wait for the answer asks again.
	for name, end := range leaseEnds {
		in.ModelID = model.ID
		lease, err := reg.AcquireKey(t.Context(), in)
		require.NoError(t, err)
		other, err := reg.GetLease(t.Context(), lease.ID)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := proxy.lose(
			faultSnag{is: commitAnswer, fromServer: true, how: func(w *faultWire) { w.silence(); cancel() }},
		)
		err = end(ctx, lease)
		require.ErrorIs(t, err, registry.ErrUncertain, name)
		require.True(t, done())
		if name == "Settle under another id" {
			continue // it was one of its own each time
		}
		require.NoError(t, end(t.Context(), lease), name)
		require.ErrorIs(t, other.Release(t.Context()), registry.ErrLeaseEnded, name)
		if name == "Fail" {
			require.NoError(t, reg.RestoreKey(t.Context(), lease.KeyID))
		}
	}
	report, err := reg.VerifyLedger(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Differences)
}

// inGroup adds a group with limits, and a key of it.
func (p *poolTest) inGroup(t *testing.T, name string, limits registry.Limits) uuid.UUID {
	t.Helper()
	g, err := p.CreateQuotaGroup(
		t.Context(), registry.QuotaGroupInput{ProviderID: p.provider.ID, Name: name, Limits: limits},
	)
	require.NoError(t, err)
	key, err := p.AddAPIKey(
		t.Context(), registry.KeyInput{ProviderID: p.provider.ID, APIKey: secret(len(p.keys)), QuotaGroupID: g.ID},
	)
	require.NoError(t, err)
	p.keys = append(p.keys, key)
	return g.ID
}

// group is how many leases count in a group, and its counters of what has ended.
func (p *poolTest) group(t *testing.T, id uuid.UUID) []int64 {
	t.Helper()
	g, err := p.Client().QuotaGroup.Get(t.Context(), id)
	require.NoError(t, err)
	return []int64{int64(p.openLeases(t, keylease.QuotaGroupID(id))), g.RequestsToday, g.TokensToday}
}

// TestLeaseEdges are cases in which a lease and what it counts in go different ways.
func TestLeaseEdges(t *testing.T) { eachEngineAtOnce(t, testLeaseEdges) }

func testLeaseEdges(t *testing.T, e engine) {
	t.Run("a key that changes its group", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, nil)
		from := p.inGroup(t, "from", registry.Limits{})
		lease := p.acquire(t, 900)
		to := p.inGroup(t, "to", registry.Limits{TokensPerDay: 1000})
		_, err := p.UpdateAPIKey(t.Context(), p.keys[0].ID, registry.KeyUpdate{QuotaGroupID: &to})
		require.NoError(t, err)
		require.NoError(t, p.acquire(t, 1000).Settle(t.Context(), used(1000)))
		require.NoError(t, lease.Release(t.Context()))
		require.Equal(t, []int64{0, 0, 0}, p.group(t, from))
		require.Equal(t, []int64{0, 1, 1000}, p.group(t, to), "it gives nothing back that it never took")
		_ = p.refused(t, p.want(1))
	})
	for name, remove := range map[string]func(*poolTest, uuid.UUID) error{
		"deleted": func(p *poolTest, id uuid.UUID) error { return p.DeleteAPIKey(t.Context(), id) },
		"purged":  func(p *poolTest, id uuid.UUID) error { return p.PurgeAPIKey(t.Context(), id) },
	} {
		t.Run("a key that is "+name, func(t *testing.T) {
			t.Parallel()
			p := e.newPoolTest(t, nil)
			g := p.inGroup(t, "g", registry.Limits{Concurrency: 1})
			p.acquire(t, 1) // by a process that crashes
			require.NoError(t, remove(p, p.keys[0].ID))
			key, err := p.AddAPIKey(
				t.Context(), registry.KeyInput{ProviderID: p.provider.ID, APIKey: secret(9), QuotaGroupID: g},
			)
			require.NoError(t, err)
			p.clock.Advance(time.Minute)
			require.Empty(t, p.explain(t, 1)[0].Reason)
			require.Equal(t, key.ID, p.acquire(t, 1).KeyID)
			rows, err := p.Client().KeyLease.Query().Count(t.Context())
			require.NoError(t, err)
			require.Equal(t, 1, rows)
		})
	}
	t.Run("two handles", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		lease := p.acquire(t, 5)
		other, err := p.GetLease(t.Context(), lease.ID)
		require.NoError(t, err)
		// Both end it in one transaction, and one of them is refused.
		var both sync.WaitGroup
		both.Go(func() {
			// Refused, or, after the other one, nothing to do.
			if err := lease.Settle(t.Context(), registry.UsageInput{ModelID: uuid.New()}); err != nil &&
				!errors.Is(err, registry.ErrForeignKey) {
				t.Error(err)
			}
		})
		both.Go(func() {
			if err := other.Settle(t.Context(), used(5)); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		key := p.key(t, 0)
		require.EqualValues(t, []int64{0, 1, 1}, []int64{int64(p.openLeases(t)), key.RequestsToday, key.UsageCount})
	})
	t.Run("recorded by hand", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		lease := p.acquire(t, 5)
		require.NoError(
			t,
			p.RecordUsage(
				t.Context(),
				registry.UsageInput{RequestID: lease.ID.String(), ModelID: p.model.ID, APIKeyID: lease.KeyID},
			),
		)
		require.NoError(t, lease.Settle(t.Context(), used(5)))
		key := p.key(t, 0)
		require.EqualValues(t, []int64{0, 1, 1}, []int64{int64(p.openLeases(t)), key.RequestsToday, key.UsageCount})
	})
	t.Run("one request id for several attempts", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 2))
		for range 2 {
			f := retryAfter(limited, 60)
			f.Usage.RequestID = "attempt"
			require.NoError(t, errOf(p.acquire(t, 1).Fail(t.Context(), f)))
		}
		for _, v := range p.refused(t, p.want(1)).Keys {
			require.Equal(t, registry.KeyDegraded, v.Reason, "what is recorded once is noted each time")
		}
	})
}

// TestLeaseMeanwhile has keys, groups and models change while leases are open.
func TestLeaseMeanwhile(t *testing.T) { eachEngineAtOnce(t, testLeaseMeanwhile) }

func testLeaseMeanwhile(t *testing.T, e engine) {
	t.Run("tokens below zero", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		in := p.want(100)
		in.ModelID = uuid.Nil
		lease, err := p.AcquireKey(t.Context(), in)
		require.NoError(t, err)
		require.ErrorIs(
			t, errOf(lease.Fail(t.Context(), registry.Failure{Status: 500, Usage: used(-800)})),
			registry.ErrInvalidData,
		)
		require.Equal(t, 1, p.openLeases(t))
		require.Zero(t, p.key(t, 0).TokensToday)
	})
	t.Run("a purged model", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		require.NoError(t, p.acquire(t, 1).Release(t.Context()))
		require.NoError(t, p.PurgeModel(t.Context(), p.model.ID))
		for range 2 {
			_, err := p.AcquireKey(t.Context(), p.want(1))
			require.ErrorIs(t, err, registry.ErrForeignKey)
		}
	})
	t.Run("reset while it is open", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{RequestsPerDay: 2}}})
		first, second := p.acquire(t, 1), p.acquire(t, 1)
		p.clock.Advance(time.Second)
		_, err := p.ResetDailyUsage(t.Context())
		require.NoError(t, err)
		p.acquire(t, 1)
		require.NoError(t, first.Release(t.Context()))
		require.NoError(t, second.Settle(t.Context(), used(1)))
		p.acquire(t, 1)
		_ = p.refused(t, p.want(1))
	})
	t.Run("a group that is reset while a lease is open", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, nil)
		p.inGroup(t, "g", registry.Limits{RequestsPerDay: 1})
		lease := p.acquire(t, 1)
		_ = p.refused(t, p.want(1))
		p.clock.Advance(time.Second)
		_, err := p.ResetDailyUsage(t.Context())
		require.NoError(t, err)
		p.acquire(t, 1)
		require.NoError(t, lease.Settle(t.Context(), used(1)))
		_ = p.refused(t, p.want(1))
	})
	t.Run("another priority", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		p.acquire(t, 1)
		require.NoError(t, p.acquire(t, 1).Settle(t.Context(), used(1)))
		require.Equal(t, 1, p.openLeases(t, keylease.PassGT(0)))
		require.Positive(t, p.key(t, 0).Pass)
		_, err := p.UpdateAPIKey(t.Context(), p.keys[0].ID, registry.KeyUpdate{Priority: ptr(1)})
		require.NoError(t, err)
		require.Zero(t, p.key(t, 0).Pass)
		require.Equal(t, 1, p.openLeases(t, keylease.Pass(0)))
	})
}

// TestLeaseWindows has leases whose windows are not those of the key's row.
func TestLeaseWindows(t *testing.T) { eachEngineAtOnce(t, testLeaseWindows) }

func testLeaseWindows(t *testing.T, e engine) {
	t.Run("a lease that began before the windows of the key's row", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{RequestsPerMinute: 2, TokensPerDay: 100}}})
		require.NoError(t, p.acquire(t, 1).Settle(t.Context(), used(1)))
		p.clock.Advance(90 * time.Second)
		lease := p.acquire(t, 10) // in a minute that the row does not know
		require.NoError(t, lease.Settle(t.Context(), used(20)))
		require.Equal(
			t, map[registry.LimitName]int64{registry.LimitRequestsPerMinute: 1, registry.LimitTokensPerDay: 21},
			p.counted(t, 0),
		)
		require.Equal(t, []int64{1, 20, 2, 21}, p.counters(t, 0)[:4])
		open := p.acquire(t, 30)
		p.clock.Advance(40 * time.Second)
		require.Equal(
			t, map[registry.LimitName]int64{registry.LimitRequestsPerMinute: 0, registry.LimitTokensPerDay: 51},
			p.counted(t, 0), "it is of the minute before",
		)
		require.NoError(t, open.Settle(t.Context(), used(40)))
		require.Equal(
			t, map[registry.LimitName]int64{registry.LimitRequestsPerMinute: 0, registry.LimitTokensPerDay: 61},
			p.counted(t, 0),
		)
	})
	t.Run("released before it was observed", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		require.NoError(t, p.ObserveHeaders(t.Context(), p.keys[0].ID, http.Header{
			"X-Ratelimit-Remaining-Requests": {"2"}, "X-Ratelimit-Reset-Requests": {"30s"},
		}))
		for range 5 {
			require.NoError(t, p.acquire(t, 1).Release(t.Context()))
		}
		p.acquire(t, 1)
		p.acquire(t, 1)
		_ = p.refused(t, p.want(1))
	})
	t.Run("a lower priority", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(
			t, []registry.KeyInput{{Priority: 1, Limits: registry.Limits{Concurrency: 1}}, {Weight: 1}, {Weight: 3}},
		)
		counts := map[uuid.UUID]int{}
		for range 40 {
			high := p.acquire(t, 1)
			require.Equal(t, p.keys[0].ID, high.KeyID)
			low := p.acquire(t, 1)
			counts[low.KeyID]++
			require.NoError(t, high.Settle(t.Context(), used(1)))
			require.NoError(t, low.Settle(t.Context(), used(1)))
		}
		require.InDelta(t, 10, counts[p.keys[1].ID], 1)
	})
}

// TestIncidentLimits shows what an incident does not do.
func TestIncidentLimits(t *testing.T) { eachEngine(t, testIncidentLimits) }

func testIncidentLimits(t *testing.T, e engine) {
	t.Run("for no longer than minutes", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 4))
		for i := range 3 {
			p.fail(t, i, retryAfter(exhausted, 30*24*3600))
		}
		require.LessOrEqual(t, p.refused(t, p.want(1)).OpensAt.Sub(p.clock.Now()), 5*time.Minute*5/4)
	})
	t.Run("what was before stays", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 4))
		late := p.acquire(t, 1)
		require.Equal(t, p.keys[0].ID, late.KeyID)
		p.fail(t, 0, retryAfter(limited, 3600))
		until := p.explain(t, 1)[0].Until
		p.clock.Advance(20 * time.Second)
		require.NoError(t, errOf(late.Fail(t.Context(), limited)))
		for i := 1; i < 3; i++ {
			p.fail(t, i, limited)
		}
		verdicts := p.explain(t, 1)
		require.Equal(t, registry.KeyDegraded, verdicts[0].Reason)
		require.Equal(t, until, verdicts[0].Until)
		require.Equal(t, registry.KeyCooling, verdicts[1].Reason)
	})
	t.Run("one account is not the provider", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 6))
		g, err := p.CreateQuotaGroup(t.Context(), registry.QuotaGroupInput{ProviderID: p.provider.ID, Name: "g"})
		require.NoError(t, err)
		for _, key := range p.keys[:3] {
			_, err := p.UpdateAPIKey(t.Context(), key.ID, registry.KeyUpdate{QuotaGroupID: &g.ID})
			require.NoError(t, err)
		}
		in := p.want(1)
		in.Exclude = []uuid.UUID{p.keys[3].ID, p.keys[4].ID, p.keys[5].ID}
		var leases []*registry.Lease
		for range 3 {
			lease, err := p.AcquireKey(t.Context(), in)
			require.NoError(t, err)
			leases = append(leases, lease)
		}
		p.clock.Advance(time.Second)
		for _, lease := range leases {
			require.NoError(t, errOf(lease.Fail(t.Context(), retryAfter(limited, 60))))
		}
		for _, v := range p.explain(t, 1)[3:] {
			require.NotEqual(t, registry.KeyCooling, v.Reason)
		}
	})
	t.Run("a server's Retry-After closes no key", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		f := retryAfter(registry.Failure{Status: 503}, 600)
		p.fail(t, 0, f)
		lease := p.acquire(t, 1)
		lease.ObserveHeaders(f.Header)
		require.NoError(t, errOf(lease.Fail(t.Context(), f)))
		p.acquire(t, 1)
	})
	t.Run("counted by class, and auth within its bound", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		for range 6 {
			p.fail(t, 0, limited)
			p.clock.Advance(10 * time.Minute)
		}
		p.fail(t, 0, denied)
		p.within(t, 0, 10*time.Minute)
		p.clock.Advance(time.Hour)
		probe := p.acquire(t, 1)
		require.NoError(t, errOf(probe.Fail(t.Context(), retryAfter(limited, 60))))
		p.clock.Advance(time.Minute)
		probe = p.acquire(t, 1)
		require.True(t, probe.Probe, "it has still to be tried")
		require.NoError(t, errOf(probe.Fail(t.Context(), retryAfter(denied, 2400*3600))))
		require.LessOrEqual(t, p.explain(t, 1)[0].Until.Sub(p.clock.Now()), mostDegraded)
	})
}
