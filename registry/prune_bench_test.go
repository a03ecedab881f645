package registry_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// pruneEventsEnv says how many events BenchmarkPrune removes. Defaults to 200,000.
const pruneEventsEnv = "MODELSCAN_PRUNE_EVENTS"

// BenchmarkPrune removes the events of ten days, and some quarters, while eight goroutines record. Its metrics are the
// longest call of RecordUsage in milliseconds before, while and after that, and the size of the table of events, or of
// the file, before and after in megabytes.
func BenchmarkPrune(b *testing.B) {
	events := 200_000
	if text := os.Getenv(pruneEventsEnv); text != "" {
		events = must(strconv.Atoi(text))
	}
	for _, e := range []pruned{prunedSQLite, prunedPostgres} {
		b.Run(fmt.Sprintf("engine=%s/events=%d", e.name, events), func(b *testing.B) {
			var took [3][]time.Duration
			var before, after float64
			for b.Loop() {
				b.StopTimer()
				name := e.database(b)
				reg := must(registry.Open(b.Context(), name))
				l := newPruneLoad(b, reg)
				e.fill(b, name, l, events)
				before = e.size(b, name)
				l.start(b)
				l.waitFor(2000)
				l.phase.Store(1)
				b.StartTimer()
				report, err := reg.Prune(b.Context(), registry.PruneInput{Events: day, Budget: 10 * time.Minute})
				b.StopTimer()
				l.phase.Store(2)
				require.NoError(b, err)
				l.waitFor(2000)
				l.stop()
				b.Logf("%+v", report)
				require.EqualValues(b, events, report.Events)
				require.NotZero(b, report.Quarters)
				require.Zero(b, report.EventsLeft+report.QuartersLeft)
				for i := range took {
					took[i] = append(took[i], l.took[i]...)
				}
				after = e.size(b, name)
				require.NoError(b, reg.Close())
				b.StartTimer()
			}
			for i, phase := range []string{"before", "during", "after"} {
				slices.Sort(took[i])
				ms := func(part float64) float64 {
					return float64(took[i][int(part*float64(len(took[i])-1))].Microseconds()) / 1000
				}
				b.ReportMetric(ms(1), "max-ms-"+phase)
				b.Logf(
					"%s: %d calls, median %.1f ms, 99 %% %.1f ms, 99.9 %% %.1f ms, longest %.1f ms", phase,
					len(took[i]), ms(.5), ms(.99), ms(.999), ms(1),
				)
			}
			b.ReportMetric(before, "MB-before")
			b.ReportMetric(after, "MB-after")
		})
	}
}

// pruneLoad records without end and notes the longest call in each phase.
type pruneLoad struct {
	reg    *registry.Registry
	models []*ent.Model
	keys   []*ent.APIKey
	prices []uuid.UUID // by model

	phase    atomic.Int32
	mu       sync.Mutex
	took     [3][]time.Duration
	recorded sync.Cond // signalled with each call
	stop     func()
}

func newPruneLoad(b *testing.B, reg *registry.Registry) *pruneLoad {
	b.Helper()
	l := &pruneLoad{reg: reg}
	l.recorded.L = &l.mu
	p := mustProvider(b, reg, "p")
	for i := range 8 {
		l.models = append(l.models, mustModel(b, reg, p.ID, fmt.Sprint("m", i), gpt4()))
		l.keys = append(l.keys, mustKey(b, reg, p.ID, i))
		l.prices = append(
			l.prices, must(reg.Client().Price.Query().Where(price.ModelID(l.models[i].ID)).Only(b.Context())).ID,
		)
	}
	return l
}

func (l *pruneLoad) start(b *testing.B) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	var all sync.WaitGroup
	l.stop = func() { cancel(); all.Wait() }
	for g := range 8 {
		all.Go(func() {
			for ctx.Err() == nil {
				begin := time.Now()
				err := l.reg.RecordUsage(b.Context(), registry.UsageInput{
					ModelID: l.models[g].ID, APIKeyID: l.keys[g].ID, RequestID: uuid.NewString(), Tokens: meter.Tokens{
						InputTokens: 150, OutputTokens: 80,
					},
				})
				if err != nil {
					b.Error(err)
					return
				}
				l.note(time.Since(begin))
			}
		})
	}
}

func (l *pruneLoad) note(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	phase := l.phase.Load()
	l.took[phase] = append(l.took[phase], took)
	l.recorded.Signal()
}

// waitFor waits until so many calls of a phase have ended.
func (l *pruneLoad) waitFor(calls int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.took[l.phase.Load()]) < calls {
		l.recorded.Wait()
	}
}

// pruned is a database that is filled and measured past the registry.
type pruned struct {
	name     string
	driver   string
	database func(testing.TB) string
	// series returns a table n of integers i from 0, so many.
	series           func(n int) string
	events, quarters string // INSERT for one day, and for one model and key
	settle           []string
	size             func(b *testing.B, name string) float64
}

const (
	eventColumnsSQL = "(id, request_id, at, model_id, api_key_id, price_id, input_tokens, output_tokens, cost," +
		" cost_status, latency_ms, http_status)"
	quarterColumnsSQL = "(id, model_id, api_key_id, price_id, period_start, period_end, request_count," +
		" input_tokens, total_cost)"
	totalColumnsSQL = "(id, model_id, period_start, period_end, request_count, input_tokens, total_cost)"
)

