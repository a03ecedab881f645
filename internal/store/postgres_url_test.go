package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/store"
)

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
