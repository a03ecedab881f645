package registry_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// The bounds that FailureClass documents, with the quarter that chance adds, for a provider that never asks for more
// than most.
const (
	mostAsked    = 2 * time.Hour // by the provider in a Retry-After
	mostDegraded = 6 * time.Hour * 5 / 4
	mostCooling  = 5 * time.Minute * 5 / 4
	simulatedTTL = 10 * time.Minute
)

// TestPoolHours simulates thousands of hours of failures at random on a fake clock, other ones in each run of the
// tests. At no time is a key in an automatic state that has no end within its bound; and when the failures are over,
// every key is usable again within it.
func TestPoolHours(t *testing.T) {
	sample.OneGoroutine(t)
	long(t, "hundreds of simulated hours")
	t.Parallel()
	hours := sample.Of(6000)
	seed := rand.Uint64()
	t.Logf("seed %d, %d hours", seed, hours)
	s := newSimulation(t, rand.New(rand.NewPCG(seed, 0))) //nolint:gosec // not for secrets
	end := s.clock.Now().Add(time.Duration(hours) * time.Hour)
	for s.clock.Now().Before(end) {
		s.step(t)
	}
	t.Logf(
		"%d leases, %d of them probes; %d failed, %d expired; states: %v", s.leased, s.probes, s.failed, s.expired,
		s.seen,
	)
	for _, state := range []registry.KeyReason{
		registry.KeyDegraded, registry.KeyProbed, registry.KeyLimited, registry.KeyBusy, registry.KeyCooling,
	} {
		if hours >= 2000 { // in fewer chance may leave one out
			require.NotZero(t, s.seen[state], "no key was ever %s", state)
		}
	}
	s.recover(t)
}

type simulation struct {
	*poolTest
	random  *rand.Rand
	weather int // what fails now: nothing, one key, all alike, or anything
	bad     int // the key that fails
	open    []*registry.Lease

	leased, probes, failed, expired int
	seen                            map[registry.KeyReason]int
	minutes                         map[uuid.UUID]map[time.Time]int // leases by key and minute
}

func newSimulation(t *testing.T, random *rand.Rand) *simulation {
	t.Helper()
	memory := engine{"memory", func(tb testing.TB, options ...registry.Option) *registry.Registry {
		tb.Helper()
		reg, err := registry.Open(tb.Context(), ":memory:", options...)
		require.NoError(tb, err)
		tb.Cleanup(func() { require.NoError(tb, reg.Close()) })
		return reg
	}}
	p := memory.newPoolTest(t, []registry.KeyInput{
		{
			Limits: registry.Limits{RequestsPerMinute: 3, RequestsPerDay: 100},
		}, {Limits: registry.Limits{Concurrency: 2}}, {Weight: 3}, {}, {Priority: 1}, {},
	})
	g, err := p.CreateQuotaGroup(
		t.Context(),
		registry.QuotaGroupInput{ProviderID: p.provider.ID, Name: "g", Limits: registry.Limits{TokensPerMinute: 300}},
	)
	require.NoError(t, err)
	for _, i := range []int{2, 3} {
		_, err := p.UpdateAPIKey(t.Context(), p.keys[i].ID, registry.KeyUpdate{QuotaGroupID: &g.ID})
		require.NoError(t, err)
	}
	_, err = p.UpdateAPIKey(t.Context(), p.keys[5].ID, registry.KeyUpdate{Disabled: ptr(true)})
	require.NoError(t, err)
	return &simulation{
		poolTest: p, random: random, seen: map[registry.KeyReason]int{}, minutes: map[uuid.UUID]map[time.Time]int{},
	}
}

// step moves the clock, leases some keys and ends some leases.
func (s *simulation) step(t *testing.T) {
	t.Helper()
	switch s.random.IntN(10) {
	case 0:
		s.clock.Advance(time.Duration(s.random.Int64N(int64(12 * time.Hour))))
	case 1, 2, 3:
		s.clock.Advance(time.Duration(s.random.Int64N(int64(20 * time.Minute))))
	default:
		s.clock.Advance(time.Duration(s.random.Int64N(int64(3 * time.Second))))
	}
	if s.random.IntN(20) == 0 {
		s.weather, s.bad = s.random.IntN(4), s.random.IntN(len(s.keys))
	}
	for range 1 + s.random.IntN(3) {
		in := s.want(s.random.Int64N(150))
		in.TTL = simulatedTTL
		lease, err := s.AcquireKey(t.Context(), in)
		if err != nil {
			require.ErrorIs(t, err, registry.ErrNoKeyAvailable)
			continue
		}
		s.leased++
		if lease.Probe {
			s.probes++
		}
		require.NotEqual(t, s.keys[5].ID, lease.KeyID, "a person disabled it")
		if s.minutes[lease.KeyID] == nil {
			s.minutes[lease.KeyID] = map[time.Time]int{}
		}
		minute := s.clock.Now().Truncate(time.Minute)
		s.minutes[lease.KeyID][minute]++
		require.False(t, lease.KeyID == s.keys[0].ID && s.minutes[lease.KeyID][minute] > 3, "more than its limit")
		s.open = append(s.open, lease)
	}
	for len(s.open) > 0 && s.random.IntN(3) > 0 {
		i := s.random.IntN(len(s.open))
		s.finish(t, s.open[i])
		s.open = append(s.open[:i], s.open[i+1:]...)
	}
	if s.random.IntN(10) == 0 {
		s.check(t)
	}
}

