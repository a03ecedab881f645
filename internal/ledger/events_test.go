package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/money"
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

// TestEvents writes events, and reads them page by page.
func TestEvents(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db, err := store.OpenSQLite(ctx, store.Config{Path: filepath.Join(t.TempDir(), "registry.db")})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	_, err = migrate.Apply(ctx, db.Writer(), migrate.SQLite)
	require.NoError(t, err)
	_, err = db.ExecContext(ctx, "PRAGMA foreign_keys = off") // what they refer to is of no interest here
	require.NoError(t, err)
	events := make([]Event, 5)
	for i := range events {
		at := noon.Add(time.Duration(i) * time.Second)
		events[i] = Event{
			ID: NewEventID(at), Model: model, Key: key, Price: price, RequestID: fmt.Sprint("r", i), At: at,
			Tokens: [5]int64{1, 2, 3, 4, 5}, Latency: 7, Success: i%2 == 0,
			Status: usageevent.UsageStatusEstimated,
		}
		if i > 0 {
			events[i].Cost = new(money.USD(i))
			events[i].FirstToken, events[i].Attempt, events[i].ProviderCost = new(int64(i)), i, new(money.USD(2*i))
		}
	}
	events[4].Model = uuid.New()
	require.NoError(t, InsertEvents(ctx, db, db.Dialect(), events))
	read := func(of, after uuid.UUID, limit int) (found []Event) {
		require.NoError(t,
			ReadEvents(ctx, db, of, after, FirstEventID(noon.Add(time.Hour)), limit, func(e Event, err error) error {
				require.NoError(t, err)
				found = append(found, e)
				return nil
			}))
		return found
	}
	want := slices.Clone(events)
	for i := range want {
		want[i].RequestID = "" // it is not summed
	}
	require.Equal(t, want, read(uuid.Nil, FirstEventID(noon), 10))
	require.Equal(t, want[1:3], read(uuid.Nil, want[0].ID, 2))
	require.Equal(t, want[:4], read(model, FirstEventID(noon), 10))

	s := events[0].Sums()
	require.Equal(t, []int64{1, 0, 1, 7}, []int64{s.Requests, s.Errors, s.Unpriced, s.Latency})
	s = events[1].Sums()
	require.Equal(t, []int64{1, 1, 0, 1}, []int64{s.Requests, s.Errors, s.Unpriced, int64(s.Cost)})
	require.Equal(t, Said{
		Estimated: 1, FirstToken: 1, ProviderCost: 2, ProviderCosts: 1, ComparedCost: 1, FirstTokens: s.FirstTokens,
	}, s.Said)
	s = events[3].Sums()
	require.Equal(t, []int64{1, 3}, []int64{s.Retries, int64(s.RetryCost)})
	unknown := Event{Status: usageevent.UsageStatusUnknown}
	s = unknown.Sums()
	require.Equal(t, []int64{1, 1}, []int64{s.Unknown, s.Unpriced})
	require.EqualValues(t, 2, events[1].Meters().OutputTokens)
	require.Equal(
		t, Period{Model: model, Key: key, Price: price, Grain: QuarterGrain, Start: noon}, events[0].Quarter(),
	)
}
