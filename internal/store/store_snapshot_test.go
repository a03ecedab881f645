package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	entsql "entgo.io/ent/dialect/sql"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// eachSnapshot runs a test on databases with a table t of one column x that others can write to while a
// snapshot is open. The test is parallel.
func eachSnapshot(t *testing.T, test func(*testing.T, store.DB)) {
	t.Helper()
	t.Parallel()
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		test(t, openTable(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, openPGTable(t, func(cfg *store.PostgresConfig) { cfg.MaxConns = 4 }))
	})
}

// snapshot begins one that ends with the test: Close would wait for it.
func snapshot(ctx context.Context, t *testing.T, db store.DB) *store.Snapshot {
	t.Helper()
	s, err := db.Snapshot(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// What is committed after a snapshot has begun is not in it, whatever is read first.
func TestSnapshot(t *testing.T) { eachSnapshot(t, testSnapshot) }

func testSnapshot(t *testing.T, db store.DB) {
	require.NoError(t, db.Exec(t.Context(), "INSERT INTO t VALUES (1)", []any{}, nil))
	s := snapshot(t.Context(), t, db)
	for range 3 {
		require.NoError(t, db.Exec(t.Context(), "INSERT INTO t VALUES (2)", []any{}, nil))
		require.Equal(t, []int{1}, queryPG[int](t, s, "SELECT x FROM t"))
	}
	require.Len(t, queryPG[int](t, db, "SELECT x FROM t"), 4)
	require.Equal(t, db.Dialect(), s.Dialect())

	var rows entsql.Rows
	require.NoError(t, s.Query(t.Context(), "SELECT x FROM t", []any{}, &rows))
	require.NoError(t, rows.Close())
	require.Error(t, s.Exec(t.Context(), "INSERT INTO t VALUES (3)", []any{}, nil), "it is for reads")
	_, err := s.Tx(t.Context())
	require.Error(t, err)

	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	_, err = tryPG[int](t.Context(), s, "SELECT x FROM t")
	require.Error(t, err)
	require.Len(t, queryPG[int](t, snapshot(t.Context(), t, db), "SELECT x FROM t"), 4)
}

// The context of a snapshot ends: it is over, and its connection is as good as before.
func TestSnapshotCanceled(t *testing.T) { eachSnapshot(t, testSnapshotCanceled) }

func testSnapshotCanceled(t *testing.T, db store.DB) {
	for range 20 { // more than there are connections
		ctx, cancel := context.WithCancel(t.Context())
		s := snapshot(ctx, t, db)
		require.Empty(t, queryPG[int](t, s, "SELECT x FROM t"))
		cancel()
		_, err := tryPG[int](ctx, s, "SELECT x FROM t")
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, s.Close())
		_, err = db.Snapshot(ctx)
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NoError(t, db.Exec(t.Context(), "INSERT INTO t VALUES (1)", []any{}, nil))
}

func TestSnapshotAndClose(t *testing.T) { eachSnapshot(t, testSnapshotAndClose) }

func testSnapshotAndClose(t *testing.T, db store.DB) {
	s := snapshot(t.Context(), t, db)
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	require.Eventually(t, func() bool {
		other, err := db.Snapshot(t.Context())
		return errors.Is(err, store.ErrClosed) || other.Close() != nil
	}, 10*time.Second, time.Millisecond)
	require.Empty(t, queryPG[int](t, s, "SELECT x FROM t"))
	select {
	case err := <-closed:
		require.FailNow(t, "Close does not wait for the snapshot", "%v", err)
	default:
	}
	require.NoError(t, s.Close())
	require.NoError(t, <-closed)
	_, err := db.Snapshot(t.Context())
	require.ErrorIs(t, err, store.ErrClosed)
}

// In memory there is one connection: whoever writes waits for the end of the snapshot.
func TestSnapshotInMemory(t *testing.T) {
	t.Parallel()
	db := openAt(t, "")
	exec1(t, db, "CREATE TABLE t (x)")
	s := snapshot(t.Context(), t, db)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, insert(ctx, db, 1), context.DeadlineExceeded)
	require.Empty(t, queryPG[int](t, s, "SELECT x FROM t"))
	require.NoError(t, s.Close())
	require.NoError(t, insert(t.Context(), db, 2))

	ctx, cancel = context.WithCancel(t.Context())
	s = snapshot(ctx, t, db)
	cancel()
	require.NoError(t, s.Close())
	require.Equal(t, []int{2}, query1[int](t, db, "SELECT x FROM t"), "the database outlives it")
}
