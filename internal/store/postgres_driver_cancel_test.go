package store_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"slices"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/store"
)

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
		requireKind(t, context.Canceled, err)
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
