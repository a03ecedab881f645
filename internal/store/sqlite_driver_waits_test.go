package store_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// The tests in a bubble know that a goroutine stands in line when synctest.Wait returns, which
// is when every other goroutine of the bubble waits for a channel. A goroutine that is left
// behind in the end fails the test.

// A transaction holds the write lock before its first statement.
func TestTxLocksAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db := openAt(t, path)
	other := rawDB(t, store.FileURI(path)+"?_busy_timeout=0")
	tx := begin(t, db)
	_, err := other.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	require.Equal(t, fault.ErrBusy, store.Classify(err), "%v", err)
	require.NoError(t, tx.Rollback())
	_, err = other.ExecContext(t.Context(), "BEGIN IMMEDIATE; ROLLBACK")
	require.NoError(t, err)
}

func TestReadsDoNotWaitForTheWriter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := openTable(t)
		require.NoError(t, insert(t.Context(), db, 1))
		tx := begin(t, db)
		require.NoError(t, insert(t.Context(), tx, 2))
		for range 3 * db.Readers().Stats().MaxOpenConnections { // else the bubble is deadlocked
			require.Equal(t, []int{1}, query1[int](t, db, "SELECT x FROM t"))
		}
		var rows entsql.Rows
		require.NoError(t, tx.Query(t.Context(), "SELECT x FROM t", []any{}, &rows))
		var seen []int
		require.NoError(t, entsql.ScanSlice(&rows, &seen))
		require.NoError(t, rows.Close())
		require.Equal(t, []int{1, 2}, seen, "a transaction sees its own writes")
		require.NoError(t, tx.Commit())
		require.Equal(t, []int{1, 2}, query1[int](t, db, "SELECT x FROM t"))
	})
}

// Writers get their turn in the order in which they came, whichever way they write.
func TestWritersAreServedInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := openTable(t)
		tx := begin(t, db)
		ways := []func(i int) error{
			func(i int) error { return insert(t.Context(), db, i) },
			func(i int) error { return drain(t.Context(), db, "INSERT INTO t VALUES (?) RETURNING x", i) },
			func(i int) error {
				tx, err := db.Tx(t.Context())
				if err != nil {
					return err
				}
				return errors.Join(insert(t.Context(), tx, i), tx.Commit())
			},
		}
		const writers = 30
		want := make([]int, writers)
		errs := make([]error, writers)
		for i := range writers {
			want[i] = i
			go func() { errs[i] = ways[i%len(ways)](i) }()
			synctest.Wait() // it stands in line now
		}
		require.Empty(t, query1[int](t, db, "SELECT x FROM t"))
		require.NoError(t, tx.Rollback())
		synctest.Wait()
		require.NoError(t, errors.Join(errs...))
		require.Equal(t, want, query1[int](t, db, "SELECT x FROM t ORDER BY rowid"))
	})
}

func TestCanceledWhileWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := openTable(t)
		tx := begin(t, db)
		ctx, cancel := context.WithCancel(t.Context())
		const waiters = 6
		errs := make([]error, waiters)
		done := make([]bool, waiters)
		for i := range waiters {
			go func() {
				ctx := ctx
				if i%2 == 1 {
					ctx = t.Context() // every second one goes on waiting
				}
				switch i / 2 {
				case 0:
					errs[i] = insert(ctx, db, i)
				case 1:
					errs[i] = drain(ctx, db, "INSERT INTO t VALUES (?) RETURNING x", i)
				case 2:
					var tx dialect.Tx
					if tx, errs[i] = db.Tx(ctx); errs[i] == nil {
						errs[i] = errors.Join(insert(ctx, tx, i), tx.Commit())
					}
				}
				done[i] = true
			}()
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		require.Equal(t, []bool{true, false, true, false, true, false}, done)
		for i := 0; i < waiters; i += 2 {
			require.ErrorIs(t, errs[i], context.Canceled)
		}
		require.NoError(t, tx.Rollback())
		synctest.Wait()
		require.Equal(t, []bool{true, true, true, true, true, true}, done)
		require.Equal(t, []int{1, 3, 5}, query1[int](t, db, "SELECT x FROM t ORDER BY rowid"))
	})
}

func TestCanceledTransaction(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(dialect.Tx) error{
		"commit": dialect.Tx.Commit, "rollback": dialect.Tx.Rollback,
	} {
		t.Run("Err_"+name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				db := openTable(t)
				ctx, cancel := context.WithCancel(t.Context())
				tx, err := db.Tx(ctx)
				require.NoError(t, err)
				require.NoError(t, insert(ctx, tx, 1))
				cancel()
				synctest.Wait() // it is rolled back
				require.ErrorIs(t, insert(ctx, tx, 2), context.Canceled)
				require.Error(t, end(tx))
				require.NoError(t, insert(t.Context(), db, 3)) // the turn is free
				require.Equal(t, []int{3}, query1[int](t, db, "SELECT x FROM t"))
			})
		})
	}
	t.Run("ErrBegin", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			db := openTable(t)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			for range 20 { // a free turn and an ended context: either may be seen first
				_, err := db.Tx(ctx)
				require.ErrorIs(t, err, context.Canceled)
				require.ErrorIs(t, insert(ctx, db, 1), context.Canceled)
				require.ErrorIs(t, drain(ctx, db, "SELECT x FROM t"), context.Canceled)
				require.ErrorIs(t, drain(ctx, db, "INSERT INTO t VALUES (1) RETURNING x"), context.Canceled)
			}
			require.Empty(t, query1[int](t, db, "SELECT x FROM t"))
		})
	})
	t.Run("ErrEndedTwice", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			db := openTable(t)
			tx := begin(t, db)
			require.NoError(t, tx.Commit())
			other := begin(t, db)
			require.ErrorIs(t, tx.Rollback(), sql.ErrTxDone)
			require.ErrorIs(t, tx.Commit(), sql.ErrTxDone)
			waiting := true
			go func() { _ = insert(t.Context(), db, 1); waiting = false }()
			synctest.Wait()
			require.True(t, waiting, "an ended transaction gave away the turn of another")
			require.NoError(t, other.Commit())
			synctest.Wait()
			require.False(t, waiting)
		})
	})
}

