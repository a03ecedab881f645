package store_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

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
	requireKind(t, fault.ErrUnavailable, err)
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
