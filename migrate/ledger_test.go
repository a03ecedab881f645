package migrate_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	atlas "ariga.io/atlas/sql/migrate"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// applyBefore applies the embedded files before the one of a name.
func applyBefore(tb testing.TB, db *sql.DB, d migrate.Dialect, name string) {
	tb.Helper()
	dir, err := migrate.Load(migrate.Files, string(d))
	require.NoError(tb, err)
	files, err := dir.Files()
	require.NoError(tb, err)
	before := map[string]string{}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), "_"+name+".sql") {
			local, err := atlas.NewLocalDir(folder(tb, before))
			require.NoError(tb, err)
			_, err = migrate.ApplyDir(tb.Context(), db, d, local)
			require.NoError(tb, err)
			return
		}
		before[f.Name()] = string(f.Bytes())
	}
	require.Fail(tb, "no such file", name)
}

// The rows of a database from before the ledger had events.
const (
	oldProvider  = "01900000-0000-7000-8000-000000000001"
	oldModel     = "01900000-0000-7000-8000-000000000002"
	oldKey       = "01900000-0000-7000-8000-000000000003"
	oldOtherKey  = "01900000-0000-7000-8000-000000000004"
	oldIdleKey   = "01900000-0000-7000-8000-000000000005"
	oldPrice     = "01900000-0000-7000-8000-000000000006" // a dollar per million tokens of input, two of output
	oldNextPrice = "01900000-0000-7000-8000-000000000007" // of nothing
)

// oldUsage is a row of usage_tracking, of input and output tokens.
type oldUsage struct {
	key, price, grain, start, end   string
	requests, failed, input, output int64
	cost                            any // nano-dollars; nil: not known
	latency                         int64
}

var oldLedger = []oldUsage{
	{
		key: oldKey, price: oldPrice, grain: "quarter", start: "2026-11-01 10:00", end: "2026-11-01 10:15", requests: 3,
		failed: 1, input: 100, output: 10, cost: 120_000, latency: 900,
	},
	{
		key: oldKey, price: oldPrice, grain: "quarter", start: "2026-11-01 23:45", end: "2026-11-02 00:00", requests: 1,
		input: 5, cost: 5000, latency: 100,
	},
	{
		key: oldOtherKey, price: oldPrice, grain: "quarter", start: "2026-11-01 10:00", end: "2026-11-01 10:15",
		requests: 2, input: 40, output: 4, cost: 48_000, latency: 60,
	},
	{
		key: oldOtherKey, price: oldNextPrice, grain: "quarter", start: "2026-11-02 09:30", end: "2026-11-02 09:45",
		requests: 2, failed: 2, input: 7, output: 7, latency: 50,
	},
	{
		key: oldKey, price: oldNextPrice, grain: "quarter", start: "2026-11-02 09:30", end: "2026-11-02 09:45",
		requests: 1, input: 1, output: 1,
	},
	{
		key: oldKey, price: oldPrice, grain: "day", start: "2026-11-01 00:00", end: "2026-11-02 00:00", requests: 4,
		failed: 1, input: 105, output: 10, cost: 125_000, latency: 1000,
	},
	{
		key: oldOtherKey, price: oldPrice, grain: "day", start: "2026-11-01 00:00", end: "2026-11-02 00:00",
		requests: 2, input: 40, output: 4, cost: 48_000, latency: 60,
	},
	{
		key: oldOtherKey, price: oldNextPrice, grain: "day", start: "2026-11-02 00:00", end: "2026-11-03 00:00",
		requests: 2, failed: 2, input: 7, output: 7, latency: 50,
	},
	{
		key: oldKey, price: oldNextPrice, grain: "day", start: "2026-11-02 00:00", end: "2026-11-03 00:00", requests: 1,
		input: 1, output: 1,
	},
}

