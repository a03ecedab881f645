package migrate_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// Digests of the first quarter and the first day of oldLedger: they hold for as long as the rows are kept.
const (
	oldQuarterDigest = -3653672264565467467
	oldDayDigest     = -509104579652250525
)

// TestQuarters migrates a ledger in which quarters of an hour and days are rows of the same tables.
func TestQuarters(t *testing.T) {
	t.Parallel()
	eachOld(t, testQuarters)
}

func testQuarters(t *testing.T, db *sql.DB, d migrate.Dialect, name string) {
	t.Helper()
	applyBefore(t, db, d, "usage_quarters")
	insertOldLedger(t, db)
	insertOldTotals(t, db, d)
	run(t, db,
		"INSERT INTO usage_horizons (part, complete_from) VALUES ('events', '2026-11-02 09:45:00+00:00')",
		"UPDATE api_keys SET extra_requests = 10, extra_tokens = 1000 WHERE id = '"+oldKey+"'",
		"UPDATE api_keys SET extra_requests = 3 WHERE id = '"+oldIdleKey+"'",
		fmt.Sprintf("UPDATE usage_tracking SET digest = %d, latency_histogram = NULL WHERE id ="+
			" '01910000-0000-7000-8000-000000000000'", oldQuarterDigest),
		fmt.Sprintf("UPDATE usage_tracking SET digest = %d WHERE id = '01910000-0000-7000-8000-000000000005'",
			oldDayDigest),
	)
	columns := func(of ...string) []string {
		return append(of, "CAST(id AS text)", "CAST(model_id AS text)", "CAST(period_start AS text)",
			"CAST(period_end AS text)",
			"request_count", "error_count", "unpriced_count", "input_tokens", "output_tokens", "total_cost",
			"latency_ms_sum", "average_latency_ms", "digest")
	}
	byKey := columns("CAST(api_key_id AS text)", "CAST(price_id AS text)")
	of := func(grain, table string) string {
		return "(SELECT * FROM " + table + " WHERE grain = '" + grain + "') AS t"
	}
	before := [][][]any{
		rowsOf(t, db, of("quarter", "usage_tracking"), byKey...), rowsOf(t, db, of("day", "usage_tracking"), byKey...),
		rowsOf(t, db, of("quarter", "usage_totals"), columns()...),
		rowsOf(t, db, of("day", "usage_totals"), columns()...),
	}
	_, err := migrate.Apply(t.Context(), db, d)
	require.NoError(t, err)
	require.Equal(t, before, [][][]any{
		rowsOf(t, db, "usage_quarters", byKey...), rowsOf(t, db, "usage_tracking", byKey...),
		rowsOf(t, db, "usage_total_quarters", columns()...), rowsOf(t, db, "usage_totals", columns()...),
	})
	require.Equal(t, []int{5, 4, 3, 2}, []int{len(before[0]), len(before[1]), len(before[2]), len(before[3])})
	require.NoError(t, db.Close())

	reg, err := registry.Open(t.Context(), name)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	horizon := time.Date(2026, 11, 2, 9, 45, 0, 0, time.UTC)
	require.Equal(t, registry.LedgerReport{
		Quarters: 5, Days: 4, Keys: 3, EventsFrom: horizon, QuartersFrom: time.Unix(0, 0).UTC(),
	}, verified(t, reg), "digests too")
	requireOldLedgerWorks(t, reg, horizon)
}

// insertOldTotals sums up oldLedger by model.
func insertOldTotals(tb testing.TB, db *sql.DB, d migrate.Dialect) {
	tb.Helper()
	least := map[migrate.Dialect]string{
		migrate.SQLite: "MIN(id)", migrate.Postgres: "CAST(MIN(CAST(id AS text)) AS uuid)",
	}[d]
	const sums = "request_count, error_count, unpriced_count, input_tokens, output_tokens, total_cost, latency_ms_sum"
	const group = "model_id, grain, period_start, period_end"
	run(tb, db,
		"INSERT INTO usage_totals (id, "+group+", "+sums+", average_latency_ms) SELECT "+least+", "+group+
			", SUM(request_count), SUM(error_count),"+
			" SUM(unpriced_count), SUM(input_tokens), SUM(output_tokens), SUM(total_cost), SUM(latency_ms_sum),"+
			" SUM(latency_ms_sum) / (1.0 * SUM(request_count)) FROM usage_tracking GROUP BY "+group)
}
