package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

var (
	limited   = registry.Failure{Status: 429}
	exhausted = registry.Failure{Status: 429, Body: []byte(`{"error":{"code":"insufficient_quota"}}`)}
	denied    = registry.Failure{Status: 401}
)

func retryAfter(f registry.Failure, seconds int) registry.Failure {
	f.Header = http.Header{"Retry-After": {fmt.Sprint(seconds)}}
	return f
}

// errOf is the error of a Fail of which the diagnosis does not matter.
func errOf(_ registry.Diagnosis, err error) error { return err }

// fail fails the next lease of a key, which must be the one that is handed out.
func (p *poolTest) fail(tb testing.TB, i int, f registry.Failure) {
	tb.Helper()
	in := p.want(1)
	for k, key := range p.keys {
		if k != i {
			in.Exclude = append(in.Exclude, key.ID)
		}
	}
	lease, err := p.AcquireKey(tb.Context(), in)
	require.NoError(tb, err)
	require.Equal(tb, p.keys[i].ID, lease.KeyID)
	require.NoError(tb, errOf(lease.Fail(tb.Context(), f)))
}

// within demands that a key is out from now on, for at least first and at most a quarter more.
func (p *poolTest) within(tb testing.TB, i int, first time.Duration) {
	tb.Helper()
	v := p.explain(tb, 1)[i]
	require.Equal(tb, registry.KeyDegraded, v.Reason)
	rest := v.Until.Sub(p.clock.Now())
	require.GreaterOrEqual(tb, rest, first)
	require.LessOrEqual(tb, rest, first+first/4)
}

// actions are those of the audit trail on keys and providers, oldest first.
func (p *poolTest) actions(tb testing.TB) (all []string) {
	tb.Helper()
	entries, err := p.ListAudit(tb.Context(), registry.AuditFilter{})
	require.NoError(tb, err)
	for _, e := range entries {
		switch e.Action {
		case registry.ActionDegrade, registry.ActionRestore, registry.ActionProbe, registry.ActionCoolDown:
			all = append([]string{strings.TrimSpace(e.Actor + " " + e.Action)}, all...)
		}
	}
	return all
}

func TestFail(t *testing.T) { eachEngine(t, testFail) }

