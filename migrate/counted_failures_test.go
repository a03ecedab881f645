package migrate_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
)

// TestCountedFailures migrates keys that have failed: what was counted stays counted, under the class of then.
func TestCountedFailures(t *testing.T) {
	t.Parallel()
	eachOld(t, testCountedFailures)
}

func testCountedFailures(t *testing.T, db *sql.DB, d migrate.Dialect, _ string) {
	t.Helper()
	applyBefore(t, db, d, "counted_failures")
	run(t, db, "INSERT INTO providers (id, created_at, updated_at, name, display_name) VALUES"+
		" ('01900000-0000-7000-8000-000000000001', '2026-11-01 00:00:00+00:00', '2026-11-01 00:00:00+00:00', 'p', 'p')")
	for id, failed := range map[string]string{
		"01": "5, 'rate_limited', '2026-11-02 00:00:00+00:00'", "02": "3, 'server', '2026-11-02 00:00:00+00:00'",
		"03": "0, 'auth', '2026-11-02 00:00:00+00:00'", "04": "0, '', NULL",
	} {
		run(t, db, "INSERT INTO api_keys (id, created_at, updated_at, provider_id, key_hash, key_prefix, last_reset,"+
			" failures, failure_class, failed_at) VALUES"+
			" ('01900000-0000-7000-8000-0000000001"+id+
			"', '2026-11-01 00:00:00+00:00', '2026-11-01 00:00:00+00:00', '01900000-0000-7000-8000-000000000001',"+
			" '00000000000000000000000000000000000000000000000000000000000000"+id+
			"', 'sk-test-', '2026-11-01 00:00:00+00:00', "+failed+")")
	}
	_, err := migrate.Apply(t.Context(), db, d)
	require.NoError(t, err)
	require.Equal(t, [][]any{{"rate_limited", "2026-11-02"}, {"", ""}, {"", ""}, {"", ""}},
		rowsOf(t, db, "api_keys", "counted_class", "COALESCE(substr(CAST(counted_at AS text), 1, 10), '')"))
	require.NoError(t, db.Close())
}
