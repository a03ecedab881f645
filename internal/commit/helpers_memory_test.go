package commit

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/poolstate"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// lease leases a key, after which the pool is remembered.
func (d *database) lease(t *testing.T) *Leased {
	t.Helper()
	l, err := d.acquire(t.Context())
	require.NoError(t, err)
	require.True(t, d.remembers(t))
	return l
}

// remembers reports whether the process may still use its memory of the pool. It is for PostgreSQL.
func (d *database) remembers(t *testing.T) bool {
	t.Helper()
	s := d.client.PoolState.Query().Where(poolstate.ProviderID(d.provider)).OnlyX(t.Context())
	require.NotNil(t, d.memory.last.Load())
	return s.State != nil && *s.State == d.memory.last.Load().states[d.provider]
}

// compareMemory requires that what the next batch starts from is as the database has it. It reports whether there was
// something to compare.
func (d *database) compareMemory(t *testing.T) bool {
	t.Helper()
	ctx, last := t.Context(), d.memory.last.Load()
	if last != nil && d.engine == dialect.Postgres {
		for _, s := range d.client.PoolState.Query().AllX(ctx) {
			if value(s.State) != last.states[s.ProviderID] {
				last.forget(s.ProviderID)
			}
		}
	}
	if last == nil || len(last.keys) == 0 {
		return false
	}
	is, pools := newSnapshot(d.Strategy, d.now), slices.Collect(maps.Keys(last.pools))
	require.NoError(t, is.readPools(ctx, d.client, slices.Collect(maps.Keys(last.keys)), pools))
	require.NoError(t, is.readOpen(ctx, d.client, pools))
	for id, k := range last.keys {
		require.Equal(t, keyText(is.keys[id], d.now), keyText(k, d.now))
	}
	for id, g := range last.groups {
		require.Equal(t, quotaText(is.groups[id].Quota, d.now), quotaText(g.Quota, d.now))
	}
	for id, p := range last.pools {
		require.Len(t, p.Keys, len(is.pools[id].Keys))
		require.Equal(t, providerText(is.pools[id]), providerText(p))
	}
	return true
}

// keyText is all of a key, but that its windows are those of now.
func keyText(k *pool.Key, now time.Time) string {
	return fmt.Sprint(quotaText(k.Quota, now), k.ID, value(k.Group), k.Uses, k.Tokens, k.ExtraRequests, k.ExtraTokens,
		micro(k.LastUsed), k.Weight, k.Priority, k.Pass, k.Disabled,
		micro(k.DegradedUntil), micro(k.DegradedAt), k.DegradedReason, k.DegradedBy,
		k.Failures, k.FailureClass, micro(k.FailedAt), micro(k.SucceededAt))
}

func providerText(p *pool.Pool) string {
	return fmt.Sprint(micro(p.CoolingUntil), p.CoolingReason, p.Incidents, p.Turns)
}

func quotaText(q pool.Quota, now time.Time) string {
	q.Roll(now)
	counted := q.Held
	q.Recount()
	same := counted == q.Held
	open := map[uuid.UUID]*pool.Lease{} // but for those that have expired and are still to be taken
	for id, l := range q.Open {
		if l.Expires.After(now) {
			open[id] = l
		}
	}
	q.Open = open
	q.Recount()
	ids := slices.SortedFunc(maps.Keys(open), func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	text := fmt.Sprint(q.Limits, micro(q.Minute), q.MinuteRequests, q.MinuteTokens, utc.StartOfDay(q.LastReset),
		q.DayRequests, q.DayTokens, q.DayCost, ids, q.Held, same)
	for _, o := range q.Observed { // there is one
		text += fmt.Sprint(o.Limit, o.Remaining, o.Reset.UnixMicro(), o.Seen.UnixMicro())
	}
	return text
}

// micro is an instant as the database has it.
func micro(t *time.Time) int64 { return value(t).UnixMicro() }

// value returns what p points to, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
