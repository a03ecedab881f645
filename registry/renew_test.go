package registry_test

import (
	"context"
	"errors"
	"sync"
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

// leaseRow returns the row of a lease.
func leaseRow(t *testing.T, reg *registry.Registry, id uuid.UUID) *ent.KeyLease {
	t.Helper()
	row, err := reg.Client().KeyLease.Get(t.Context(), id)
	require.NoError(t, err)
	return row
}

// reserves returns what a lease reserves: tokens, output and cost.
func reserves(t *testing.T, reg *registry.Registry, id uuid.UUID) []int64 {
	t.Helper()
	row := leaseRow(t, reg, id)
	return []int64{row.ReservedTokens, row.ReservedOutput, int64(row.ReservedCost)}
}

// TestRenew extends leases and raises what they reserve, and never the other way round.
func TestRenew(t *testing.T) { eachEngine(t, testRenew) }

func testRenew(t *testing.T, e engine) {
	t.Parallel()
	ctx := t.Context()
	p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{Concurrency: 1}}})
	in := p.want(100)
	in.EstimatedOutputTokens, in.EstimatedCost = 40, 5
	lease, err := p.AcquireKey(ctx, in)
	require.NoError(t, err)
	begin := lease.AcquiredAt
	for _, c := range []struct {
		in       registry.RenewInput
		after    time.Duration // since the lease began
		expires  time.Duration
		reserves []int64
	}{
		{registry.RenewInput{TTL: time.Second}, 0, time.Minute, []int64{100, 40, 5}},
		{registry.RenewInput{TTL: time.Minute}, 50 * time.Second, 110 * time.Second, []int64{100, 40, 5}},
		{
			registry.RenewInput{TTL: time.Hour, EstimatedTokens: 90, EstimatedOutputTokens: 30, EstimatedCost: 4},
			109 * time.Second, 109*time.Second + time.Hour, []int64{100, 40, 5},
		},
		{
			registry.RenewInput{TTL: time.Hour, EstimatedOutputTokens: 70},
			time.Hour, 2 * time.Hour, []int64{100, 70, 5},
		},
		{
			registry.RenewInput{TTL: time.Hour, EstimatedTokens: 300, EstimatedCost: 9},
			2*time.Hour - time.Microsecond, 3*time.Hour - time.Microsecond, []int64{300, 70, 9},
		},
	} {
		p.clock.Set(begin.Add(c.after))
		require.NoError(t, lease.Renew(ctx, c.in))
		require.Equal(t, begin.Add(c.expires), lease.ExpiresAt)
		row := leaseRow(t, p.Registry, lease.ID)
		require.Equal(t, []time.Time{begin, lease.ExpiresAt}, []time.Time{row.AcquiredAt.UTC(), row.ExpiresAt.UTC()})
		require.Equal(t, c.reserves, reserves(t, p.Registry, lease.ID))
		require.Equal(t, registry.KeyBusy, p.refused(t, p.want(1)).Keys[0].Reason, "it is open still")
	}
	found, err := p.GetLease(ctx, lease.ID)
	require.NoError(t, err)
	require.Equal(t, lease.ExpiresAt, found.ExpiresAt)

	require.ErrorIs(t, lease.Renew(ctx, registry.RenewInput{TTL: time.Hour, EstimatedOutputTokens: 301}),
		registry.ErrInvalidData, "more output than tokens")
	for _, in := range []registry.RenewInput{
		{}, {TTL: 13 * time.Hour}, {TTL: time.Hour, EstimatedTokens: -1}, {TTL: time.Hour, EstimatedCost: -1},
		{TTL: time.Hour, EstimatedOutputTokens: -1}, {TTL: time.Hour, EstimatedTokens: 9, EstimatedOutputTokens: 10},
	} {
		require.ErrorIs(t, found.Renew(ctx, in), registry.ErrInvalidData, "%+v", in)
	}
	require.Equal(t, []int64{300, 70, 9}, reserves(t, p.Registry, lease.ID))

	// What is recorded of unknown usage is the estimate of the last renewal, also when the lease has expired.
	p.clock.Set(lease.ExpiresAt)
	p.acquire(t, 1)
	require.NoError(t, lease.Settle(ctx, registry.UsageInput{Usage: registry.UsageUnknown}))
	event := eventOf(t, p.Registry, lease.ID)
	require.Equal(t, []int64{230, 70}, []int64{event.InputTokens, event.OutputTokens})
}

