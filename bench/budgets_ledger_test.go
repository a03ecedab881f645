package bench_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/registry"
)

const (
	spentModels = yearProviders * yearModels
	spentRoutes = spentModels * yearKeys
	spentTail   = 5000    // the last requests are not folded
	spentPart   = 500_000 // requests that one statement inserts
)

// spentLedger is a ledger of requests from the beginning of a month until now, for 1,000 consumers below one
// organisation.
type spentLedger struct {
	database
	begin time.Time
	month registry.Window // begins then
}

// newSpentLedger makes one, or finds the one of an earlier run. SQL writes it: events, sums of days by key, by value
// and by consumer, and sums of quarters by value for the two days at each end: a budget reads no others.
func newSpentLedger(b *testing.B, engine string) spentLedger {
	b.Helper()
	end := utc.StartOfDay(time.Now()).AddDate(0, 0, 2) // tomorrow the month is still the present one
	l := spentLedger{begin: end.AddDate(0, -1, 0), month: registry.Window{AnchorDay: end.Day()}}
	switch {
	case *yearKept == "":
		l.database = newDatabase(b, engine, yearProviders, yearModels, yearKeys)
	case isFilled(b):
		l.database = reopen(b)
		return l
	default:
		l.database = newCatalogue(b, engine, *yearKept, yearProviders, yearModels, yearKeys)
	}
	reg, err := registry.Open(b.Context(), l.name)
	require.NoError(b, err)
	makeTree(b, reg, "org")
	require.NoError(b, reg.Close())
	f := filler{b: b, spentLedger: l, db: l.raw(b, 1), requests: int64(*yearRequests)}
	f.step = (time.Since(l.begin) / time.Duration(f.requests)).Truncate(time.Microsecond)
	for _, fill := range []struct {
		name string
		do   func()
	}{{"numbers", f.prepare}, {"events", f.events}, {"sums", f.sums}, {"the rest", f.finish}} {
		began := time.Now()
		fill.do()
		b.Logf("%s: %s of %d requests took %s", engine, fill.name, f.requests, time.Since(began).Round(time.Second))
	}
	require.NoError(b, f.db.Close())
	return l
}

// filler writes a ledger on one connection.
type filler struct {
	b *testing.B
	spentLedger
	db       *sql.DB
	requests int64
	step     time.Duration // from one request to the next
}

func (f filler) exec(query string, args ...any) {
	f.b.Helper()
	_, err := f.db.ExecContext(f.b.Context(), query, args...)
	require.NoError(f.b, err, query)
}

// series returns the numbers n from one up to another.
func (f filler) series(from, to int64) string {
	if f.engine == "postgres" {
		return fmt.Sprintf("(SELECT n FROM generate_series(CAST(%d AS bigint), %d) AS s(n))", from, to-1)
	}
	return fmt.Sprintf("(WITH RECURSIVE s(n) AS (SELECT %d UNION ALL SELECT n + 1 FROM s WHERE n < %d)"+
		" SELECT n FROM s)", from, to-1)
}

// id returns a UUIDv7 of a time in microseconds, which ends with a number: see ledger.NewEventID.
func (f filler) id(at, number string) string {
	if f.engine == "postgres" {
		return fmt.Sprintf("CAST(lpad(to_hex((%[1]s) / 1000), 12, '0') || '7' || lpad(to_hex((%[1]s) %% 1000), 3, '0')"+
			" || '8' || lpad(to_hex(%[2]s), 15, '0') AS uuid)", at, number)
	}
	return fmt.Sprintf("printf('%%08x-%%04x-7%%03x-8%%03x-%%012x', (%[1]s) / 1000 >> 16, (%[1]s) / 1000 & 65535,"+
		" (%[1]s) %% 1000, (%[2]s) >> 48, (%[2]s) & 281474976710655)", at, number)
}

// at returns a time in microseconds as the registry stores it.
func (f filler) at(at string) string {
	if f.engine == "postgres" {
		return "(timestamptz 'epoch' + (" + at + ") * interval '1 microsecond')"
	}
	return fmt.Sprintf("(strftime('%%Y-%%m-%%d %%H:%%M:%%S', (%[1]s) / 1000000, 'unixepoch') ||"+
		" rtrim(rtrim(printf('.%%06d', (%[1]s) %% 1000000), '0'), '.') || '+00:00')", at)
}

// time returns when a request was made, in microseconds.
func (f filler) time(n string) string {
	return fmt.Sprintf("%d + %s * %d", f.begin.UnixMicro(), n, f.step.Microseconds())
}

// prepare switches off what guards the database from a crash, and numbers users and routes: a model, its price, a key.
func (f filler) prepare() {
	settings := []string{
		"PRAGMA foreign_keys = OFF", "PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF",
		"PRAGMA cache_size = -1000000",
	}
	if f.engine == "postgres" {
		settings = []string{"SET session_replication_role = replica", "SET synchronous_commit = off"}
		f.exec("SELECT usage_events_make_partitions(ARRAY(SELECT CAST(day AS date) FROM generate_series("+
			"CAST($1 AS timestamptz), CAST($2 AS timestamptz), interval '1 day') AS day))", f.begin, time.Now())
	}
	for _, text := range append(
		settings,
		"CREATE TEMP TABLE users AS SELECT row_number() OVER (ORDER BY id) - 1 AS n, id FROM consumers"+
			" WHERE kind = 'user'",
		"CREATE TEMP TABLE routes AS SELECT row_number() OVER (ORDER BY key, model) - 1 AS n, model, price, api_key"+
			" FROM (SELECT m.id AS model, p.id AS price, k.id AS api_key,"+
			" row_number() OVER (PARTITION BY m.id ORDER BY k.id) AS key"+
			" FROM models AS m JOIN prices AS p ON p.model_id = m.id JOIN api_keys AS k"+
			" ON k.provider_id = m.provider_id) AS r",
		"CREATE UNIQUE INDEX users_n ON users (n)", "CREATE UNIQUE INDEX routes_n ON routes (n)",
	) {
		f.exec(text)
	}
	since := stored(f.begin.AddDate(-1, 0, 0))
	f.exec("UPDATE dimensions SET since = $1, open_from = $1", since)
	f.exec("UPDATE dimension_values SET since = $1", since)
	var users, routes int
	require.NoError(f.b, f.db.QueryRowContext(
		f.b.Context(), "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM routes)",
	).Scan(&users, &routes))
	require.Equal(f.b, []int{benchUsers, spentRoutes}, []int{users, routes})
}

