package registry_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

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
