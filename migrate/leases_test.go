package migrate_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestLeases migrates providers and keys, one of them sealed and one degraded, from before keys could be leased. SQLite
// makes both tables anew.
func TestLeases(t *testing.T) {
	t.Parallel()
	eachOld(t, testLeases)
}

func testLeases(t *testing.T, db *sql.DB, d migrate.Dialect, name string) {
	t.Helper()
	applyBefore(t, db, d, "leases")
	insertOldLedger(t, db)
	run(t, db, "INSERT INTO data_keys (id, wrapped_by, wrapped, created_at) VALUES"+
		" ('01900000-0000-7000-8000-0000000000d1', 'a', '12345678', '2026-07-01 00:00:00+00:00')",
		"UPDATE providers SET display_name = 'X', description = 'y', base_url = 'https://x.example', auth_method ="+
			" 'header'",
		"UPDATE api_keys SET sealed = '1234', data_key_id = '01900000-0000-7000-8000-0000000000d1', expires_at ="+
			" created_at, requests_today = 5, tokens_today = 50,"+
			" label = 'x', degraded = true, degraded_until = '2026-07-01 00:00:00+00:00', degraded_reason = '429',"+
			" last_used_at = created_at WHERE id = '"+oldOtherKey+"'")
	all := func() [][]any {
		return append(rowsOf(t, db, "providers", "CAST(id AS text)", "name", "display_name", "base_url", "auth_method",
			"description", "CAST(created_at AS text)",
			"CAST(updated_at AS text)", "CAST(deleted_at AS text)"),
			rowsOf(t, db, "api_keys", "CAST(id AS text)", "CAST(created_at AS text)", "CAST(updated_at AS text)",
				"CAST(deleted_at AS text)",
				"CAST(provider_id AS text)", "key_hash", "key_prefix", "label", "usage_count", "token_count",
				"extra_requests", "extra_tokens", "requests_today",
				"tokens_today", "CAST(last_reset AS text)", "disabled", "degraded", "CAST(degraded_until AS text)",
				"degraded_reason", "CAST(last_used_at AS text)",
				"CAST(expires_at AS text)", "CAST(sealed AS text)", "CAST(data_key_id AS text)")...)
	}
	before := all()
	_, err := migrate.Apply(t.Context(), db, d)
	require.NoError(t, err)
	require.Equal(t, before, all())
	require.NoError(t, db.Close())

	reg, err := registry.Open(t.Context(), name)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	key, err := reg.Client().APIKey.Query().Where(apikey.DeletedAtIsNil(), apikey.ExpiresAtIsNil()).First(t.Context())
	require.NoError(t, err)
	require.Equal(t, []any{1, 0, registry.Limits{}},
		[]any{key.Weight, key.Priority, registry.Limits{RequestsPerMinute: key.RequestsPerMinute}})
	lease, err := reg.AcquireKey(t.Context(), registry.AcquireInput{ProviderID: key.ProviderID, TTL: time.Minute})
	require.NoError(t, err)
	require.NoError(t, lease.Release(t.Context()))
}