// A deadline that passes anywhere in a transaction leaves all of it or nothing, and a usable
// database; Commit has the last word on which.
func TestDeadlineAnywhere(t *testing.T) {
	t.Parallel()
	db := open(t)
	exec1(t, db, "CREATE TABLE t (x)")
	var committed []int
	for i := range 400 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*2*time.Microsecond)
		tx, err := db.Tx(ctx)
		if err == nil {
			err = errors.Join(insert(ctx, tx, i), insert(ctx, tx, i))
			if err == nil {
				err = tx.Commit()
			} else {
				_ = tx.Rollback()
			}
		}
		if err == nil {
			committed = append(committed, i, i)
		}
		cancel()
	}
	require.Equal(t, committed, query1[int](t, db, "SELECT x FROM t ORDER BY x"))
	exec1(t, db, "INSERT INTO t VALUES (1)")
}

func TestClose(t *testing.T) {
	t.Parallel()
	t.Run("OK_waits_for_a_transaction", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(dir, "test.db")
			db := openAt(t, path)
			exec1(t, db, "CREATE TABLE t (x)")
			tx := begin(t, db)
			require.NoError(t, insert(t.Context(), tx, 1))

			var waiters [3]error
			go func() { waiters[0] = insert(t.Context(), db, 2) }()
			go func() { _, waiters[1] = db.Tx(t.Context()) }()
			go func() { waiters[2] = drain(t.Context(), db, "INSERT INTO t VALUES (3) RETURNING x") }()
			synctest.Wait()

			closed, result := false, error(nil)
			go func() { result = db.Close(); closed = true }()
			synctest.Wait()
			for i, err := range waiters {
				require.ErrorIs(t, err, store.ErrClosed, "waiter %d", i)
			}
			require.False(t, closed, "it did not wait for the transaction")
			require.NoError(t, insert(t.Context(), tx, 4))
			require.NoError(t, tx.Commit())
			synctest.Wait()
			require.True(t, closed)
			require.NoError(t, result)

			require.Equal(t, []string{"test.db"}, listing(t, dir), "the log is not needed any more")
			require.Equal(t, []int{1, 4}, query1[int](t, openAt(t, path), "SELECT x FROM t"))
		})
	})
	t.Run("ErrClosed", func(t *testing.T) {
		t.Parallel()
		for name, path := range map[string]string{"file": filepath.Join(t.TempDir(), "test.db"), "memory": ""} {
			db := openAt(t, path)
			exec1(t, db, "CREATE TABLE t (x)")
			require.NoError(t, db.Close())
			require.NoError(t, db.Close())

			_, err := db.ExecContext(t.Context(), "INSERT INTO t VALUES (1)")
			require.ErrorIs(t, err, store.ErrClosed, name)
			require.ErrorIs(t, drain(t.Context(), db, "SELECT x FROM t"), store.ErrClosed, name)
			require.ErrorIs(t, drain(t.Context(), db, "INSERT INTO t VALUES (1) RETURNING x"), store.ErrClosed, name)
			_, err = db.Tx(t.Context())
			require.ErrorIs(t, err, store.ErrClosed, name)
			require.ErrorIs(t, insert(t.Context(), db, 1), store.ErrClosed, name)
			var rows entsql.Rows
			require.ErrorIs(t, db.Query(t.Context(), "SELECT x FROM t", []any{}, &rows), store.ErrClosed, name)
		}
	})
	// Everything ends well or says that the database is closed; what ended well is there.
	t.Run("OK_under_load", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "test.db")
		db := openAt(t, path)
		exec1(t, db, "CREATE TABLE t (x)")
		var wg sync.WaitGroup
		counts, ends := make([]int, 8), make([]error, 8)
		busy := make(chan bool, 100)
		for i := range counts {
			wg.Go(func() {
				for ends[i] == nil {
					if ends[i] = insert(t.Context(), db, i); ends[i] != nil {
						return
					}
					counts[i]++
					ends[i] = drain(t.Context(), db, "SELECT x FROM t LIMIT 1")
					select {
					case busy <- true:
					default:
					}
				}
			})
		}
		for range 50 {
			<-busy
		}
		require.NoError(t, db.Close())
		wg.Wait()
		for _, err := range ends {
			require.ErrorIs(t, err, store.ErrClosed)
		}
		sum := 0
		for _, n := range counts {
			sum += n
		}
		require.Equal(t, []int{sum}, query1[int](t, openAt(t, path), "SELECT count(*) FROM t"))
	})
}

// Who waits for another process gives up with the context.
func TestDeadlineWhileAnotherProcessWrites(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db := openAt(t, path)
	exec1(t, db, "CREATE TABLE t (x)")
	other := rawDB(t, store.FileURI(path))
	_, err := other.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	require.NoError(t, err)
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err = db.Tx(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		cancel()
		ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		require.ErrorIs(t, insert(ctx, db, 1), context.DeadlineExceeded)
		cancel()
		ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		require.ErrorIs(t, drain(ctx, db, "INSERT INTO t VALUES (1) RETURNING x"), context.DeadlineExceeded)
		cancel()
	}
	_, err = other.ExecContext(t.Context(), "ROLLBACK")
	require.NoError(t, err)
	require.NoError(t, insert(t.Context(), db, 2))
	require.Equal(t, []int{2}, query1[int](t, db, "SELECT x FROM t"))
}
