package registry_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestOpenRefusesAndLeavesNothing: what is refused leaves nothing beside it either.
func TestOpenRefusesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		make func(path string)
		want error
	}{
		"one_byte": {
			make: func(path string) { require.NoError(t, os.WriteFile(path, []byte("x"), 0o600)) },
			want: registry.ErrCorrupt,
		},
		"wal_foreign": {make: func(path string) {
			openForeign(t, path, "PRAGMA journal_mode = WAL", "CREATE TABLE t (x)")
		}, want: registry.ErrSchema},
		"wal_edited": {make: func(path string) {
			openOnce(t, path)
			openForeign(t, path, "UPDATE atlas_schema_revisions SET hash = 'h1:other'")
		}, want: registry.ErrSchema},
	} {
		t.Run("Err_"+name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "other.db")
			test.make(path)
			before := openState(t, dir)
			_, err := registry.Open(t.Context(), path)
			require.ErrorIs(t, err, test.want)
			require.Equal(t, before, openState(t, dir))
		})
	}
}

// TestExhausted takes all locks that a server has: others are told which of its settings is too low.
func TestExhausted(t *testing.T) {
	t.Parallel()
	c := pgCluster(t, "max_locks_per_transaction = 10", "max_connections = 20")
	reg := must(registry.Open(t.Context(), c.URL("postgres"), registry.WithMaxConns(4)))
	defer func() { require.NoError(t, reg.Close()) }()
	p := mustProvider(t, reg, "p")
	m, k := mustModel(t, reg, p.ID, "m", gpt4()), mustKey(t, reg, p.ID, 1)
	record(t, reg, m, k, 1, 1)
	db := must(sql.Open("pgx", c.URL("postgres")))
	_, err := db.ExecContext(t.Context(), "SELECT count(pg_advisory_lock(n)) FROM generate_series(1, 1000000) AS n")
	require.ErrorContains(t, err, "53200") // they stay locked
	err = reg.RecordUsage(t.Context(), registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID})
	require.ErrorIs(t, err, registry.ErrExhausted)
	require.ErrorIs(t, err, registry.ErrUnavailable)
	require.ErrorContains(t, err, "max_locks_per_transaction")
	require.NoError(t, db.Close())
	require.Eventually(t, func() bool {
		return reg.RecordUsage(t.Context(), registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID}) == nil
	}, 20*time.Second, 50*time.Millisecond)
	require.EqualValues(t, 2, recorded(t, reg))
}
