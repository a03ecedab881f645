package store_test

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"sync"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

func TestPostgresDriver(t *testing.T) {
	t.Parallel()
	db := openPGTable(t)
	require.Equal(t, dialect.Postgres, db.Dialect())
	require.Same(t, db, db.Fresh())
	var res sql.Result
	require.NoError(t, db.Exec(t.Context(), "INSERT INTO t VALUES ($1), ($2)", []any{1, 2}, &res))
	n, err := res.RowsAffected()
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	for _, query := range []string{"SELECT x FROM t ORDER BY x", "INSERT INTO t VALUES (3), (4) RETURNING x"} {
		var rows entsql.Rows
		require.NoError(t, db.Query(t.Context(), query, []any{}, &rows))
		var all []int
		require.NoError(t, entsql.ScanSlice(&rows, &all))
		require.NoError(t, rows.Close())
		require.Len(t, all, 2, query)
	}
	require.Equal(t, []int{1, 2, 3, 4}, queryPG[int](t, db, "SELECT x FROM t ORDER BY x"))
	for _, query := range []string{"INSERT INTO missing VALUES (1)", "INSERT INTO missing VALUES (1) RETURNING 1"} {
		_, err = tryPG[int](t.Context(), db, query)
		requireCodePG(t, "42P01", err)
		_, err = db.ExecContext(t.Context(), query)
		requireCodePG(t, "42P01", err)
		require.NotErrorIs(t, err, store.ErrUncertain, "the server has said no")
	}
	requireIdle(t, db)
}

// Times come back in UTC and microseconds, whatever they were when they went and whatever the
// zone of the server, the session and the program.
func TestPostgresTimes(t *testing.T) {
	t.Parallel()
	for name, pooler := range map[string]bool{"prepared": false, "pooler": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := openPG(t, func(c *store.PostgresConfig) {
				u, err := url.Parse(c.URL)
				require.NoError(t, err)
				query := u.Query()
				query.Set("timezone", "Asia/Kathmandu")
				u.RawQuery = query.Encode()
				c.URL, c.Pooler = u.String(), pooler
			})
			require.NoError(t, db.Exec(t.Context(), "CREATE TABLE t (x timestamptz)", []any{}, nil))
			require.Equal(t, []string{"Asia/Kathmandu"}, queryPG[string](t, db, "SHOW timezone"))
			zone := time.FixedZone("x", -5*3600)
			for _, at := range []time.Time{
				time.Date(2026, 7, 15, 12, 0, 0, 123456789, zone), time.Date(1970, 1, 1, 0, 0, 0, 999, time.UTC),
				time.Date(2024, 2, 29, 23, 59, 59, 999999999, zone), time.Date(9999, 12, 31, 18, 0, 0, 1000, time.UTC),
			} {
				want := at.UTC().Truncate(time.Microsecond)
				for _, arg := range []any{at, &at} {
					require.NoError(t, insertPG(t.Context(), db, arg))
					tx, err := db.Tx(t.Context())
					require.NoError(t, err)
					require.NoError(t, insertPG(t.Context(), tx, arg))
					require.NoError(t, tx.Commit())
				}
				got := queryPG[time.Time](t, db, "DELETE FROM t RETURNING x")
				require.Equal(t, []time.Time{want, want, want, want}, got) // Equal compares zones too
				for _, arg := range []any{at, &at} {                       // found again by the time that went
					require.Equal(t, []bool{true}, queryPG[bool](t, db, "SELECT $1::timestamptz = $2", want, arg))
				}
			}
			var null sql.Null[time.Time]
			require.NoError(t, insertPG(t.Context(), db, (*time.Time)(nil)))
			require.NoError(t, db.Writer().QueryRowContext(t.Context(), "SELECT x FROM t").Scan(&null))
			require.False(t, null.Valid)
		})
	}
}

