package ledger

import (
	"math/rand/v2"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/migrate"
)

// newLedger returns a migrated database in memory that asks for no models, keys and prices.
func newLedger(t *testing.T) *store.SQLite {
	t.Helper()
	db, err := store.OpenSQLite(t.Context(), store.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = migrate.Apply(t.Context(), db.Writer(), migrate.SQLite)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), "PRAGMA foreign_keys = OFF")
	require.NoError(t, err)
	return db
}

// TestTables: what is written and updated is read again, of any number of periods in all tables at once.
func TestTables(t *testing.T) {
	t.Parallel()
	db, ctx := newLedger(t), t.Context()
	all := map[Period]Sums{}
	for i := range 150 {
		quarter := QuarterOf(uuid.New(), uuid.New(), uuid.New(), noon.Add(time.Duration(i)*time.Hour))
		for _, p := range []Period{quarter, quarter.Day(), quarter.Total(), quarter.Day().Total()} {
			all[p] = one(rand.Int64N(1000), int64(i))
		}
	}
	require.NoError(t, Write(ctx, db, db.Dialect(), Sorted(all), all))
	for range 2 {
		read := map[Period]Sums{}
		require.NoError(t, Read(ctx, db, dialect.SQLite, append(Sorted(all), QuarterOf(model, key, price, noon)), read))
		require.Equal(t, all, read)
		added := map[Period]Sums{}
		for p, s := range all {
			more := one(5, 5)
			if len(added)%2 == 0 { // some requests say more of themselves
				more.Said = Said{Retries: 1, RetryCost: 5, FirstToken: 7}
				more.FirstTokens.Add(7)
			}
			require.NoError(t, s.Merge(more))
			all[p], added[p] = s, more
		}
		require.NoError(t, Add(ctx, db, dialect.SQLite, Sorted(all), all, added))
	}
	known := map[Period]Sums{QuarterOf(model, key, price, noon): {Requests: 9}}
	require.NoError(t, Read(ctx, db, dialect.SQLite, Sorted(known), known))
	require.EqualValues(t, 9, known[QuarterOf(model, key, price, noon)].Requests, "what is known is not read")
}

// TestParts: a range is read by days, and by quarters where days are cut; no instant is in two parts.
func TestParts(t *testing.T) {
	t.Parallel()
	day := utc.StartOfDay(noon)
	next, later := day.Add(utc.Day), day.Add(2*utc.Day)
	for name, c := range map[string]struct {
		start, end time.Time
		cuts       []time.Time
		want       []Part
	}{
		"whole days": {start: day, end: day.Add(3 * utc.Day), want: []Part{{DayGrain, day, day.Add(3 * utc.Day)}}},
		"within a day": {
			start: noon, end: noon.Add(time.Hour), want: []Part{{QuarterGrain, noon, noon.Add(time.Hour)}},
		},
		"from noon on": {start: noon, end: later, want: []Part{{QuarterGrain, noon, next}, {DayGrain, next, later}}},
		"until noon": {
			start: day.Add(-utc.Day), end: noon,
			want: []Part{{DayGrain, day.Add(-utc.Day), day}, {QuarterGrain, day, noon}},
		},
		"cut at noon":    {start: day, end: next, cuts: []time.Time{noon}, want: []Part{{QuarterGrain, day, next}}},
		"cut at a day":   {start: day, end: later, cuts: []time.Time{next}, want: []Part{{DayGrain, day, later}}},
		"nothing at all": {start: day, end: day},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, Parts(c.start, c.end, c.cuts))
		})
	}
}

