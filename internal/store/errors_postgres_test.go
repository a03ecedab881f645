package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// Errors as PostgreSQL makes them when a statement is run.
func TestClassifyPostgresStatements(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before string // what is run first
		fails  string // what fails
		code   string // SQLSTATE; empty: it is not the same in all versions
		want   error
	}{
		"unique": {
			before: "CREATE TABLE t (x int UNIQUE); INSERT INTO t VALUES (1)", fails: "INSERT INTO t VALUES (1)",
			code: "23505", want: fault.ErrConflict,
		},
		"partial unique index": {
			before: "CREATE TABLE t (x int, gone int); CREATE UNIQUE INDEX ON t (x) WHERE gone IS NULL; INSERT INTO t" +
				" VALUES (1, NULL), (1, 2)",
			fails: "INSERT INTO t VALUES (1, NULL)", code: "23505", want: fault.ErrConflict,
		},
		"exclusion": {
			before: "CREATE TABLE t (x int4range, EXCLUDE USING gist (x WITH &&)); INSERT INTO t VALUES ('[1,3]')",
			fails:  "INSERT INTO t VALUES ('[2,4]')", code: "23P01", want: fault.ErrConflict,
		},
		"insert without parent": {
			before: "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p)",
			fails:  "INSERT INTO c VALUES (1)", code: "23503", want: fault.ErrForeignKey,
		},
		"delete parent, no action": {
			before: "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p); " +
				"INSERT INTO p VALUES (1); INSERT INTO c VALUES (1)",
			fails: "DELETE FROM p", code: "23503", want: fault.ErrForeignKey,
		},
		"delete parent, restrict": { // 23001 since version 18
			before: "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p ON DELETE RESTRICT);" +
				" INSERT INTO p VALUES (1); INSERT INTO c VALUES (1)",
			fails: "DELETE FROM p", want: fault.ErrForeignKey,
		},
		"commit without parent": {
			before: "CREATE TABLE p (id int PRIMARY KEY);" +
				" CREATE TABLE c (p int REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
			fails: "BEGIN; INSERT INTO c VALUES (1); COMMIT", code: "23503", want: fault.ErrForeignKey,
		},
		"check": {
			before: "CREATE TABLE t (x int CHECK (x > 0))", fails: "INSERT INTO t VALUES (0)", code: "23514",
			want: fault.ErrInvalidData,
		},
		"not null": {
			before: "CREATE TABLE t (x int NOT NULL)", fails: "INSERT INTO t VALUES (NULL)", code: "23502",
			want: fault.ErrInvalidData,
		},
		"too long": {
			before: "CREATE TABLE t (x varchar(3))", fails: "INSERT INTO t VALUES ('abcd')", code: "22001",
			want: fault.ErrInvalidData,
		},
		"out of range": {
			before: "CREATE TABLE t (x smallint)", fails: "INSERT INTO t VALUES (32768)", code: "22003",
			want: fault.ErrInvalidData,
		},
		"sum overflows": {fails: "SELECT 9223372036854775807 + 1", code: "22003", want: fault.ErrInvalidData},
		"no number": {
			before: "CREATE TABLE t (x int)", fails: "INSERT INTO t VALUES ('a')", code: "22P02",
			want: fault.ErrInvalidData,
		},
		"division": {fails: "SELECT 1 / 0", code: "22012", want: fault.ErrInvalidData},
		"index entry": {
			before: "CREATE TABLE t (x text UNIQUE)",
			fails:  "INSERT INTO t SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) AS i",
			code:   "54000", want: fault.ErrInvalidData,
		},
		"read-only transaction": {
			before: "CREATE TABLE t (x int)", fails: "BEGIN READ ONLY; INSERT INTO t VALUES (1)", code: "25006",
			want: fault.ErrReadOnly,
		},
		"statement timeout": {
			before: "SET statement_timeout = 20", fails: "SELECT pg_sleep(10)", code: "57014", want: context.Canceled,
		},
		"permission": {
			before: "CREATE TABLE t (x int); SET ROLE pg_monitor", fails: "SELECT * FROM t", code: "42501",
			want: fault.ErrDenied,
		},
		"missing database": {
			fails: `DO $$ BEGIN RAISE SQLSTATE '3D000'; END $$`, code: "3D000", want: fault.ErrInvalidData,
		},
		"serialization": {fails: `DO $$ BEGIN RAISE SQLSTATE '40001'; END $$`, code: "40001", want: fault.ErrBusy},
		"syntax":        {fails: "SELECT FROM WHERE", code: "42601", want: nil},
		"no such table": {fails: "SELECT 1 FROM t", code: "42P01", want: nil},
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
		requireKind(t, fault.ErrBusy, err)
	})
	t.Run("Err_serialization", func(t *testing.T) {
		t.Parallel()
		one, two := twoConns(t, "CREATE TABLE t (x int); INSERT INTO t VALUES (1)")
		execConn(t, one, "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT x FROM t")
		execConn(t, two, "UPDATE t SET x = 2")
		_, err := one.ExecContext(t.Context(), "UPDATE t SET x = 3")
		requireCodePG(t, "40001", err)
		requireKind(t, fault.ErrBusy, err)
		_, err = one.ExecContext(t.Context(), "SELECT 1")
		requireCodePG(t, "25P02", err)
		requireKind(t, fault.ErrClosed, err)
	})
	t.Run("Err_lock_timeout", func(t *testing.T) {
		t.Parallel()
		one, two := twoConns(t, "CREATE TABLE t (x int)")
		execConn(t, one, "BEGIN; LOCK TABLE t")
		execConn(t, two, "SET lock_timeout = 20")
		_, err := two.ExecContext(t.Context(), "INSERT INTO t VALUES (1)")
		requireCodePG(t, "55P03", err)
		requireKind(t, fault.ErrBusy, err)
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
		requireKind(t, fault.ErrUnavailable, err)
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
		requireKind(t, fault.ErrUnavailable, last)
	})
	t.Run("Err_missing_database_and_user", func(t *testing.T) {
		t.Parallel()
		u, err := url.Parse(pgtest.Database(t, "", nil))
		require.NoError(t, err)
		missing := *u
		missing.Path = "/no_such_database"
		_, err = store.OpenPostgres(t.Context(), store.PostgresConfig{URL: missing.String()})
		requireCodePG(t, "3D000", err)
		requireKind(t, fault.ErrInvalidData, err)
		u.User = url.UserPassword("no_such_user", "hunter2")
		_, err = store.OpenPostgres(t.Context(), store.PostgresConfig{URL: u.String()})
		requireKind(t, fault.ErrDenied, err)
		require.NotContains(t, err.Error(), "hunter2")
	})
}

