package migrate_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestRates migrates prices whose rates were JSON.
func TestRates(t *testing.T) {
	t.Parallel()
	eachOld(t, testRates)
}

func testRates(t *testing.T, db *sql.DB, d migrate.Dialect, name string) {
	t.Helper()
	applyBefore(t, db, d, "usage_quarters") // the last one before which the old ledger fits
	insertOldLedger(t, db)
	id := func(n int) string { return fmt.Sprintf("01920000-0000-7000-8000-%012d", n) }
	for n, rates := range []string{
		`{"input":1000000000000000,"output":37500000000,"cache_read":0,"cache_write":9007199254740993,` +
			`"reasoning":8999999999999999999}`,
		`{"output":3}`, `{"reasoning":0}`,
	} {
		run(t, db, fmt.Sprintf("INSERT INTO prices (id, model_id, service_tier, min_context_tokens, rates,"+
			" effective_from, effective_to, source, recorded_at,"+
			" superseded_at) VALUES ('%s', '%s', 'batch', 7, '%s', '2026-11-01 00:00:00+00:00', '2026-11-02"+
			" 00:00:00+00:00', 'list',"+
			" '2026-11-03 00:00:00+00:00', '2026-11-04 00:00:00+00:00')", id(n), oldModel, rates))
	}
	all := func() [][]any {
		return rowsOf(t, db, "prices", "CAST(id AS text)", "CAST(model_id AS text)", "service_tier",
			"min_context_tokens", "CAST(effective_from AS text)",
			"CAST(effective_to AS text)", "source", "CAST(recorded_at AS text)", "CAST(superseded_at AS text)")
	}
	before := all()
	_, err := migrate.Apply(t.Context(), db, d)
	require.NoError(t, err)
	require.Equal(t, before, all())
	require.NoError(t, db.Close())

	reg, err := registry.Open(t.Context(), name)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	for of, want := range map[string]money.Rates{
		id(0): {"input": 1_000_000_000_000_000, "output": 37_500_000_000, "cache_read": 0,
			"cache_write": 9_007_199_254_740_993,
			"reasoning":   8_999_999_999_999_999_999},
		id(1): {"output": 3}, id(2): {"reasoning": 0}, oldPrice: {"input": money.Dollar, "output": 2 * money.Dollar},
		oldNextPrice: {},
	} {
		p := reg.Client().Price.Query().Where(price.ID(uuid.MustParse(of))).OnlyX(t.Context())
		require.Equal(t, want, registry.RatesOf(p), of)
	}
}
