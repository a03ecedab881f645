package commit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// TestMemory compares, after each of many calls, what a batch keeps for the next one with what the database has.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: thousands of random steps")
	}
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		seed := rand.Uint64()
		t.Log("seed", seed)
		w := newWalk(t.Context(), d, rand.New(rand.NewPCG(seed, 0))) //nolint:gosec // not for secrets
		steps, compared := 4000, 0
		if d.engine == dialect.Postgres {
			steps = 400
		}
		steps = sample.Of(steps)
		for range steps {
			if w.step(t) && d.compareMemory(t) {
				compared++
			}
		}
		require.Greater(t, compared, steps*3/4)
	})
}

// walk makes random calls for the keys of a provider.
type walk struct {
	*database
	*rand.Rand
	ids  []uuid.UUID // of the keys
	open []*Leased
}

func newWalk(ctx context.Context, d *database, random *rand.Rand) *walk {
	group := d.client.QuotaGroup.Query().OnlyX(ctx)
	group.Update().SetRequestsPerMinute(50).SetConcurrency(10).ExecX(ctx)
	d.client.APIKey.UpdateOneID(d.key).SetConcurrency(3).SetRequestsPerDay(500).ExecX(ctx)
	w := &walk{database: d, Rand: random, ids: []uuid.UUID{d.key}}
	for i := range 4 {
		w.ids = append(w.ids, d.add(ctx, d.provider, func(k *ent.APIKeyCreate) {
			if k.SetConcurrency(3).SetRequestsPerDay(500).SetTokensPerMinute(600); i == 0 {
				k.SetQuotaGroupID(group.ID)
			}
		}))
	}
	return w
}

func (w *walk) someKey() uuid.UUID { return w.ids[w.IntN(len(w.ids))] }

// used is a request of some tokens.
func (w *walk) used(id string, model, key uuid.UUID) Call {
	c := w.call(id)
	c.Request.Model, c.Request.Key = model, key
	c.Request.Tokens = ledger.InColumns(meter.Tokens{InputTokens: w.Int64N(100)})
	return c
}

// failure is one of those after which a key, or its provider, is out of use for some time; or it is the caller's fault.
func (w *walk) failure() pool.Diagnosis {
	d := pool.Diagnosis{Class: []upstream.Class{
		upstream.RateLimited, upstream.Auth, upstream.Server, upstream.QuotaExhausted, upstream.BadRequest,
	}[w.IntN(5)]}
	if d.Class == upstream.RateLimited && w.IntN(2) == 0 {
		d.Until = w.now.Add(20 * time.Second)
	}
	return d
}

// step makes a call. It reports whether the memory is to be as the database is.
func (w *walk) step(t *testing.T) bool {
	t.Helper()
	ctx := t.Context()
	w.now = w.now.Add(time.Duration(w.Int64N(int64(3 * time.Second)))).Truncate(time.Microsecond)
	if w.IntN(300) == 0 {
		w.now = w.now.Add(time.Duration(w.Int64N(int64(20 * time.Hour)))).Truncate(time.Microsecond)
	}
	var lease *Leased
	if n := len(w.open); n > 0 && w.IntN(2) == 0 {
		i := w.IntN(n)
		lease = w.open[i]
		w.open = append(w.open[:i], w.open[i+1:]...)
	}
	if lease != nil && w.now.Sub(lease.Expires) >= keptExpired {
		lease = nil // it cannot be ended any more
	}
	switch n := w.IntN(20); {
	case lease == nil && n == 0:
		w.restore(t, w.someKey())
		return false // the next batch sees that what is kept is out of date
	case lease == nil && n < 5:
		require.NoError(t, w.Do(ctx, w.used(fmt.Sprint(w.IntN(500)), w.model, w.someKey())))
	case lease == nil:
		a := &Acquire{
			ID: uuid.New(), Provider: w.provider, Model: w.model, TTL: time.Minute,
			Want: pool.Want{Amount: pool.Amount{Requests: 1, Tokens: w.Int64N(100)}},
		}
		if err := w.Do(ctx, Call{Now: w.now, Acquire: a}); err != nil {
			require.ErrorIs(t, err, fault.ErrNoKeyAvailable)
			break
		}
		l := *a.Leased
		w.open = append(w.open, &l)
	case n > 14:
		w.renew(t, lease)
	default:
		w.finish(t, lease, n)
	}
	return true
}

