package registry_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// damage is something that went wrong in the ledger.
type damage struct {
	name  string
	do    func(*testing.T, *books)
	kind  registry.DifferenceKind // of one of the differences that it makes
	table string
	field string
}

func (x damage) in(found []registry.Difference) bool {
	for _, d := range found {
		if d.Kind == x.kind && d.Table == x.table && d.Field == x.field {
			return true
		}
	}
	return false
}

// busiest selects the row of a table with the most requests among those with a cost.
func busiest(table string) string {
	return fmt.Sprintf("(SELECT id FROM %s WHERE total_cost > 0 AND error_count < request_count AND"+
		" unpriced_count < request_count ORDER BY request_count DESC, id LIMIT 1)", table)
}

// periodDamages are all kinds of damage to the rows of a table.
func periodDamages(table string) (all []damage) {
	name := table + " "
	update := func(what string, args ...any) func(*testing.T, *books) {
		return func(t *testing.T, b *books) {
			t.Helper()
			b.exec(t, "UPDATE "+table+" SET "+what+" WHERE id = "+busiest(table), args...)
		}
	}
	for _, column := range []string{
		"request_count", "error_count", "unpriced_count", "input_tokens", "output_tokens", "cache_read_tokens",
		"cache_write_tokens", "reasoning_tokens", "total_cost", "latency_ms_sum", "average_latency_ms",
	} {
		all = append(
			all,
			damage{name + column, update(column + " = " + column + " + 1"), registry.DifferenceWrongSum, table, column},
		)
	}
	at := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	all = append(all,
		damage{name + "cost NULL", update("total_cost = NULL"), registry.DifferenceWrongSum, table, "total_cost"},
		damage{
			name + "histogram", update("latency_histogram = $1", []byte{1, 1}), registry.DifferenceWrongSum, table,
			"latency_histogram",
		},
		damage{
			name + "histogram NULL", update("latency_histogram = NULL"), registry.DifferenceWrongSum, table,
			"latency_histogram",
		},
		damage{
			name + "histogram unreadable", update("latency_histogram = $1", []byte{0xff}),
			registry.DifferenceUnreadableRow, table, "",
		},
		damage{name + "digest", update("digest = digest - 1"), registry.DifferenceWrongDigest, table, "digest"},
		damage{name + "digest NULL", update("digest = NULL"), registry.DifferenceWrongDigest, table, "digest"},
		damage{
			name + "digest and histogram NULL", update("digest = NULL, latency_histogram = NULL"),
			registry.DifferenceWrongDigest, table, "digest",
		},
		damage{
			name + "period_end", update("period_end = $1", at.AddDate(1, 0, 0)), registry.DifferenceWrongSum, table,
			"period_end",
		},
		damage{name + "moved in time", update("period_start = $1", at), registry.DifferenceSurplusRow, table, ""},
		damage{
			name + "moved from its time", update("period_start = $1", at.Add(time.Microsecond)),
			registry.DifferenceMissingRow, table, "",
		},
		damage{name + "missing", func(t *testing.T, b *books) {
			t.Helper()
			b.exec(t, "DELETE FROM "+table+" WHERE id = "+busiest(table))
		}, registry.DifferenceMissingRow, table, ""},
		damage{name + "all missing", func(t *testing.T, b *books) {
			t.Helper()
			_, err := b.Client().ExecContext(t.Context(), "DELETE FROM "+table)
			require.NoError(t, err)
		}, registry.DifferenceMissingRow, table, ""},
		damage{name + "surplus", func(t *testing.T, b *books) {
			t.Helper()
			columns := "period_end, request_count, digest"
			others := ", model_id"
			if !strings.Contains(table, "total") {
				others += ", api_key_id, price_id"
			}
			b.exec(t, "INSERT INTO "+table+" (id, period_start, "+columns+others+") SELECT $1, $2, "+columns+others+
				" FROM "+table+" WHERE id = "+busiest(table), "01980000-0000-7000-8000-000000000001", at)
		}, registry.DifferenceSurplusRow, table, ""},
	)
	if strings.Contains(table, "total") {
		return all
	}
	return append(all,
		damage{name + "of another key", func(t *testing.T, b *books) {
			t.Helper()
			update("api_key_id = $1", b.keys[0].ID)(t, b) // the busiest is keys[3]
		}, registry.DifferenceSurplusRow, table, ""},
		damage{name + "of another price", func(t *testing.T, b *books) {
			t.Helper()
			update(
				"price_id = (SELECT id FROM prices WHERE model_id = $1 AND service_tier = 'unused')", b.models[4].ID,
			)(t, b)
		}, registry.DifferenceSurplusRow, table, ""},
		damage{name + "of another model", func(t *testing.T, b *books) {
			t.Helper()
			update("model_id = $1", b.models[0].ID)(t, b)
		}, registry.DifferenceMissingRow, table, ""},
	)
}

