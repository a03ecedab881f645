package commit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// TestDo: what many callers do at once is all there, and each request once.
func TestDo(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		const callers = 20
		var all sync.WaitGroup
		errs := make([]error, callers)
		for i := range errs {
			all.Go(func() {
				for range 2 { // the second time it is known
					errs[i] = errors.Join(errs[i], d.Do(context.Background(), d.call(fmt.Sprint(i))))
				}
			})
		}
		all.Wait()
		require.NoError(t, errors.Join(errs...))
		ctx := t.Context()
		day := d.client.UsageTotal.Query().OnlyX(ctx)
		require.EqualValues(
			t, []int64{callers, callers * int64(money.Dollar)}, []int64{day.RequestCount, int64(*day.TotalCost)},
		)
		require.EqualValues(t, callers, d.client.APIKey.GetX(ctx, d.key).UsageCount)
		require.Equal(t, callers, d.client.UsageEvent.Query().CountX(ctx))

		unknown := d.call("unknown")
		unknown.Request.Model = uuid.New()
		require.ErrorIs(t, d.Do(ctx, unknown), fault.ErrForeignKey)
		require.ErrorIs(t, d.DoAll(ctx, []Call{d.call("a"), unknown}), fault.ErrForeignKey)
		require.ErrorContains(t, d.DoAll(ctx, []Call{d.call("a"), unknown}), "request 1: ")
		require.Equal(t, callers, d.client.UsageEvent.Query().CountX(ctx), "all of them, or none")
		if d.DB.Dialect() == dialect.Postgres {
			require.True(t, d.partitions.Has(utc.StartOfDay(noon)))
		}
	})
}

// TestDoWithin: what is done within a caller's transaction is undone with it, and not remembered.
func TestDoWithin(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx, undone := t.Context(), errors.New("undone")
		require.ErrorIs(t, d.write(ctx, func(tx *ent.Client) error {
			within := func(body func(tx *ent.Client) error) error { return body(tx) }
			for _, id := range []string{"b", "c"} { // the second time the partition is there
				if err := d.DoWithin(ctx, within, []Call{d.call("a"), d.call(id)}); err != nil {
					return err
				}
			}
			return errors.Join(undone, d.CountUse(ctx, tx, d.key, pool.Amount{Requests: 1, Tokens: 7}, d.now))
		}), undone)
		require.Nil(t, d.memory.last.Load())
		require.False(t, d.partitions.Has(utc.StartOfDay(noon)))
		require.Zero(t, d.client.UsageEvent.Query().CountX(ctx))
		require.NoError(t, d.Do(ctx, d.call("a")))
		require.EqualValues(t, 1, d.client.APIKey.GetX(ctx, d.key).UsageCount)
		require.NoError(t, d.write(ctx, func(tx *ent.Client) error {
			return d.CountUse(ctx, tx, d.key, pool.Amount{Requests: 1, Tokens: 7}, d.now)
		}))
		require.EqualValues(t, 1, d.client.APIKey.GetX(ctx, d.key).ExtraRequests)
		require.ErrorIs(t, d.write(ctx, func(tx *ent.Client) error {
			return d.CountUse(ctx, tx, uuid.New(), pool.Amount{}, d.now)
		}), fault.ErrNotFound)
	})
}

