package registry_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/auditentry"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// fillForMove puts something into every table, and into every column.
func fillForMove(t *testing.T, reg *registry.Registry, clock *registrytest.Clock) {
	t.Helper()
	ctx := t.Context()
	_, err := reg.ImportCatalog(ctx, catalog.Catwalk(), nil)
	require.NoError(t, err)
	p := mustProvider(t, reg, "lab")
	family, err := reg.CreateFamily(ctx, registry.FamilyInput{ProviderID: p.ID, Name: "Größe 🙂"})
	require.NoError(t, err)
	m, err := reg.CreateModel(
		ctx, registry.ModelInput{ProviderID: p.ID, FamilyID: family.ID, ModelID: "m", Rates: gpt4()},
	)
	require.NoError(t, err)
	unpriced := mustModel(t, reg, p.ID, "unpriced", nil)
	k := mustKey(t, reg, p.ID, 1)
	for i := range 5 {
		clock.Advance(7*time.Hour + 3*time.Microsecond)
		record(t, reg, m, k, int64(1000+i), 7)
		record(t, reg, unpriced, k, 3, 3)
		_, err = reg.UpdateModelPricing(
			ctx, m.ID, registry.PriceInput{Rates: money.Rates{meter.Input: money.USD(i + 1), meter.CacheRead: 5}},
		)
		require.NoError(t, err)
	}
	group, err := reg.CreateQuotaGroup(
		ctx,
		registry.QuotaGroupInput{ProviderID: p.ID, Name: "account", Limits: registry.Limits{CostPerDay: money.Dollar}},
	)
	require.NoError(t, err)
	_, err = reg.UpdateAPIKey(ctx, k.ID, registry.KeyUpdate{QuotaGroupID: &group.ID, AllowedModels: &[]string{"*"}})
	require.NoError(t, err)
	lease, err := reg.AcquireKey(
		ctx, registry.AcquireInput{ProviderID: p.ID, ModelID: m.ID, EstimatedTokens: 7, TTL: time.Hour},
	)
	require.NoError(t, err)
	require.NoError(
		t,
		reg.ObserveHeaders(
			ctx, lease.KeyID,
			http.Header{"X-Ratelimit-Remaining-Requests": {"3"}, "X-Ratelimit-Reset-Requests": {"1s"}},
		),
	)
	require.NoError(t, reg.DegradeKey(ctx, k.ID, "429\nslow down", time.Hour))
	_, err = reg.RotateAPIKey(ctx, k.ID, registry.KeyRotationInput{APIKey: secret(3), Overlap: 1000 * time.Hour})
	require.NoError(t, err)
	gone := mustKey(t, reg, p.ID, 2)
	require.NoError(t, reg.DeleteAPIKey(ctx, gone.ID))
	require.NoError(t, reg.DeprecateModel(ctx, unpriced.ID, time.Time{}))
	log, err := reg.CreateDiscoveryLog(
		ctx, registry.DiscoveryInput{Identifier: "lab", ProviderID: p.ID, CacheHit: true},
	)
	require.NoError(t, err)
	_, err = reg.UpdateDiscoveryResult(
		ctx, log.ID, []byte(`{"b": 1.10, "a": [12345678901234567890, "\u0000", null], "b": 2}`),
		discoverylog.StatusSuccess,
	)
	require.NoError(t, err)
	_, err = reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "nobody's"})
	require.NoError(t, err)
	_, err = reg.CreateSDKVersion(ctx, registry.SDKVersionInput{ProviderID: p.ID, Version: "1.0"})
	require.NoError(t, err)
	for i := range 10 {
		require.NoError(t, reg.SetSetting(ctx, fmt.Sprint("Key ", i), "tab\tand\nline"))
	}
	first := mustConsumer(t, reg, "first", uuid.Nil)                 // it makes the dimension of consumers
	parent := uuid.MustParse("ffffffff-0000-7000-8000-000000000000") // above its child, whose id comes before
	child := uuid.MustParse("00000000-0000-7000-8000-000000000000")
	require.NoError(t, reg.Past().Consumer.Create().SetID(parent).SetName("org").SetPath(parent.String()).Exec(ctx))
	require.NoError(t, reg.Past().Consumer.Create().SetID(child).SetName("team").SetParentID(parent).
		SetPath(parent.String()+"/"+child.String()).Exec(ctx))
	require.NoError(t, reg.Past().AccessKey.Create().SetConsumerID(child).SetKeyHash(strings.Repeat("0", 64)).
		SetKeyPrefix("msk-").Exec(ctx))
	_, err = reg.CreateDimension(ctx, registry.DimensionInput{Name: "feature"})
	require.NoError(t, err)
	b, err := reg.CreateBudget(ctx, registry.BudgetInput{
		ConsumerID: parent, Name: "b", Ceilings: registry.Ceilings{Tokens: 1}, Models: []string{"*"},
		ProviderID: p.ID, Each: true,
	})
	require.NoError(t, err)
	_, err = reg.GrantBudget(ctx, registry.GrantInput{BudgetID: b.ID, SubjectID: child, Tokens: 1, Reason: "é"})
	require.NoError(t, err)
	in := registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, ConsumerID: child, Tokens: meter.Tokens{InputTokens: 3}}
	in.Tags = registry.Tags{"feature": {"chat"}}
	require.NoError(t, reg.RecordUsage(ctx, in)) // it is added up at once: its model was not there yet
	in.ConsumerID = first.ID
	require.NoError(t, reg.RecordUsage(ctx, in))
	require.NoError(t, reg.Past().UsageFold.Create().SetModelID(m.ID).SetFoldedTo(m.ID).Exec(ctx))
	_, err = reg.AcquireKey(ctx, registry.AcquireInput{
		ProviderID: p.ID, ModelID: m.ID, ConsumerID: parent, TTL: time.Hour, Exclude: []uuid.UUID{k.ID},
	})
	require.NoError(t, err)
	require.NoError(t, reg.Past().ExpiredLease.Create().SetAPIKeyID(k.ID).SetExpiresAt(registrytest.Start).Exec(ctx))
	require.NoError(t, reg.Past().UsageHorizon.Create().SetID("events").SetCompleteFrom(registrytest.Start).Exec(ctx))
}