func testFail(t *testing.T, e engine) {
	t.Run("rate limited", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 2))
		bob := p.As("bob")
		p.Registry = bob
		p.fail(t, 0, retryAfter(limited, 60))
		v := p.explain(t, 1)[0]
		require.Equal(t, registry.KeyVerdict{
			ID: p.keys[0].ID, Prefix: "sk-test-", Reason: registry.KeyDegraded, Detail: "rate_limited: 429",
			Until:  p.clock.Now().Add(time.Minute),
			Weight: 1, Limits: v.Limits,
		}, v)
		p.clock.Advance(time.Minute - time.Microsecond)
		require.Equal(t, registry.KeyDegraded, p.explain(t, 1)[0].Reason)
		p.clock.Advance(time.Microsecond)
		require.Empty(t, p.explain(t, 1)[0].Reason)
		// Without a word of when to come back: longer each time, until a request succeeds.
		for _, rest := range []time.Duration{4 * time.Second, 8 * time.Second, 16 * time.Second} {
			p.fail(t, 0, limited)
			p.within(t, 0, rest)
			p.clock.Advance(20 * time.Second)
		}
		p.fail(t, 0, limited)
		p.clock.Advance(40 * time.Second)
		for range 10 {
			p.fail(t, 0, limited)
			p.clock.Advance(10 * time.Minute)
		}
		p.fail(t, 0, limited)
		p.within(t, 0, 5*time.Minute)
		p.clock.Advance(10 * time.Minute)
		for range 3 { // the other key's turn comes first
			require.NoError(t, p.acquire(t, 1).Settle(t.Context(), used(1)))
		}
		require.Zero(t, p.key(t, 0).Failures)
		p.fail(t, 0, limited)
		p.within(t, 0, 2*time.Second)
		require.Equal(
			t, slices.Repeat([]string{"bob degrade"}, 6), p.actions(t),
			"by whom: the 1st, 2nd, 4th, 8th and 16th time, and after a success",
		)
		events, err := p.Client().UsageEvent.Query().
			Where(usageevent.ErrorClass("rate_limited"), usageevent.HTTPStatus(429)).Count(t.Context())
		require.NoError(t, err)
		require.Equal(t, 17, events)
	})
	t.Run("under way together", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		leases := []*registry.Lease{p.acquire(t, 1), p.acquire(t, 1), p.acquire(t, 1)}
		p.clock.Advance(time.Second)
		require.NoError(t, errOf(leases[0].Fail(t.Context(), retryAfter(limited, 60))))
		until := p.explain(t, 1)[0].Until
		p.clock.Advance(time.Second)
		require.NoError(t, errOf(leases[1].Fail(t.Context(), retryAfter(limited, 5))))
		require.Equal(t, until, p.explain(t, 1)[0].Until, "it never moves back")
		require.Equal(t, 1, p.key(t, 0).Failures, "they are one failure")
		require.Equal(t, []string{"degrade"}, p.actions(t))
		require.NoError(t, leases[2].Settle(t.Context(), used(1)))
		require.Equal(t, until, p.explain(t, 1)[0].Until, "what began before does not bring it back")
		require.Equal(t, 1, p.key(t, 0).Failures)
	})
	t.Run("told once", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 2))
		leases := make([]*registry.Lease, 8)
		for i := range leases {
			leases[i] = p.acquire(t, 1)
		}
		for _, lease := range leases {
			p.clock.Advance(time.Millisecond)
			f := retryAfter(limited, 60)
			if lease.KeyID == p.keys[1].ID {
				f = denied
			}
			require.NoError(t, errOf(lease.Fail(t.Context(), f)))
		}
		require.Equal(t, []string{"degrade", "degrade"}, p.actions(t))
		require.Equal(
			t, p.clock.Now().Add(time.Minute-time.Millisecond), p.explain(t, 1)[0].Until, "the last of them counts",
		)
	})
	t.Run("and limited", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{RequestsPerDay: 1}}})
		p.fail(t, 0, retryAfter(limited, 60))
		in := p.want(1)
		in.Exclude = []uuid.UUID{p.keys[0].ID}
		why := p.refused(t, in)
		require.Equal(t, p.clock.Now().Add(12*time.Hour), why.OpensAt, "not before the last of its reasons is gone")
		require.Equal(t, registry.KeyDegraded, why.Keys[0].Reason)
		require.True(t, why.Keys[0].Excluded)
		in.Wait = true
		require.Equal(t, why, p.refused(t, in), "nobody waits for a key that he does not want")
	})
}

// TestFailForHours has failures that take a key out for minutes or hours, and those that are not its own.
func TestFailForHours(t *testing.T) { eachEngine(t, testFailForHours) }

func testFailForHours(t *testing.T, e engine) {
	for name, c := range map[string]struct {
		failure registry.Failure
		rests   []time.Duration
		class   registry.FailureClass
	}{
		"auth": {
			failure: denied, rests: []time.Duration{10 * time.Minute, 20 * time.Minute}, class: registry.FailureAuth,
		},
		"quota exhausted": {
			failure: exhausted, rests: []time.Duration{15 * time.Minute, 30 * time.Minute},
			class: registry.FailureQuotaExhausted,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := e.newPoolTest(t, make([]registry.KeyInput, 1))
			for _, rest := range c.rests {
				p.fail(t, 0, c.failure)
				p.within(t, 0, rest)
				require.Contains(t, p.explain(t, 1)[0].Detail, string(c.class))
				p.clock.Advance(rest + rest/4)
			}
			// One request tries it.
			require.True(t, p.explain(t, 1)[0].Probation)
			probe := p.acquire(t, 1)
			require.True(t, probe.Probe)
			require.Equal(t, registry.KeyProbed, p.refused(t, p.want(1)).Keys[0].Reason)
			require.NoError(t, probe.Release(t.Context()))
			probe = p.acquire(t, 1) // another may, then
			require.True(t, probe.Probe)
			p.clock.Advance(time.Minute)
			probe = p.acquire(t, 1) // or when it has expired
			require.NoError(t, probe.Settle(t.Context(), used(1)))
			require.False(t, p.acquire(t, 1).Probe)
			require.False(t, p.acquire(t, 1).Probe)
			require.Empty(t, p.key(t, 0).DegradedBy)
			require.Equal(
				t, []string{"degrade", "probe", "degrade", "probe", "probe", "probe", "restore"}, p.actions(t),
			)
		})
	}
	t.Run("quota until its reset", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		p.fail(t, 0, retryAfter(exhausted, 7200))
		require.Equal(t, p.clock.Now().Add(2*time.Hour), p.explain(t, 1)[0].Until)
	})
	t.Run("not the key's fault", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		for _, f := range []registry.Failure{
			{Status: 500}, {Status: 503}, {Status: 529}, {Status: 400}, {Status: 404}, {Status: 504},
			{Err: context.DeadlineExceeded}, {Err: errors.New("reset")},
		} {
			for range 20 {
				p.fail(t, 0, f)
				require.Empty(t, p.explain(t, 1)[0].Reason)
			}
		}
		require.Empty(t, p.actions(t))
	})
}