var prunedSQLite = pruned{
	name: "sqlite", driver: "sqlite3",
	database: func(tb testing.TB) string { tb.Helper(); return filepath.Join(tb.TempDir(), "registry.db") },
	series: func(n int) string {
		return fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < %d) ", n-1)
	},
	// us is the microsecond of the request.
	events: "INSERT INTO usage_events " + eventColumnsSQL +
		` %s SELECT printf('%%08x-%%04x-7%%03x-8%%03x-%%012x', us / 1000 >> 16, us / 1000 & 65535, us %% 1000, i &
		4095, i),
		lower(hex(randomblob(16))),
		strftime('%%Y-%%m-%%d %%H:%%M:%%S', us / 1000000, 'unixepoch') || printf('.%%06d+00:00', us %% 1000000),
		?3, ?4, ?5, 150, 80, 9300000, 'priced', i %% 5000, 200 FROM (SELECT i, ?1 + i * ?2 AS us FROM n)`,
	quarters: "INSERT INTO usage_quarters " + quarterColumnsSQL +
		` %s SELECT lower(hex(randomblob(16))), ?3, ?4, ?5, strftime('%%Y-%%m-%%d %%H:%%M:%%S+00:00', us / 1000000,
		'unixepoch'),
		strftime('%%Y-%%m-%%d %%H:%%M:%%S+00:00', us / 1000000 + 900, 'unixepoch'), 10, 1500, 93000000 FROM (SELECT i,
		?1 + i * ?2 AS us FROM n)`,
	settle: []string{"PRAGMA wal_checkpoint(TRUNCATE)"},
	size: func(b *testing.B, name string) float64 {
		b.Helper()
		return float64(must(os.Stat(name)).Size()) / 1e6
	},
}

var prunedPostgres = pruned{
	name: "postgres", driver: "pgx",
	database: registrytest.PostgresURL,
	series: func(n int) string {
		return fmt.Sprintf("WITH n AS (SELECT generate_series(CAST(0 AS bigint), %d) AS i) ", n-1)
	},
	events: "INSERT INTO usage_events " + eventColumnsSQL +
		` %s SELECT CAST(lpad(to_hex(us / 1000), 12, '0') || '7' || lpad(to_hex(us %% 1000), 3, '0') || '8' ||
		lpad(to_hex(i), 15, '0') AS uuid),
		replace(CAST(gen_random_uuid() AS text), '-', ''), timestamptz 'epoch' + us * interval '1 microsecond',
		CAST($3 AS uuid), CAST($4 AS uuid), CAST($5 AS uuid), 150, 80, 9300000, 'priced', i %% 5000, 200 FROM (SELECT
		i, CAST($1 AS bigint) + i * CAST($2 AS bigint) AS us FROM n) AS n`,
	quarters: "INSERT INTO usage_quarters " + quarterColumnsSQL +
		` %s SELECT gen_random_uuid(), CAST($3 AS uuid), CAST($4 AS uuid), CAST($5 AS uuid), timestamptz 'epoch' + us *
		interval '1 microsecond',
		timestamptz 'epoch' + (us + 900000000) * interval '1 microsecond', 10, 1500, 93000000 FROM (SELECT i, CAST($1
		AS bigint) + i * CAST($2 AS bigint) AS us FROM n) AS n`,
	settle: []string{"ANALYZE", "CHECKPOINT"},
	size: func(b *testing.B, name string) float64 {
		b.Helper()
		return pgValueB(
			b, name,
			"SELECT sum(pg_total_relation_size(inhrelid)) / 1e6 FROM pg_inherits WHERE inhparent ="+
				" CAST('usage_events' AS regclass)",
		)
	},
}

func pgValueB(b *testing.B, name, query string) (value float64) {
	b.Helper()
	db, err := sql.Open("pgx", name)
	require.NoError(b, err)
	require.NoError(b, db.QueryRowContext(b.Context(), query).Scan(&value))
	require.NoError(b, db.Close())
	return value
}

// fill makes events of ten days, the last of which ended yesterday, and the quarters of 45 days. Those of each model
// have the same number, so that a total is the row of one key.
func (e pruned) fill(b *testing.B, name string, l *pruneLoad, events int) {
	b.Helper()
	const events10, quarters45 = 10, 45
	today := time.Now().UTC().Truncate(day)
	var first []registry.UsageInput // it makes the partitions
	for i := range events10 {
		first = append(
			first, registry.UsageInput{ModelID: l.models[0].ID, APIKeyID: l.keys[0].ID, At: today.AddDate(0, 0, -2-i)},
		)
	}
	require.NoError(b, l.reg.RecordUsageBatch(b.Context(), first))
	db, err := sql.Open(e.driver, name)
	require.NoError(b, err)
	defer func() { require.NoError(b, db.Close()) }()
	exec := func(query string, args ...any) {
		_, err := db.ExecContext(b.Context(), query, args...)
		require.NoError(b, err, query)
	}
	each := events/events10 - 1
	for i := range events10 {
		at := today.AddDate(0, 0, -2-i).Add(time.Microsecond).UnixMicro()
		step := (day.Microseconds() - 2) / int64(each)
		exec(fmt.Sprintf(e.events, e.series(each)), at, step, l.models[i%8].ID, l.keys[i%8].ID, l.prices[i%8])
	}
	start := today.AddDate(0, 0, -quarters45).UnixMicro()
	for m := range l.models {
		for k := range l.keys {
			exec(
				fmt.Sprintf(e.quarters, e.series((quarters45-15)*96)), start, (15 * time.Minute).Microseconds(),
				l.models[m].ID, l.keys[k].ID, l.prices[m],
			)
		}
	}
	exec("INSERT INTO usage_total_quarters " + totalColumnsSQL +
		" SELECT id, model_id, period_start, period_end, request_count, input_tokens, total_cost" +
		" FROM usage_quarters WHERE latency_histogram IS NULL AND api_key_id = (SELECT api_key_id FROM" +
		" usage_quarters ORDER BY api_key_id LIMIT 1)")
	for _, statement := range e.settle {
		exec(statement)
	}
}
