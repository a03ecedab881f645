package registry

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// TestPoolMemory compares, after each of many operations, what a batch keeps of the pool for the next one with what the
// database has.
func TestPoolMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: thousands of random steps")
	}
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		testPoolMemory(t, ":memory:", 4000)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		testPoolMemory(t, pgtest.Database(t, "", nil), 400)
	})
}

func testPoolMemory(t *testing.T, name string, operations int) {
	t.Helper()
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // not for secrets
	now := time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	ctx := t.Context()
	reg, err := Open(ctx, name, WithClock(func() time.Time { return now }))
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	p, err := reg.CreateProvider(ctx, ProviderInput{Name: "p"})
	require.NoError(t, err)
	m, err := reg.CreateModel(
		ctx, ModelInput{ProviderID: p.ID, ModelID: "m", Rates: money.Rates{meter.Input: money.Dollar}},
	)
	require.NoError(t, err)
	g, err := reg.CreateQuotaGroup(
		ctx, QuotaGroupInput{ProviderID: p.ID, Name: "g", Limits: Limits{RequestsPerMinute: 50, Concurrency: 10}},
	)
	require.NoError(t, err)
	var keys []uuid.UUID
	for i := range 5 {
		in := KeyInput{
			ProviderID: p.ID, APIKey: fmt.Sprintf("sk-test-%012d", i),
			Limits: Limits{Concurrency: 3, RequestsPerDay: 500},
		}
		if i < 2 {
			in.QuotaGroupID = g.ID
		}
		key, err := reg.AddAPIKey(ctx, in)
		require.NoError(t, err)
		keys = append(keys, key.ID)
	}
	var open []*Lease
	failures := []Failure{
		{Status: 429}, {Status: 401}, {Status: 500}, {Status: 402}, {Status: 400},
		{Status: 429, Header: http.Header{"Retry-After": {"20"}}},
	}
	compared := 0
	operations = sample.Of(operations)
	for range operations {
		now = now.Add(time.Duration(random.Int64N(int64(3 * time.Second)))).Truncate(time.Microsecond)
		if random.IntN(300) == 0 {
			now = now.Add(time.Duration(random.Int64N(int64(20 * time.Hour)))).Truncate(time.Microsecond)
		}
		var lease *Lease
		if n := len(open); n > 0 && random.IntN(2) == 0 {
			i := random.IntN(n)
			lease = open[i]
			open = append(open[:i], open[i+1:]...)
		}
		if lease != nil && now.Sub(lease.ExpiresAt) >= 24*time.Hour {
			lease = nil // one that expired a day ago can't be ended
		}
		used := UsageInput{Tokens: meter.Tokens{InputTokens: random.Int64N(100)}}
		switch n := random.IntN(20); {
		case lease == nil && n == 0:
			require.NoError(t, reg.RestoreKey(ctx, keys[random.IntN(5)]))
			continue // the next batch sees that what is kept is out of date
		case lease == nil && n < 5:
			used.ModelID, used.APIKeyID, used.RequestID = m.ID, keys[random.IntN(5)], fmt.Sprint(random.IntN(500))
			require.NoError(t, reg.RecordUsage(ctx, used))
		case lease == nil:
			lease, err := reg.AcquireKey(
				ctx,
				AcquireInput{ProviderID: p.ID, ModelID: m.ID, EstimatedTokens: random.Int64N(100), TTL: time.Minute},
			)
			if err == nil {
				open = append(open, lease)
			} else {
				require.ErrorIs(t, err, ErrNoKeyAvailable)
			}
		case n == 0:
			used.ModelID = uuid.New()
			require.ErrorIs(t, lease.Settle(ctx, used), ErrForeignKey)
		case n < 4:
			require.NoError(t, lease.Release(ctx))
		case n < 9:
			_, err := lease.Fail(ctx, failures[random.IntN(len(failures))])
			require.NoError(t, err)
		default:
			lease.ObserveHeaders(
				http.Header{
					"X-Ratelimit-Remaining-Requests": {fmt.Sprint(random.IntN(9))},
					"X-Ratelimit-Reset-Requests":     {"5s"},
				},
			)
			require.NoError(t, lease.Settle(ctx, used))
		}
		compared += compareMemory(t, reg, now)
	}
	require.Greater(t, compared, operations*3/4)
}

