package registry_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// failoverDB returns a connection to a database beside the registry's.
func failoverDB(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// failoverUntil waits until a query says true.
func failoverUntil(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	require.Eventually(t, func() bool {
		var is sql.NullBool
		err := db.QueryRowContext(t.Context(), query, args...).Scan(&is)
		return err == nil && is.Bool
	}, failoverPatience, 5*time.Millisecond, query)
}

// failoverFor does something again and again for a time.
func failoverFor(t *testing.T, total, each time.Duration, do func()) {
	t.Helper()
	end, tick := time.After(total), time.NewTicker(each)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			do()
		case <-end:
			return
		case <-t.Context().Done():
			return
		}
	}
}

func failoverOpen(t *testing.T, url string, options ...registry.Option) *registry.Registry {
	t.Helper()
	reg, err := registry.Open(t.Context(), url, options...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	return reg
}
