package migrate_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
)

// TestBudgets migrates a lease and an event from before requests were for consumers, and has the database refuse
// budgets that make no sense. TestRequestFacts settles such a lease.
func TestBudgets(t *testing.T) {
	t.Parallel()
	eachOld(t, testBudgets)
}

func testBudgets(t *testing.T, db *sql.DB, d migrate.Dialect, _ string) {
	t.Helper()
	applyBefore(t, db, d, "add_budgets")
	const at = "'2026-11-01 10:00:00+00:00'"
	const id = "'01a1968d-3900-7000-8000-000000000001'" // of then
	if d == migrate.Postgres {
		run(t, db, "SELECT usage_events_make_partitions('{2026-11-01}')")
	}
	run(t, db,
		"INSERT INTO providers (id, name, display_name, base_url, auth_method, created_at, updated_at) VALUES ("+id+
			", 'p', 'p', 'https://p.example', 'bearer', "+at+", "+at+")",
		"INSERT INTO api_keys (id, provider_id, key_hash, key_prefix, last_reset, created_at, updated_at) VALUES ("+id+
			", "+id+", '0000000000000000000000000000000000000000000000000000000000000000', '', "+at+", "+at+", "+at+")",
		"INSERT INTO key_leases (id, api_key_id, acquired_at, expires_at) VALUES ("+id+", "+id+", "+at+
			", '9000-01-01 00:00:00+00:00')",
		"INSERT INTO models (id, provider_id, model_id, created_at, updated_at) VALUES ("+id+", "+id+", 'm', "+at+", "+
			at+")",
		"INSERT INTO prices (id, model_id, effective_from, recorded_at) VALUES ("+id+", "+id+", "+at+", "+at+")",
		"INSERT INTO usage_events (id, request_id, at, model_id, api_key_id, price_id, cost_status) VALUES ("+id+
			", 'r', "+at+", "+id+", "+id+", "+id+", 'unpriced')",
		"INSERT INTO consumers (id, path, name, created_at, updated_at) VALUES ("+id+
			", '01a1968d-3900-7000-8000-000000000001', 'c', "+at+", "+at+")",
	)
	_, err := migrate.Apply(t.Context(), db, d)
	require.NoError(t, err)
	var path string
	var consumer, accessKey sql.NullString
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT consumer_path, consumer_id FROM key_leases").
		Scan(&path, &consumer))
	require.Empty(t, path)
	require.False(t, consumer.Valid)
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT consumer_id, access_key_id FROM usage_events").
		Scan(&consumer, &accessKey))
	require.False(t, consumer.Valid || accessKey.Valid)

	budget := func(columns, values string) error {
		_, err := db.ExecContext(t.Context(), "INSERT INTO budgets (id, consumer_id, name, counts_from, created_at,"+
			" updated_at, "+columns+") VALUES ("+id+", "+id+", 'b', "+at+", "+at+", "+at+", "+values+")")
		return err
	}
	for what, wrong := range map[string][2]string{
		"budgets_a_ceiling": {"anchor_day", "1"},
		"budgets_ceilings":  {"anchor_day, cost, tokens", "1, -1, 1"},
		"budgets_window":    {"anchor_day, tokens", "32, 1"},
		"budgets_hour":      {"anchor_day, anchor_hour, tokens", "1, 24, 1"},
		"budgets_each":      {"anchor_day, each_kind, tokens", "1, 'user', 1"},
		"budgets_mode":      {"anchor_day, mode, tokens", "1, 'never', 1"},
	} {
		require.ErrorContains(t, budget(wrong[0], wrong[1]), what)
	}
	require.NoError(t, budget("anchor_day, tokens", "1, 1"))
}
