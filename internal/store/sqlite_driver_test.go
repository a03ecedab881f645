package store_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

func TestDriver(t *testing.T) {
	t.Parallel()
	db := open(t)
	require.Equal(t, dialect.SQLite, db.Dialect())
	exec1(t, db, "CREATE TABLE t (x)")

	var res sql.Result
	require.NoError(t, db.Exec(t.Context(), "INSERT INTO t VALUES (?), (?)", []any{1, 2}, &res))
	n, err := res.RowsAffected()
	require.NoError(t, err)
	require.Equal(t, int64(2), n)

	for _, query := range []string{"SELECT x FROM t ORDER BY x", "INSERT INTO t VALUES (3), (4) RETURNING x"} {
		var rows entsql.Rows
		require.NoError(t, db.Query(t.Context(), query, []any{}, &rows))
		var all []int
		require.NoError(t, entsql.ScanSlice(&rows, &all))
		require.NoError(t, rows.Close())
		require.Len(t, all, 2, query)
	}
	require.Equal(t, []int{1, 2, 3, 4}, query1[int](t, db, "SELECT x FROM t ORDER BY x"))
	require.Equal(t, []int{4}, query1[int](t, db, "WITH c AS (SELECT max(x) AS x FROM t) SELECT x FROM c"))

	_, err = db.ExecContext(t.Context(), "INSERT INTO no_such_table VALUES (1)")
	require.ErrorContains(t, err, "no such table")
	require.ErrorContains(
		t, drain(t.Context(), db, "INSERT INTO no_such_table VALUES (1) RETURNING 1"), "no such table",
	)
	exec1(t, db, "INSERT INTO t VALUES (5)") // neither of them kept the turn
}

// A state follows another only when nothing but that one's transaction has written.
func TestState(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db := openAt(t, path)
	exec1(t, db, "CREATE TABLE t (x)")
	other := rawDB(t, store.FileURI(path))
	within := func(end func(dialect.Tx) error) store.State {
		tx := begin(t, db)
		require.NoError(t, insert(t.Context(), tx, 1))
		state, ok, err := db.State(t.Context(), tx.(entsql.ExecQuerier))
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, end(tx))
		return state
	}
	last := within(dialect.Tx.Commit)
	for range 3 {
		state := within(dialect.Tx.Commit)
		require.True(t, state.Follows(last))
		require.False(t, last.Follows(state))
		require.False(t, state.Follows(state))
		last = state
	}
	for name, between := range map[string]func(){
		"a statement":        func() { exec1(t, db, "INSERT INTO t VALUES (2)") },
		"a transaction":      func() { within(dialect.Tx.Commit) },
		"one that is undone": func() { within(dialect.Tx.Rollback) },
		"another connection": func() {
			_, err := other.ExecContext(t.Context(), "INSERT INTO t VALUES (3)")
			require.NoError(t, err)
		},
	} {
		last = within(dialect.Tx.Commit)
		between()
		state := within(dialect.Tx.Commit)
		require.False(t, state.Follows(last), name)
		require.True(t, within(dialect.Tx.Commit).Follows(state), name)
	}
	last = within(dialect.Tx.Commit)
	require.NotEmpty(t, query1[int](t, db, "SELECT x FROM t"))
	require.True(t, within(dialect.Tx.Commit).Follows(last), "reading changes nothing")

	// What says that others have written begins anew with each connection.
	for range 3 {
		last = within(dialect.Tx.Commit)
		db.Writer().SetMaxIdleConns(0)
		db.Writer().SetMaxIdleConns(1)
		require.False(t, within(dialect.Tx.Commit).Follows(last), "a new connection")
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	t.Run("OK_private", func(t *testing.T) {
		t.Parallel()
		one, two := openAt(t, ""), openAt(t, "")
		exec1(t, one, "CREATE TABLE t (x)")
		require.ErrorContains(t, drain(t.Context(), two, "SELECT x FROM t"), "no such table")
		require.Empty(t, listing(t, dir))
	})
	t.Run("OK_64_goroutines", func(t *testing.T) {
		t.Parallel()
		db := openAt(t, "")
		exec1(t, db, "CREATE TABLE t (x)")
		var wg sync.WaitGroup
		errs := make([]error, 64)
		for i := range errs {
			wg.Go(func() {
				for n := range 10 {
					tx, err := db.Tx(t.Context())
					if err == nil {
						err = errors.Join(insert(t.Context(), tx, n), tx.Commit(), insert(t.Context(), db, n))
					}
					// An integer overflows when there are too few rows: its own writes must be there.
					errs[i] = errors.Join(errs[i], err, drain(t.Context(), db,
						"SELECT CASE WHEN count(*) >= ? THEN 1 ELSE abs(-9223372036854775808) END FROM t", 2*(n+1)))
				}
			})
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
		require.Equal(t, []int{2 * 64 * 10}, query1[int](t, db, "SELECT count(*) FROM t"))
	})
}

func TestTimes(t *testing.T) {
	t.Parallel()
	east, west := time.FixedZone("east", 14*3600), time.FixedZone("west", -12*3600-30*60)
	base := time.Date(2026, time.March, 29, 0, 59, 59, 999_999_999, time.UTC)
	hour := func(n int) time.Time { return base.Add(time.Duration(n) * time.Hour) }
	given := []time.Time{
		hour(0), hour(1).In(east), hour(2).In(west), hour(3).Local(), hour(4).In(east), hour(5).In(west),
	}
	db := open(t)
	exec1(t, db, "CREATE TABLE t (x datetime)")
	require.NoError(t, insert(t.Context(), db, given[0]))
	require.NoError(t, insert(t.Context(), db, &given[1]))
	require.NoError(t, drain(t.Context(), db, "INSERT INTO t VALUES (?) RETURNING x", given[2]))
	tx := begin(t, db)
	require.NoError(t, insert(t.Context(), tx, given[3]))
	require.NoError(t, insert(t.Context(), tx, &given[4]))
	require.NoError(t, insert(t.Context(), tx, given[5]))
	require.NoError(t, tx.Commit())

	want := make([]time.Time, len(given))
	for i, at := range given {
		want[i] = at.UTC().Truncate(time.Microsecond)
		require.Equal(t, want[i], utc.Of(at))
	}
	t.Run("OK_equal_in_UTC", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, want, query1[time.Time](t, db, "SELECT x FROM t ORDER BY rowid"))
		require.Equal(
			t, []string{"2026-03-29 00:59:59.999999+00:00"},
			query1[string](t, db, "SELECT CAST(x AS text) FROM t LIMIT 1"),
		)
	})
	t.Run("OK_ranges_over_zones", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, want, query1[time.Time](t, db, "SELECT x FROM t ORDER BY x"))
		for from := range given {
			for to := from; to < len(given); to++ {
				for _, zone := range []*time.Location{time.UTC, east, west} {
					const between = "SELECT x FROM t WHERE x >= ? AND x <= ? ORDER BY x"
					low, high := given[from].In(zone), given[to].In(zone)
					require.Equal(t, want[from:to+1], query1[time.Time](t, db, between, low, &high))
				}
			}
		}
	})
	t.Run("OK_no_time", func(t *testing.T) {
		t.Parallel()
		db := open(t)
		exec1(t, db, "CREATE TABLE t (x datetime)")
		var none *time.Time
		require.NoError(t, insert(t.Context(), db, none))
		require.NoError(t, insert(t.Context(), db, time.Time{}))
		require.Equal(t, []int{1, 0}, query1[int](t, db, "SELECT x IS NULL FROM t ORDER BY rowid"))
		require.Equal(t, []time.Time{{}}, query1[time.Time](t, db, "SELECT x FROM t WHERE x IS NOT NULL"))
	})
}

