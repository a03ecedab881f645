package bulk_test

import (
	"os"
	"testing"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// openPostgres returns a database that has the table api_keys, with some of its columns.
func openPostgres(t *testing.T) *store.Postgres {
	t.Helper()
	db, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: pgtest.Database(t, "", nil)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.ExecContext(t.Context(), "CREATE TABLE api_keys (id uuid PRIMARY KEY, last_used_at timestamptz,"+
		" label text, sealed bytea, allowed_models json, usage_count bigint, disabled boolean)")
	require.NoError(t, err)
	return db
}

// TestTogether: statements that are collected are executed as one, and a row that an update misses is noticed.
func TestTogether(t *testing.T) {
	t.Parallel()
	db := openPostgres(t)
	insert := bulk.NewInsert("api_keys", []string{"id", "usage_count"}, "")
	update := bulk.NewUpdate("api_keys", bulk.ByID, "usage_count")
	a, b, c := uuid.New(), uuid.New(), uuid.New()
	flush := func(more ...[]any) error {
		var all bulk.Together
		require.NoError(t, insert.Run(t.Context(), &all, db.Dialect(), more))
		require.NoError(t, update.Run(t.Context(), &all, db.Dialect(), [][]any{{10, a}, {20, b}}))
		require.NoError(t, update.Run(t.Context(), &all, db.Dialect(), nil))
		return all.Flush(t.Context(), db)
	}
	require.NoError(t, new(bulk.Together).Flush(t.Context(), db), "nothing is collected")
	require.NoError(t, insert.Run(t.Context(), db, db.Dialect(), [][]any{{a, 1}}))
	require.ErrorIs(t, flush(), bulk.ErrStale, "b is not there")
	require.NoError(t, insert.Run(t.Context(), db, db.Dialect(), [][]any{{b, 2}}))
	require.NoError(t, flush([]any{c, 3}))
	require.Equal(t, map[uuid.UUID]int{a: 10, b: 20, c: 3}, counts(t, db))
	require.Equal(t, "api_keys_pkey", store.DuplicateOf(flush([]any{c, 3})), "c is there")

	// What a statement returns is read, beside the count of what others update.
	upsert := bulk.NewInsert("api_keys", []string{"id", "usage_count"},
		" ON CONFLICT (id) DO UPDATE SET usage_count = api_keys.usage_count + 100 RETURNING id, usage_count")
	var all bulk.Together
	require.NoError(t, update.Run(t.Context(), &all, db.Dialect(), [][]any{{10, a}}))
	require.NoError(t, upsert.Run(t.Context(), &all, db.Dialect(), [][]any{{c, 1}, {uuid.New(), 7}}))
	read := map[int64]int64{}
	query := "SELECT v.number, s.usage_count FROM %s AS s JOIN " +
		bulk.UnnestNumbered(1, "api_keys", []string{"id"}) + " USING (id)"
	all.Read(query, 2, func(scan func(...any) error) error {
		var n, count int64
		err := scan(&n, &count)
		read[n] = count
		return err
	})
	require.NoError(t, update.Run(t.Context(), &all, db.Dialect(), [][]any{{30, b}}), "it is collected after that")
	require.NoError(t, all.Flush(t.Context(), db))
	require.Equal(t, map[int64]int64{1: 103, 2: 7}, read)
}