// TestFailBesides has failures of keys that somebody else has a say in.
func TestFailBesides(t *testing.T) { eachEngine(t, testFailBesides) }

func testFailBesides(t *testing.T, e engine) {
	t.Run("a person's", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 2))
		_, err := p.UpdateAPIKey(t.Context(), p.keys[0].ID, registry.KeyUpdate{Disabled: ptr(true)})
		require.NoError(t, err)
		require.NoError(t, p.DegradeKey(t.Context(), p.keys[1].ID, "by hand", time.Hour))
		p.clock.Advance(30 * time.Minute)
		require.Equal(
			t, []registry.KeyReason{registry.KeyDisabled, registry.KeyDegraded},
			[]registry.KeyReason{p.explain(t, 1)[0].Reason, p.explain(t, 1)[1].Reason},
		)
		p.clock.Advance(30 * time.Minute)
		lease := p.acquire(t, 1)
		require.Equal(t, p.keys[1].ID, lease.KeyID)
		require.False(t, lease.Probe)
		// A key is disabled while it is used: what comes of that does not enable it.
		_, err = p.UpdateAPIKey(t.Context(), p.keys[1].ID, registry.KeyUpdate{Disabled: ptr(true)})
		require.NoError(t, err)
		require.NoError(t, lease.Settle(t.Context(), used(1)))
		p.clock.Advance(1000 * time.Hour)
		for _, k := range p.refused(t, p.want(1)).Keys {
			require.Equal(t, registry.KeyDisabled, k.Reason)
		}
		// A longer one than the failure's stays a person's.
		_, err = p.UpdateAPIKey(t.Context(), p.keys[1].ID, registry.KeyUpdate{Disabled: ptr(false)})
		require.NoError(t, err)
		p.fail(t, 1, denied)
		require.NoError(t, p.DegradeKey(t.Context(), p.keys[1].ID, "by hand", time.Hour))
		p.clock.Advance(time.Hour)
		require.False(t, p.acquire(t, 1).Probe)
	})
	t.Run("restored", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		p.fail(t, 0, retryAfter(denied, 3600))
		require.NoError(t, p.RestoreKey(t.Context(), p.keys[0].ID))
		require.Empty(t, p.explain(t, 1)[0].Reason)
		require.False(t, p.acquire(t, 1).Probe)
		require.Zero(t, p.key(t, 0).Failures)
	})
	t.Run("no model", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		in := p.want(100)
		in.ModelID = uuid.Nil
		lease, err := p.AcquireKey(t.Context(), in)
		require.NoError(t, err)
		require.NoError(t, errOf(lease.Fail(t.Context(), limited)))
		require.Equal(t, registry.KeyDegraded, p.explain(t, 1)[0].Reason)
		key := p.key(t, 0)
		require.EqualValues(t, []int64{1, 0, 0}, []int64{key.RequestsToday, key.TokensToday, key.UsageCount})
		require.Zero(t, p.openLeases(t))
		p.clock.Advance(time.Minute)
		lease, err = p.AcquireKey(t.Context(), in)
		require.NoError(t, err)
		require.ErrorIs(t, lease.Settle(t.Context(), used(1)), registry.ErrForeignKey)
		settled := used(1)
		settled.ModelID = p.model.ID
		require.NoError(t, lease.Settle(t.Context(), settled))
	})
	t.Run("classifier", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1),
			registry.WithClassifier(func(f registry.Failure, now time.Time) registry.Diagnosis {
				switch f.Status {
				case 418:
					return registry.Diagnosis{
						Class: registry.FailureAuth, Until: now.Add(42 * time.Minute), Reason: "a teapot",
					}
				case 419:
					return registry.Diagnosis{Class: "unheard of"}
				}
				return registry.Classify(f, now)
			}))
		lease := p.acquire(t, 1)
		require.ErrorIs(t, errOf(lease.Fail(t.Context(), registry.Failure{Status: 419})), registry.ErrInvalidData)
		made, err := lease.Fail(t.Context(), registry.Failure{Status: 418})
		require.NoError(t, err)
		require.Equal(
			t,
			registry.Diagnosis{
				Class: registry.FailureAuth, Until: p.clock.Now().Add(42 * time.Minute), Reason: "a teapot",
			},
			made,
		)
		v := p.explain(t, 1)[0]
		require.Equal(t, []any{p.clock.Now().Add(42 * time.Minute), "auth: a teapot"}, []any{v.Until, v.Detail})
	})
}

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

