package migrate_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
)

// TestAttribution migrates consumers from before there were dimensions, and has the database refuse dimensions and
// values that make no sense.
func TestAttribution(t *testing.T) {
	t.Parallel()
	eachOld(t, testAttribution)
}

func testAttribution(t *testing.T, db *sql.DB, d migrate.Dialect, _ string) {
	t.Helper()
	applyBefore(t, db, d, "attribution")
	const at = "'2026-11-01 10:00:00+00:00'"
	const id, below = "01a1968d-3900-7000-8000-000000000001", "01a1968d-3900-7000-8000-000000000002"
	run(t, db,
		"INSERT INTO consumers (id, path, name, created_at, updated_at) VALUES ('"+id+"', '"+id+"', 'c', "+at+", "+
			at+")",
		"INSERT INTO consumers (id, parent_id, path, name, created_at, updated_at) VALUES ('"+below+"', '"+id+"', '"+
			id+"/"+below+"', 'below', "+at+", "+at+")")
	_, err := migrate.Apply(t.Context(), db, d)
	require.NoError(t, err)

	var name, kind string
	const dimension = "00000000-0000-7000-8000-000000000001"
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT name, kind FROM dimensions WHERE id = '"+dimension+"'").
		Scan(&name, &kind))
	require.Equal(t, []string{"consumer", "consumer"}, []string{name, kind})
	rows, err := db.QueryContext(t.Context(), "SELECT kind, name, CAST(id AS text) FROM dimension_values ORDER BY id")
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	var got [][3]string
	for rows.Next() {
		var v [3]string
		require.NoError(t, rows.Scan(&v[0], &v[1], &v[2]))
		got = append(got, v)
	}
	require.NoError(t, rows.Err())
	require.Equal(t, [][3]string{
		{"unassigned", "", "00000000-0000-7000-8000-000000000002"},
		{"other", "", "00000000-0000-7000-8000-000000000003"},
		{"value", id, id}, {"value", below, below},
	}, got)

	for what, statement := range map[string]string{
		"dimensions_values": "UPDATE dimensions SET max_values = 10001",
		"dimensions_times":  "UPDATE dimensions SET open_from = '2000-01-01 00:00:00+00:00'",
		"dimensions_kind":   "UPDATE dimensions SET kind = 'other'",
		"dimensions_name":   "UPDATE dimensions SET name = ''",
		"dimension_values_kind": "INSERT INTO dimension_values (id, dimension_id, kind, name, since) VALUES ('" +
			"01a1968d-3900-7000-8000-000000000003', '" + dimension + "', 'value', '', " + at + ")",
		"usage_by_value_counts": "INSERT INTO usage_by_value (id, model_id, value_id, price_id, period_start," +
			" period_end, error_count) VALUES ('" + id + "', '" + id + "', '" + id + "', '" + id + "', " + at +
			", '2026-11-02 00:00:00+00:00', 1)",
	} {
		_, err := db.ExecContext(t.Context(), statement)
		require.ErrorContains(t, err, what)
	}
}
