package migrate_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestKeyring migrates keys, and usage that points at them, from before keys could be sealed or expire. SQLite makes
// their table anew.
func TestKeyring(t *testing.T) {
	t.Parallel()
	eachOld(t, testKeyring)
}

func testKeyring(t *testing.T, db *sql.DB, d migrate.Dialect, name string) {
	t.Helper()
	applyBefore(t, db, d, "keyring")
	insertOldLedger(t, db)
	run(t, db, "UPDATE api_keys SET label = 'x', disabled = true, deleted_at = created_at, last_used_at = created_at,"+
		" degraded = true, degraded_until = created_at, degraded_reason = '429' WHERE id = '"+oldOtherKey+"'")
	read := func() [][]any {
		return rowsOf(t, db, "api_keys", "CAST(id AS text)", "CAST(created_at AS text)", "CAST(updated_at AS text)",
			"CAST(deleted_at AS text)",
			"CAST(provider_id AS text)", "key_hash", "key_prefix", "label", "usage_count", "token_count",
			"extra_requests", "extra_tokens", "requests_today",
			"tokens_today", "CAST(last_reset AS text)", "disabled", "degraded", "CAST(degraded_until AS text)",
			"degraded_reason", "CAST(last_used_at AS text)")
	}
	before := read()
	require.Len(t, before, 3)
	_, err := migrate.Apply(t.Context(), db, d)
	require.NoError(t, err)
	require.Equal(t, before, read())
	require.NoError(t, db.Close())

	reg, err := registry.Open(t.Context(), name)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	n, err := reg.Client().APIKey.Query().Where(apikey.SealedIsNil(), apikey.DataKeyIDIsNil(), apikey.ExpiresAtIsNil()).
		Count(t.Context())
	require.NoError(t, err)
	require.Equal(t, 3, n)
	with, err := reg.Client().APIKey.Query().Where(apikey.HasUsage()).Count(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, with)
	used := reg.Client().APIKey.Query().Where(apikey.HasUsage()).FirstIDX(t.Context())
	_, err = reg.Client().ExecContext(t.Context(), "DELETE FROM api_keys WHERE id = $1", used)
	require.ErrorContains(t, err, "constraint", "usage still points at it")
}