// renew renews a lease, unless it has expired.
func (w *walk) renew(t *testing.T, lease *Leased) {
	t.Helper()
	r := w.renewal(lease)
	r.TTL, r.Tokens, r.Cost = time.Duration(w.Int64N(int64(2*time.Minute))), w.Int64N(150), money.USD(w.Int64N(3))
	r.TTL = r.TTL.Truncate(time.Microsecond)
	switch err := w.Do(t.Context(), Call{Now: w.now, Renew: r}); {
	case !lease.Expires.After(w.now):
		require.ErrorIs(t, err, fault.ErrLeaseEnded)
	case err != nil:
		require.ErrorIs(t, err, errLimit)
	default:
		lease.Lease = *r.Renewed
	}
	w.open = append(w.open, lease)
}

// finish ends a lease in one of many ways.
func (w *walk) finish(t *testing.T, lease *Leased, n int) {
	t.Helper()
	ctx, id := t.Context(), lease.ID.String()
	switch {
	case n == 0:
		require.ErrorIs(
			t, w.end(ctx, lease, End{Outcome: Succeeded}, w.used(id, uuid.New(), lease.Key)), fault.ErrForeignKey,
		)
	case n < 4:
		require.NoError(t, w.end(ctx, lease, End{Outcome: Released}, Call{}))
	case n < 9:
		failed := w.used(id, w.model, lease.Key)
		failed.Request.Success = false
		require.NoError(t, w.end(ctx, lease, End{Outcome: Failed, Failure: w.failure()}, failed))
	default:
		said := []upstream.Quota{{
			Meter: upstream.Requests, Limit: -1, Remaining: w.Int64N(9), Reset: w.now.Add(5 * time.Second),
		}}
		require.NoError(
			t, w.end(ctx, lease, End{Outcome: Succeeded, Said: said}, w.used(id, w.model, lease.Key)),
		)
	}
}

// restore changes a key and its group past the committer.
func (w *walk) restore(t *testing.T, key uuid.UUID) {
	t.Helper()
	ctx := t.Context()
	require.NoError(t, w.write(ctx, func(tx *ent.Client) error {
		return errors.Join(
			Hold(ctx, tx, w.engine, PoolOfKey, key),
			tx.APIKey.UpdateOneID(key).
				SetDegraded(false).ClearDegradedUntil().ClearDegradedAt().SetDegradedReason("").SetDegradedBy("").
				SetFailures(0).SetCountedClass("").ClearCountedAt().SetFailureClass("").ClearFailedAt().ClearObserved().
				Exec(ctx),
			tx.QuotaGroup.Update().ClearObserved().Exec(ctx),
		)
	}))
}

// TestMemoryWrong puts rows into the memory of the last batch that the database lacks. No usage gets lost.
func TestMemoryWrong(t *testing.T) {
	t.Parallel()
	d, ctx := onSQLite(t), t.Context()
	require.NoError(t, d.Do(ctx, d.call("a")))
	d.now = d.now.Add(utc.Quarter)
	wrong := 0
	for p := range maps.Clone(d.memory.last.Load().stored) {
		if p.Grain == ledger.QuarterGrain {
			p.Start = p.Start.Add(utc.Quarter)
			d.memory.last.Load().stored[p] = ledger.Sums{Requests: 7}
			wrong++
		}
	}
	require.Equal(t, 2, wrong, "that of the key, and the total")
	require.NoError(t, d.Do(ctx, d.call("b")))
	quarter := d.client.UsageQuarter.Query().Where(usagequarter.PeriodStart(d.now)).OnlyX(ctx)
	total := d.client.UsageTotalQuarter.Query().Where(usagetotalquarter.PeriodStart(d.now)).OnlyX(ctx)
	require.EqualValues(t, []int64{1, 1}, []int64{quarter.RequestCount, total.RequestCount})
	day, totals := d.client.Usage.Query().OnlyX(ctx), d.client.UsageTotal.Query().OnlyX(ctx)
	require.EqualValues(t, []int64{2, 2}, []int64{day.RequestCount, totals.RequestCount})
}

// TestMemoryIsBounded asks again and again for keys of unknown providers.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	d := onSQLite(t)
	for range maxRemembered {
		_, err := d.acquireOf(t.Context(), uuid.New(), uuid.Nil)
		require.ErrorIs(t, err, fault.ErrNoKeyAvailable)
	}
	require.LessOrEqual(t, d.memory.last.Load().rows(), maxRemembered+2)
}
