package commit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/money"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// database is one with a provider, a model at a dollar per million input tokens, and a key in a quota group.
type database struct {
	*Committer
	client     *ent.Client
	model, key uuid.UUID
	provider   uuid.UUID
	now        time.Time
	events     []pool.Event // that were to be audited
}

// onEach runs a test on a database of each engine.
func onEach(t *testing.T, test func(t *testing.T, d *database)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		db, err := store.OpenSQLite(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "registry.db")})
		require.NoError(t, err)
		test(t, newDatabase(t, db, migrate.SQLite))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		db, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: pgtest.Database(t, "", nil)})
		require.NoError(t, err)
		test(t, newDatabase(t, db, migrate.Postgres))
	})
}

func newDatabase(t *testing.T, db store.DB, d migrate.Dialect) *database {
	t.Helper()
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	ctx := t.Context()
	_, err := migrate.Apply(ctx, db.Writer(), d)
	require.NoError(t, err)
	is := &database{client: ent.NewClient(ent.Driver(db)), now: noon}
	is.Committer = New(Config{
		DB: db, Clock: func() time.Time { return is.now }, Write: is.write, Expired: 2,
		Audit: func(_ context.Context, _ *ent.Client, _ time.Time, _ string, events []pool.Event) error {
			is.events = append(is.events, events...)
			return nil
		},
		NoKey: func(*pool.Pool, pool.Want, time.Time) error { return fault.ErrNoKeyAvailable },
	})
	t.Cleanup(is.Close)
	c, at := is.client, utc.Beginning
	p := c.Provider.Create().SetName("p").SetCreatedAt(at).SetUpdatedAt(at).SaveX(ctx)
	m := c.Model.Create().SetProviderID(p.ID).SetModelID("m").SetCreatedAt(at).SetUpdatedAt(at).SaveX(ctx)
	c.Price.Create().SetModelID(m.ID).SetCostPer1mInput(money.Dollar).SetEffectiveFrom(at).SetRecordedAt(at).SaveX(ctx)
	g := c.QuotaGroup.Create().SetProviderID(p.ID).SetName("g").SetLastReset(at).SetCreatedAt(at).SetUpdatedAt(at).
		SaveX(ctx)
	k := c.APIKey.Create().SetProviderID(p.ID).SetKeyHash(fmt.Sprintf("%064d", 1)).SetKeyPrefix("sk-").
		SetQuotaGroupID(g.ID).
		SetConcurrency(2).SetLastReset(at).SetCreatedAt(at).SetUpdatedAt(at).SaveX(ctx)
	is.provider, is.model, is.key = p.ID, m.ID, k.ID
	return is
}

// write is a transaction, without the translation of errors that is the registry's.
func (d *database) write(ctx context.Context, body func(tx *ent.Client) error) error {
	return d.DB.Retry(ctx, func() error {
		tx, err := d.client.Tx(ctx)
		if err != nil {
			return err
		}
		if err := body(tx.Client()); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	})
}

func (d *database) call(id string) Call {
	return Call{Now: d.now, Request: Request{ServiceTier: ledger.StandardTier, Named: true, Event: ledger.Event{
		ID: ledger.NewEventID(d.now), Model: d.model, Key: d.key, RequestID: id, At: d.now, Success: true,
		Tokens: ledger.InColumns(meter.Tokens{InputTokens: 1_000_000}),
	}}}
}

func (d *database) acquire(ctx context.Context) (*Leased, error) {
	a := &Acquire{
		ID: uuid.New(), Provider: d.provider, Model: d.model, TTL: time.Minute,
		Want: pool.Want{Amount: pool.Amount{Requests: 1, Tokens: 5}},
	}
	err := d.Do(ctx, Call{Now: d.now, Acquire: a})
	return a.Leased, err
}

func (d *database) end(ctx context.Context, l *Leased, e End, c Call) error {
	e.Lease, e.Key, e.Provider, e.Acquired = l.ID, d.key, d.provider, l.Acquired
	c.Now, c.End = d.now, &e
	return d.Do(ctx, c)
}

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
			require.True(t, d.HasPartition(utc.StartOfDay(noon)))
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
			if err := d.DoWithin(ctx, within, []Call{d.call("a"), d.call("b")}); err != nil {
				return err
			}
			return errors.Join(undone, d.CountUse(ctx, tx, d.key, pool.Amount{Requests: 1, Tokens: 7}, d.now))
		}), undone)
		require.Nil(t, d.Last())
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

		last := d.Last()
		require.NotNil(t, last)
		is, err := d.Look(ctx, d.client, d.now, []uuid.UUID{d.key}, []uuid.UUID{d.provider})
		require.NoError(t, err)
		require.Equal(t, is.Keys[d.key].InFlight(), last.Keys[d.key].InFlight())
		require.Equal(t, *is.Keys[d.key].DegradedUntil, *last.Keys[d.key].DegradedUntil)
		last.Forget(d.provider)
		require.Empty(t, last.Keys)
	})
}

// TestExpiredUndone: a lease that has expired keeps nobody from a key after a transaction that took it away was undone.
func TestExpiredUndone(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx, undone := t.Context(), errors.New("undone")
		d.client.APIKey.UpdateOneID(d.key).SetPriority(1).SetConcurrency(1).ExecX(ctx)
		d.client.APIKey.Create().SetProviderID(d.provider).SetKeyHash(fmt.Sprintf("%064d", 2)).SetKeyPrefix("sk-").
			SetLastReset(utc.Beginning).ExecX(ctx)
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
		other := *d
		other.Committer = New(d.Config)
		defer other.Close()
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
		for _, is := range []*database{d, &other} {
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