// insertOldLedger inserts rows with plain SQL, which both engines take. A key counts what is in the ledger and what
// IncrementUsage has counted.
func insertOldLedger(tb testing.TB, db *sql.DB) {
	tb.Helper()
	const now = "2026-11-02 12:00:00+00:00"
	run(tb, db,
		fmt.Sprintf("INSERT INTO providers (id, created_at, updated_at, name) VALUES ('%s', '%s', '%[2]s', 'openai')",
			oldProvider, now),
		fmt.Sprintf("INSERT INTO models (id, created_at, updated_at, provider_id, model_id) VALUES ('%s', '%s',"+
			" '%[2]s', '%s', 'm')",
			oldModel, now, oldProvider),
	)
	rates, both, none := "rates", `'{"input":1000000000,"output":2000000000}'`, "'{}'"
	if !slices.Contains(columnNames(tb, db, "prices"), rates) {
		rates, both, none = "cost_per_1m_input, cost_per_1m_output", "1000000000, 2000000000", "NULL, NULL"
	}
	run(tb, db, fmt.Sprintf("INSERT INTO prices (id, model_id, effective_from, effective_to, recorded_at, "+rates+
		") VALUES"+
		" ('%s', '%s', '1970-01-01 00:00:00+00:00', '2026-11-02 00:00:00+00:00', '%s', "+both+"),"+
		" ('%s', '%[2]s', '2026-11-02 00:00:00+00:00', NULL, '%[3]s', "+none+
		")", oldPrice, oldModel, now, oldNextPrice))
	for _, k := range []struct {
		id               string
		requests, tokens int64
	}{{oldKey, 5 + 10, 117 + 1000}, {oldOtherKey, 4, 58}, {oldIdleKey, 3, 0}} {
		run(tb, db, fmt.Sprintf("INSERT INTO api_keys (id, created_at, updated_at, provider_id, key_hash, key_prefix,"+
			" usage_count, token_count, last_reset)"+
			" VALUES ('%s', '%s', '%[2]s', '%s', '%064s', '', %d, %d, '%[2]s')", k.id, now, oldProvider, k.id,
			k.requests, k.tokens))
	}
	for i, u := range oldLedger {
		unpriced, cost := int64(0), fmt.Sprint(u.cost)
		if u.cost == nil {
			unpriced, cost = u.requests, "NULL"
		}
		run(tb, db, fmt.Sprintf("INSERT INTO usage_tracking (id, model_id, api_key_id, price_id, grain, period_start,"+
			" period_end, request_count,"+
			" error_count, unpriced_count, input_tokens, output_tokens, total_cost, latency_ms_sum,"+
			" average_latency_ms)"+
			" VALUES ('01910000-0000-7000-8000-%012d', '%s', '%s', '%s', '%s', '%s:00+00:00', '%s:00+00:00', %d, %d,"+
			" %d, %d, %d, %s, %d, %d / (1.0 * %d))",
			i, oldModel, u.key, u.price, u.grain, u.start, u.end, u.requests, u.failed, unpriced, u.input, u.output,
			cost,
			u.latency, u.latency, u.requests))
	}
}

// TestLedger migrates a ledger from before there were events, sums by model, digests and histograms.
func TestLedger(t *testing.T) {
	t.Parallel()
	eachOld(t, testLedger)
}

func testLedger(t *testing.T, db *sql.DB, d migrate.Dialect, name string) {
	t.Helper()
	applyBefore(t, db, d, "ledger")
	insertOldLedger(t, db)
	require.NoError(t, db.Close())
	reg, err := registry.Open(t.Context(), name)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	ctx, c := t.Context(), reg.Client()

	type row struct {
		grain                             string
		start, end                        string
		requests, errors, unpriced, input int64
		output, cost, latency             int64 // a cost of -1 is not known
		average                           float64
	}
	var totals []row
	add := func(grain string, u *ent.UsageTotal) {
		require.Equal(t, oldModel, u.ModelID.String())
		require.Nil(t, u.LatencyHistogram)
		require.Nil(t, u.Digest)
		cost := int64(-1)
		if u.TotalCost != nil {
			cost = int64(*u.TotalCost)
		}
		const minute = "2006-01-02 15:04"
		totals = append(totals, row{
			grain, u.PeriodStart.UTC().Format(minute), u.PeriodEnd.UTC().Format(minute), u.RequestCount, u.ErrorCount,
			u.UnpricedCount, u.InputTokens, u.OutputTokens, cost, u.LatencyMsSum, u.AverageLatencyMs,
		})
	}
	for _, u := range c.UsageTotal.Query().Order(ent.Asc("period_start")).AllX(ctx) {
		add("day", u)
	}
	var quarters []*ent.UsageTotal // the columns are the same
	text, err := json.Marshal(c.UsageTotalQuarter.Query().Order(ent.Asc("period_start")).AllX(ctx))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &quarters))
	for _, u := range quarters {
		add("quarter", u)
	}
	require.Equal(t, []row{
		{
			grain: "day", start: "2026-11-01 00:00", end: "2026-11-02 00:00", requests: 6, errors: 1, input: 145,
			output: 14, cost: 173_000, latency: 1060, average: 1060.0 / 6,
		},
		{
			grain: "day", start: "2026-11-02 00:00", end: "2026-11-03 00:00", requests: 3, errors: 2, unpriced: 3,
			input: 8, output: 8, cost: -1, latency: 50, average: 50.0 / 3,
		},
		{
			grain: "quarter", start: "2026-11-01 10:00", end: "2026-11-01 10:15", requests: 5, errors: 1, input: 140,
			output: 14, cost: 168_000, latency: 960, average: 960.0 / 5,
		},
		{
			grain: "quarter", start: "2026-11-01 23:45", end: "2026-11-02 00:00", requests: 1, input: 5, cost: 5000,
			latency: 100, average: 100,
		},
		{
			grain: "quarter", start: "2026-11-02 09:30", end: "2026-11-02 09:45", requests: 3, errors: 2, unpriced: 3,
			input: 8, output: 8, cost: -1, latency: 50, average: 50.0 / 3,
		},
	}, totals)
	for id, extra := range map[string][2]int64{oldKey: {10, 1000}, oldOtherKey: {0, 0}, oldIdleKey: {3, 0}} {
		k := c.APIKey.GetX(ctx, uuid.MustParse(id))
		require.Equal(t, extra, [2]int64{k.ExtraRequests, k.ExtraTokens})
	}
	horizon := time.Date(2026, 11, 2, 9, 45, 0, 0, time.UTC)
	require.Equal(t, registry.LedgerReport{
		Quarters: 5, Days: 4, Keys: 3, EventsFrom: horizon, QuartersFrom: time.Unix(0, 0).UTC(),
	}, verified(t, reg))
	requireOldLedgerWorks(t, reg, horizon)
}