// TestMove moves a database there and back.
func TestMove(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	clock := registrytest.NewClock(registrytest.Start)
	file := filepath.Join(t.TempDir(), "a.db")
	one, err := registry.Open(t.Context(), file, registry.WithClock(clock.Now), registry.WithKeyring(ring(t, "a")))
	require.NoError(t, err)
	fillForMove(t, one, clock)
	want := dump(t, one)
	require.NoError(t, one.Close())

	server, back := registrytest.PostgresURL(t), filepath.Join(t.TempDir(), "b.db")
	progress := map[string]int64{}
	there, err := registry.Move(t.Context(), file, server, func(table string, done, total int64) {
		require.LessOrEqual(t, progress[table], done)
		require.LessOrEqual(t, done, total)
		progress[table] = done
	}, registry.WithMaxConns(4))
	require.NoError(t, err)
	require.Len(t, there.Tables, 33)
	for _, table := range there.Tables {
		require.Equal(t, progress[table.Name], table.Rows, table.Name)
		require.NotZero(t, table.Rows, table.Name)
	}
	two, err := registry.Open(t.Context(), server, registry.WithClock(clock.Now))
	require.NoError(t, err)
	require.Equal(t, want, dump(t, two), "ids and digits included")
	later := mustProvider(t, two, "later") // it is an ordinary database
	require.NoError(t, two.Past().Provider.DeleteOne(later).Exec(t.Context()))
	must(two.Past().AuditEntry.Delete().Where(auditentry.EntityID(later.ID.String())).Exec(t.Context()))
	require.NoError(t, two.Close())

	andBack, err := registry.Move(t.Context(), server, back, nil)
	require.NoError(t, err)
	require.Equal(t, there, andBack)
	three, err := registry.Open(t.Context(), back, registry.WithClock(clock.Now))
	require.NoError(t, err)
	require.Equal(t, want, dump(t, three))
	require.NoError(t, three.Close())

	again, err := registry.Move(t.Context(), back, filepath.Join(t.TempDir(), "c.db"), nil)
	require.NoError(t, err)
	require.Equal(t, there, again)
}