// keyText is all of a key, but that its windows are those of now.
func keyText(k *pool.Key, now time.Time) string {
	return fmt.Sprint(quotaText(k.Quota, now), k.ID, value(k.Group), k.Uses, k.Tokens, k.ExtraRequests, k.ExtraTokens,
		value(k.LastUsed).UnixMicro(),
		k.Weight, k.Priority, k.Pass, k.Disabled, value(k.DegradedUntil).UnixMicro(), value(k.DegradedAt).
			UnixMicro(), k.DegradedReason, k.DegradedBy,
		k.Failures, k.FailureClass, value(k.FailedAt).UnixMicro(), value(k.SucceededAt).UnixMicro())
}

func providerText(p *pool.Pool) string {
	return fmt.Sprint(value(p.CoolingUntil).UnixMicro(), p.CoolingReason, p.Incidents, p.Turns)
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
	text := fmt.Sprint(q.Limits, q.Minute.UnixMicro(), q.MinuteRequests, q.MinuteTokens, utc.StartOfDay(q.LastReset),
		q.DayRequests, q.DayTokens, q.DayCost,
		len(open), asSet(open), q.Held, same)
	for _, o := range q.Observed { // there is one
		text += fmt.Sprint(o.Limit, o.Remaining, o.Reset.UnixMicro(), o.Seen.UnixMicro())
	}
	return text
}

// requireOpen requires that so many leases are open, and that the memory says so.
func requireOpen(t *testing.T, reg *Registry, want int) {
	t.Helper()
	n, err := reg.Client().KeyLease.Query().Count(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, n)
	compareMemory(t, reg, reg.now())
}

// TestLeaseBatches has calls for one lease in one batch, and calls that are done again.
func TestLeaseBatches(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	reg, err := Open(ctx, ":memory:")
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	p, err := reg.CreateProvider(ctx, ProviderInput{Name: "p"})
	require.NoError(t, err)
	m, err := reg.CreateModel(
		ctx, ModelInput{ProviderID: p.ID, ModelID: "m", Rates: money.Rates{meter.Input: money.Dollar}},
	)
	require.NoError(t, err)
	g, err := reg.CreateQuotaGroup(ctx, QuotaGroupInput{ProviderID: p.ID, Name: "g"})
	require.NoError(t, err)
	k, err := reg.AddAPIKey(ctx, KeyInput{ProviderID: p.ID, APIKey: "sk-test-000000000001", QuotaGroupID: g.ID})
	require.NoError(t, err)
	in := AcquireInput{ProviderID: p.ID, ModelID: m.ID, TTL: time.Hour}
	lease := func() *Lease {
		l, err := reg.AcquireKey(ctx, in)
		require.NoError(t, err)
		return l
	}
	settle := func(l *Lease, model uuid.UUID) commit.Call {
		c, f := l.lastCall(reg, commit.End{Outcome: commit.Succeeded}, UsageInput{ModelID: model}, nil)
		require.Empty(t, f)
		return c
	}

	l := lease()
	errs, err := reg.commits.Once(ctx, []commit.Call{settle(l, uuid.New()), settle(l, m.ID)})
	require.NoError(t, err)
	require.ErrorIs(t, errs[0], ErrForeignKey)
	require.NoError(t, errs[1], "the one that is refused leaves the lease to the other")
	requireOpen(t, reg, 0)
	l = lease()
	errs, err = reg.commits.Once(ctx, []commit.Call{settle(l, m.ID), settle(l, uuid.New()), settle(l, m.ID)})
	require.NoError(t, err)
	require.NoError(t, errors.Join(errs...), "what is recorded is not asked about again")
	requireOpen(t, reg, 0)
	row, err := reg.Client().APIKey.Get(ctx, k.ID)
	require.NoError(t, err)
	require.EqualValues(t, []int64{2, 2}, []int64{row.UsageCount, row.RequestsToday})

	// A caller who did not wait for the answer has no lease.
	l = lease()
	reg.releaseUnclaimed(ctx, p.ID, l.ID)
	reg.releaseUnclaimed(ctx, p.ID, uuid.New())
	requireOpen(t, reg, 0)
	_, err = reg.GetLease(ctx, l.ID)
	require.ErrorIs(t, err, ErrNotFound)

	// The answer to the commit of an acquisition was lost, and the key has gone since.
	l = lease()
	require.NoError(t, reg.DeleteAPIKey(ctx, k.ID))
	again := &commit.Acquire{
		ID: l.ID, Provider: p.ID, Model: m.ID, TTL: time.Hour, Want: in.wanted(), Repeated: true,
	}
	errs, err = reg.commits.Once(ctx, []commit.Call{{Now: reg.now(), Acquire: again}})
	require.NoError(t, errors.Join(append(errs, err)...))
	require.Equal(t, l.KeyID, again.Leased.Key)
	require.NoError(t, l.Release(ctx))
	requireOpen(t, reg, 0)
}
