package pool

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
)

// TestRaising: the limits of what grows bound a lease, as long as it counts in their windows.
func TestRaising(t *testing.T) {
	t.Parallel()
	q := Quota{Limits: Limits{
		RequestsPerMinute: 1, TokensPerMinute: 10, RequestsPerDay: 1, TokensPerDay: 20, Concurrency: 1, CostPerDay: 30,
	}}
	l := &Lease{ID: uuid.New(), Tokens: 5, Cost: 7, Acquired: noon}
	require.Empty(t, q.Raising(l, Amount{Tokens: 100}, noon, nil), "nobody leases by it")
	q.Renew(l)
	q.Open = map[uuid.UUID]*Lease{}
	q.Roll(noon)
	q.reserve(l)
	q.observe([]upstream.Quota{
		{Meter: upstream.Tokens, Limit: 50, Remaining: 40, Reset: noon.Add(time.Hour)},
		{Meter: upstream.Requests, Limit: 50, Remaining: 0, Reset: noon.Add(time.Hour)},
	}, noon)
	tomorrow := noon.Add(12 * time.Hour)
	type bound struct {
		name   LimitName
		used   int64
		closed bool
		end    time.Time
	}
	raise := func(by Amount, now time.Time) (all []bound) {
		for _, w := range q.Raising(l, by, now, nil) {
			all = append(all, bound{w.Name, w.Used, w.Closed(), w.End()})
		}
		return all
	}
	tokens := []bound{
		{TokensPerMinute, 5, true, noon.Add(time.Minute)}, {TokensPerDay, 5, false, tomorrow},
		{ObservedTokens, 15, false, noon.Add(time.Hour)},
	}
	require.Equal(t, tokens, raise(Amount{Tokens: 6}, noon))
	require.Equal(t, tokens[1:], raise(Amount{Tokens: 6}, noon.Add(time.Hour-1)), "another minute")
	require.Equal(t, []bound{{CostPerDay, 7, false, tomorrow}}, raise(Amount{Cost: 23}, noon))
	require.Equal(t, []bound{{CostPerDay, 7, true, tomorrow}}, raise(Amount{Cost: 24}, noon))
	q.observe([]upstream.Quota{{Meter: upstream.Tokens, Limit: 50, Remaining: 1, Reset: tomorrow}}, noon.Add(1))
	require.Equal(t, tokens[1:2], raise(Amount{Tokens: 6}, noon.Add(time.Hour)), "the provider has counted it")
	require.Empty(t, raise(Amount{Tokens: 100, Cost: 100}, tomorrow), "another day")
}

// TestRenew: what a lease reserves is counted once, also after sums that did not fit.
func TestRenew(t *testing.T) {
	t.Parallel()
	q := Quota{Open: map[uuid.UUID]*Lease{}}
	q.Roll(noon)
	l := &Lease{ID: uuid.New(), Tokens: 5, Cost: 7, Acquired: noon}
	other := &Lease{ID: uuid.New(), Tokens: 1, Cost: 1, Acquired: noon}
	q.reserve(l)
	q.reserve(other)
	for _, n := range []int64{6, fault.MaxAmount, fault.MaxAmount, 9} {
		next := *l
		next.Tokens = n
		q.Renew(&next)
		require.Same(t, &next, q.Open[l.ID])
		require.Equal(t, Amount{Requests: 2, Tokens: min(n, fault.MaxAmount-1) + 1, Cost: 8}, q.Held.Day)
		require.Equal(t, q.Held.Day, q.Held.Minute)
	}
	delete(q.Open, l.ID) // it was taken for expired, by a clock that was ahead
	q.Recount()
	q.Renew(l)
	require.Equal(t, Amount{Requests: 2, Tokens: 6, Cost: 8}, q.Held.Day)
}
