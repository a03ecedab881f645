package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

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

// withoutCancelAnswers returns the URL of a proxy that resets the connections on which statements are cancelled, when
// the server has been asked.
func withoutCancelAnswers(t *testing.T, server string) string {
	t.Helper()
	u, err := url.Parse(server)
	require.NoError(t, err)
	host := u.Host
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	serve := func(client *net.TCPConn) {
		defer client.Close() //nolint:errcheck // a proxy only ends
		behind, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", host)
		if err != nil {
			return
		}
		defer behind.Close() //nolint:errcheck // likewise
		first := make([]byte, 8)
		if _, err := io.ReadFull(client, first); err != nil {
			return
		}
		_, _ = behind.Write(first)
		if string(first) == "\x00\x00\x00\x10\x04\xd2\x16\x2e" {
			_, _ = io.CopyN(behind, client, 8)
			_ = client.SetLinger(0)
			return
		}
		go func() {
			_, _ = io.Copy(client, behind)
			_ = client.Close()
		}()
		_, _ = io.Copy(behind, client)
	}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(client.(*net.TCPConn))
		}
	}()
	u.Host = listener.Addr().String()
	return u.String()
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

// Errors as PostgreSQL makes them when a statement is run.
func TestClassifyPostgresStatements(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before string // what is run first
		fails  string // what fails
		code   string // SQLSTATE; empty: it is not the same in all versions
		want   store.Kind
	}{
		"unique": {
			before: "CREATE TABLE t (x int UNIQUE); INSERT INTO t VALUES (1)", fails: "INSERT INTO t VALUES (1)",
			code: "23505", want: store.Conflict,
		},
		"partial unique index": {
			before: "CREATE TABLE t (x int, gone int); CREATE UNIQUE INDEX ON t (x) WHERE gone IS NULL; INSERT INTO t" +
				" VALUES (1, NULL), (1, 2)",
			fails: "INSERT INTO t VALUES (1, NULL)", code: "23505", want: store.Conflict,
		},
		"exclusion": {
			before: "CREATE TABLE t (x int4range, EXCLUDE USING gist (x WITH &&)); INSERT INTO t VALUES ('[1,3]')",
			fails:  "INSERT INTO t VALUES ('[2,4]')", code: "23P01", want: store.Conflict,
		},
		"insert without parent": {
			before: "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p)",
			fails:  "INSERT INTO c VALUES (1)", code: "23503", want: store.ForeignKey,
		},
		"delete parent, no action": {
			before: "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p); " +
				"INSERT INTO p VALUES (1); INSERT INTO c VALUES (1)",
			fails: "DELETE FROM p", code: "23503", want: store.ForeignKey,
		},
		"delete parent, restrict": { // 23001 since version 18
			before: "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p ON DELETE RESTRICT);" +
				" INSERT INTO p VALUES (1); INSERT INTO c VALUES (1)",
			fails: "DELETE FROM p", want: store.ForeignKey,
		},
		"commit without parent": {
			before: "CREATE TABLE p (id int PRIMARY KEY);" +
				" CREATE TABLE c (p int REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
			fails: "BEGIN; INSERT INTO c VALUES (1); COMMIT", code: "23503", want: store.ForeignKey,
		},
		"check": {
			before: "CREATE TABLE t (x int CHECK (x > 0))", fails: "INSERT INTO t VALUES (0)", code: "23514",
			want: store.Invalid,
		},
		"not null": {
			before: "CREATE TABLE t (x int NOT NULL)", fails: "INSERT INTO t VALUES (NULL)", code: "23502",
			want: store.Invalid,
		},
		"too long": {
			before: "CREATE TABLE t (x varchar(3))", fails: "INSERT INTO t VALUES ('abcd')", code: "22001",
			want: store.Invalid,
		},
		"out of range": {
			before: "CREATE TABLE t (x smallint)", fails: "INSERT INTO t VALUES (32768)", code: "22003",
			want: store.Invalid,
		},
		"sum overflows": {fails: "SELECT 9223372036854775807 + 1", code: "22003", want: store.Invalid},
		"no number": {
			before: "CREATE TABLE t (x int)", fails: "INSERT INTO t VALUES ('a')", code: "22P02", want: store.Invalid,
		},
		"division": {fails: "SELECT 1 / 0", code: "22012", want: store.Invalid},
		"index entry": {
			before: "CREATE TABLE t (x text UNIQUE)",
			fails:  "INSERT INTO t SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) AS i",
			code:   "54000", want: store.Invalid,
		},
		"read-only transaction": {
			before: "CREATE TABLE t (x int)", fails: "BEGIN READ ONLY; INSERT INTO t VALUES (1)", code: "25006",
			want: store.ReadOnly,
		},
		"statement timeout": {
			before: "SET statement_timeout = 20", fails: "SELECT pg_sleep(10)", code: "57014", want: store.Canceled,
		},
		"permission": {
			before: "CREATE TABLE t (x int); SET ROLE pg_monitor", fails: "SELECT * FROM t", code: "42501",
			want: store.Denied,
		},
		"missing database": {fails: `DO $$ BEGIN RAISE SQLSTATE '3D000'; END $$`, code: "3D000", want: store.Invalid},
		"serialization":    {fails: `DO $$ BEGIN RAISE SQLSTATE '40001'; END $$`, code: "40001", want: store.Busy},
		"syntax":           {fails: "SELECT FROM WHERE", code: "42601", want: store.Unknown},
		"no such table":    {fails: "SELECT 1 FROM t", code: "42P01", want: store.Unknown},
	} {
		t.Run("Err_"+strings.NewReplacer(" ", "_", ",", "").Replace(name), func(t *testing.T) {
			t.Parallel()
			conn, err := openPG(t).Writer().Conn(t.Context())
			require.NoError(t, err)
			defer func() { require.NoError(t, conn.Close()) }()
			_, err = conn.ExecContext(t.Context(), test.before)
			require.NoError(t, err)
			_, err = conn.ExecContext(t.Context(), test.fails)
			if test.code != "" {
				requireCodePG(t, test.code, err)
			}
			requireKind(t, test.want, err)
			requireKind(t, test.want, fmt.Errorf("wrapped: %w", errors.Join(errors.New("and joined"), err)))
		})
	}
}

