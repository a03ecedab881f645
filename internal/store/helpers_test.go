package store_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// openTable returns a database with a table t of one column x.
func openTable(t *testing.T) *store.SQLite {
	t.Helper()
	db := open(t)
	exec1(t, db, "CREATE TABLE t (x)")
	return db
}

func begin(t *testing.T, db *store.SQLite) dialect.Tx {
	t.Helper()
	tx, err := db.Tx(t.Context())
	require.NoError(t, err)
	return tx
}

func insert(ctx context.Context, db dialect.ExecQuerier, x any) error {
	return db.Exec(ctx, "INSERT INTO t VALUES (?)", []any{x}, nil)
}

// header returns a field of the file's header: sqlite.org/fileformat.html.
func header(t *testing.T, path string, offset int) uint32 {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Greater(t, len(b), 100)
	return binary.BigEndian.Uint32(b[offset:])
}

// raw runs statements on a connection that is nothing of ours.
func raw(t *testing.T, path, statements string) {
	t.Helper()
	db := rawDB(t, store.FileURI(path))
	_, err := db.ExecContext(t.Context(), statements)
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

// rawDB returns a pool of one connection that is nothing of ours.
func rawDB(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", dsn)
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func requireKind(t *testing.T, want error, err error) {
	t.Helper()
	require.Equal(t, want, store.Classify(err), "%v", err)
}

// interrupted writes to t for longer than its context allows, and returns the error. The driver's interrupt is lost if
// it comes before the statement has begun, in a goroutine of its own: then the statement ends by itself, and another is
// tried.
func interrupted(t *testing.T, exec func(ctx context.Context, query string) error) (err error) {
	t.Helper()
	for err == nil {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err = exec(ctx, "INSERT INTO t "+endless+" LIMIT 10000000")
		cancel()
	}
	return err
}

// endless is a query that never ends by itself.
const endless = "SELECT i FROM (WITH RECURSIVE c(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM c) SELECT i FROM c)"

// open returns a database on a new file.
func open(t *testing.T) *store.SQLite {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "test.db"))
}

func openAt(t *testing.T, path string) *store.SQLite {
	t.Helper()
	db, err := store.OpenSQLite(t.Context(), store.Config{Path: path})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func exec1(t *testing.T, db *store.SQLite, query string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), query, args...)
	require.NoError(t, err)
}

// query1 returns the values of a query's one column.
func query1[T any](t *testing.T, db *store.SQLite, query string, args ...any) []T {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query, args...)
	require.NoError(t, err)
	var all []T
	for rows.Next() {
		var v T
		require.NoError(t, rows.Scan(&v))
		all = append(all, v)
	}
	require.NoError(t, rows.Err())
	require.NoError(t, rows.Close())
	return all
}

// drain runs a query to its end.
func drain(ctx context.Context, db *store.SQLite, query string, args ...any) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	for rows.Next() {
		continue
	}
	return errors.Join(rows.Err(), rows.Close())
}