// TestLeases takes a key through its life, and finds what is remembered as it is in the database.
func TestLeases(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx := t.Context()
		var leases []*Leased
		for range 2 {
			l, err := d.acquire(ctx)
			require.NoError(t, err)
			require.Equal(t, "sk-", l.Prefix)
			leases = append(leases, l)
		}
		_, err := d.acquire(ctx)
		require.ErrorIs(t, err, fault.ErrNoKeyAvailable)
		require.NoError(t, d.end(ctx, leases[0], End{Outcome: Succeeded}, d.call("a")))
		require.ErrorIs(t, d.end(ctx, leases[0], End{Outcome: Released}, Call{}), fault.ErrLeaseEnded)
		group := d.client.QuotaGroup.Query().OnlyX(ctx)
		require.EqualValues(t, []int64{1, 1_000_000}, []int64{group.RequestsToday, group.TokensToday})

		d.now = noon.Add(time.Minute) // the other lease has expired
		for range 2 {
			_, err := d.acquire(ctx)
			require.NoError(t, err)
		}
		require.Equal(t, 1, d.client.ExpiredLease.Query().CountX(ctx))
		require.NoError(t, d.end(ctx, leases[1], End{Outcome: Succeeded}, d.call("b")), "it can still be settled")
		require.Zero(t, d.client.ExpiredLease.Query().CountX(ctx))

		d.now = d.now.Add(time.Minute)
		l, err := d.acquire(ctx)
		require.NoError(t, err)
		down := pool.Diagnosis{Class: upstream.RateLimited, Until: d.now.Add(time.Hour)}
		require.NoError(t, d.end(ctx, l, End{Outcome: Failed, Failure: down}, Call{}))
		require.Len(t, d.events, 1)
		require.True(t, d.client.APIKey.GetX(ctx, d.key).Degraded)
		_, err = d.acquire(ctx)
		require.ErrorIs(t, err, fault.ErrNoKeyAvailable)

		require.NotNil(t, d.memory.last.Load())
		require.True(t, d.compareMemory(t))
		d.memory.last.Load().forget(d.provider)
		require.Empty(t, d.memory.last.Load().keys)
	})
}

// TestLeaseBatches has calls for one lease in one batch, and calls that are done again.
func TestLeaseBatches(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx := t.Context()
		lease := func() *Leased {
			l, err := d.acquire(ctx)
			require.NoError(t, err)
			copied := *l
			return &copied
		}
		settle := func(l *Leased, model uuid.UUID) Call {
			c := d.call(l.ID.String())
			c.Request.Model = model
			c.End = &End{Lease: l.ID, Key: l.Key, Provider: d.provider, Acquired: l.Acquired, Outcome: Succeeded}
			return c
		}
		requireEnded := func() {
			require.Zero(t, d.client.KeyLease.Query().CountX(ctx))
			require.True(t, d.compareMemory(t))
		}

		l := lease()
		errs, err := d.once(ctx, []Call{settle(l, uuid.New()), settle(l, d.model)})
		require.NoError(t, err)
		require.ErrorIs(t, errs[0], fault.ErrForeignKey)
		require.NoError(t, errs[1], "the one that is refused leaves the lease to the other")
		requireEnded()
		l = lease()
		errs, err = d.once(ctx, []Call{settle(l, d.model), settle(l, uuid.New()), settle(l, d.model)})
		require.NoError(t, err)
		require.NoError(t, errors.Join(errs...), "what is recorded is not asked about again")
		requireEnded()
		row := d.client.APIKey.GetX(ctx, d.key)
		require.EqualValues(t, []int64{2, 2}, []int64{row.UsageCount, row.RequestsToday})

		// A caller who did not wait for the answer has no lease.
		l = lease()
		for _, id := range []uuid.UUID{l.ID, uuid.New()} {
			unclaimed := &End{Lease: id, Provider: d.provider, Outcome: Released}
			require.NoError(t, d.Do(ctx, Call{Now: d.now, End: unclaimed}))
		}
		requireEnded()

		// The answer to the commit of an acquisition was lost, and the key has gone since.
		l = lease()
		d.client.APIKey.UpdateOneID(d.key).SetDeletedAt(d.now).ExecX(ctx)
		again := &Acquire{ID: l.ID, Provider: d.provider, Model: d.model, TTL: time.Minute, repeated: true}
		errs, err = d.once(ctx, []Call{{Now: d.now, Acquire: again}})
		require.NoError(t, errors.Join(append(errs, err)...))
		require.Equal(t, d.key, again.Leased.Key)
		require.NoError(t, d.end(ctx, l, End{Outcome: Released}, Call{}))
		requireEnded()
	})
}

