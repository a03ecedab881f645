package store_test

import (
	"context"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// TestPostgresReplica is about the driver; package registry tests what a registry makes of it.
func TestPostgresReplica(t *testing.T) {
	t.Parallel()
	primary := pgtest.Server(t, "shared_buffers = 16MB", "max_connections = 40")
	standby, err := primary.Standby(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Close()) })

	db, err := store.OpenPostgres(t.Context(), store.PostgresConfig{
		URL: primary.URL("postgres"), Replica: standby.URL("postgres"), MaxConns: 4,
	})
	require.NoError(t, err)
	require.NoError(t, db.Exec(t.Context(), "CREATE TABLE t (x bigint)", []any{}, nil))
	onReplica := func(db entsql.ExecQuerier) bool {
		return queryPG[bool](t, db, "SELECT pg_is_in_recovery()")[0]
	}
	becomes := func(want bool) {
		t.Helper()
		require.Eventually(t, func() bool { return onReplica(db) == want }, 20*time.Second, 20*time.Millisecond)
	}
	becomes(true)
	fresh := db.Fresh().(entsql.ExecQuerier)
	require.False(t, onReplica(fresh))
	var rows entsql.Rows
	require.NoError(t, db.Fresh().Query(t.Context(), "SELECT x FROM t", []any{}, &rows))
	require.NoError(t, rows.Close())
	require.Equal(
		t, []bool{false}, queryPG[bool](t, db, "WITH x AS (SELECT 1) SELECT pg_is_in_recovery()"), "it could write",
	)
	require.Equal(t, []bool{false}, queryPG[bool](t, db, "INSERT INTO t VALUES (1) RETURNING pg_is_in_recovery()"))
	tx := beginPG(t.Context(), t, db).(entsql.ExecQuerier)
	require.False(t, onReplica(tx))
	require.NoError(t, tx.(dialect.Tx).Rollback())
	_, err = tryPG[int](t.Context(), db, "SELECT x FROM missing")
	requireCodePG(t, "42P01", err)
	becomes(true) // a bad query is not the replica's fault

	require.Eventually(t, func() bool { // it has the row
		return onReplica(db) && len(queryPG[int](t, db, "SELECT x FROM t")) == 1
	}, 20*time.Second, 20*time.Millisecond)
	require.NoError(t, standby.Kill())
	for range 20 {
		require.Equal(t, []int{1}, queryPG[int](t, db, "SELECT x FROM t"))
	}
	becomes(false)
	require.NoError(t, standby.Run(t.Context()))
	becomes(true)
	require.NoError(t, standby.Promote(t.Context()))
	becomes(false) // it follows nobody
	require.NoError(t, db.Close())
	requireClosedPG(t, db)

	_, err = store.OpenPostgres(
		t.Context(), store.PostgresConfig{URL: primary.URL("postgres"), Replica: "postgres://h:x/hunter2"},
	)
	require.ErrorIs(t, err, store.ErrName)
	require.NotContains(t, err.Error(), "hunter2")
	// A standby alone cannot be written to.
	other, err := primary.Standby(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, other.Close()) })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = store.OpenPostgres(ctx, store.PostgresConfig{URL: other.URL("postgres")})
	require.ErrorIs(t, err, store.ErrStandby)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