// twoConns runs statements, and returns two connections to the database.
func twoConns(t *testing.T, before string) (one, two *sql.Conn) {
	t.Helper()
	db := openPG(t).Writer()
	_, err := db.ExecContext(t.Context(), before)
	require.NoError(t, err)
	one, err = db.Conn(t.Context())
	require.NoError(t, err)
	two, err = db.Conn(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, c := range []*sql.Conn{one, two} {
			if err := c.Close(); err != nil {
				require.ErrorIs(t, err, sql.ErrConnDone) // it was lost
			}
		}
	})
	return one, two
}

func execConn(t *testing.T, conn *sql.Conn, statement string) {
	t.Helper()
	_, err := conn.ExecContext(t.Context(), statement)
	require.NoError(t, err, statement)
}

// Errors that take more than one connection, or none.
func TestClassifyPostgresRealErrors(t *testing.T) {
	t.Parallel()
	t.Run("Err_deadlock", func(t *testing.T) {
		t.Parallel()
		one, two := twoConns(t, "CREATE TABLE t (x int); INSERT INTO t VALUES (1), (2)")
		execConn(t, one, "SET deadlock_timeout = 50; BEGIN; UPDATE t SET x = 1 WHERE x = 1")
		execConn(t, two, "SET deadlock_timeout = 50; BEGIN; UPDATE t SET x = 2 WHERE x = 2")
		other := make(chan error, 1)
		go func() {
			_, err := two.ExecContext(context.Background(), "UPDATE t SET x = 1 WHERE x = 1")
			other <- err
		}()
		_, err := one.ExecContext(t.Context(), "UPDATE t SET x = 2 WHERE x = 2")
		_, rollback := one.ExecContext(t.Context(), "ROLLBACK") // else the other one goes on waiting
		require.NoError(t, rollback)
		err = errors.Join(err, <-other) // one of the two
		requireCodePG(t, "40P01", err)
		requireKind(t, store.Busy, err)
	})
	t.Run("Err_serialization", func(t *testing.T) {
		t.Parallel()
		one, two := twoConns(t, "CREATE TABLE t (x int); INSERT INTO t VALUES (1)")
		execConn(t, one, "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT x FROM t")
		execConn(t, two, "UPDATE t SET x = 2")
		_, err := one.ExecContext(t.Context(), "UPDATE t SET x = 3")
		requireCodePG(t, "40001", err)
		requireKind(t, store.Busy, err)
		_, err = one.ExecContext(t.Context(), "SELECT 1")
		requireCodePG(t, "25P02", err)
		requireKind(t, store.Closed, err)
	})
	t.Run("Err_lock_timeout", func(t *testing.T) {
		t.Parallel()
		one, two := twoConns(t, "CREATE TABLE t (x int)")
		execConn(t, one, "BEGIN; LOCK TABLE t")
		execConn(t, two, "SET lock_timeout = 20")
		_, err := two.ExecContext(t.Context(), "INSERT INTO t VALUES (1)")
		requireCodePG(t, "55P03", err)
		requireKind(t, store.Busy, err)
	})
	t.Run("Err_terminated", func(t *testing.T) {
		t.Parallel()
		one, two := twoConns(t, "")
		execConn(t, one, "SET application_name = 'victim'")
		other := make(chan error, 1)
		go func() {
			_, err := one.ExecContext(context.Background(), "SELECT pg_sleep(60)")
			other <- err
		}()
		require.Eventually(t, func() bool {
			var n int
			require.NoError(t, two.QueryRowContext(t.Context(),
				"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'victim'"+
					" AND wait_event = 'PgSleep' AND datname = current_database()").Scan(&n))
			return n == 1
		}, 20*time.Second, 10*time.Millisecond)
		err := <-other
		requireCodePG(t, "57P01", err)
		requireKind(t, store.Unavailable, err)
	})
	t.Run("Err_refused", func(t *testing.T) {
		t.Parallel()
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		require.NoError(t, l.Close())
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err = store.OpenPostgres(
			ctx, store.PostgresConfig{URL: "postgres://u:hunter2@" + l.Addr().String() + "/db?sslmode=disable"},
		)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, syscall.ECONNREFUSED) // the last one that was repeated
		require.NotContains(t, err.Error(), "hunter2")
		var last *pgconn.ConnectError
		require.ErrorAs(t, err, &last)
		requireKind(t, store.Unavailable, last)
	})
	t.Run("Err_missing_database_and_user", func(t *testing.T) {
		t.Parallel()
		u, err := url.Parse(pgtest.Database(t, "", nil))
		require.NoError(t, err)
		missing := *u
		missing.Path = "/no_such_database"
		_, err = store.OpenPostgres(t.Context(), store.PostgresConfig{URL: missing.String()})
		requireCodePG(t, "3D000", err)
		requireKind(t, store.Invalid, err)
		u.User = url.UserPassword("no_such_user", "hunter2")
		_, err = store.OpenPostgres(t.Context(), store.PostgresConfig{URL: u.String()})
		requireKind(t, store.Denied, err)
		require.NotContains(t, err.Error(), "hunter2")
	})
}

