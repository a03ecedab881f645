package migrate_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
)

// TestAuditAutomatic migrates entries of people and of the key pool, which only the latter's words tell apart.
func TestAuditAutomatic(t *testing.T) {
	t.Parallel()
	eachOld(t, testAuditAutomatic)
}

func testAuditAutomatic(t *testing.T, db *sql.DB, d migrate.Dialect, _ string) {
	t.Helper()
	applyBefore(t, db, d, "audit_automatic")
	const row = `{"id":"1","degraded":true}`
	for i, e := range []struct{ action, entity, before, after string }{
		{"create", "api_key", "NULL", "'" + row + "'"},
		{"degrade", "api_key", "'" + row + "'", "'" + row + "'"},
		{"restore", "api_key", "'" + row + "'", "'" + row + "'"},
		{"update", "setting", `'{"degraded":1}'`, `'{"degraded":2}'`},
		{"restore", "provider", "'" + row + "'", "'" + row + "'"},
		{"delete", "api_key", `'{"id":"1"}'`, "NULL"},
		{"degrade", "api_key", `'{"degraded":false}'`, `'{"degraded":true,"degraded_by":"auth"}'`},
		{"restore", "api_key", `'{"degraded":true}'`, `'{"degraded":false,"why":"x"}'`},
		{"probe", "api_key", `'{"degraded":true}'`, `'{"degraded":true,"lease":"x"}'`},
		{"cool_down", "provider", `'{}'`, `'{"cooling_until":"x"}'`},
	} {
		run(t, db, fmt.Sprintf("INSERT INTO audit_log (id, at, action, entity, before, after) VALUES"+
			" ('01900000-0000-7000-8000-0000000000%02d', '2026-07-01 00:00:00+00:00', '%s', '%s', %s, %s)", i, e.action,
			e.entity, e.before, e.after))
	}
	_, err := migrate.Apply(t.Context(), db, d)
	require.NoError(t, err)
	require.Equal(t, []bool{false, false, false, false, false, false, true, true, true, true},
		column[bool](t, db, "SELECT automatic FROM audit_log ORDER BY id"))
	require.NoError(t, db.Close())
}