// quotaHeader tells of 60 requests and 1000 tokens, and of how many requests remain.
func quotaHeader(remaining string) http.Header {
	return http.Header{
		"X-Ratelimit-Limit-Requests": {"60"}, "X-Ratelimit-Remaining-Requests": {remaining},
		"X-Ratelimit-Reset-Requests": {"30s"},
		"X-Ratelimit-Limit-Tokens":   {"1000"}, "X-Ratelimit-Remaining-Tokens": {"500"},
		"X-Ratelimit-Reset-Tokens": {"10s"},
	}
}

// TestObserveHeaders learns a provider's own limits.
func TestObserveHeaders(t *testing.T) { eachEngine(t, testObserveHeaders) }

func testObserveHeaders(t *testing.T, e engine) {
	t.Run("of a key", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		lease := p.acquire(t, 1)
		lease.ObserveHeaders(quotaHeader("2"))
		require.NoError(t, lease.Settle(t.Context(), used(1)))
		now := p.clock.Now()
		require.Equal(t, []registry.LimitState{
			{Name: registry.LimitObservedRequests, Limit: 60, Used: 58},
			{Name: registry.LimitObservedTokens, Limit: 1000, Used: 500},
		}, p.explain(t, 1)[0].Limits)
		require.Equal(t, now.Add(10*time.Second), p.refused(t, p.want(501)).OpensAt)
		p.acquire(t, 400)
		require.Equal(
			t, registry.KeyLimited, p.refused(t, p.want(101)).Keys[0].Reason, "what was asked for since is taken off",
		)
		p.acquire(t, 100)
		require.Equal(t, now.Add(30*time.Second), p.refused(t, p.want(1)).OpensAt)
		p.clock.Advance(30 * time.Second)
		p.acquire(t, 5000)
	})
	t.Run("of a group", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, nil)
		g, err := p.CreateQuotaGroup(t.Context(), registry.QuotaGroupInput{ProviderID: p.provider.ID, Name: "account"})
		require.NoError(t, err)
		for i := range 2 {
			key, err := p.AddAPIKey(
				t.Context(), registry.KeyInput{ProviderID: p.provider.ID, APIKey: secret(i), QuotaGroupID: g.ID},
			)
			require.NoError(t, err)
			p.keys = append(p.keys, key)
		}
		require.NoError(t, p.ObserveHeaders(t.Context(), p.keys[0].ID, quotaHeader("0")))
		for _, v := range p.refused(t, p.want(1)).Keys {
			require.Equal(t, registry.KeyLimited, v.Reason)
			require.Equal(t, "account observed_requests", v.Detail)
		}
		p.clock.Advance(30 * time.Second)
		p.fail(t, 0, retryAfter(limited, 60)) // the account is
		require.Equal(
			t, []registry.KeyReason{registry.KeyDegraded, registry.KeyLimited},
			[]registry.KeyReason{p.explain(t, 1)[0].Reason, p.explain(t, 1)[1].Reason},
		)
		p.clock.Advance(time.Minute)
		p.acquire(t, 1)
		p.fail(t, 0, exhausted) // for hours
		require.NoError(t, p.RestoreKey(t.Context(), p.keys[0].ID))
		require.Empty(t, p.explain(t, 1)[0].Reason)
		require.Empty(t, p.explain(t, 1)[1].Reason, "the account is restored, too")
	})
	t.Run("Retry-After of a quota that is not used up", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		f := retryAfter(limited, 2)
		for name, values := range quotaHeader("45") {
			f.Header[name] = values
		}
		p.fail(t, 0, f)
		require.Equal(t, p.clock.Now().Add(2*time.Second), p.refused(t, p.want(1)).OpensAt)
		p.clock.Advance(2 * time.Second)
		p.acquire(t, 1)
	})
}

// TestObserveRetryAfter learns when a provider wants to be asked again.
func TestObserveRetryAfter(t *testing.T) { eachEngine(t, testObserveRetryAfter) }