// TestRenewEnded: a lease that has ended or expired is not renewed, through any handle.
func TestRenewEnded(t *testing.T) { eachEngine(t, testRenewEnded) }

func testRenewEnded(t *testing.T, e engine) {
	for name, end := range map[string]func(t *testing.T, p *poolTest, l *registry.Lease){
		"released": func(t *testing.T, _ *poolTest, l *registry.Lease) {
			t.Helper()
			require.NoError(t, l.Release(t.Context()))
		},
		"settled": func(t *testing.T, _ *poolTest, l *registry.Lease) {
			t.Helper()
			require.NoError(t, l.Settle(t.Context(), used(1)))
		},
		"expired": func(t *testing.T, p *poolTest, _ *registry.Lease) {
			t.Helper()
			p.clock.Advance(time.Minute)
		},
		"expired, and another has its place": func(t *testing.T, p *poolTest, _ *registry.Lease) {
			t.Helper()
			p.clock.Advance(time.Minute)
			p.acquire(t, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{Concurrency: 1}}})
			lease := p.acquire(t, 10)
			other, err := p.GetLease(t.Context(), lease.ID)
			require.NoError(t, err)
			end(t, p, lease)
			before := dump(t, p.Registry)
			for _, l := range []*registry.Lease{lease, other} {
				require.ErrorIs(t, l.Renew(t.Context(), registry.RenewInput{TTL: time.Hour}), registry.ErrLeaseEnded)
			}
			require.Equal(t, before, dump(t, p.Registry))
		})
	}
}

// TestRenewLimits: what a renewal adds must fit into the limits in which its lease counts, as long as it does.
func TestRenewLimits(t *testing.T) { eachEngine(t, testRenewLimits) }

func testRenewLimits(t *testing.T, e engine) {
	const minute, day = time.Minute, 12 * time.Hour // the clock begins at noon
	more := registry.RenewInput{TTL: 12 * time.Hour, EstimatedTokens: 101}
	for name, c := range map[string]struct {
		limits registry.Limits
		fits   registry.RenewInput
		more   registry.RenewInput
		limit  registry.LimitName
		opens  time.Duration
	}{
		"tokens per minute": {
			registry.Limits{TokensPerMinute: 200}, registry.RenewInput{EstimatedTokens: 100}, more,
			registry.LimitTokensPerMinute, minute,
		},
		"tokens per day": {
			registry.Limits{TokensPerDay: 200}, registry.RenewInput{EstimatedTokens: 100}, more,
			registry.LimitTokensPerDay, day,
		},
		"cost per day": {
			registry.Limits{CostPerDay: 20}, registry.RenewInput{EstimatedCost: 10},
			registry.RenewInput{TTL: 12 * time.Hour, EstimatedCost: 11}, registry.LimitCostPerDay, day,
		},
		"cost per day, of tokens": { // of a dollar for each million
			registry.Limits{CostPerDay: 200_000}, registry.RenewInput{EstimatedTokens: 100}, more,
			registry.LimitCostPerDay, day,
		},
	} {
		for _, shared := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", shared"}[shared], func(t *testing.T) {
				t.Parallel()
				p := e.newPoolTest(t, nil)
				m := mustModel(t, p.Registry, p.provider.ID, "m", money.Rates{meter.Input: money.Dollar})
				group, own := registry.Limits{}, c.limits
				if shared {
					group, own = c.limits, registry.Limits{}
				}
				p.inGroup(t, "account", group)
				_, err := p.UpdateAPIKey(t.Context(), p.keys[0].ID, registry.KeyUpdate{Limits: &own})
				require.NoError(t, err)
				acquire := func() *registry.Lease {
					in := registry.AcquireInput{
						ProviderID: p.provider.ID, ModelID: m.ID, EstimatedTokens: c.fits.EstimatedTokens,
						EstimatedCost: c.fits.EstimatedCost, TTL: 12 * time.Hour,
					}
					if c.limits.CostPerDay == 200_000 {
						in.EstimatedTokens = 100
						in.EstimatedCost = 100_000
					}
					l, err := p.AcquireKey(t.Context(), in)
					require.NoError(t, err)
					return l
				}
				lease, other := acquire(), acquire()
				requireRenewals(t, p, lease, other, c.more, c.limit, registrytest.Start.Add(c.opens))
			})
		}
	}
}