func TestPostgresTx(t *testing.T) {
	t.Parallel()
	t.Run("OK", func(t *testing.T) {
		t.Parallel()
		db := openPGTable(t)
		tx := beginPG(t.Context(), t, db)
		require.NoError(t, insertPG(t.Context(), tx, 1))
		require.Empty(t, queryPG[int](t, db, "SELECT x FROM t"))
		require.Equal(t, 1, db.Writer().Stats().InUse)
		require.NoError(t, tx.Commit())
		require.ErrorIs(t, tx.Commit(), sql.ErrTxDone)
		require.ErrorIs(t, tx.Rollback(), sql.ErrTxDone)
		require.ErrorIs(t, insertPG(t.Context(), tx, 2), sql.ErrConnDone)
		tx = beginPG(t.Context(), t, db)
		require.NoError(t, insertPG(t.Context(), tx, 3))
		require.NoError(t, tx.Rollback())
		require.ErrorIs(t, tx.Rollback(), sql.ErrTxDone)
		require.ErrorIs(t, tx.Commit(), sql.ErrTxDone)
		require.Equal(t, []int{1}, queryPG[int](t, db, "SELECT x FROM t"))
		requireIdle(t, db)
	})
	t.Run("ErrContext", func(t *testing.T) {
		t.Parallel()
		for name, end := range map[string]func(dialect.Tx) error{
			"commit": dialect.Tx.Commit, "rollback": dialect.Tx.Rollback,
		} {
			db := openPGTable(t)
			ctx, cancel := context.WithCancel(t.Context())
			tx := beginPG(ctx, t, db)
			pid := queryPG[int](t, tx.(connPG), "SELECT pg_backend_pid()")
			require.NoError(t, insertPG(ctx, tx, 1))
			cancel()
			require.ErrorIs(
				t, insertPG(t.Context(), tx, 2), context.Canceled,
				"the statement's context goes on, the transaction's does not",
			)
			_, err := tryPG[int](t.Context(), tx.(connPG), "SELECT x FROM t")
			require.ErrorIs(t, err, context.Canceled)
			if err := end(tx); name == "commit" {
				require.ErrorIs(t, err, context.Canceled)
				requireKind(t, context.Canceled, err)
			} else {
				require.NoError(t, err)
			}
			require.Empty(t, queryPG[int](t, db, "SELECT x FROM t"), name)
			require.Equal(
				t, pid, queryPG[int](t, db, "SELECT pg_backend_pid()"), "the connection was as good as before",
			)
			requireIdle(t, db)
		}
	})
	t.Run("ErrContext_at_begin", func(t *testing.T) {
		t.Parallel()
		db := openPGTable(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := db.Tx(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, insertPG(ctx, db, 1), context.Canceled)
		_, err = tryPG[int](ctx, db, "SELECT x FROM t")
		require.ErrorIs(t, err, context.Canceled)
		require.Empty(t, queryPG[int](t, db, "SELECT x FROM t"))
		requireIdle(t, db)
	})
}

// TestPostgresCommit shows what a commit tells of what became of the transaction.
func TestPostgresCommit(t *testing.T) {
	t.Parallel()
	t.Run("ErrRolledBack", func(t *testing.T) {
		t.Parallel()
		db := openPGTable(t)
		tx := beginPG(t.Context(), t, db)
		require.NoError(t, insertPG(t.Context(), tx, 1))
		require.Error(t, insertPG(t.Context(), tx, "no number"))
		err := tx.Commit()
		require.ErrorIs(t, err, store.ErrRolledBack)
		require.NotErrorIs(t, err, store.ErrUncertain)
		require.Empty(t, queryPG[int](t, db, "SELECT x FROM t"))
		require.Equal(t, 1, db.Writer().Stats().OpenConnections)
		requireIdle(t, db)
	})
	t.Run("ErrDeferred", func(t *testing.T) { // what only the commit finds out
		t.Parallel()
		db := openPG(t)
		require.NoError(
			t, db.Exec(t.Context(), "CREATE TABLE t (x bigint UNIQUE DEFERRABLE INITIALLY DEFERRED)", []any{}, nil),
		)
		tx := beginPG(t.Context(), t, db)
		require.NoError(t, errors.Join(insertPG(t.Context(), tx, 1), insertPG(t.Context(), tx, 1)))
		err := tx.Commit()
		requireKind(t, fault.ErrConflict, err)
		require.NotErrorIs(t, err, store.ErrUncertain, "the server has said no")
		require.Empty(t, queryPG[int](t, db, "SELECT x FROM t"))
		requireIdle(t, db)
	})
	t.Run("ErrTerminated", func(t *testing.T) {
		t.Parallel()
		db := openPGTable(t)
		for name, end := range map[string]func(dialect.Tx) error{
			"commit": dialect.Tx.Commit, "rollback": dialect.Tx.Rollback,
		} {
			tx := beginPG(t.Context(), t, db).(connPG)
			require.NoError(t, insertPG(t.Context(), tx, 1))
			pid := queryPG[int](t, tx, "SELECT pg_backend_pid()")[0]
			require.Equal(t, []bool{true}, queryPG[bool](t, db, "SELECT pg_terminate_backend($1, 10000)", pid))
			err := end(tx)
			if name == "rollback" {
				require.NoError(t, err) // the server has done it
			} else {
				require.Error(t, err)
				require.Contains(t, []error{fault.ErrUncertain, fault.ErrUnavailable}, store.Classify(err), "%v", err)
			}
			require.Empty(t, queryPG[int](t, db, "SELECT x FROM t"))
			requireIdle(t, db)
		}
	})
	// A deadline that passes anywhere leaves all or nothing; only where the answer to the commit was
	// lost, the commit says that it does not know.
	t.Run("OK_deadline_anywhere", func(t *testing.T) {
		t.Parallel()
		db := openPGTable(t)
		var committed, uncertain int
		for i := range 150 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Microsecond)
			tx, err := db.Tx(ctx)
			if err == nil {
				if err = errors.Join(insertPG(ctx, tx, i), insertPG(ctx, tx, i)); err == nil {
					err = tx.Commit()
				} else {
					_ = tx.Rollback()
				}
			}
			cancel()
			if errors.Is(store.Classify(err), fault.ErrUncertain) {
				uncertain++
			} else if err == nil {
				committed++
			}
		}
		require.Equal(
			t, []int{0},
			queryPG[int](t, db, "SELECT count(*) FROM (SELECT x FROM t GROUP BY x HAVING count(*) <> 2) AS halves"),
		)
		stored := queryPG[int](t, db, "SELECT count(DISTINCT x) FROM t")[0]
		require.GreaterOrEqual(t, stored, committed)
		require.LessOrEqual(t, stored, committed+uncertain)
		t.Logf("of 150: %d committed, %d uncertain, %d stored", committed, uncertain, stored)
		requireIdle(t, db)
	})
	t.Run("OK_relaxed", func(t *testing.T) {
		t.Parallel()
		for durability, want := range map[store.Durability]string{store.Full: "on", store.Relaxed: "off"} {
			for _, pooler := range []bool{false, true} {
				db := openPG(t, func(c *store.PostgresConfig) { c.Durability, c.Pooler = durability, pooler })
				tx := beginPG(t.Context(), t, db)
				require.Equal(
					t, []string{want}, queryPG[string](t, tx.(connPG), "SELECT current_setting('synchronous_commit')"),
				)
				require.NoError(t, tx.Commit())
				require.Equal(
					t, []string{"on"}, queryPG[string](t, db, "SELECT current_setting('synchronous_commit')"),
					"it stayed",
				)
				require.Equal(t, 1, db.Writer().Stats().OpenConnections)
			}
		}
	})
}

