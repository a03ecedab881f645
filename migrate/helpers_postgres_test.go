package migrate_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
)

// emptyPostgres returns the URL of an empty database, and a pool on it.
func emptyPostgres(tb testing.TB) (string, *sql.DB) {
	tb.Helper()
	name := pgtest.Database(tb, "", nil)
	return name, openPostgres(tb, name)
}

func openPostgres(tb testing.TB, name string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("pgx", name)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, db.Close()) })
	return db
}

// columnsOf returns what the tables of a PostgreSQL database look like, but for the revisions.
func columnsOf(tb testing.TB, db *sql.DB) []string {
	tb.Helper()
	return append(
		column[string](tb, db, "SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable"+
			" FROM information_schema.columns"+
			" WHERE table_schema = current_schema() AND table_name <> 'atlas_schema_revisions' ORDER BY 1"),
		column[string](tb, db, "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename <>"+
			" 'atlas_schema_revisions' ORDER BY 1")...)
}