func testObserveRetryAfter(t *testing.T, e engine) {
	t.Run("Retry-After", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		require.NoError(t, p.ObserveHeaders(t.Context(), p.keys[0].ID, http.Header{"Retry-After": {"7"}}))
		require.Equal(t, p.clock.Now().Add(7*time.Second), p.refused(t, p.want(1)).OpensAt)
	})
	t.Run("updated_at", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		for _, change := range []func() error{
			func() error { return p.ObserveHeaders(t.Context(), p.keys[0].ID, quotaHeader("2")) },
			func() error { return p.acquire(t, 1).Release(t.Context()) },
			func() error { return errOf(p.acquire(t, 1).Fail(t.Context(), registry.Failure{Status: 400})) },
		} {
			p.clock.Advance(time.Second)
			require.NoError(t, change())
			require.Equal(t, p.clock.Now(), p.key(t, 0).UpdatedAt)
		}
	})
	t.Run("for a day at the most", func(t *testing.T) {
		t.Parallel()
		absurd := http.Header{"Retry-After": {"100000000000"}}
		resets := http.Header{"X-Ratelimit-Remaining-Requests": {"0"}, "X-Ratelimit-Reset-Requests": {"8000000s"}}
		for most, options := range map[time.Duration][]registry.Option{
			24 * time.Hour:       nil,
			time.Hour:            {registry.WithMaxRetryAfter(time.Hour)},
			365 * 24 * time.Hour: {registry.WithMaxRetryAfter(365 * 24 * time.Hour)},
		} {
			p := e.newPoolTest(t, make([]registry.KeyInput, 1), options...)
			observe := func(h http.Header) { require.NoError(t, p.ObserveHeaders(t.Context(), p.keys[0].ID, h)) }
			for name, said := range map[string]func(){
				"Retry-After of a failure": func() { p.fail(t, 0, registry.Failure{Status: 429, Header: absurd}) },
				"resets of a failure":      func() { p.fail(t, 0, registry.Failure{Status: 500, Header: resets}) },
				"Retry-After":              func() { observe(absurd) },
				"resets":                   func() { observe(resets) },
			} {
				said()
				rest := p.refused(t, p.want(1)).OpensAt.Sub(p.clock.Now())
				if name == "resets" || name == "resets of a failure" {
					require.Equal(t, min(most, 8_000_000*time.Second), rest, name)
				} else {
					require.Equal(t, most, rest, name)
				}
				require.NoError(t, p.RestoreKey(t.Context(), p.keys[0].ID))
			}
		}
		for _, wrong := range []time.Duration{0, -1, time.Second - 1, 366 * 24 * time.Hour} {
			_, err := registry.Open(t.Context(), ":memory:", registry.WithMaxRetryAfter(wrong))
			require.ErrorIs(t, err, registry.ErrInvalidData, wrong)
		}
		require.Equal(
			t, registrytest.Start.Add(24*time.Hour),
			registry.Classify(registry.Failure{Status: 429, Header: absurd}, registrytest.Start).Until,
		)
	})
	t.Run("nothing", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		before := dump(t, p.Registry)
		for _, h := range []http.Header{
			nil, {}, {"Retry-After": {"soon"}}, {"X-Ratelimit-Remaining-Requests": {"-5"}},
			{"X-Ratelimit-Remaining-Requests": {"0"}, "X-Ratelimit-Reset-Requests": {"x"}},
		} {
			require.NoError(t, p.ObserveHeaders(t.Context(), p.keys[0].ID, h))
			p.acquire(t, 1)
		}
		require.NotEqual(t, before, dump(t, p.Registry))
		require.NoError(t, p.ObserveHeaders(t.Context(), uuid.New(), nil))
		require.ErrorIs(t, p.ObserveHeaders(t.Context(), uuid.New(), quotaHeader("1")), registry.ErrNotFound)
	})
}

// TestBackoffAmongOtherFailures has failures that do not count come between those that do.
func TestBackoffAmongOtherFailures(t *testing.T) { eachEngine(t, testBackoffAmongOtherFailures) }

