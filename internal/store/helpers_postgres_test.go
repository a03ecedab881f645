package store_test

import (
	"context"
	"errors"
	"testing"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// openPG returns an empty database of the test's own.
func openPG(t *testing.T, options ...func(*store.PostgresConfig)) *store.Postgres {
	t.Helper()
	cfg := store.PostgresConfig{URL: pgtest.Database(t, "", nil)}
	for _, option := range options {
		option(&cfg)
	}
	db, err := store.OpenPostgres(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// openPGTable is openPG with a table t of one column x.
func openPGTable(t *testing.T, options ...func(*store.PostgresConfig)) *store.Postgres {
	t.Helper()
	db := openPG(t, options...)
	require.NoError(t, db.Exec(t.Context(), "CREATE TABLE t (x bigint)", []any{}, nil))
	return db
}

func insertPG(ctx context.Context, db dialect.ExecQuerier, x any) error {
	return db.Exec(ctx, "INSERT INTO t VALUES ($1)", []any{x}, nil)
}

// queryPG returns the values of a query's one column.
func queryPG[T any](t *testing.T, db entsql.ExecQuerier, query string, args ...any) []T {
	t.Helper()
	all, err := tryPG[T](t.Context(), db, query, args...)
	require.NoError(t, err)
	return all
}

func tryPG[T any](ctx context.Context, db entsql.ExecQuerier, query string, args ...any) (all []T, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// requireIdle sees to it that all connections went back to the pool, and that one can be used.
func requireIdle(t *testing.T, db *store.Postgres) {
	t.Helper()
	require.Zero(t, db.Writer().Stats().InUse)
	require.Equal(t, []int{1}, queryPG[int](t, db, "SELECT 1"))
}

// requireCodePG sees to it that an error has the SQLSTATE that a test is about.
func requireCodePG(t *testing.T, want string, err error) {
	t.Helper()
	var server *pgconn.PgError
	require.ErrorAs(t, err, &server, "%v", err)
	require.Equal(t, want, server.Code, "%v", err)
}

func beginPG(ctx context.Context, t *testing.T, db *store.Postgres) dialect.Tx {
	t.Helper()
	tx, err := db.Tx(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback() }) // of a test that failed: Close would wait for it
	return tx
}

func requireClosedPG(t *testing.T, db *store.Postgres) {
	t.Helper()
	require.NoError(t, db.Close())
	require.ErrorIs(t, insertPG(t.Context(), db, 1), store.ErrClosed)
	for _, read := range []dialect.Driver{db, db.Fresh()} {
		var rows entsql.Rows
		require.ErrorIs(t, read.Query(t.Context(), "SELECT x FROM t", []any{}, &rows), store.ErrClosed)
		_, err := read.Tx(t.Context())
		require.ErrorIs(t, err, store.ErrClosed)
	}
	_, err := db.Batch().Tx(t.Context())
	require.ErrorIs(t, err, store.ErrClosed)
	require.Zero(t, db.Writer().Stats().OpenConnections)
}
