package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/migrate"
)

// TestEventTime: an id begins with the time that it was made of.
func TestEventTime(t *testing.T) {
	t.Parallel()
	for _, at := range []time.Time{utc.Beginning, time.Date(2026, 7, 15, 12, 0, 0, 999_999_000, time.UTC), utc.End} {
		require.Equal(t, at, EventTime(NewEventID(at)))
		require.Equal(t, at, EventTime(FirstEventID(at)))
	}
	require.Equal(t, utc.Beginning, EventTime(uuid.Nil))
}

// TestEventIDs: ids are in the order of time, and no id of a request is below the first one of its instant.
func TestEventIDs(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 7, 15, 12, 0, 0, 123_456_000, time.UTC)
	first, id, next := FirstEventID(at), NewEventID(at), FirstEventID(at.Add(time.Microsecond))
	require.Negative(t, bytes.Compare(first[:], id[:]))
	require.Negative(t, bytes.Compare(id[:], next[:]))
	require.EqualValues(t, 7, id.Version())
	require.NotEqual(t, id, NewEventID(at))
}

// TestPartitions makes, finds, counts and drops partitions, and locks models.
func TestPartitions(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := pgtest.Database(t, "ledger", func(ctx context.Context, url string) (err error) {
		db, err := sql.Open("pgx", url)
		if err != nil {
			return err
		}
		_, err = migrate.Apply(ctx, db, migrate.Postgres)
		require.NoError(t, db.Close())
		return err
	})
	db, err := store.OpenPostgres(ctx, store.PostgresConfig{URL: url})
	require.NoError(t, err)
	client := ent.NewClient(ent.Driver(db))
	defer func() { require.NoError(t, client.Close()) }()

	var known Partitions
	day := utc.StartOfDay(noon)
	within := func(fn func(tx *ent.Client) error) {
		t.Helper()
		tx, err := client.Tx(ctx)
		require.NoError(t, err)
		require.NoError(t, fn(tx.Client()))
		require.NoError(t, tx.Commit())
	}
	for _, want := range []bool{false, true} { // what the transaction made is not remembered: it might have been undone
		within(func(tx *ent.Client) error { return known.Ensure(ctx, tx, []time.Time{day}, false) })
		require.Equal(t, want, known.Has(day))
	}
	within(func(tx *ent.Client) error { return LockModels(ctx, tx, []uuid.UUID{model, key, model}) })

	parts, err := PartitionsBefore(ctx, client, noon.Add(-utc.Day))
	require.NoError(t, err)
	require.Empty(t, parts)
	parts, err = PartitionsBefore(ctx, client, noon)
	require.NoError(t, err)
	require.Len(t, parts, 1)
	require.Equal(t, FirstEventID(day), parts[0].From)
	require.Equal(t, FirstEventID(day.Add(utc.Day)), parts[0].To)
	require.NoError(t, parts[0].Count(ctx, client))
	require.Zero(t, parts[0].Rows)
	require.Positive(t, parts[0].Bytes)
	for _, want := range []bool{true, false} {
		within(func(tx *ent.Client) error {
			dropped, err := parts[0].Drop(ctx, tx)
			require.Equal(t, want, dropped)
			return err
		})
	}
	require.True(t, known.Has(day))
	known.Forget()
	require.False(t, known.Has(day))
}

func TestReadHorizons(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	client := ent.NewClient(ent.Driver(newLedger(t)))
	h, err := ReadHorizons(ctx, client)
	require.NoError(t, err)
	require.Equal(t, Horizons{Events: utc.Beginning, Quarters: utc.Beginning}, h)
	require.NoError(t, client.UsageHorizon.Create().SetID(EventsPart).SetCompleteFrom(noon).Exec(ctx))
	require.NoError(t, client.UsageHorizon.Create().SetID(QuartersPart).SetCompleteFrom(noon.Add(-utc.Day)).Exec(ctx))
	h, err = ReadHorizons(ctx, client)
	require.NoError(t, err)
	require.Equal(t, Horizons{Events: noon, Quarters: noon.Add(-utc.Day)}, h)
}