// Errors that take a server in trouble.
func TestClassifyPostgresCodes(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]store.Kind{
		"23001": store.ForeignKey, "23000": store.Invalid, "22021": store.Invalid, "54011": store.Invalid,
		"28000": store.Denied, "28P01": store.Denied, "42501": store.Denied,
		"53100": store.DiskFull, "53200": store.Exhausted, "53300": store.Unavailable,
		"57P01": store.Unavailable, "57P02": store.Unavailable, "57P03": store.Unavailable,
		"08000": store.Unavailable, "08006": store.Unavailable, "08P01": store.Unavailable,
		"40003": store.Uncertain, "XX001": store.Corrupt, "XX002": store.Corrupt, "XX000": store.Unknown,
		"": store.Unknown, "2": store.Unknown, "42601": store.Unknown,
	} {
		err := error(&pgconn.PgError{Code: code})
		require.Equal(t, want, store.Classify(err), code)
		require.Equal(t, want, store.Classify(fmt.Errorf("wrapped: %w", err)), code)
	}
	for _, err := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, &net.OpError{Op: "read", Err: syscall.ECONNRESET},
	} {
		require.Equal(t, store.Unavailable, store.Classify(fmt.Errorf("wrapped: %w", err)), "%v", err)
	}
}

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

func beginPG(ctx context.Context, t *testing.T, db *store.Postgres) dialect.Tx {
	t.Helper()
	tx, err := db.Tx(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback() }) // of a test that failed: Close would wait for it
	return tx
}

type connPG interface {
	dialect.Tx
	entsql.ExecQuerier
}

