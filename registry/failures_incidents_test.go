package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestIncident has keys fail alike.
func TestIncident(t *testing.T) { eachEngine(t, testIncident) }

func testIncident(t *testing.T, e engine) {
	step := 2 * time.Second
	t.Run("of the provider", func(t *testing.T) {
		t.Parallel()
		for _, f := range []registry.Failure{
			limited, retryAfter(limited, 3), denied, exhausted, {Status: 500}, {Err: context.DeadlineExceeded},
		} {
			p := e.newPoolTest(t, make([]registry.KeyInput, 5))
			for i := range 3 {
				p.clock.Advance(step)
				p.fail(t, i, f)
			}
			for _, v := range p.explain(t, 1) {
				require.Equal(t, registry.KeyCooling, v.Reason, "the provider, and no key")
				require.False(t, v.Probation)
			}
			why := p.refused(t, p.want(1))
			rest := why.OpensAt.Sub(p.clock.Now())
			require.GreaterOrEqual(t, rest, 5*time.Second)
			require.LessOrEqual(t, rest, 6250*time.Millisecond)
			health, err := p.PoolHealth(t.Context())
			require.NoError(t, err)
			require.Equal(t, why.OpensAt, health[0].CoolingUntil)
			require.Equal(t, 5, health[0].Unusable[registry.KeyCooling])
			require.False(t, health[0].Alert())
			p.clock.Set(why.OpensAt)
			for _, v := range p.explain(t, 1) {
				require.Empty(t, v.Reason)
			}
			// The next one is longer, and one after a success is not.
			for i := range 3 {
				p.clock.Advance(step)
				p.fail(t, i, f)
			}
			require.GreaterOrEqual(t, p.refused(t, p.want(1)).OpensAt.Sub(p.clock.Now()), 10*time.Second)
			p.clock.Advance(time.Minute)
			require.NoError(t, p.acquire(t, 1).Settle(t.Context(), used(1)))
			for i := range 3 {
				p.clock.Advance(step)
				p.fail(t, i, f)
			}
			require.LessOrEqual(t, p.refused(t, p.want(1)).OpensAt.Sub(p.clock.Now()), 6250*time.Millisecond)
			require.Contains(t, p.actions(t), "cool_down")
		}
	})
	for name, between := range map[string]func(*testing.T, *poolTest, int){
		"some succeed": func(t *testing.T, p *poolTest, _ int) {
			t.Helper()
			in := p.want(1)
			in.Exclude = []uuid.UUID{p.keys[0].ID, p.keys[1].ID, p.keys[2].ID}
			lease, err := p.AcquireKey(t.Context(), in)
			require.NoError(t, err)
			require.NoError(t, lease.Settle(t.Context(), used(1)))
		},
		"not within seconds": func(_ *testing.T, p *poolTest, _ int) { p.clock.Advance(5 * time.Second) },
		"not alike": func(t *testing.T, p *poolTest, i int) {
			t.Helper()
			if i == 1 {
				p.fail(t, 3, denied)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := e.newPoolTest(t, make([]registry.KeyInput, 5))
			n := 3
			if name == "not alike" {
				n = 2
			}
			for i := range n {
				p.clock.Advance(step)
				p.fail(t, i, retryAfter(limited, 60))
				p.clock.Advance(time.Millisecond)
				between(t, p, i)
			}
			for i, v := range p.explain(t, 1)[:n] {
				require.Equal(t, registry.KeyDegraded, v.Reason, i)
			}
		})
	}
}

// TestIncidentBounds shows how many keys have to fail, and what fails while the provider rests.
func TestIncidentBounds(t *testing.T) { eachEngine(t, testIncidentBounds) }

func testIncidentBounds(t *testing.T, e engine) {
	step := 2 * time.Second
	t.Run("too few", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 8))
		for i := range 3 { // of eight
			p.fail(t, i, limited)
		}
		require.Equal(t, registry.KeyDegraded, p.explain(t, 1)[0].Reason)
		p.fail(t, 3, limited)
		require.Equal(t, registry.KeyCooling, p.explain(t, 1)[0].Reason)
	})
	t.Run("while it cools", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 4))
		late := p.acquire(t, 1)
		for i := 1; i < 4; i++ {
			p.clock.Advance(step)
			p.fail(t, i, limited)
		}
		opens := p.refused(t, p.want(1)).OpensAt
		require.NoError(t, errOf(late.Fail(t.Context(), limited)))
		why := p.refused(t, p.want(1))
		require.Equal(t, opens, why.OpensAt)
		for _, v := range why.Keys {
			require.Equal(t, registry.KeyCooling, v.Reason)
		}
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