func verified(t *testing.T, reg *registry.Registry) registry.LedgerReport {
	t.Helper()
	report, err := reg.VerifyLedger(t.Context())
	require.NoError(t, err)
	return report
}

// requireOldLedgerWorks records before and after the horizon, also into rows that are there, and damages one.
func requireOldLedgerWorks(t *testing.T, reg *registry.Registry, horizon time.Time) {
	t.Helper()
	for _, at := range []time.Time{horizon.Add(-time.Minute), horizon, horizon.Add(-24 * time.Hour)} {
		require.NoError(t, reg.RecordUsage(t.Context(), registry.UsageInput{
			ModelID: uuid.MustParse(oldModel), APIKeyID: uuid.MustParse(oldKey), At: at,
			Latency: time.Second, Tokens: meter.Tokens{InputTokens: 3},
		}))
	}
	report := verified(t, reg)
	require.Empty(t, report.Differences)
	require.EqualValues(t, 1, report.Events, "those before the horizon do not count")
	repaired, err := reg.RepairLedger(t.Context())
	require.NoError(t, err)
	require.Zero(t, repaired)

	// Without a digest, a row and the sums of it contradict each other, and nobody can tell which of them is right.
	result, err := reg.Client().ExecContext(t.Context(), "UPDATE usage_quarters SET input_tokens = input_tokens + 1"+
		" WHERE api_key_id = $1 AND price_id = $2", oldOtherKey, oldPrice)
	require.NoError(t, err)
	damaged, err := result.RowsAffected()
	require.NoError(t, err)
	require.EqualValues(t, 1, damaged)
	report = verified(t, reg)
	require.NotEmpty(t, report.Differences)
	repaired, err = reg.RepairLedger(t.Context())
	require.NoError(t, err)
	require.Equal(t, registry.RepairResult{Unrepaired: report.Differences}, repaired)
}

// eachOld runs a test on an empty database of either kind, of that name.
func eachOld(t *testing.T, test func(t *testing.T, db *sql.DB, d migrate.Dialect, name string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "registry.db")
		db, err := sql.Open("sqlite3", dsnIn(path, "wal"))
		require.NoError(t, err)
		test(t, db, migrate.SQLite, path)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		url, db := emptyPostgres(t)
		test(t, db, migrate.Postgres, url)
	})
}

// columnNames returns the names of a table's columns.
func columnNames(tb testing.TB, db *sql.DB, table string) []string {
	tb.Helper()
	rows, err := db.QueryContext(tb.Context(), "SELECT * FROM "+table+" WHERE 1 = 0")
	require.NoError(tb, err)
	defer func() { require.NoError(tb, rows.Close()) }()
	columns, err := rows.Columns()
	require.NoError(tb, err)
	require.NoError(tb, rows.Err())
	return columns
}

// rowsOf returns some columns of all rows of a table.
func rowsOf(tb testing.TB, db *sql.DB, table string, columns ...string) (all [][]any) {
	tb.Helper()
	rows, err := db.QueryContext(tb.Context(), "SELECT "+strings.Join(columns, ", ")+" FROM "+table+" ORDER BY id")
	require.NoError(tb, err)
	defer func() { require.NoError(tb, rows.Close()) }()
	for rows.Next() {
		row, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range row {
			into[i] = &row[i]
		}
		require.NoError(tb, rows.Scan(into...))
		all = append(all, row)
	}
	require.NoError(tb, rows.Err())
	return all
}