// statementCanceled ends the contexts of statements in a transaction, and goes on after savepoints.
func statementCanceled(t *testing.T, db *store.Postgres, tx connPG) (kept bool) {
	t.Helper()
	pid := queryPG[int](t, tx, "SELECT pg_backend_pid()")
	require.NoError(t, insertPG(t.Context(), tx, 1))
	for range 3 {
		_, err := tx.ExecContext(t.Context(), "SAVEPOINT s")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		begin := time.Now()
		_, err = tx.ExecContext(ctx, "SELECT pg_sleep(60)")
		cancel()
		requireKind(t, store.Canceled, err)
		require.Less(t, time.Since(begin), 10*time.Second)
		err = insertPG(t.Context(), tx, 2)
		var server *pgconn.PgError
		if !errors.As(err, &server) {
			require.Error(t, tx.Commit())
			require.Empty(t, queryPG[int](t, db, "SELECT x FROM t"))
			return false
		}
		requireCodePG(t, "25P02", err)
		_, err = tx.ExecContext(t.Context(), "ROLLBACK TO s")
		require.NoError(t, err)
		require.NoError(t, insertPG(t.Context(), tx, 3))
	}
	require.Equal(t, []int{pid[0]}, queryPG[int](t, tx, "SELECT pg_backend_pid()"))
	require.NoError(t, tx.Commit())
	return true
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
				requireKind(t, store.Canceled, err)
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

// TestPostgresCancel ends the contexts of single statements.
func TestPostgresCancel(t *testing.T) {
	t.Parallel()
	// The context of one statement ends: the statement does, and after a savepoint all else goes on
	// over the same connection.
	t.Run("OK_statement_canceled", func(t *testing.T) {
		t.Parallel()
		db := openPGTable(t)
		// A server that is too busy to cancel in time loses the connection: then it is tried again.
		tries := 0
		for !statementCanceled(t, db, beginPG(t.Context(), t, db).(connPG)) {
			tries++
			require.Less(t, tries, 20)
		}
		require.Equal(t, []int{1, 3, 3, 3}, queryPG[int](t, db, "SELECT x FROM t ORDER BY x"))
		require.Equal(t, 1, db.Writer().Stats().OpenConnections)
		requireIdle(t, db)
	})
	// A request to cancel can arrive late: unless the server is known to have had it, it must not hit the
	// statement of somebody else.
	for name, lose := range map[string]bool{
		"OK_canceled_connection_lives_on": false, "OK_canceled_late_is_not_used_again": true,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := openPG(t, func(cfg *store.PostgresConfig) {
				if lose {
					cfg.URL = withoutCancelAnswers(t, cfg.URL)
				}
			})
			for tries := 0; ; tries++ { // a server that is too busy to cancel in time loses the connection
				require.Less(t, tries, 20)
				pid := queryPG[int](t, db, "SELECT pg_backend_pid()")
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				err := db.Exec(ctx, "SELECT pg_sleep(60)", []any{}, nil)
				cancel()
				require.Error(t, err)
				again := queryPG[int](t, db, "SELECT pg_backend_pid()")
				if lose {
					require.NotEqual(t, pid, again)
				} else if !slices.Equal(pid, again) {
					continue
				}
				requireIdle(t, db)
				return
			}
		})
	}
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
		requireKind(t, store.Conflict, err)
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
				require.Contains(t, []store.Kind{store.Uncertain, store.Unavailable}, store.Classify(err), "%v", err)
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
			if store.Classify(err) == store.Uncertain {
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
			require.Equal(t, store.Closed, store.Classify(err), "%v", err)
			sum += counts[i]
		}
		again, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: name})
		require.NoError(t, err)
		require.Equal(t, []int{sum}, queryPG[int](t, again, "SELECT count(*) FROM t"))
		require.NoError(t, again.Close())
	})
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
	_, err := db.BeginTx(t.Context(), nil)
	require.ErrorIs(t, err, store.ErrClosed)
	require.Zero(t, db.Writer().Stats().OpenConnections)
}