// finish ends a lease as the weather has it, or forgets it, as a process that crashed. One that expired a day ago
// can't be ended.
func (s *simulation) finish(t *testing.T, lease *registry.Lease) {
	t.Helper()
	if s.random.IntN(30) == 0 || s.clock.Now().Sub(lease.ExpiresAt) >= 24*time.Hour {
		s.expired++
		return
	}
	var fails bool
	switch s.weather {
	case 1:
		fails = lease.KeyID == s.keys[s.bad].ID
	case 2:
		fails = true
	case 3:
		fails = s.random.IntN(3) == 0
	}
	if !fails {
		lease.ObserveHeaders(s.headers())
		require.NoError(t, lease.Settle(t.Context(), used(s.random.Int64N(200))))
		return
	}
	s.failed++
	failures := []registry.Failure{
		limited, retryAfter(limited, s.random.IntN(int(mostAsked/time.Second))), exhausted, denied, {Status: 500},
		{Err: context.DeadlineExceeded}, {Status: 400},
	}
	f := failures[s.random.IntN(len(failures))]
	if s.weather == 2 {
		f = failures[s.bad%len(failures)]
	}
	require.NoError(t, errOf(lease.Fail(t.Context(), f)))
}

func (s *simulation) headers() http.Header {
	if s.random.IntN(4) > 0 {
		return nil
	}
	return http.Header{
		"X-Ratelimit-Limit-Requests": {"100"}, "X-Ratelimit-Remaining-Requests": {fmt.Sprint(s.random.IntN(3))},
		"X-Ratelimit-Reset-Requests": {fmt.Sprintf("%ds", s.random.IntN(90))},
	}
}

// check demands that each automatic state has an end.
func (s *simulation) check(t *testing.T) {
	t.Helper()
	now := s.clock.Now()
	for i, v := range s.explain(t, 1) {
		s.seen[v.Reason]++
		rest := v.Until.Sub(now)
		switch v.Reason {
		case "":
		case registry.KeyDisabled:
			require.Equal(t, 5, i)
		case registry.KeyDegraded:
			require.LessOrEqual(t, rest, max(mostDegraded, mostAsked), v.Detail)
		case registry.KeyCooling:
			require.LessOrEqual(t, rest, mostCooling)
		case registry.KeyLimited:
			require.LessOrEqual(t, rest, 24*time.Hour)
			require.Positive(t, rest)
		case registry.KeyProbed, registry.KeyBusy:
			require.Positive(t, v.InFlight, "it waits although no request is running")
		default:
			require.Fail(t, "no state of this pool", v.Reason)
		}
	}
}

// recover lets all leases expire and the longest bound go by: each key is usable then, and back in all respects after
// one request.
func (s *simulation) recover(t *testing.T) {
	t.Helper()
	s.clock.Advance(max(mostDegraded, mostAsked, mostCooling, simulatedTTL))
	tomorrow := s.clock.Now().Truncate(24 * time.Hour).Add(24 * time.Hour) // daily limits are whole again
	s.clock.Set(tomorrow)
	for i, v := range s.explain(t, 1)[:5] {
		require.Empty(t, v.Reason, i)
		require.Zero(t, v.InFlight, i)
	}
	for i := range 5 {
		in := s.want(1)
		for k, key := range s.keys {
			if k != i {
				in.Exclude = append(in.Exclude, key.ID)
			}
		}
		lease, err := s.AcquireKey(t.Context(), in)
		require.NoError(t, err)
		require.NoError(t, lease.Settle(t.Context(), used(1)))
		key := s.key(t, i)
		require.Equal(
			t, []any{false, "", 0, ""}, []any{key.Degraded, key.DegradedBy, key.Failures, key.FailureClass}, i,
		)
	}
	require.Zero(t, s.openLeases(t))
	report, err := s.VerifyLedger(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Differences)
}
