package registry_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/keylease"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

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
			// Refused, or, after the other one, another request under its id.
			err := lease.Settle(t.Context(), registry.UsageInput{ModelID: uuid.New()})
			if !errors.Is(err, registry.ErrForeignKey) && !errors.Is(err, registry.ErrLeaseEnded) {
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
		require.ErrorIs(t, lease.Settle(t.Context(), used(5)), registry.ErrConflict, "with other tokens")
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
