package registry_test

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"net/url"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx, to prepare servers
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// pgCluster returns a server of the test's own.
func pgCluster(t *testing.T, settings ...string) *pgtest.Cluster {
	t.Helper()
	return pgtest.Server(t, append([]string{"shared_buffers = 16MB"}, settings...)...)
}

// pgRun runs statements as the server's owner, over a connection of its own.
func pgRun(tb testing.TB, url string, statements ...string) {
	tb.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(tb, err)
	defer func() { require.NoError(tb, db.Close()) }()
	db.SetMaxOpenConns(1)
	for _, statement := range statements {
		_, err := db.ExecContext(tb.Context(), statement)
		require.NoError(tb, err, statement)
	}
}

// pgValue returns the only value of a query, asked over a connection of its own.
func pgValue[T any](tb testing.TB, url, query string, args ...any) (v T) {
	tb.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(tb, err)
	defer func() { require.NoError(tb, db.Close()) }()
	require.NoError(tb, db.QueryRowContext(tb.Context(), query, args...).Scan(&v), query)
	return v
}

// pgQuery returns the only value of a query that a registry's client asks.
func pgQuery[T any](ctx context.Context, reg *registry.Registry, query string, args ...any) (v T, err error) {
	rows, err := reg.Client().QueryContext(ctx, query, args...)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if !rows.Next() {
		return v, errors.Join(rows.Err(), sql.ErrNoRows)
	}
	return v, rows.Scan(&v)
}

// pgEdit changes a URL.
func pgEdit(t *testing.T, name string, edit func(u *url.URL)) string {
	t.Helper()
	u, err := url.Parse(name)
	require.NoError(t, err)
	edit(u)
	return u.String()
}

// pgAs returns a URL with another user and the password that no error may hold.
func pgAs(t *testing.T, name, user string) string {
	t.Helper()
	return pgEdit(t, name, func(u *url.URL) { u.User = url.UserPassword(user, pgPassword) })
}

// pgListen listens on a port of loopback until the test is over.
func pgListen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// pgRefused returns an address where nobody listens.
func pgRefused(t *testing.T) string {
	t.Helper()
	l := pgListen(t)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// pgHost returns the address of a URL's server.
func pgHost(t *testing.T, name string) string {
	t.Helper()
	u, err := url.Parse(name)
	require.NoError(t, err)
	return u.Host
}