func testBackoffAmongOtherFailures(t *testing.T, e engine) {
	t.Run("in turn", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		for _, rest := range []time.Duration{2, 4, 8, 16, 32} {
			p.fail(t, 0, limited)
			p.within(t, 0, rest*time.Second)
			p.clock.Advance(time.Minute)
			p.fail(t, 0, registry.Failure{Status: 503})
			require.Empty(t, p.explain(t, 1)[0].Reason)
			p.clock.Advance(time.Minute)
		}
		require.NoError(t, p.acquire(t, 1).Settle(t.Context(), used(1)))
		p.clock.Advance(time.Second)
		p.fail(t, 0, limited)
		p.within(t, 0, 2*time.Second)
	})
	t.Run("under way together", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		for _, rest := range []time.Duration{2, 4, 8} {
			first, second := p.acquire(t, 1), p.acquire(t, 1)
			p.clock.Advance(time.Second)
			require.NoError(t, errOf(first.Fail(t.Context(), registry.Failure{Status: 503})))
			p.clock.Advance(time.Second)
			require.NoError(t, errOf(second.Fail(t.Context(), limited)))
			p.within(t, 0, rest*time.Second)
			p.clock.Advance(time.Minute)
		}
	})
	t.Run("of another class", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		for range 3 {
			p.fail(t, 0, limited)
			p.clock.Advance(time.Minute)
		}
		other := p.acquire(t, 1)
		p.clock.Advance(time.Second)
		p.fail(t, 0, limited)
		p.clock.Advance(time.Minute)
		require.NoError(t, errOf(other.Fail(t.Context(), denied)))
		p.within(t, 0, 10*time.Minute)
	})
	t.Run("in turn with a class that counts", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		for range 3 { // a key counts for one class at a time
			p.fail(t, 0, limited)
			p.within(t, 0, 2*time.Second)
			p.clock.Advance(time.Minute)
			p.fail(t, 0, denied)
			p.within(t, 0, 10*time.Minute)
			p.clock.Advance(time.Hour)
		}
		p.fail(t, 0, denied)
		p.within(t, 0, 20*time.Minute)
	})
	t.Run("an incident", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 3))
		p.fail(t, 0, limited)
		p.clock.Advance(time.Minute)
		for i := range 3 {
			p.fail(t, i, registry.Failure{Status: 503})
		}
		p.clock.Advance(time.Minute)
		p.fail(t, 0, limited)
		p.within(t, 0, 4*time.Second)
	})
}

// TestProbeExpires: a process that crashes while it tries a key keeps it from the others until its lease expires.
func TestProbeExpires(t *testing.T) { eachEngine(t, testProbeExpires) }

func testProbeExpires(t *testing.T, e engine) {
	t.Parallel()
	p := e.newPoolTest(t, make([]registry.KeyInput, 1))
	p.fail(t, 0, denied)
	p.clock.Set(p.refused(t, p.want(1)).OpensAt)
	in := p.want(1)
	in.TTL = 12 * time.Hour
	probe, err := p.AcquireKey(t.Context(), in)
	require.NoError(t, err)
	require.True(t, probe.Probe)
	p.clock.Set(probe.ExpiresAt.Add(-time.Microsecond))
	require.Equal(t, registry.KeyProbed, p.refused(t, p.want(1)).Keys[0].Reason)
	p.clock.Advance(time.Microsecond)
	require.True(t, p.acquire(t, 1).Probe, "the next one tries it")
}

// TestProbeHeldByOldLeases: only what began when a key was back counts as the request that tries it.
func TestProbeHeldByOldLeases(t *testing.T) { eachEngine(t, testProbeHeldByOldLeases) }

func testProbeHeldByOldLeases(t *testing.T, e engine) {
	for name, failure := range map[string]registry.Failure{"auth": denied, "quota exhausted": exhausted} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := e.newPoolTest(t, make([]registry.KeyInput, 1))
			in := p.want(1)
			in.TTL = 12 * time.Hour
			crashed, err := p.AcquireKey(t.Context(), in)
			require.NoError(t, err)
			p.fail(t, 0, failure)
			p.clock.Set(p.refused(t, in).OpensAt)
			require.Empty(t, p.explain(t, 1)[0].Reason)
			probe := p.acquire(t, 1)
			require.True(t, probe.Probe)
			require.Equal(t, registry.KeyProbed, p.refused(t, in).Keys[0].Reason)
			require.NoError(t, errOf(probe.Fail(t.Context(), registry.Failure{Status: 500})))
			require.Empty(t, p.explain(t, 1)[0].Reason, "the next one tries it")
			require.NoError(t, p.acquire(t, 1).Settle(t.Context(), used(1)))
			require.False(t, p.acquire(t, 1).Probe)
			require.NoError(t, crashed.Release(t.Context()))
		})
	}
}
