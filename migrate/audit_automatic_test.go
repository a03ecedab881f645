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
		{action: "create", entity: "api_key", before: "NULL", after: "'" + row + "'"},
		{action: "degrade", entity: "api_key", before: "'" + row + "'", after: "'" + row + "'"},
		{action: "restore", entity: "api_key", before: "'" + row + "'", after: "'" + row + "'"},
		{action: "update", entity: "setting", before: `'{"degraded":1}'`, after: `'{"degraded":2}'`},
		{action: "restore", entity: "provider", before: "'" + row + "'", after: "'" + row + "'"},
		{action: "delete", entity: "api_key", before: `'{"id":"1"}'`, after: "NULL"},
		{
			action: "degrade", entity: "api_key", before: `'{"degraded":false}'`,
			after: `'{"degraded":true,"degraded_by":"auth"}'`,
		},
		{action: "restore", entity: "api_key", before: `'{"degraded":true}'`, after: `'{"degraded":false,"why":"x"}'`},
		{action: "probe", entity: "api_key", before: `'{"degraded":true}'`, after: `'{"degraded":true,"lease":"x"}'`},
		{action: "cool_down", entity: "provider", before: `'{}'`, after: `'{"cooling_until":"x"}'`},
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