// TestEach reads parts of a model's totals, and of its keys.
func TestEach(t *testing.T) {
	t.Parallel()
	db, ctx := newLedger(t), t.Context()
	_, err := db.ExecContext(ctx, "INSERT INTO models"+
		" (id, created_at, updated_at, provider_id, model_id, name, context_window)"+
		" VALUES ($1, $2, $2, $3, 'm', '', 0)", model, noon, uuid.New())
	require.NoError(t, err)
	all := map[Period]Sums{}
	for i := range 8 { // two hours, in two keys
		quarter := QuarterOf(model, uuid.UUID{15: byte(2 + i%2)}, price, noon.Add(time.Duration(i)*utc.Quarter))
		for _, p := range []Period{quarter, quarter.Total(), quarter.Day(), quarter.Day().Total()} {
			s := all[p]
			require.NoError(t, s.Merge(one(1, 1)))
			all[p] = s
		}
	}
	require.NoError(t, Write(ctx, db, db.Dialect(), Sorted(all), all))
	count := func(q Query, start, end time.Time) (n int64) {
		require.NoError(t, Each(ctx, db, dialect.SQLite, q, Parts(start, end, nil), func(row Row) error {
			require.Equal(t, model.String(), row.Model)
			n += row.Requests
			return nil
		}))
		return n
	}
	day := utc.StartOfDay(noon)
	for _, q := range []Query{{Model: model}, {Model: model, Totals: true}, {Key: uuid.UUID{15: 2}}} {
		share := int64(1)
		if q.Key != uuid.Nil {
			share = 2
		}
		require.Equal(t, 8/share, count(q, day, day.Add(utc.Day)))
		require.Equal(t, 8/share, count(q, noon, noon.Add(2*time.Hour)))
		require.Equal(t, 4/share, count(q, noon, noon.Add(time.Hour)))
		require.Zero(t, count(q, day, noon))
	}
}

// TestAddTo adds to periods that are stored and to new ones, also by value.
func TestAddTo(t *testing.T) {
	t.Parallel()
	db, ctx := newLedger(t), t.Context()
	quarter := QuarterOf(model, key, price, noon)
	value := quarter.Under(uuid.New())
	sums := map[Period]Sums{quarter: one(1, 1), value: one(1, 1), value.Day(): one(1, 1)}
	for n := range int64(2) {
		require.NoError(t, AddTo(ctx, db, db, dialect.SQLite, sums, map[Period]Sums{}))
		stored := map[Period]Sums{}
		require.NoError(t, Read(ctx, db, dialect.SQLite, Sorted(sums), stored))
		require.Len(t, stored, 3)
		for p := range sums {
			require.Equal(t, n+1, stored[p].Requests)
		}
	}
	full := map[Period]Sums{quarter: {Requests: fault.MaxAmount}}
	require.ErrorIs(t, AddTo(ctx, db, db, dialect.SQLite, full, map[Period]Sums{}), fault.ErrOverflow)
}

// TestReadTail reads what is not folded, of some models.
func TestReadTail(t *testing.T) {
	t.Parallel()
	db, ctx := newLedger(t), t.Context()
	exec := func(query string, args ...any) {
		_, err := db.ExecContext(ctx, query, args...)
		require.NoError(t, err)
	}
	var models []uuid.UUID
	var events []Event
	for i := range 2 {
		id := FirstEventID(noon)
		id[15] = byte(i)
		models = append(models, id)
		exec("INSERT INTO models (id, provider_id, model_id, name, created_at, updated_at)"+
			" VALUES ($1, $1, $2, '', $3, $3)", id, id.String(), noon)
		for s := -1; s < 3; s++ {
			at := noon.Add(time.Duration(s) * time.Second)
			events = append(events, Event{
				ID: NewEventID(at), RequestID: uuid.NewString(), At: at, Model: id, Key: key, Price: price,
				Success: true,
			})
		}
	}
	require.NoError(t, InsertEvents(ctx, db, dialect.SQLite, events))
	exec("INSERT INTO usage_folds (id, model_id, folded_to) VALUES ($1, $1, $2)", models[1], events[6].ID)
	read := func(q Query, from time.Time) (n int) {
		require.NoError(t, ReadTail(ctx, db, dialect.SQLite, q, FirstEventID(from), FirstEventID(noon.Add(time.Hour)),
			func(Event, error) error { n++; return nil }))
		return n
	}
	require.Equal(t, 3+1, read(Query{}, noon.Add(-time.Hour)))
	require.Equal(t, 1+1, read(Query{}, noon.Add(2*time.Second)))
	require.Equal(t, 1, read(Query{Model: models[1]}, noon))
	require.Equal(t, 3, read(Query{Provider: models[0]}, noon))
	require.Zero(t, read(Query{Family: key}, noon))
}