// TestExpiredUndone: a lease that has expired keeps nobody from a key after a transaction that took it away was undone.
func TestExpiredUndone(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx, undone := t.Context(), errors.New("undone")
		d.client.APIKey.UpdateOneID(d.key).SetPriority(1).SetConcurrency(1).ExecX(ctx)
		d.add(ctx, d.provider, func(*ent.APIKeyCreate) {})
		_, err := d.acquire(ctx)
		require.NoError(t, err)
		d.now = d.now.Add(time.Minute)
		require.ErrorIs(t, d.write(ctx, func(tx *ent.Client) error {
			within := func(body func(tx *ent.Client) error) error { return body(tx) }
			a := &Acquire{ID: uuid.New(), Provider: d.provider, TTL: time.Minute}
			return errors.Join(undone, d.DoWithin(ctx, within, []Call{{Now: d.now, Acquire: a}}))
		}), undone)
		l, err := d.acquire(ctx)
		require.NoError(t, err)
		require.Equal(t, d.key, l.Key, "it has the higher priority, and nothing is under way")
	})
}

// TestOthers: a process notices what another one has changed.
func TestOthers(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx := t.Context()
		require.NoError(t, d.Do(ctx, d.call("a")))
		other := d.another(t)
		require.NoError(t, other.Do(ctx, d.call("b")))
		require.NoError(t, other.Do(ctx, d.call("a")), "it is known")
		require.NoError(t, d.Do(ctx, d.call("c")))
		require.EqualValues(t, 3, d.client.APIKey.GetX(ctx, d.key).UsageCount)
		require.EqualValues(t, 3, d.client.UsageTotal.Query().OnlyX(ctx).RequestCount)

		require.NoError(t, d.write(ctx, func(tx *ent.Client) error {
			if err := Hold(ctx, tx, d.DB.Dialect(), PoolOfKey, d.key); err != nil {
				return err
			}
			return tx.APIKey.UpdateOneID(d.key).SetDisabled(true).Exec(ctx)
		}))
		for _, is := range []*database{d, other} {
			_, err := is.acquire(ctx)
			require.ErrorIs(t, err, fault.ErrNoKeyAvailable)
		}
	})
}

// TestCommit: a commit of which nobody knows is repeated, and a batch that one call spoils is split.
func TestCommit(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx, lost := t.Context(), 1
		d.Write = func(ctx context.Context, body func(tx *ent.Client) error) error {
			if err := d.write(ctx, body); err != nil || lost == 0 {
				return err
			}
			lost--
			return fault.ErrUncertain // it was committed, and the answer was lost
		}
		unnamed := d.call("a")
		unnamed.Request.Named = false
		require.NoError(t, errors.Join(d.commit(ctx, []Call{unnamed})...))
		lost = 1
		l, err := d.acquire(ctx)
		require.NoError(t, err)
		lost = 1
		require.NoError(t, d.end(ctx, l, End{Outcome: Succeeded}, d.call("b")))
		require.Equal(t, 2, d.client.UsageEvent.Query().CountX(ctx))
		require.Zero(t, d.client.KeyLease.Query().CountX(ctx))
		lost = 10
		if d.DB.Dialect() == dialect.SQLite {
			require.ErrorIs(
				t, d.commit(ctx, []Call{d.call("c")})[0], fault.ErrUncertain, "a disk is not tried for ever",
			)
		}
		lost = 0

		large := d.call("large")
		large.Request.Tokens[0] = fault.MaxAmount / 2
		d.client.Price.Update().ClearCostPer1mInput().ExecX(ctx) // what is not known costs nothing
		calls := make([]Call, 3)
		for i := range calls {
			calls[i] = large
			calls[i].Request.ID, calls[i].Request.RequestID = ledger.NewEventID(d.now), fmt.Sprint("large ", i)
		}
		errs := d.commit(ctx, calls)
		require.NoError(t, errs[0])
		require.ErrorIs(t, errs[1], fault.ErrOverflow, "each is tried alone")
		require.ErrorIs(t, errs[2], fault.ErrOverflow)
	})
}