// requireRenewals renews a lease that fills a limit together with another one.
func requireRenewals(
	t *testing.T, p *poolTest, lease, other *registry.Lease, more registry.RenewInput, limit registry.LimitName,
	opens time.Time,
) {
	t.Helper()
	ctx := t.Context()
	before := dump(t, p.Registry)
	refused := func() {
		t.Helper()
		err := lease.Renew(ctx, more)
		require.ErrorIs(t, err, registry.ErrNoKeyAvailable)
		require.ErrorContains(t, err, "the lease cannot reserve more: ")
		var why *registry.NoKeyError
		require.ErrorAs(t, err, &why)
		require.Len(t, why.Keys, 1)
		require.Equal(t, []any{lease.KeyID, registry.KeyLimited, opens, opens},
			[]any{why.Keys[0].ID, why.Keys[0].Reason, why.Keys[0].Until, why.OpensAt})
		require.Equal(t, limit, why.Keys[0].Limits[0].Name)
		require.True(t, why.Keys[0].Limits[0].Closed)
	}
	refused()
	require.Equal(t, before, dump(t, p.Registry), "nothing has changed")
	require.NoError(t, lease.Renew(ctx, registry.RenewInput{TTL: 12 * time.Hour}), "it asks for nothing more")
	require.NoError(t, other.Release(ctx))
	require.NoError(t, lease.Renew(ctx, more))
	require.NoError(t, lease.Renew(ctx, more), "as if the answer to the first had been lost")
	p.clock.Set(opens.Add(-time.Microsecond))
	require.NoError(t, lease.Renew(ctx, registry.RenewInput{TTL: 12 * time.Hour}))
	more.EstimatedTokens, more.EstimatedCost = 2*more.EstimatedTokens, 2*more.EstimatedCost
	refused()
	p.clock.Set(opens)
	require.NoError(t, lease.Renew(ctx, more), "it counts there no more")
}

// TestRenewKeyGone: the request under way goes on, whatever has become of its key.
func TestRenewKeyGone(t *testing.T) { eachEngine(t, testRenewKeyGone) }

func testRenewKeyGone(t *testing.T, e engine) {
	t.Parallel()
	ctx := t.Context()
	p := e.newPoolTest(t, make([]registry.KeyInput, 1))
	p.inGroup(t, "account", registry.Limits{TokensPerDay: 100})
	var leases []*registry.Lease
	for range p.keys {
		leases = append(leases, p.acquire(t, 10))
	}
	more := registry.RenewInput{TTL: time.Hour, EstimatedTokens: 20}
	for _, change := range []func(key uuid.UUID) error{
		func(key uuid.UUID) error {
			_, err := p.UpdateAPIKey(ctx, key, registry.KeyUpdate{Disabled: new(true)})
			return err
		},
		func(key uuid.UUID) error { return p.DegradeKey(ctx, key, "why", time.Hour) },
		func(key uuid.UUID) error { return p.DeleteAPIKey(ctx, key) },
	} {
		for _, l := range leases {
			require.NoError(t, change(l.KeyID))
			require.NoError(t, l.Renew(ctx, more))
			require.Equal(t, more.EstimatedTokens, leaseRow(t, p.Registry, l.ID).ReservedTokens)
		}
		more.EstimatedTokens += 10
	}
	for _, l := range leases {
		require.NoError(t, p.PurgeAPIKey(ctx, l.KeyID))
		require.ErrorIs(t, l.Renew(ctx, more), registry.ErrLeaseEnded)
	}
}

// TestRenewInTx renews leases in transactions; one is undone.
func TestRenewInTx(t *testing.T) { eachEngine(t, testRenewInTx) }

func testRenewInTx(t *testing.T, e engine) {
	t.Parallel()
	ctx := t.Context()
	p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{TokensPerDay: 100}}})
	id := p.acquire(t, 10).ID
	renew := func(tokens int64, end error) error {
		return p.InTx(ctx, func(tx *registry.Registry) error {
			l, err := tx.GetLease(ctx, id)
			if err != nil {
				return err
			}
			return errors.Join(l.Renew(ctx, registry.RenewInput{TTL: time.Hour, EstimatedTokens: tokens}), end)
		})
	}
	require.ErrorIs(t, renew(50, errRollback), errRollback)
	require.Equal(t, []int64{10, 0, 0}, reserves(t, p.Registry, id))
	require.Equal(t, registrytest.Start.Add(time.Minute), leaseRow(t, p.Registry, id).ExpiresAt.UTC())
	p.acquire(t, 90)
	require.ErrorIs(t, renew(11, nil), registry.ErrNoKeyAvailable)
	p.clock.Advance(time.Minute)
	require.ErrorIs(t, renew(11, nil), registry.ErrLeaseEnded)
	id = p.acquire(t, 10).ID
	require.NoError(t, renew(50, nil))
	require.Equal(t, []int64{50, 0, 0}, reserves(t, p.Registry, id))
	_ = p.refused(t, p.want(51))
	p.acquire(t, 50)
}