// periodTables are the tables of periods, in the order of their rows by grain.
var periodTables = []string{"usage_tracking", "usage_quarters", "usage_totals", "usage_total_quarters"}

// allDamages are those that are mended as long as there are events.
func allDamages() (all []damage) {
	for _, table := range periodTables {
		all = append(all, periodDamages(table)...)
	}
	for _, column := range []string{"usage_count", "token_count"} {
		for _, sign := range []string{"+", "-"} {
			all = append(all, damage{"key " + column + sign, func(t *testing.T, b *books) {
				t.Helper()
				b.exec(t, fmt.Sprintf("UPDATE api_keys SET %s = %[1]s %s 1 WHERE id = $1", column, sign), b.keys[1].ID)
			}, registry.DifferenceWrongKeyCounter, "api_keys", column})
		}
	}
	return all
}

// TestRepairLedger plants each kind of damage: it is found, and mended, so that all is as it was before. A
// run takes a part of the kinds, by chance.
func TestRepairLedger(t *testing.T) { eachEngine(t, testRepairLedger) }

func testRepairLedger(t *testing.T, e engine) {
	t.Parallel()
	b := newBooks(t, e)
	b.Registry = b.As("auditor")
	before := b.rows(t)
	all := allDamages()
	rand.Shuffle(len(all)-1, func(i, j int) { all[i], all[j] = all[j], all[i] })
	all = all[len(all)-sample.Of(len(all)):] // the last one, of a key, stays there
	t.Logf("%d of the damages", len(all))
	for _, x := range all {
		x.do(t, b)
		found := b.verify(t)
		require.True(t, x.in(found), "%s: %+v", x.name, found)
		repaired, err := b.RepairLedger(t.Context())
		require.NoError(t, err, x.name)
		require.Empty(t, repaired.Unrepaired, x.name)
		require.Positive(t, repaired.Quarters+repaired.Days+repaired.Totals+repaired.Keys, x.name)
		require.Equal(t, before, b.rows(t), x.name)
	}
	require.Empty(t, b.verify(t))
	entries, err := b.ListAudit(
		t.Context(), registry.AuditFilter{Action: registry.ActionRepair, Entity: registry.EntityLedger, Limit: 1000},
	)
	require.NoError(t, err)
	require.Len(t, entries, len(all))
	require.Equal(t, "auditor", entries[0].Actor)
	require.JSONEq(t, `{
		"quarters": 0, "days": 0, "totals": 0, "values": 0, "keys": 1, "counters": 0, "paths": 0
	}`, string(entries[0].After))

	repaired, err := b.RepairLedger(t.Context())
	require.NoError(t, err)
	require.Zero(t, repaired)
	_, err = b.As("a\x00b").RepairLedger(t.Context())
	require.ErrorIs(t, err, registry.ErrInvalidData)
}

// closed prunes all that is before today, which leaves one day, the first, to be damaged.
func (b *books) closed(t *testing.T) (today time.Time) {
	t.Helper()
	today = b.clock.Now().Truncate(24 * time.Hour)
	b.prune(t, "events", today)
	b.prune(t, "quarters", today)
	return today
}

// TestRepairLedgerClosed damages days without events and quarters, which integrity checks of the database pass over.
// Only the digests tell. A total is mended from its rows; what a row was, nobody knows.
func TestRepairLedgerClosed(t *testing.T) { eachEngine(t, testRepairLedgerClosed) }

