package migrate_test

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestShortKeys migrates keys, one of which has something in every column, from before a key could be short. SQLite
// makes the table anew.
func TestShortKeys(t *testing.T) {
	t.Parallel()
	eachOld(t, testShortKeys)
}

func testShortKeys(t *testing.T, db *sql.DB, d migrate.Dialect, name string) {
	t.Helper()
	applyBefore(t, db, d, "short_keys")
	insertOldLedger(t, db)
	const id, now = "01900000-0000-7000-8000-0000000000d1", "'2026-07-01 00:00:00+00:00'"
	set := []string{
		"requests_per_minute = 1, tokens_per_minute = 2, requests_per_day = 3, tokens_per_day = 4, concurrency = 5",
		"cost_per_day = 6, requests_this_minute = 7, tokens_this_minute = 8, requests_today = 9, tokens_today = 10",
		"cost_today = 11, failures = 12, pass = 13, weight = 14, priority = 15, extra_requests = 1, extra_tokens = 2",
		"observed = '{}', key_prefix = 'sk-12345', label = 'x', disabled = true, degraded = true",
		"degraded_reason = '429', degraded_by = 'auth', failure_class = 'auth', counted_class = 'auth'",
		`allowed_models = '["a"]', denied_models = '["b"]', sealed = '1234'`,
		"data_key_id = '" + id + "', quota_group_id = '" + id + "'",
	}
	for _, at := range []string{
		"deleted_at", "minute", "degraded_until", "degraded_at", "failed_at", "counted_at", "succeeded_at",
		"last_used_at", "expires_at",
	} {
		set = append(set, at+" = "+now)
	}
	run(t, db,
		"INSERT INTO data_keys (id, wrapped_by, wrapped, created_at) VALUES ('"+id+"', 'a', '12345678', "+now+")",
		"INSERT INTO quota_groups (id, created_at, updated_at, provider_id, name, last_reset)"+
			" VALUES ('"+id+"', "+now+", "+now+", '"+oldProvider+"', 'g', "+now+")",
		"INSERT INTO key_leases (id, api_key_id, acquired_at, expires_at)"+
			" VALUES ('"+id+"', '"+oldOtherKey+"', "+now+", '2026-07-02 00:00:00+00:00')",
		"UPDATE api_keys SET "+strings.Join(set, ", ")+" WHERE id = '"+oldOtherKey+"'")
	columns := columnNames(t, db, "api_keys")
	before, leases := rowsOf(t, db, "api_keys", columns...), rowsOf(t, db, "key_leases", "api_key_id")
	for i, c := range columns {
		require.NotNil(t, before[1][i], c)
	}
	_, err := migrate.Apply(t.Context(), db, d)
	require.NoError(t, err)
	require.Equal(t, before, rowsOf(t, db, "api_keys", columns...))
	require.Equal(t, leases, rowsOf(t, db, "key_leases", "api_key_id"))
	require.NoError(t, db.Close())

	reg, err := registry.Open(t.Context(), name)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	key := reg.Client().APIKey.Query().Where(apikey.KeyPrefix("")).FirstX(t.Context())
	_, err = reg.Client().ExecContext(t.Context(), "INSERT INTO api_keys"+
		" (id, created_at, updated_at, provider_id, key_hash, key_prefix, last_reset)"+
		" SELECT $1, created_at, updated_at, provider_id, $2, 'sk-', last_reset FROM api_keys WHERE id = $3",
		uuid.New(), key.KeyHash[1:]+"x", key.ID)
	require.NoError(t, err)
	_, err = reg.Client().ExecContext(t.Context(), "UPDATE api_keys SET weight = 0 WHERE id = $1", key.ID)
	require.ErrorContains(t, err, "api_keys_choice")
}
