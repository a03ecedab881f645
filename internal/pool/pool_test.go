package pool

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/upstream"
)

// noon is when the tests are.
var noon = time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)

// newPool returns a pool of keys, of weight 1 unless they have another one, without leases.
func newPool(strategy Strategy, keys ...*Key) *Pool {
	p := &Pool{Keys: keys, Provider: &Provider{ID: uuid.New()}, Strategy: strategy, Turns: map[int]int64{}}
	groups := map[uuid.UUID]*Group{}
	for i, k := range keys {
		k.ID[15] = byte(i + 1)
		k.Weight = max(1, k.Weight)
		if g := k.Account; g != nil {
			k.Group, groups[g.ID] = &g.ID, g
		}
	}
	p.Open(nil, groups, noon)
	return p
}

// take leases a key for a request of one token.
func (p *Pool) take(now time.Time) (*Key, *Lease) {
	k := p.Choose(Want{Amount: Amount{Requests: 1, Tokens: 1}}, now)
	if k == nil {
		return nil, nil
	}
	l := &Lease{ID: uuid.New(), Key: k.ID, Group: k.Group, Tokens: 1, Expires: now.Add(time.Hour)}
	p.Lease(k, l, now)
	return k, l
}

// shares returns how often each key was handed out of n times.
func (p *Pool) shares(n int) []int {
	times := make([]int, len(p.Keys))
	for range n {
		k, _ := p.take(noon)
		times[k.ID[15]-1]++
	}
	return times
}

func TestChoose(t *testing.T) {
	t.Parallel()
	far := &Key{Quota: Quota{Limits: Limits{Concurrency: 3}}}
	near := &Key{Quota: Quota{Limits: Limits{Concurrency: 9}}}
	for name, c := range map[string]struct {
		pool *Pool
		n    int
		want []int
	}{
		"in turn":   {pool: newPool(FairTurns, &Key{}, &Key{}, &Key{}), n: 300, want: []int{100, 100, 100}},
		"by weight": {pool: newPool(FairTurns, &Key{Weight: 1}, &Key{Weight: 3}), n: 400, want: []int{100, 300}},
		"round robin, any weight": {
			pool: newPool(RoundRobin, &Key{Weight: 1}, &Key{Weight: 3}), n: 400, want: []int{200, 200},
		},
		"the highest priority": {
			pool: newPool(FairTurns, &Key{Priority: 1}, &Key{}, &Key{Priority: 1}), n: 10, want: []int{5, 0, 5},
		},
		"most headroom": {pool: newPool(MostHeadroom, far, near), n: 8, want: []int{2, 6}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, c.pool.shares(c.n))
		})
	}
}

// TestAway: a key that was away takes its turns from then on, and makes up for nothing.
func TestAway(t *testing.T) {
	t.Parallel()
	p := newPool(FairTurns, &Key{}, &Key{})
	p.Keys[1].Disabled = true
	require.Equal(t, []int{100, 0}, p.shares(100))
	p.Keys[1].Disabled = false
	require.Equal(t, []int{50, 50}, p.shares(100))
}

func TestBlocked(t *testing.T) {
	t.Parallel()
	past, soon, later := noon, noon.Add(time.Minute), noon.Add(time.Hour)
	excluded := uuid.UUID{15: 1}
	small, five := Quota{Limits: Limits{TokensPerDay: 4}}, Want{Amount: Amount{Requests: 1, Tokens: 5}}
	for name, c := range map[string]struct {
		key  Key
		want Want
		is   Reason
		till time.Time
	}{
		"nothing":             {key: Key{}},
		"disabled":            {key: Key{Disabled: true}, is: Disabled},
		"expired":             {key: Key{Expires: &past}, is: Expired},
		"expires later":       {key: Key{Expires: &soon}},
		"excluded":            {want: Want{Exclude: map[uuid.UUID]bool{excluded: true}}, is: Excluded},
		"another model":       {key: Key{Allowed: []string{"gpt-*"}}, want: Want{Model: "claude"}, is: Denied},
		"a model of a prefix": {key: Key{Allowed: []string{"gpt-*"}}, want: Want{Model: "gpt-5"}},
		"a denied model":      {key: Key{Denied: []string{"gpt-5"}}, want: Want{Model: "gpt-5"}, is: Denied},
		"no model is named":   {key: Key{Allowed: []string{}}},
		"degraded": {
			key: Key{DegradedUntil: &later, DegradedBy: upstream.RateLimited}, is: Degraded, till: later,
		},
		"degraded no more": {key: Key{DegradedUntil: &past, DegradedBy: upstream.RateLimited}},
		"too small":        {key: Key{Quota: small}, want: five, is: TooSmall},
		"of its group": {
			key: Key{Account: &Group{ID: uuid.New(), Quota: small}}, want: five, is: TooSmall,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newPool(FairTurns, &c.key)
			reason, till := c.key.Blocked(c.want, noon)
			require.Equal(t, c.is, reason)
			require.Equal(t, c.till, till)
		})
	}
}

// TestWindows: each limit closes when it is used up, and opens at the end of its window or of a request.
func TestWindows(t *testing.T) {
	t.Parallel()
	minute, day := noon.Add(time.Minute), noon.Add(12*time.Hour)
	for name, c := range map[string]struct {
		limits Limits
		is     Reason
		opens  time.Time
	}{
		"requests per minute": {Limits{RequestsPerMinute: 3}, Limited, minute},
		"tokens per minute":   {Limits{TokensPerMinute: 3}, Limited, minute},
		"requests per day":    {Limits{RequestsPerDay: 3}, Limited, day},
		"tokens per day":      {Limits{TokensPerDay: 3}, Limited, day},
		"both":                {Limits{RequestsPerMinute: 3, RequestsPerDay: 3}, Limited, day},
		"concurrency":         {Limits{Concurrency: 3}, Busy, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, shared := range []bool{false, true} {
				key := &Key{Quota: Quota{Limits: c.limits}}
				if shared {
					key = &Key{Account: &Group{ID: uuid.New(), Quota: key.Quota}}
				}
				p := newPool(FairTurns, key)
				var last *Lease
				for range 3 {
					k, l := p.take(noon)
					require.NotNil(t, k)
					last = l
				}
				k, _ := p.take(noon)
				require.Nil(t, k)
				reason, opens := key.Blocked(Want{Amount: Amount{Requests: 1, Tokens: 1}}, noon)
				require.Equal(t, c.is, reason)
				require.Equal(t, c.opens, opens)

				for _, q := range key.quotas() {
					q.Release(last, Amount{Requests: 1, Tokens: 1}, noon)
				}
				reason, _ = key.Blocked(Want{Amount: Amount{Requests: 1, Tokens: 1}}, noon)
				require.Equal(t, c.is == Busy, reason == "", "what was used stays used, unless it is what runs at once")
				if !opens.IsZero() {
					reason, _ = key.Blocked(Want{Amount: Amount{Requests: 1, Tokens: 1}}, opens)
					require.Empty(t, reason)
				}
			}
		})
	}
}
