package migrate_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
)

// TestConsumerDays migrates usage by value of a consumer and of a tag, at two prices, with amounts that are more than
// an integer when they are added up.
func TestConsumerDays(t *testing.T) {
	t.Parallel()
	eachOld(t, testConsumerDays)
}

func testConsumerDays(t *testing.T, db *sql.DB, d migrate.Dialect, _ string) {
	t.Helper()
	applyBefore(t, db, d, "add_consumer_days")
	const at = "'2026-11-01 10:00:00+00:00'"
	id := func(n int) string { return fmt.Sprintf("'01a1968d-3900-7000-8000-%012d'", n) }
	const dollar, most = 1_000_000_000, 9_000_000_000_000_000_000
	run(t, db,
		"INSERT INTO providers (id, name, display_name, base_url, auth_method, created_at, updated_at) VALUES ("+id(1)+
			", 'p', 'p', 'https://p.example', 'bearer', "+at+", "+at+")",
		"INSERT INTO models (id, provider_id, model_id, created_at, updated_at) VALUES ("+id(1)+", "+id(1)+", 'm', "+
			at+", "+at+")",
		"INSERT INTO dimensions (id, created_at, updated_at, name, kind, max_values, since, open_from) VALUES ("+id(1)+
			", "+at+", "+at+", 'feature', 'single', 10, "+at+", "+at+"), ("+id(2)+", "+at+", "+at+
			", 'consumer', 'consumer', 10, "+at+", "+at+")",
		"INSERT INTO dimension_values (id, dimension_id, name, since) VALUES ("+id(1)+", "+id(1)+", 'chat', "+at+")")
	for n := 2; n < 5; n++ {
		run(t, db,
			"INSERT INTO prices (id, model_id, effective_from, recorded_at) VALUES ("+id(n)+", "+id(1)+
				", '2026-11-0"+fmt.Sprint(n)+" 10:00:00+00:00', "+at+")",
			"INSERT INTO consumers (id, path, name, created_at, updated_at) VALUES ("+id(n)+", "+id(n)+", 'c"+
				fmt.Sprint(n)+"', "+at+", "+at+")",
			"INSERT INTO dimension_values (id, dimension_id, name, since) VALUES ("+id(n)+", "+id(2)+", "+id(n)+", "+at+
				")")
	}
	usage := func(row, value, price, day int, requests, unpriced, input, output int64, cost any) {
		run(t, db, fmt.Sprintf("INSERT INTO usage_by_value (id, model_id, value_id, price_id, period_start,"+
			" period_end, request_count, unpriced_count, input_tokens, output_tokens, total_cost)"+
			" VALUES (%s, %s, %s, %s, '2026-11-%02d 00:00:00+00:00', '2026-11-%02d 00:00:00+00:00',"+
			" %d, %d, %d, %d, %v)",
			id(row), id(1), id(value), id(price), day, day+1, requests, unpriced, input, output, cost))
	}
	usage(1, 1, 2, 4, 1, 0, 5, 5, dollar) // a tag
	usage(2, 2, 2, 4, 3, 1, 1<<33+7, 11, 2*dollar)
	usage(3, 2, 3, 4, 2, 2, 1, 0, "NULL")
	usage(4, 2, 2, 5, 1, 0, 1, 1, 1)
	usage(5, 3, 2, 4, 1, 0, most, most, int64(most))
	usage(6, 3, 3, 4, 1, 0, most, most, int64(most))
	_, err := migrate.Apply(t.Context(), db, d)
	require.NoError(t, err)

	rows, err := db.QueryContext(t.Context(), "SELECT c.name, substr(CAST(d.day AS text), 9, 2), d.requests, d.tokens,"+
		" d.cost, d.unpriced_requests FROM consumer_days AS d JOIN consumers AS c ON c.id = d.consumer_id"+
		" ORDER BY 1, 2")
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	var got []string
	for rows.Next() {
		var name, day string
		var n [4]int64
		require.NoError(t, rows.Scan(&name, &day, &n[0], &n[1], &n[2], &n[3]))
		got = append(got, fmt.Sprint(name, " ", day, " ", n))
	}
	require.NoError(t, rows.Err())
	require.Equal(t, []string{
		fmt.Sprint("c2 04 ", [4]int64{5, 1<<33 + 19, 2 * dollar, 3}),
		fmt.Sprint("c2 05 ", [4]int64{1, 2, 1, 0}),
		fmt.Sprint("c3 04 ", [4]int64{2, most, most, 0}),
	}, got)
}