// The tests in a bubble have a clock that moves when everybody waits.
func TestPostgresRetry(t *testing.T) {
	t.Parallel()
	code := func(c string) error { return &pgconn.PgError{Code: c} }
	repeated := func(t *testing.T, ctx context.Context, failures int, err error) (calls int, _ error) {
		t.Helper()
		result := new(store.Postgres).Retry(ctx, func() error {
			if calls++; calls <= failures {
				return fmt.Errorf("call %d: %w", calls, err)
			}
			return nil
		})
		return calls, result
	}
	t.Run("OK_what_passes", func(t *testing.T) {
		t.Parallel()
		for _, passes := range []error{
			code("40001"), code("40P01"), code("55P03"), code("42P07"), code("57P01"), code("57P03"), code("53300"),
			code("08006"),
			io.ErrUnexpectedEOF, store.ErrStandby, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
			&net.OpError{Op: "dial", Err: &net.DNSError{IsTemporary: true}},
		} {
			synctest.Test(t, func(t *testing.T) {
				calls, err := repeated(t, t.Context(), 5, passes)
				require.NoError(t, err)
				require.Equal(t, 6, calls)
			})
		}
	})
	t.Run("Err_what_does_not", func(t *testing.T) {
		t.Parallel()
		for _, stays := range []error{
			code("23505"), code("23503"), code("22003"), code("28P01"), code("3D000"), code("42501"), code("25006"),
			code("53100"), code("53200"), code("42P01"), code("40003"), code("57014"), store.ErrClosed,
			store.ErrUnsupported, store.ErrRolledBack,
			errors.Join(store.ErrUncertain, io.ErrUnexpectedEOF), errors.Join(store.ErrUncertain, code("40001")),
			context.Canceled, context.DeadlineExceeded, &net.DNSError{IsNotFound: true}, errors.New("something else"),
		} {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				calls, err := repeated(t, t.Context(), 5, stays)
				require.ErrorIs(t, err, stays)
				require.Equal(t, 1, calls, "%v", stays)
				require.Zero(t, time.Since(begin))
			})
		}
	})
	t.Run("Err_patience", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			last := code("57P03")
			calls, err := repeated(t, t.Context(), 1<<30, last)
			require.ErrorIs(t, err, last)
			requireKind(t, store.Unavailable, err)
			require.InDelta(t, store.Patience, time.Since(begin), float64(time.Second))
			require.Less(t, calls, 500, "no busy loop")
			require.Greater(t, calls, 30)
		})
	})
	t.Run("Err_context", func(t *testing.T) {
		t.Parallel()
		for name, end := range map[string]func(context.Context) (context.Context, context.CancelFunc){
			"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, 3*time.Second)
			},
			"cancel": func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(3*time.Second, cancel)
				return ctx, cancel
			},
		} {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := end(t.Context())
				defer cancel()
				begin := time.Now()
				last := code("40001")
				_, err := repeated(t, ctx, 1<<30, last)
				require.ErrorIs(t, err, ctx.Err(), name)
				require.ErrorIs(t, err, last, name)
				require.Equal(t, 3*time.Second, time.Since(begin), name)
			})
		}
	})
}

// What the last repetition says does not hide what was wrong: the context ended in it.
func TestPostgresRetryTellsWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		calls := 0
		err := new(store.Postgres).Retry(ctx, func() error {
			if calls++; calls <= 3 {
				return &pgconn.PgError{Code: "57P03"}
			}
			<-ctx.Done()
			return ctx.Err()
		})
		requireCodePG(t, "57P03", err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		requireKind(t, store.Unavailable, err)
	})
}

// An attempt that the deadline cuts short says less than the one before it, also where the connection's timer is the
// first to see the deadline, and the context has not ended yet.
func TestPostgresRetryTellsWhyAtTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithCancel(t.Context())
		ctx := lateContext{parent, time.Now().Add(3 * time.Second)}
		calls := 0
		err := new(store.Postgres).Retry(ctx, func() error {
			if calls++; calls <= 3 {
				return &pgconn.PgError{Code: "57P03"}
			}
			<-time.After(time.Until(ctx.deadline)) // of the bubble
			time.AfterFunc(time.Microsecond, cancel)
			return &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
		})
		requireCodePG(t, "57P03", err)
		require.ErrorIs(t, err, context.Canceled)
	})
}

// lateContext ends some time after its deadline.
type lateContext struct {
	context.Context
	deadline time.Time
}

func (c lateContext) Deadline() (time.Time, bool) { return c.deadline, true }

// A black hole does not answer within connect_timeout; no context of the caller's has ended.
func TestPostgresConnectTimeout(t *testing.T) {
	t.Parallel()
	hole, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, hole.Close()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err = store.OpenPostgres(
		ctx,
		store.PostgresConfig{
			URL: "postgres://u:hunter2@" + hole.Addr().String() + "/db?sslmode=disable&connect_timeout=1",
		},
	)
	requireKind(t, store.Unavailable, err)
	require.Greater(t, time.Since(begin), 2*time.Second, "it was not tried again")
}