func TestMemoryOutlivesContexts(t *testing.T) {
	t.Parallel()
	db := openAt(t, "")
	exec1(t, db, "CREATE TABLE t (x)")
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		tx, err := db.Tx(ctx)
		require.NoError(t, err)
		require.NoError(t, insert(ctx, tx, 1))
		cancel()
		require.Error(t, tx.Commit())
		require.Empty(t, query1[int](t, db, "SELECT x FROM t"))
		ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
		require.ErrorIs(t, drain(ctx, db, endless), context.DeadlineExceeded)
		cancel()
		require.Empty(t, query1[int](t, db, "SELECT x FROM t"))
	}
}

// SQLite ends a transaction by itself when the disk is full or a statement that writes is
// interrupted. What follows must not be committed on its own.
func TestRolledBackBySQLite(t *testing.T) {
	t.Parallel()
	for name, provoke := range map[string]func(t *testing.T, exec func(ctx context.Context, query string) error){
		"full": func(t *testing.T, exec func(context.Context, string) error) {
			t.Helper()
			require.NoError(t, exec(t.Context(), "PRAGMA max_page_count = 1"))
			require.Equal(
				t, fault.ErrDiskFull, store.Classify(exec(t.Context(), "INSERT INTO t VALUES (zeroblob(1000000))")),
			)
		},
		"interrupted": func(t *testing.T, exec func(context.Context, string) error) {
			t.Helper()
			require.ErrorIs(t, interrupted(t, exec), context.DeadlineExceeded)
		},
	} {
		t.Run("Err_"+name, func(t *testing.T) {
			t.Parallel()
			db := openTable(t)
			for _, commits := range []bool{true, false} {
				tx := begin(t, db)
				require.NoError(t, insert(t.Context(), tx, 1))
				exec := func(ctx context.Context, query string) error { return tx.Exec(ctx, query, []any{}, nil) }
				for err := error(nil); err == nil; err = insert(t.Context(), tx, 2) {
					provoke(t, exec) // until a statement was interrupted and not what was before it
				}
				require.Error(t, exec(t.Context(), "SAVEPOINT s"))
				if commits {
					require.Error(t, tx.Commit())
				} else {
					require.NoError(t, tx.Rollback())
				}
				exec1(t, db, "PRAGMA max_page_count = 1000000")
				require.Empty(t, query1[int](t, db, "SELECT x FROM t"))
			}
			tx := begin(t, db)
			require.NoError(t, insert(t.Context(), tx, 3))
			require.NoError(t, tx.Commit())
			require.Equal(t, []int{3}, query1[int](t, db, "SELECT x FROM t"))
		})
	}
}

func TestArgumentsAreNotChanged(t *testing.T) {
	t.Parallel()
	db := openTable(t)
	at := time.Date(2026, time.July, 15, 12, 0, 0, 999, time.FixedZone("east", 3600))
	args := []any{at}
	exec1(t, db, "INSERT INTO t VALUES (?)", args...)
	require.NoError(t, db.Exec(t.Context(), "INSERT INTO t VALUES (?)", args, nil))
	require.NoError(t, drain(t.Context(), db, "SELECT x FROM t WHERE x = ?", args...))
	require.Equal(t, []any{at}, args)
}