// Errors that take a server in trouble.
func TestClassifyPostgresCodes(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]error{
		"23001": fault.ErrForeignKey, "23000": fault.ErrInvalidData, "22021": fault.ErrInvalidData,
		"54011": fault.ErrInvalidData,
		"28000": fault.ErrDenied, "28P01": fault.ErrDenied, "42501": fault.ErrDenied,
		"53100": fault.ErrDiskFull, "53200": fault.ErrExhausted, "53300": fault.ErrUnavailable,
		"57P01": fault.ErrUnavailable, "57P02": fault.ErrUnavailable, "57P03": fault.ErrUnavailable,
		"08000": fault.ErrUnavailable, "08006": fault.ErrUnavailable, "08P01": fault.ErrUnavailable,
		"40003": fault.ErrUncertain, "XX001": fault.ErrCorrupt, "XX002": fault.ErrCorrupt, "XX000": nil,
		"": nil, "2": nil, "42601": nil,
	} {
		err := error(&pgconn.PgError{Code: code})
		require.Equal(t, want, store.Classify(err), code)
		require.Equal(t, want, store.Classify(fmt.Errorf("wrapped: %w", err)), code)
	}
	for _, err := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, &net.OpError{Op: "read", Err: syscall.ECONNRESET},
	} {
		require.Equal(t, fault.ErrUnavailable, store.Classify(fmt.Errorf("wrapped: %w", err)), "%v", err)
	}
}