// TestMoveEvents moves events of several days, and what Prune has left of them, there and back.
func TestMoveEvents(t *testing.T) {
	sample.OneGoroutine(t)
	long(t, "many days of events")
	t.Parallel()
	clock := registrytest.NewClock(registrytest.Start)
	open := func(name string) retained {
		reg, err := registry.Open(t.Context(), name, registry.WithClock(clock.Now))
		require.NoError(t, err)
		return retained{Registry: reg, clock: clock}
	}
	file, back := filepath.Join(t.TempDir(), "a.db"), filepath.Join(t.TempDir(), "b.db")
	server := registrytest.PostgresURL(t)
	one := open(file)
	r := newRetained(t, one.Registry, clock)
	clock.Set(today.Add(day - time.Minute))
	var (
		inputs []registry.UsageInput
		want   []string // the partitions
	)
	for _, start := range []time.Time{
		time.Unix(0, 0).UTC(), today.AddDate(-3, 0, 0), today.AddDate(0, 0, -8), today.AddDate(0, 0, -7),
		today.AddDate(0, 0, -1), today, today.AddDate(0, 0, 1),
	} {
		want = append(want, "usage_events_"+start.Format("20060102"))
		for i := range 3 {
			// the first and the last instant of the day too
			at := start.Add(time.Duration(i) * (day - time.Microsecond) / 2)
			if at.After(clock.Now().Add(time.Hour)) {
				break
			}
			in := r.input(i, at)
			if in.Failed = i == 1; in.Failed {
				in.RequestID, in.ErrorClass, in.HTTPStatus = fmt.Sprint("request of ", at), "rate_limited", 429
			}
			inputs = append(inputs, in)
		}
	}
	require.NoError(t, one.RecordUsageBatch(t.Context(), inputs))
	before := dump(t, one.Registry)
	require.NoError(t, one.Close())

	_, err := registry.Move(t.Context(), file, server, nil)
	require.NoError(t, err)
	two := open(server)
	require.Equal(t, before, dump(t, two.Registry))
	partitions := must(pgQuery[string](t.Context(), two.Registry, "SELECT string_agg(relname, ' ' ORDER BY relname)"+
		" FROM pg_inherits"+
		" JOIN pg_class ON oid = inhrelid WHERE inhparent = CAST('usage_events' AS regclass)"))
	require.Equal(t, strings.Join(want, " "), partitions)
	for _, in := range inputs { // one that has a name is known
		if in.RequestID != "" {
			require.NoError(t, two.RecordUsage(t.Context(), in))
		}
	}
	require.Equal(t, before, dump(t, two.Registry))
	require.NoError(t, two.Close())
	_, err = registry.Move(t.Context(), server, back, nil)
	require.NoError(t, err)
	three := open(back)
	require.Equal(t, before, dump(t, three.Registry))

	// Both remove the same, and what is left can be moved again.
	two = open(server)
	for _, r := range []retained{two, three} {
		report, err := r.Prune(t.Context(), registry.PruneInput{})
		require.NoError(t, err)
		require.EqualValues(t, 9, report.Events)
		require.EqualValues(t, 6*2, report.Quarters)
		r.checkWhole(t)
	}
	before = dump(t, three.Registry)
	require.Equal(t, before, dump(t, two.Registry))
	require.NoError(t, two.Close())
	require.NoError(t, three.Close())
	again := filepath.Join(t.TempDir(), "c.db")
	_, err = registry.Move(t.Context(), server, again, nil)
	require.NoError(t, err)
	four := open(again)
	require.Equal(t, before, dump(t, four.Registry))
	require.NoError(t, four.Close())
}

