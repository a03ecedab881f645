package bulk_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// eachEngine runs a test on a database of each kind that has the table api_keys, with some of its columns.
func eachEngine(t *testing.T, test func(*testing.T, store.DB)) {
	t.Helper()
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		db, err := store.OpenSQLite(t.Context(), store.Config{})
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		_, err = db.ExecContext(t.Context(), "CREATE TABLE api_keys (id text PRIMARY KEY, usage_count bigint)")
		require.NoError(t, err)
		test(t, db)
	})
	t.Run("postgres", func(t *testing.T) { test(t, openPostgres(t)) })
}

func TestUpdate(t *testing.T) {
	eachEngine(t, func(t *testing.T, db store.DB) {
		t.Helper()
		a, b := uuid.New(), uuid.New()
		_, err := db.ExecContext(t.Context(), "INSERT INTO api_keys (id, usage_count) VALUES ($1, 1), ($2, 2)", a, b)
		require.NoError(t, err)
		update := bulk.NewUpdate("api_keys", bulk.ByID, "usage_count")
		rows := [][]any{{10, a}, {20, b}}
		require.NoError(t, update.Run(t.Context(), db, db.Dialect(), nil))
		require.NoError(t, update.Run(t.Context(), db, db.Dialect(), rows))
		require.Equal(t, map[uuid.UUID]int{a: 10, b: 20}, counts(t, db))
		rows[1][1] = uuid.New()
		require.ErrorIs(t, update.Run(t.Context(), db, db.Dialect(), rows), bulk.ErrStale)
	})
}

// TestInsert: any number of rows is inserted, and what follows the rows counts for each.
func TestInsert(t *testing.T) {
	eachEngine(t, func(t *testing.T, db store.DB) {
		t.Helper()
		insert := bulk.NewInsert("api_keys", []string{"id", "usage_count"},
			" ON CONFLICT (id) DO UPDATE SET usage_count = excluded.usage_count")
		require.NoError(t, insert.Run(t.Context(), db, db.Dialect(), nil))
		rows, want := make([][]any, 2100), map[uuid.UUID]int{}
		for i := range rows {
			id := uuid.New()
			rows[i], want[id] = []any{id, i}, i
		}
		require.NoError(t, insert.Run(t.Context(), db, db.Dialect(), rows))
		id := rows[7][0].(uuid.UUID)
		require.NoError(t, insert.Run(t.Context(), db, db.Dialect(), [][]any{{id, 71}}))
		want[id] = 71
		require.Equal(t, want, counts(t, db))

		ids := make([]uuid.UUID, 0, len(rows))
		for _, row := range rows {
			ids = append(ids, row[0].(uuid.UUID))
		}
		n := 0
		each := func(scan func(...any) error) error {
			n++
			var count int
			return scan(&count)
		}
		query := "SELECT usage_count FROM api_keys WHERE id IN %s"
		require.NoError(t, bulk.ScanIn(t.Context(), db, query, ids, each))
		require.Equal(t, len(ids), n)
		query = "SELECT y FROM api_keys WHERE id IN %s"
		require.ErrorContains(t, bulk.ScanIn(t.Context(), db, query, ids, each), "y")
		query = "SELECT id, usage_count FROM api_keys WHERE id IN %s"
		require.ErrorContains(t, bulk.ScanIn(t.Context(), db, query, ids, each), "expected 2 destination arguments")
	})
}

func counts(t *testing.T, db bulk.Querier) map[uuid.UUID]int {
	t.Helper()
	all := map[uuid.UUID]int{}
	const query = "SELECT id, usage_count FROM api_keys"
	require.NoError(t, bulk.Scan(t.Context(), db, query, nil, func(scan func(...any) error) error {
		var id uuid.UUID
		var n int
		err := scan(&id, &n)
		all[id] = n
		return err
	}))
	return all
}
