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

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/store"
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
	keys       int          // that were added
}

// onEach runs a test on a database of each engine.
func onEach(t *testing.T, test func(t *testing.T, d *database)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, onSQLite(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, onPostgres(t))
	})
}

func newDatabase(t *testing.T, db store.DB, d migrate.Dialect) *database {
	t.Helper()
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	ctx := t.Context()
	_, err := migrate.Apply(ctx, db.Writer(), d)
	require.NoError(t, err)
	is := &database{client: ent.NewClient(ent.Driver(db)), now: noon}
	var auditing sync.Mutex // of two processes at once
	is.Committer = New(Config{
		DB: db, Clock: func() time.Time { return is.now }, Expired: 2,
		Write: func(ctx context.Context, body func(tx *ent.Client) error) error {
			return is.writeBy(ctx, ent.NewClient(ent.Driver(db.Batch())), body)
		},
		Audit: func(_ context.Context, _ *ent.Client, _ time.Time, _ string, events []pool.Event) error {
			auditing.Lock()
			defer auditing.Unlock()
			is.events = append(is.events, events...)
			return nil
		},
		NoKey:     func(*pool.Pool, pool.Want, time.Time) error { return fault.ErrNoKeyAvailable },
		OverLimit: func(*pool.Key, *pool.Group, []pool.Window, []pool.Window) error { return errLimit },
	})
	t.Cleanup(is.Close)
	c, at := is.client, utc.Beginning
	p := c.Provider.Create().SetName("p").SetCreatedAt(at).SetUpdatedAt(at).SaveX(ctx)
	m := c.Model.Create().SetProviderID(p.ID).SetModelID("m").SetCreatedAt(at).SetUpdatedAt(at).SaveX(ctx)
	c.Price.Create().SetModelID(m.ID).SetCostPer1mInput(money.Dollar).SetEffectiveFrom(at).SetRecordedAt(at).SaveX(ctx)
	g := c.QuotaGroup.Create().SetProviderID(p.ID).SetName("g").SetLastReset(at).SetCreatedAt(at).SetUpdatedAt(at).
		SaveX(ctx)
	is.provider, is.model = p.ID, m.ID
	is.key = is.add(ctx, p.ID, func(k *ent.APIKeyCreate) { k.SetQuotaGroupID(g.ID).SetConcurrency(2) })
	return is
}

// onSQLite returns a database of SQLite.
func onSQLite(t *testing.T) *database {
	t.Helper()
	db, err := store.OpenSQLite(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "registry.db")})
	require.NoError(t, err)
	return newDatabase(t, db, migrate.SQLite)
}

// onPostgres returns a database of PostgreSQL.
func onPostgres(t *testing.T) *database {
	t.Helper()
	url := pgtest.Database(t, "commit", func(ctx context.Context, url string) error {
		db, err := store.OpenPostgres(ctx, store.PostgresConfig{URL: url})
		if err != nil {
			return err
		}
		_, err = migrate.Apply(ctx, db.Writer(), migrate.Postgres)
		return errors.Join(err, db.Close())
	})
	db, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: url})
	require.NoError(t, err)
	return newDatabase(t, db, migrate.Postgres)
}

// add adds a key of a provider.
func (d *database) add(ctx context.Context, provider uuid.UUID, change func(*ent.APIKeyCreate)) uuid.UUID {
	d.keys++
	at := utc.Beginning
	k := d.client.APIKey.Create().SetProviderID(provider).SetKeyHash(fmt.Sprintf("%064d", d.keys)).SetKeyPrefix("sk-").
		SetLastReset(at).SetCreatedAt(at).SetUpdatedAt(at)
	change(k)
	return k.SaveX(ctx).ID
}

// elsewhere adds a provider with a key.
func (d *database) elsewhere(ctx context.Context) (provider, key uuid.UUID) {
	p := d.client.Provider.Create().SetName(uuid.NewString()).SetCreatedAt(noon).SetUpdatedAt(noon).SaveX(ctx)
	return p.ID, d.add(ctx, p.ID, func(*ent.APIKeyCreate) {})
}

// another returns the same database as another process has it.
func (d *database) another(t *testing.T) *database {
	t.Helper()
	other := *d
	other.Committer = New(d.Config)
	t.Cleanup(other.Close)
	return &other
}

// write is a transaction, without the translation of errors that is the registry's.
func (d *database) write(ctx context.Context, body func(tx *ent.Client) error) error {
	return d.writeBy(ctx, d.client, body)
}

func (d *database) writeBy(ctx context.Context, client *ent.Client, body func(tx *ent.Client) error) error {
	return d.DB.Retry(ctx, func() error {
		tx, err := client.Tx(ctx)
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

// acquire leases a key for a request of five tokens.
func (d *database) acquire(ctx context.Context) (*Leased, error) {
	return d.acquireOf(ctx, d.provider, d.model)
}

// acquireOf leases a key of a provider, but for some.
func (d *database) acquireOf(ctx context.Context, provider, model uuid.UUID, except ...uuid.UUID) (*Leased, error) {
	a := &Acquire{
		ID: uuid.New(), Provider: provider, Model: model, TTL: time.Minute,
		Want: pool.Want{Amount: pool.Amount{Requests: 1, Tokens: 5}, Exclude: map[uuid.UUID]bool{}},
	}
	for _, key := range except {
		a.Want.Exclude[key] = true
	}
	err := d.Do(ctx, Call{Now: d.now, Acquire: a})
	return a.Leased, err
}

// errLimit is for a lease that may not reserve more.
var errLimit = fmt.Errorf("%w: a limit", fault.ErrNoKeyAvailable)

// renewal renews a lease of the provider's for a minute.
func (d *database) renewal(l *Leased) *Renew {
	r := &Renew{Lease: l.ID, Key: l.Key, Provider: d.provider, Acquired: l.Acquired, TTL: time.Minute}
	if l.Model != nil {
		r.Model = *l.Model
	}
	if l.For != nil {
		r.For.Consumer = *l.For
	}
	return r
}

// end ends a lease of the provider's, unless e names another.
func (d *database) end(ctx context.Context, l *Leased, e End, c Call) error {
	e.Lease, e.Key, e.Acquired = l.ID, l.Key, l.Acquired
	if e.Provider == uuid.Nil {
		e.Provider = d.provider
	}
	c.Now, c.End = d.now, &e
	return d.Do(ctx, c)
}
