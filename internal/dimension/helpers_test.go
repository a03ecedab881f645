package dimension

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entdimension "github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/ent/dimensionvalue"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/money"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

var noon = time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)

// database is one with a provider, a model that was created at noon, a price and a key.
type database struct {
	store.DB
	client            *ent.Client
	model, key, price uuid.UUID
}

func onEach(t *testing.T, test func(t *testing.T, d *database)) {
	t.Helper()
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		db, err := store.OpenSQLite(t.Context(), store.Config{})
		require.NoError(t, err)
		test(t, newDatabase(t, db, migrate.SQLite))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		url := pgtest.Database(t, "dimension", func(ctx context.Context, url string) error {
			db, err := store.OpenPostgres(ctx, store.PostgresConfig{URL: url})
			if err != nil {
				return err
			}
			_, err = migrate.Apply(ctx, db.Writer(), migrate.Postgres)
			return errors.Join(err, db.Close())
		})
		db, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: url})
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
	c, at := ent.NewClient(ent.Driver(db)), utc.Beginning
	p := c.Provider.Create().SetName("p").SetCreatedAt(at).SetUpdatedAt(at).SaveX(ctx)
	m := c.Model.Create().SetID(ledger.FirstEventID(noon)).SetProviderID(p.ID).SetModelID("m").SetCreatedAt(at).
		SetUpdatedAt(at).SaveX(ctx)
	price := c.Price.Create().SetModelID(m.ID).SetCostPer1mInput(money.Dollar).SetEffectiveFrom(at).SetRecordedAt(at).
		SaveX(ctx)
	k := c.APIKey.Create().SetProviderID(p.ID).SetKeyHash(strings.Repeat("0", 64)).SetKeyPrefix("").
		SetLastReset(at).SetCreatedAt(at).SetUpdatedAt(at).SaveX(ctx)
	if d == migrate.Postgres {
		_, err := c.ExecContext(ctx, "SELECT usage_events_make_partitions('{2026-07-15}')")
		require.NoError(t, err)
	}
	return &database{DB: db, client: c, model: m.ID, key: k.ID, price: price.ID}
}

// write runs a body in a transaction.
func (d *database) write(ctx context.Context, body func(tx *ent.Client) error) error {
	tx, err := d.client.Tx(ctx)
	if err != nil {
		return err
	}
	if err := body(tx.Client()); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// add adds a dimension that counts from noon on.
func (d *database) add(
	t *testing.T, name string, of entdimension.Kind, more func(*ent.DimensionCreate),
) *ent.Dimension {
	t.Helper()
	create := d.client.Dimension.Create().SetName(name).SetKind(of).SetSince(noon).SetOpenFrom(noon).SetCreatedAt(noon).
		SetUpdatedAt(noon)
	if more != nil {
		more(create)
	}
	row := create.SaveX(t.Context())
	for _, kind := range []dimensionvalue.Kind{dimensionvalue.KindUnassigned, dimensionvalue.KindOther} {
		d.client.DimensionValue.Create().SetDimensionID(row.ID).SetName("").SetKind(kind).SetSince(noon).
			ExecX(t.Context())
	}
	return row
}

// event returns a request some seconds after noon.
func (d *database) event(seconds int, tags string) ledger.Event {
	at := noon.Add(time.Duration(seconds) * time.Second)
	return ledger.Event{
		ID: ledger.NewEventID(at), RequestID: uuid.NewString(), At: at, Model: d.model, Key: d.key, Price: d.price,
		Success: true, Tags: tags, Tokens: [5]int64{1}, Cost: new(money.USD),
	}
}

func (d *database) read(t *testing.T) *Book {
	t.Helper()
	b, err := Read(t.Context(), d.client)
	require.NoError(t, err)
	return b
}