func TestRedactURL(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"postgres://user:hunter2@host:5432/db":             "postgres://host:5432/db",
		"postgresql://user:hunter2@host/db":                "postgres://host/db",
		"postgres://user:hunter2@one:1,two:2/db":           "postgres://one:1,two:2/db",
		"postgres://host/db?password=hunter2&user=u":       "postgres://host/db",
		"postgres://host/db?pass%77ord=hunter2":            "postgres://host/db",
		"postgres://host/db?user=u@tenant":                 "postgres://",
		"postgres://u@host/db?user=u@tenant":               "postgres://host/db",
		"postgres://user:hun/hunter2@host/db":              "postgres://",
		"postgres://user:1/hunter2@host/db":                "postgres://",
		"postgres://user:hunter2,5:12/x@host":              "postgres://",
		"postgres://user:hun?hunter2@host/db":              "postgres://host/db",
		"postgres://user:1/hunter2?x=hunter2@host/db":      "postgres://",
		"postgres://user:1#hunter2@host":                   "postgres://host",
		"postgres://user:hunter2@host:port/db":             "postgres://host:port/db",
		"postgres://user:hunter2%zz@host/db":               "postgres://host/db",
		"postgres://user:hunter2@[::1]:5432/db":            "postgres://[::1]:5432/db",
		"postgres://":                                      "postgres://",
		"postgres://user:a@hunter2@host/db":                "postgres://",
		"postgres:///db?host=/var/run/postgresql":          "postgres:///db",
		"postgres://user:%68unter2@host/with%20space%2Fdb": "postgres://host/with%20space%2Fdb",
	} {
		require.Equal(t, want, store.RedactURL(name), name)
		require.NotContains(t, store.RedactURL(name), "hunter2")
	}
}

func TestPostgresURLs(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"", "postgres", "host=h password=hunter2", "mysql://user:hunter2@host/db", "postgres:hunter2",
		"postgres://user:hun/hunter2@host/db", "postgres://user:1/hunter2@host/db", "postgres://user:p@hunter2@host/db",
		"postgres://user:hunter2@host:port/db", "postgres://user:hunter2%zz@host/db",
		"postgres://host/db?password=hunter2&sslmode=hunter2",
		"postgres://user:hunter2@host/db?connect_timeout=hunter2",
		"postgres://user:hunter2@host/db?sslrootcert=/hunter2", "postgres://user:hunter2@host:99999/db",
	} {
		_, err := store.ParseURL(name, false)
		require.ErrorIs(t, err, store.ErrName, name)
		require.NotContains(t, err.Error(), "hunter2", name)
		_, err = store.OpenPostgres(t.Context(), store.PostgresConfig{URL: name})
		require.ErrorIs(t, err, store.ErrName, name)
	}
	config, err := store.ParseURL("postgres://one,two:6432/db?application_name=mine&connect_timeout=2", true)
	require.NoError(t, err)
	require.Equal(t, "mine", config.RuntimeParams["application_name"])
	require.Equal(t, 2*time.Second, config.ConnectTimeout)
	require.Zero(t, config.StatementCacheCapacity)
}

func TestJudgeServer(t *testing.T) {
	t.Parallel()
	require.NoError(t, store.JudgeServer(150000, "15.0", "UTF8", "on", "on", store.Full))
	require.NoError(t, store.JudgeServer(180001, "18.1", "UTF8", "remote_apply", "on", store.Full))
	require.NoError(t, store.JudgeServer(150000, "15.0", "UTF8", "off", "off", store.Relaxed))
	for says, err := range map[string]error{
		"14.9":               store.JudgeServer(140009, "14.9", "UTF8", "on", "on", store.Relaxed),
		"SQL_ASCII":          store.JudgeServer(150000, "15.0", "SQL_ASCII", "on", "on", store.Relaxed),
		"synchronous_commit": store.JudgeServer(150000, "15.0", "UTF8", "off", "on", store.Full),
		"fsync is off":       store.JudgeServer(150000, "15.0", "UTF8", "on", "off", store.Full),
	} {
		require.ErrorIs(t, err, store.ErrUnsupported)
		require.ErrorContains(t, err, says)
	}
}

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

// TestPrefetch: the server reads many pages at once, unless somebody has said how many.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, "", nil)
	for option, want := range map[string]string{"": "64", "&effective_io_concurrency=7": "7"} {
		db, err := store.OpenPostgres(t.Context(), store.PostgresConfig{URL: url + option})
		require.NoError(t, err)
		var got string
		require.NoError(t, db.Writer().QueryRowContext(t.Context(), "SHOW effective_io_concurrency").Scan(&got))
		require.Equal(t, want, got)
		require.NoError(t, db.Close())
	}
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