func testRepairLedgerClosed(t *testing.T, e engine) {
	t.Parallel()
	b := newBooks(t, e)
	b.closed(t)
	require.Empty(t, b.verify(t))
	before := b.rows(t)
	const old = " WHERE id = (SELECT id FROM %s WHERE total_cost > 0 AND model_id = $1 ORDER BY period_start," +
		" id LIMIT 1)"
	update := func(table, what string) {
		b.exec(t, "UPDATE "+table+" SET "+what+fmt.Sprintf(old, table), b.models[0].ID)
	}
	undone := errors.New("undone")
	all := b.Registry
	for _, table := range []string{"usage_tracking", "usage_totals"} {
		for _, what := range []string{
			"total_cost = total_cost + 1", "request_count = request_count + 1", "input_tokens = 0",
			"latency_histogram = NULL",
			"latency_histogram = (SELECT latency_histogram FROM" +
				" usage_total_quarters LIMIT 1)", "average_latency_ms = 0",
		} {
			require.ErrorIs(t, all.InTx(t.Context(), func(tx *registry.Registry) error {
				b.Registry = tx
				update(table, what)
				if e.name == onSQLite.name {
					require.NoError(t, faultIntegrity(t.Context(), tx))
				}
				x := damage{kind: registry.DifferenceWrongDigest, table: table, field: "digest"}
				if what == "average_latency_ms = 0" {
					x = damage{kind: registry.DifferenceWrongSum, table: table, field: "average_latency_ms"}
				}
				found := b.verify(t)
				require.True(t, x.in(found), what)
				repaired, err := b.RepairLedger(t.Context())
				require.NoError(t, err)
				// the average follows from other columns
				if table == "usage_totals" || x.kind == registry.DifferenceWrongSum {
					require.Empty(t, repaired.Unrepaired, "%s %s", table, what)
					require.Equal(t, before, b.rows(t), what)
				} else {
					require.Equal(t, found, repaired.Unrepaired, "%s %s", table, what)
				}
				return undone
			}), undone)
			b.Registry = all
		}
	}
	unrepaired := func(differences ...damage) {
		damaged, found := b.rows(t), b.verify(t)
		for _, x := range differences {
			require.True(t, x.in(found), "%+v not in %+v", x, found)
		}
		repaired, err := b.RepairLedger(t.Context())
		require.NoError(t, err)
		require.Len(t, repaired.Unrepaired, len(differences))
		require.Equal(t, found, repaired.Unrepaired)
		require.Equal(t, damaged, b.rows(t))
	}
	digest := damage{kind: registry.DifferenceWrongDigest, table: "usage_tracking", field: "digest"}
	// Of the digest itself nobody can tell.
	update("usage_tracking", "digest = digest + 1")
	unrepaired(digest)
	update("usage_tracking", "digest = digest - 1")
	// A row and the total with it: nor can anybody of the counters of the key.
	update("usage_tracking", "input_tokens = input_tokens + 1")
	update("usage_totals", "digest = digest + 1, total_cost = total_cost - 1")
	unrepaired(digest, damage{kind: registry.DifferenceWrongDigest, table: "usage_totals", field: "digest"},
		damage{kind: registry.DifferenceWrongCost, table: "usage_tracking", field: "total_cost"},
		damage{kind: registry.DifferenceWrongKeyCounter, table: "api_keys", field: "token_count"})
	update("usage_totals", "digest = digest - 1, total_cost = total_cost + 1")
	update("usage_tracking", "input_tokens = input_tokens - 1")
	require.Equal(t, before, b.rows(t))
	// A row that is gone is in the total, and is not taken out of it, nor out of the counters of its key.
	b.exec(t, "DELETE FROM usage_tracking"+fmt.Sprintf(old, "usage_tracking"), b.models[0].ID)
	damaged := b.rows(t)
	repaired, err := b.RepairLedger(t.Context())
	require.NoError(t, err)
	require.Equal(t, b.verify(t), repaired.Unrepaired)
	require.Equal(t, damaged, b.rows(t))
	for _, x := range []damage{
		{kind: registry.DifferenceWrongSum, table: "usage_totals", field: "request_count"},
		{kind: registry.DifferenceWrongKeyCounter, table: "api_keys", field: "usage_count"},
	} {
		require.True(t, x.in(repaired.Unrepaired))
	}
}
