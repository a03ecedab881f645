package pool

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/upstream"
)

// TestIncidentAhead: a request that began by a clock that is ahead ends no incident that is not over by this one.
func TestIncidentAhead(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	for until, over := range map[time.Duration]bool{-time.Second: true, time.Second: false} {
		cooling := now.Add(until)
		p := &Provider{CoolingUntil: &cooling, CoolingReason: upstream.RateLimited, Incidents: 1}
		new(Key).NoteSuccess(Outcome{Acquired: now.Add(time.Minute), Now: now}, p)
		require.Equal(t, over, p.CoolingUntil == nil)
	}
}

// fail has a request of a key that began and ended now fail.
func (p *Pool) fail(k *Key, class upstream.Class, now time.Time) []Event {
	return p.NoteFailure(k, Diagnosis{Class: class}, Outcome{Acquired: now, Now: now})
}

// TestBackoff: a key is out for twice as long with each failure of one class, up to the most and a quarter more.
func TestBackoff(t *testing.T) {
	t.Parallel()
	for class, rest := range backoffs {
		p := newPool(FairTurns, &Key{}, &Key{}, &Key{}, &Key{}, &Key{})
		k, now := p.Keys[0], noon
		for n, want := 1, rest.first; n < 20; n, want = n+1, min(2*want, rest.most) {
			p.fail(k, class, now)
			require.Equal(t, n, k.Failures)
			out := k.DegradedUntil.Sub(now)
			require.GreaterOrEqual(t, out, want, "%s %d", class, n)
			require.LessOrEqual(t, out, want+want/4, "%s %d", class, n)
			now = *k.DegradedUntil
		}
		events := k.NoteSuccess(Outcome{Acquired: now, Now: now}, p.Provider)
		require.Equal(t, class != upstream.RateLimited, len(events) == 1, "it was on probation")
		require.Zero(t, k.Failures)
	}
}

// TestNoBackoff: what is no fault of the key does not take it out.
func TestNoBackoff(t *testing.T) {
	t.Parallel()
	p := newPool(FairTurns, &Key{}, &Key{}, &Key{}, &Key{}, &Key{})
	for _, class := range []upstream.Class{upstream.Server, upstream.Timeout} {
		require.Empty(t, p.fail(p.Keys[0], class, noon))
		require.Nil(t, p.Keys[0].DegradedUntil)
	}
}

// TestProbation: a key that was refused is tried with one request.
func TestProbation(t *testing.T) {
	t.Parallel()
	p := newPool(FairTurns, &Key{})
	k := p.Keys[0]
	events := p.fail(k, upstream.Auth, noon)
	require.Len(t, events, 1)
	require.Equal(t, KeyDegraded, events[0].Kind)
	none, _ := p.take(noon)
	require.Nil(t, none)
	back := *k.DegradedUntil
	tried, l := p.take(back)
	require.Same(t, k, tried)
	reason, _ := k.Blocked(Want{}, back)
	require.Equal(t, Probed, reason)
	k.Release(l, Amount{Requests: 1}, back)
	k.NoteSuccess(Outcome{Acquired: back, Now: back}, p.Provider)
	require.Nil(t, k.DegradedUntil)
	next, _ := p.take(back)
	require.Same(t, k, next)
}

// TestIncident: when three accounts fail alike, it is the provider's fault, and the keys come back.
func TestIncident(t *testing.T) {
	t.Parallel()
	group := &Group{ID: uuid.New()}
	p := newPool(FairTurns, &Key{Account: group}, &Key{Account: group}, &Key{}, &Key{})
	for _, k := range p.Keys[:3] { // two accounts
		p.fail(k, upstream.RateLimited, noon)
		require.NotNil(t, k.DegradedUntil)
	}
	require.False(t, p.Cools(noon))
	events := p.fail(p.Keys[3], upstream.RateLimited, noon)
	require.True(t, p.Cools(noon))
	require.Equal(t, ProviderCoolsDown, events[0].Kind)
	require.Len(t, events, 4, "three keys are restored")
	for _, k := range p.Keys {
		require.Nil(t, k.DegradedUntil)
	}
	none, _ := p.take(noon)
	require.Nil(t, none)
	k, _ := p.take(*p.CoolingUntil)
	require.NotNil(t, k)
	k.NoteSuccess(Outcome{Acquired: *p.CoolingUntil, Now: *p.CoolingUntil}, p.Provider)
	require.Zero(t, p.Incidents)
}

// TestBegin: a lease ends a degradation that is over, or tries the key.
func TestBegin(t *testing.T) {
	t.Parallel()
	for class, probed := range map[upstream.Class]bool{upstream.RateLimited: false, upstream.Auth: true, "": false} {
		k := &Key{DegradedUntil: &noon, DegradedBy: class, DegradedReason: "why"}
		probe, events := k.Begin(uuid.New())
		require.Equal(t, probed, probe, class)
		require.Equal(t, probed, k.DegradedUntil != nil, class)
		switch {
		case probed:
			require.Equal(t, KeyProbed, events[0].Kind)
		case class == "": // by a person
			require.Equal(t, KeyRestored, events[0].Kind)
			require.Equal(t, "its time is over", events[0].After["why"])
		default:
			require.Empty(t, events)
		}
	}
	probe, events := new(Key).Begin(uuid.New())
	require.False(t, probe)
	require.Empty(t, events)
}

func TestPasses(t *testing.T) {
	t.Parallel()
	for reason, passes := range map[Reason]bool{
		Disabled: false, Expired: false, Excluded: false, Denied: false, TooSmall: false,
		Degraded: true, Probed: true, Limited: true, Busy: true, Cooling: true,
	} {
		require.Equal(t, passes, reason.Passes(), reason)
	}
}