// TestRenewAtOnce renews leases from many goroutines in two processes: together they reserve no more than the limits
// say, and each lease all that was granted.
func TestRenewAtOnce(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			open := openByClocks(t, engine)
			here, _ := open(registrytest.Start)
			there, _ := open(registrytest.Start)
			p := mustProvider(t, here, "p")
			const limit = 1000
			_, err := here.AddAPIKey(ctx, registry.KeyInput{
				ProviderID: p.ID, APIKey: secret(1), Limits: registry.Limits{TokensPerDay: limit},
			})
			require.NoError(t, err)
			granted := make([]int64, 16)
			var all sync.WaitGroup
			var ids [16]uuid.UUID
			errs := make([]error, len(granted))
			for i := range granted {
				all.Go(func() {
					ids[i], granted[i], errs[i] = grow(ctx, []*registry.Registry{here, there}[i%2],
						registry.AcquireInput{ProviderID: p.ID})
				})
			}
			all.Wait()
			require.NoError(t, errors.Join(errs...))
			sum := int64(0)
			for i, id := range ids {
				require.Equal(t, granted[i], leaseRow(t, here, id).ReservedTokens)
				sum += granted[i]
			}
			require.LessOrEqual(t, sum, int64(limit))
			require.Greater(t, sum, int64(limit-20), "they were refused by the limit alone")
			for _, reg := range []*registry.Registry{here, there} {
				verdicts, err := reg.ExplainKeys(ctx, registry.AcquireInput{ProviderID: p.ID})
				require.NoError(t, err)
				require.Equal(t, sum, verdicts[0].Limits[0].Used)
			}
		})
	}
}

// grow leases a key and renews the lease until that is refused. It returns how many tokens were granted.
func grow(
	ctx context.Context, reg *registry.Registry, in registry.AcquireInput,
) (lease uuid.UUID, tokens int64, err error) {
	in.EstimatedTokens, in.TTL = 1, time.Hour
	l, err := reg.AcquireKey(ctx, in)
	if err != nil {
		return lease, 0, err
	}
	for tokens = 1; tokens < 5000; tokens += 20 {
		err = l.Renew(ctx, registry.RenewInput{TTL: time.Hour, EstimatedTokens: tokens + 20})
		if errors.Is(err, registry.ErrNoKeyAvailable) || errors.Is(err, registry.ErrBudget) {
			return l.ID, tokens, nil
		}
		if err != nil {
			return l.ID, tokens, err
		}
	}
	return l.ID, tokens, errors.New("nothing refuses it")
}

// TestRenewCommitLost loses the answer to the commit of a renewal, on its way.
func TestRenewCommitLost(t *testing.T) {
	long(t, "connections are cut at each message")
	t.Parallel()
	ctx := t.Context()
	proxy, through := newFaultProxy(t, registrytest.PostgresURL(t))
	reg := failoverOpen(t, through)
	t.Cleanup(proxy.close) // first
	p := mustProvider(t, reg, "p")
	_, err := reg.AddAPIKey(ctx, registry.KeyInput{
		ProviderID: p.ID, APIKey: secret(1), Limits: registry.Limits{TokensPerDay: 100},
	})
	require.NoError(t, err)
	l, err := reg.AcquireKey(ctx, registry.AcquireInput{ProviderID: p.ID, EstimatedTokens: 10, TTL: time.Minute})
	require.NoError(t, err)
	in := registry.RenewInput{TTL: time.Hour, EstimatedTokens: 60} // fifty more do not fit twice
	for _, lost := range []faultSnag{{is: commitQuery}, {is: commitAnswer, fromServer: true}} {
		lost.how = (*faultWire).reset
		done := proxy.lose(lost)
		require.NoError(t, l.Renew(ctx, in))
		require.True(t, done())
		require.Equal(t, in.EstimatedTokens, leaseRow(t, reg, l.ID).ReservedTokens)
		in.EstimatedTokens = 100
	}
}