// from returns where requests of some numbers come from: the users take turns, and then the routes.
func (f filler) from(from, to int64) string {
	return fmt.Sprintf("%s AS r JOIN users AS u ON u.n = r.n %% %d JOIN routes AS w ON w.n = r.n / %d %% %d",
		f.series(from, to), benchUsers, benchUsers, spentRoutes)
}

func (f filler) events() {
	id := f.id(f.time("r.n"), "r.n")
	for from := int64(0); from < f.requests; from += spentPart {
		f.exec(fmt.Sprintf("INSERT INTO usage_events (id, request_id, at, model_id, api_key_id, price_id,"+
			" input_tokens, output_tokens, cost, cost_status, latency_ms, consumer_id, fingerprint)"+
			" SELECT %[1]s, CAST(%[1]s AS text), %[2]s, w.model, w.api_key, w.price, 100 + r.n %% 1900,"+
			" 20 + r.n %% 777, 1000000 + r.n %% 1000000, 'priced', 200 + r.n %% 30000, u.id, r.n FROM %[3]s",
			id, f.at(f.time("r.n")), f.from(from, min(from+spentPart, f.requests))))
	}
}

// insertSums inserts periods of a table. Keys and values are its other columns, s is where a period begins, n a number
// of its own; there were q requests in it.
func (f filler) insertSums(table, keys, values, from string, lasts time.Duration, q int64) {
	var h latency.Histogram
	for i := range min(q, 200) {
		h.Add(200 + i*7919%30_000)
	}
	f.exec(fmt.Sprintf("INSERT INTO %s (id, %s, period_start, period_end, request_count, input_tokens,"+
		" output_tokens, total_cost, latency_ms_sum, average_latency_ms, latency_histogram)"+
		" SELECT %s, %s, %s, %s, %d, %d, %d, %d, %d, 15000, $1 FROM (%s) AS v WHERE true ON CONFLICT DO NOTHING",
		table, keys, f.id("s", "n"), values, f.at("s"), f.at(fmt.Sprint("s + ", lasts.Microseconds())),
		q, 1050*q, 400*q, 1_500_000*q, 15_000*q, from),
		h.AppendBinary(nil))
}

func (f filler) sums() {
	days := int64(time.Since(f.begin)/utc.Day) + 1
	perDay := int64(utc.Day / f.step)
	for day := range days {
		s := fmt.Sprint(f.begin.Add(time.Duration(day)*utc.Day).UnixMicro(), " AS s")
		q := max(1, perDay/spentModels/benchUsers)
		f.insertSums("usage_by_value", "value_id, model_id, price_id", "value, model, price", fmt.Sprintf(
			"SELECT %s, w.n * %d + u.n AS n, u.id AS value, model, price FROM routes AS w CROSS JOIN users AS u"+
				" WHERE w.n < %d ORDER BY 2", s, benchUsers, spentModels),
			utc.Day, q)
		f.exec(fmt.Sprintf("INSERT INTO consumer_days (id, consumer_id, day, requests, tokens, cost)"+
			" SELECT %s, id, %s, %d, %d, %d FROM (SELECT %s, n, id FROM users) AS v",
			f.id("s", "n"), f.at("s"), q*spentModels, 1450*q*spentModels, 1_500_000*q*spentModels, s))
		f.insertSums("usage_tracking", "api_key_id, model_id, price_id", "api_key, model, price",
			"SELECT "+s+", n, api_key, model, price FROM routes", utc.Day, max(1, perDay/spentRoutes))
		f.insertSums("usage_totals", "model_id", "model", fmt.Sprintf(
			"SELECT %s, n, model FROM routes WHERE n < %d", s, spentModels), utc.Day, max(1, perDay/spentModels))
		if day > 1 && day < days-2 {
			continue
		}
		f.insertSums("usage_by_value_quarters", "value_id, model_id, price_id", "value, model, price", fmt.Sprintf(
			"SELECT (%s) / %d * %[2]d AS s, r.n AS n, u.id AS value, model, price FROM %[3]s", f.time("r.n"),
			utc.Quarter.Microseconds(), f.from(day*perDay, min((day+1)*perDay, f.requests))), utc.Quarter, 1)
	}
}

// finish folds all but the tail, and leaves the database as one that has been in use.
func (f filler) finish() {
	folded := ledger.FirstEventID(f.begin.Add(time.Duration(f.requests-spentTail) * f.step))
	for _, model := range f.models {
		f.exec("INSERT INTO usage_folds (id, model_id, folded_to) VALUES ($1, $2, $3)", uuid.New(), model, folded)
	}
	if f.engine == "postgres" {
		f.exec("VACUUM (ANALYZE)")
		f.exec("CHECKPOINT")
		return
	}
	f.exec("PRAGMA journal_mode = WAL")
}
