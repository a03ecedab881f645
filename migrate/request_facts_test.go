package migrate_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestRequestFacts migrates an event, a lease and a ledger with digests, from before requests said more of themselves
// than what they used.
func TestRequestFacts(t *testing.T) {
	t.Parallel()
	eachOld(t, testRequestFacts)
}

func testRequestFacts(t *testing.T, db *sql.DB, d migrate.Dialect, name string) {
	t.Helper()
	applyBefore(t, db, d, "usage_quarters") // the last one before which the old ledger fits
	insertOldLedger(t, db)
	insertOldTotals(t, db, d)
	run(t, db, "INSERT INTO usage_horizons (part, complete_from) VALUES ('events', '2026-11-02 09:45:00+00:00')",
		"UPDATE api_keys SET extra_requests = 10, extra_tokens = 1000 WHERE id = '"+oldKey+"'",
		"UPDATE api_keys SET extra_requests = 3 WHERE id = '"+oldIdleKey+"'",
		fmt.Sprintf("UPDATE usage_tracking SET digest = %d WHERE id = '01910000-0000-7000-8000-000000000000'",
			oldQuarterDigest),
		fmt.Sprintf("UPDATE usage_tracking SET digest = %d WHERE id = '01910000-0000-7000-8000-000000000005'",
			oldDayDigest))
	applyBefore(t, db, d, "request_facts")
	if d == migrate.Postgres {
		run(t, db, "SELECT usage_events_make_partitions('{2026-11-01}')")
	}
	// 2026-11-01 10:00 UTC
	const event, lease = "01a1968d-3900-7000-8000-000000000001", "01a1968d-3900-7000-8000-000000000002"
	insertEvent := func(id, request, columns, values string) error {
		_, err := db.ExecContext(t.Context(), fmt.Sprintf("INSERT INTO usage_events (id, request_id, at, model_id,"+
			" api_key_id, price_id, cost_status"+columns+") VALUES ('%s', '%s', '2026-11-01 10:00:00+00:00', '%s',"+
			" '%s', '%s'"+values+")", id, request, oldModel, oldKey, oldPrice))
		return err
	}
	require.NoError(t, insertEvent(event, "a", ", input_tokens, cost", ", 'priced', 7, 7000"))
	run(t, db, fmt.Sprintf("INSERT INTO key_leases (id, api_key_id, model_id, reserved_tokens, acquired_at,"+
		" expires_at) VALUES ('%s', '%s', '%s', 5, '2026-11-02 11:00:00+00:00', '9000-01-01 00:00:00+00:00')",
		lease, oldKey, oldModel))
	_, err := migrate.Apply(t.Context(), db, d)
	require.NoError(t, err)

	const other = "01a1968d-3900-7000-8000-000000000003"
	for what, c := range map[string][3]string{
		"unknown, with a cost": {"usage_status", ", cost, usage_status", ", 'priced', 0, 'unknown'"},
		"unknown, with tokens": {"usage_status", ", output_tokens, usage_status", ", 'unpriced', 1, 'unknown'"},
		"no such status":       {"usage_status", ", usage_status", ", 'unpriced', 'guessed'"},
		"time to first token":  {"ttft", ", ttft_ms", ", 'unpriced', -1"},
		"attempt":              {"attempt", ", attempt", ", 'unpriced', -1"},
		"provider cost":        {"provider_cost", ", provider_cost", ", 'unpriced', -1"},
		"source of nothing":    {"provider_cost", ", provider_cost_source", ", 'unpriced', 'x'"},
	} {
		require.ErrorContains(t, insertEvent(other, "b", c[1], c[2]), "usage_events_"+c[0], what)
	}
	require.NoError(t, insertEvent(other, "b", ", usage_status", ", 'unpriced', 'unknown'"))
	for wrong, check := range map[string]string{
		"usage_quarters SET unknown_count = unpriced_count + 1": "usage_quarters_said",
		"usage_tracking SET retry_count = request_count + 1":    "usage_tracking_said",
		"usage_totals SET provider_cost = -1":                   "usage_totals_said",
		"usage_total_quarters SET estimated_count = -1":         "usage_total_quarters_said",
		"key_leases SET reserved_output = reserved_tokens + 1":  "key_leases_output",
		"key_leases SET attempt = -1":                           "key_leases_attempt",
	} {
		_, err := db.ExecContext(t.Context(), "UPDATE "+wrong)
		require.ErrorContains(t, err, check, wrong)
	}
	require.NoError(t, db.Close())

	reg, err := registry.Open(t.Context(), name)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	e := reg.Client().UsageEvent.GetX(t.Context(), uuid.MustParse(event))
	require.Equal(t, ent.UsageEvent{InputTokens: 7, UsageStatus: "reported"}, ent.UsageEvent{
		InputTokens: e.InputTokens, UsageStatus: e.UsageStatus, TtftMs: e.TtftMs, AttemptGroup: e.AttemptGroup,
		Attempt: e.Attempt, ProviderCost: e.ProviderCost, ProviderCostSource: e.ProviderCostSource,
		Fingerprint: e.Fingerprint,
	})
	horizon := time.Date(2026, 11, 2, 9, 45, 0, 0, time.UTC)
	require.Equal(t, registry.LedgerReport{
		Quarters: 5, Days: 4, Keys: 3, EventsFrom: horizon, QuartersFrom: time.Unix(0, 0).UTC(),
	}, verified(t, reg), "digests too")
	requireOldLedgerWorks(t, reg, horizon)
	l, err := reg.GetLease(t.Context(), uuid.MustParse(lease))
	require.NoError(t, err)
	require.NoError(t, l.Settle(t.Context(), registry.UsageInput{Tokens: meter.Tokens{InputTokens: 1}}))
}
