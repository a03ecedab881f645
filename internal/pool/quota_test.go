package pool

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
)

// TestReservedSaturated: sums of leases that do not fit are right again when one of them ends.
func TestReservedSaturated(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	q := Quota{Open: map[uuid.UUID]*Lease{}}
	q.Roll(now)
	large := &Lease{ID: uuid.New(), Tokens: fault.MaxAmount - 1, Cost: fault.MaxAmount, Acquired: now}
	small := &Lease{ID: uuid.New(), Tokens: 5, Cost: 7, Acquired: now}
	q.reserve(large)
	q.reserve(small)
	require.Equal(t, Amount{Requests: 2, Tokens: fault.MaxAmount, Cost: fault.MaxAmount}, q.Held.Day)
	q.Release(large, Amount{}, now)
	require.Equal(t, Amount{Requests: 1, Tokens: 5, Cost: 7}, q.Held.Day)
	require.Equal(t, Amount{Requests: 1, Tokens: 5, Cost: 7}, q.Held.Minute)
}

// TestObserved: what the provider says is left is used up by what follows, and is whole again at its reset.
func TestObserved(t *testing.T) {
	t.Parallel()
	for _, meter := range []upstream.Meter{upstream.Requests, upstream.Tokens} {
		k, reset := &Key{}, noon.Add(time.Minute)
		p := newPool(FairTurns, k)
		k.Observes([]upstream.Quota{{Meter: meter, Limit: 100, Remaining: 2, Reset: reset}}, noon)
		_, one := p.take(noon)
		k.Release(one, Amount{Requests: 1, Tokens: 1}, noon)
		_, two := p.take(noon)
		require.NotNil(t, two)
		none, _ := p.take(noon)
		require.Nil(t, none)
		reason, opens := k.Blocked(Want{Amount: Amount{Requests: 1, Tokens: 1}}, noon)
		require.Equal(t, Limited, reason)
		require.Equal(t, reset, opens)
		w := k.AllWindows(Amount{Requests: 1, Tokens: 1}, noon, nil)
		require.Len(t, w, 1)
		require.EqualValues(t, []int64{100, 100}, []int64{w[0].Limit, w[0].Used})
		require.True(t, w[0].Closed())
		require.Equal(t, reset, w[0].Opens())
		again, _ := p.take(reset)
		require.NotNil(t, again)
	}
}

// TestWindowsEnd: a new minute and a new day begin with nothing used, for what has no lease too.
func TestWindowsEnd(t *testing.T) {
	t.Parallel()
	k := &Key{}
	newPool(FairTurns, k)
	k.Use(noon, noon, Amount{Requests: 1, Tokens: 2, Cost: 3})
	k.AddUse(Amount{Requests: 1, Tokens: 2, Cost: 3}, noon)
	require.Equal(t, ChangedCounters|ChangedUses, k.Changed)
	counted := func() []int64 {
		return []int64{k.MinuteRequests, k.MinuteTokens, k.DayRequests, k.DayTokens, int64(k.DayCost)}
	}
	require.Equal(t, []int64{1, 2, 1, 2, 3}, counted())
	k.Roll(noon.Add(time.Minute))
	require.Equal(t, []int64{0, 0, 1, 2, 3}, counted())
	k.Roll(noon.Add(12 * time.Hour))
	require.Equal(t, []int64{0, 0, 0, 0, 0}, counted())
	require.Equal(t, []int64{1, 2}, []int64{k.Uses, k.Tokens})
}

// TestClockBehind: a process whose clock is behind counts in the windows that another one has begun, unless that one's
// clock is wrong.
func TestClockBehind(t *testing.T) {
	t.Parallel()
	for ahead, counts := range map[time.Duration]bool{time.Minute: true, maxMinuteAhead + time.Minute: false} {
		k := &Key{}
		p := newPool(FairTurns, k)
		other := noon.Add(ahead)
		k.Roll(other)
		_, l := p.take(noon)
		if !counts {
			other = noon
		}
		require.Equal(t, other, *k.Minute)
		require.Equal(t, other, l.Acquired, "it begins in the minute that is counted")
	}
}

// TestOpen: leases that are read count again, but for those that have expired; turns go on after them.
func TestOpen(t *testing.T) {
	t.Parallel()
	a, b := &Key{Account: &Group{ID: uuid.New()}}, &Key{}
	p := newPool(FairTurns, a, b)
	lease := func(k *Key, tokens, pass int64, expires time.Time) *Lease {
		return &Lease{
			ID: uuid.New(), Key: k.ID, Group: k.Group, Tokens: tokens, Pass: pass, Acquired: noon, Expires: expires,
		}
	}
	p.Open([]*Lease{
		lease(
			a, 5, 7*stride, noon.Add(time.Hour),
		), lease(a, 9, 8*stride, noon), lease(b, 3, 2*stride, noon.Add(time.Hour)),
	}, map[uuid.UUID]*Group{a.Account.ID: a.Account}, noon)
	for _, q := range []*Quota{&a.Quota, &a.Account.Quota} {
		require.EqualValues(t, []int64{1, 5}, []int64{q.InFlight(), q.Held.Day.Tokens})
	}
	require.EqualValues(t, []int64{1, 3}, []int64{b.InFlight(), b.Held.Day.Tokens})
	require.Equal(t, map[int]int64{0: 8 * stride}, p.Turns)
	next, _ := p.take(noon)
	require.Same(t, b, next)
}

// TestCells: what is written of a quota is what is read of it.
func TestCells(t *testing.T) {
	t.Parallel()
	q := Quota{Open: map[uuid.UUID]*Lease{}}
	q.Roll(noon)
	q.countMinute(noon, Amount{Requests: 1, Tokens: 2, Cost: 3})
	q.countDay(noon, Amount{Requests: 1, Tokens: 2, Cost: 3})
	tokens := upstream.Quota{Meter: upstream.Tokens, Limit: 9, Remaining: 8, Reset: noon.Add(time.Hour)}
	for _, said := range [][]upstream.Quota{nil, {tokens}} {
		if said != nil {
			q.observe(said, noon)
		}
		written, err := q.Counters()
		require.NoError(t, err)
		require.Len(t, written, len(QuotaColumns)-6, "the limits are not written")
		var (
			read     Quota
			observed []byte
		)
		cells := read.Cells(&observed)
		require.Len(t, cells, len(QuotaColumns))
		if text := written[len(written)-1]; text != nil {
			observed = []byte(text.(string))
		}
		require.NoError(t, read.Read(observed))
		require.Equal(t, q.Observed, read.Observed)
	}
	require.ErrorIs(t, q.Read([]byte("{")), fault.ErrCorrupt)
}
