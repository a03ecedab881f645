package registry_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

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

// TestLimitedOften has a key be told again and again to wait for a second: the audit trail does not grow with that.
// MODELSCAN_TEST_LIMITED says how often.
func TestLimitedOften(t *testing.T) { eachEngine(t, testLimitedOften) }

func testLimitedOften(t *testing.T, e engine) {
	t.Parallel()
	times := 100
	if text := os.Getenv("MODELSCAN_TEST_LIMITED"); text != "" {
		times = must(strconv.Atoi(text))
	}
	p := e.newPoolTest(t, make([]registry.KeyInput, 1))
	before := must(p.Client().AuditEntry.Query().Count(t.Context()))
	for range times {
		p.fail(t, 0, retryAfter(limited, 1))
		p.clock.Advance(time.Second)
	}
	require.NoError(t, p.acquire(t, 1).Settle(t.Context(), used(1)))
	entries := must(p.Client().AuditEntry.Query().All(t.Context()))[before:]
	bytes := 0
	for _, entry := range entries {
		bytes += len(entry.Before) + len(entry.After)
	}
	t.Logf("%d times 429: %d entries, %d bytes in them", times, len(entries), bytes)
	require.LessOrEqual(t, len(entries), 14)
	require.Equal(t, times, must(p.Client().UsageEvent.Query().Count(t.Context()))-1, "each request is in the ledger")
}