func TestPostgresClose(t *testing.T) {
	t.Parallel()
	t.Run("OK_waits_for_transactions", func(t *testing.T) {
		t.Parallel()
		name := pgtest.Database(t, "", nil)
		db, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: name})
		require.NoError(t, err)
		require.NoError(t, db.Exec(t.Context(), "CREATE TABLE t (x bigint)", []any{}, nil))
		one, two := beginPG(t.Context(), t, db), beginPG(t.Context(), t, db)
		closed := make(chan error, 2)
		for range cap(closed) {
			go func() { closed <- db.Close() }()
		}
		require.Eventually(t, func() bool {
			tx, err := db.Tx(t.Context())
			if err == nil {
				require.NoError(t, tx.Rollback())
			}
			return errors.Is(err, store.ErrClosed)
		}, 10*time.Second, time.Millisecond)
		require.ErrorIs(t, insertPG(t.Context(), db, 1), store.ErrClosed)
		require.NoError(t, insertPG(t.Context(), one, 2))
		require.NoError(t, one.Commit())
		require.NoError(t, insertPG(t.Context(), two, 3))
		require.Empty(t, closed, "it did not wait for the second transaction")
		require.NoError(t, two.Commit())
		require.NoError(t, errors.Join(<-closed, <-closed))
		requireClosedPG(t, db)

		again, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: name})
		require.NoError(t, err)
		require.Equal(t, []int{2, 3}, queryPG[int](t, again, "SELECT x FROM t ORDER BY x"))
		require.NoError(t, again.Close())
	})
	// Everything ends well or says that the database is closed; what ended well is there.
	t.Run("OK_under_load", func(t *testing.T) {
		t.Parallel()
		name := pgtest.Database(t, "", nil)
		db, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: name, MaxConns: 4})
		require.NoError(t, err)
		require.NoError(t, db.Exec(t.Context(), "CREATE TABLE t (x bigint)", []any{}, nil))
		var all sync.WaitGroup
		counts, ends := make([]int, 8), make([]error, 8)
		busy := make(chan bool, 100)
		for i := range counts {
			all.Go(func() {
				for ends[i] == nil {
					tx, err := db.Tx(t.Context())
					if err == nil {
						err = errors.Join(insertPG(t.Context(), tx, i), tx.Commit())
					}
					if ends[i] = err; err != nil {
						return
					}
					counts[i]++
					_, ends[i] = tryPG[int](t.Context(), db, "SELECT x FROM t LIMIT 1")
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
		all.Wait()
		sum := 0
		for i, err := range ends {
			require.Equal(t, fault.ErrClosed, store.Classify(err), "%v", err)
			sum += counts[i]
		}
		again, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: name})
		require.NoError(t, err)
		require.Equal(t, []int{sum}, queryPG[int](t, again, "SELECT count(*) FROM t"))
		require.NoError(t, again.Close())
	})
}

// TestPlans: the statements of a batch are planned once, where they stay prepared; all others for what they ask.
func TestPlans(t *testing.T) {
	t.Parallel()
	for pooler, want := range map[bool]string{false: "force_generic_plan", true: "auto"} {
		db := openPG(t, func(c *store.PostgresConfig) { c.Pooler = pooler })
		batch, err := db.Batch().Tx(t.Context())
		require.NoError(t, err)
		got := queryPG[string](t, batch.(connPG), "SHOW plan_cache_mode")
		require.NoError(t, batch.Commit())
		require.Equal(t, []string{want}, got)
		require.Equal(t, []string{"auto"}, queryPG[string](t, db, "SHOW plan_cache_mode"), "it stayed")
		tx := beginPG(t.Context(), t, db)
		got = queryPG[string](t, tx.(connPG), "SHOW plan_cache_mode")
		require.NoError(t, tx.Commit())
		require.Equal(t, []string{"auto"}, got)
	}
}