// usageRows fills a database with rows of usage, for what takes time.
func usageRows(tb testing.TB, path string, n int) {
	tb.Helper()
	ctx := tb.Context()
	reg, err := registry.Open(ctx, path)
	require.NoError(tb, err)
	p := mustProvider(tb, reg, "load")
	var models []*ent.Model
	for i := range 50 {
		models = append(models, mustModel(tb, reg, p.ID, fmt.Sprint("m", i), gpt4()))
	}
	var keys []*ent.APIKey
	for i := range 20 {
		keys = append(keys, mustKey(tb, reg, p.ID, i))
	}
	prices := map[uuid.UUID]uuid.UUID{}
	for _, m := range models {
		prices[m.ID] = must(reg.Client().Model.Query().Where(model.ID(m.ID)).QueryPrices().Only(ctx)).ID
	}
	require.NoError(tb, reg.Close())

	db, err := sql.Open("sqlite3", "file:"+path+"?_fk=1&_txlock=immediate")
	require.NoError(tb, err)
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(tb, err)
	insert, err := tx.PrepareContext(ctx,
		`INSERT INTO usage_quarters (id, model_id, api_key_id, price_id, period_start, period_end,
		request_count, error_count, unpriced_count, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
		reasoning_tokens, total_cost, latency_ms_sum, average_latency_ms) VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?, 0,
		0, 0, ?, ?, ?)`)
	require.NoError(tb, err)
	for i := range n {
		m, k := models[i%len(models)], keys[i/len(models)%len(keys)]
		start := registrytest.Start.Add(time.Duration(i/1000) * 15 * time.Minute)
		_, err := insert.ExecContext(ctx, must(uuid.NewV7()), m.ID, k.ID, prices[m.ID], start,
			start.Add(15*time.Minute),
			i%97+1, i*13%100_000, i*7%5000, i*31, i%1000, float64(i%1000)/float64(i%97+1))
		require.NoError(tb, err)
	}
	require.NoError(tb, insert.Close())
	require.NoError(tb, tx.Commit())
	require.NoError(tb, db.Close())
}

// TestMoveKilled kills a process that moves, again and again, until one comes through.
func TestMoveKilled(t *testing.T) {
	sample.OneGoroutine(t)
	long(t, "the test starts processes")
	t.Parallel()
	from, to := filepath.Join(t.TempDir(), "a.db"), pgtest.Database(t, "", nil)
	const rows = 24_000
	usageRows(t, from, rows)
	clean, err := registry.Move(t.Context(), from, filepath.Join(t.TempDir(), "b.db"), nil)
	require.NoError(t, err)
	kills := 0
	for at := int64(1); ; at += 8000 {
		cmd := faultChild(t, "move", from, to)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		killed := false
		for lines.Scan() {
			var (
				table       string
				done, total int64
			)
			_, err := fmt.Sscan(lines.Text(), &table, &done, &total)
			require.NoError(t, err, lines.Text())
			if table == "usage_quarters" && done >= at && done < total && !killed {
				require.NoError(t, cmd.Process.Kill())
				killed = true
				kills++
			}
		}
		if err := cmd.Wait(); err == nil {
			break
		}
		require.True(t, killed)
	}
	require.GreaterOrEqual(t, kills, 2)
	back, err := registry.Move(t.Context(), to, filepath.Join(t.TempDir(), "c.db"), nil)
	require.NoError(t, err)
	require.Equal(t, clean, back, "%d kills", kills)
	t.Logf("%d kills, %d rows", kills, rows)
}

// moving moves, and prints how far it is.
func moving(ctx context.Context, args ...string) error {
	_, err := registry.Move(
		ctx, args[0], args[1], func(table string, done, total int64) { fmt.Println(table, done, total) },
	)
	return err
}

// BenchmarkMove moves a million rows of usage.
func BenchmarkMove(b *testing.B) {
	const rows = 1_000_000
	from := filepath.Join(b.TempDir(), "a.db")
	usageRows(b, from, rows)
	for b.Loop() {
		b.StopTimer()
		to := pgtest.Database(b, "", nil)
		b.StartTimer()
		report, err := registry.Move(b.Context(), from, to, nil)
		require.NoError(b, err)
		require.EqualValues(b, rows, report.Tables[len(report.Tables)-1].Rows)
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
