package bench_test

import (
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

var (
	yearRequests = flag.Int(
		"requests", 200_000,
		"how many requests the year of BenchmarkYear has, and the month of BenchmarkBudgetBegins",
	)
	yearEngine = flag.String("engine", "sqlite", "where the year is kept: sqlite or postgres")
	yearKept   = flag.String(
		"kept", "",
		"SQLite file, or URL of a PostgreSQL database, in which the year is kept for another run (default a new one)",
	)
)

const (
	yearProviders, yearModels, yearKeys = 10, 5, 10 // models and keys of each provider
	yearProbe                           = 20_000    // requests that are recorded to see what one costs
)

// BenchmarkYear asks the questions of an operator of a year of requests to 10 providers of 5 models and 10 keys,
// which are recorded by RecordUsageBatch; beside them, the same sums over the events. It logs what RecordUsage costs
// at each power of ten on the way.
//
//	go test -run '^$' -bench Year -benchtime 3s -requests 10000000 -timeout 3h
func BenchmarkYear(b *testing.B) {
	d, until := year(b)
	reg, err := registry.Open(b.Context(), d.name)
	require.NoError(b, err)
	defer func() { require.NoError(b, reg.Close()) }()
	from := until.AddDate(-1, 0, 0)
	questions(b, d, reg, from, until)
}

// year makes a year of requests, or finds the one of an earlier run.
func year(b *testing.B) (d database, until time.Time) {
	b.Helper()
	until = time.Now().UTC().Truncate(24 * time.Hour)
	switch {
	case *yearKept == "":
		d = newDatabase(b, *yearEngine, yearProviders, yearModels, yearKeys)
	case isFilled(b):
		return reopen(b), until
	default:
		d = newCatalogue(b, *yearEngine, *yearKept, yearProviders, yearModels, yearKeys)
	}
	reg, err := registry.Open(b.Context(), d.name)
	require.NoError(b, err)
	began := time.Now()
	next := 10_000
	for n := 0; n < *yearRequests; {
		size := min(registry.MaxUsageBatch, *yearRequests-n)
		batch := make([]registry.UsageInput, size)
		for i := range batch {
			r := d.nth(n + i)
			batch[i] = registry.UsageInput{
				ModelID: r.model, APIKeyID: r.key, Tokens: r.tokens, Latency: r.latency,
				At: until.AddDate(-1, 0, 0).Add(
					time.Duration(float64(n+i) / float64(*yearRequests) * float64(365*24*time.Hour)),
				),
			}
		}
		require.NoError(b, reg.RecordUsageBatch(b.Context(), batch))
		if n += size; n >= next || n == *yearRequests {
			next *= 10
			cost, all := probe(b, d, reg)
			b.Logf(
				"%d requests after %s: RecordUsage of 64 callers %s a record (%s)", n,
				time.Since(began).Round(time.Second), cost, all,
			)
		}
	}
	require.NoError(b, reg.Close())
	return d, until
}

// probe returns the least of five averages of what RecordUsage takes, over all models and keys, and all of them.
func probe(b *testing.B, d database, reg *registry.Registry) (least time.Duration, all []time.Duration) {
	b.Helper()
	for range 5 {
		began := time.Now()
		var wg sync.WaitGroup
		for c := range 64 {
			wg.Go(func() {
				for i := range yearProbe / 5 / 64 {
					r := d.nth(c*1009 + i)
					r.at = began
					if err := (ours{reg}).record(b.Context(), r); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		all = append(all, time.Since(began)/(yearProbe/5/64*64))
	}
	least = all[0]
	for _, d := range all {
		least = min(least, d)
	}
	return least, all
}

// BenchmarkFlat records after ten thousand requests, and after as many as there are in the kept year.
//
//	go test -run '^$' -bench Flat -benchtime 20000x -count 6 -requests 10000000 -kept year.db
func BenchmarkFlat(b *testing.B) {
	large, until := year(b)
	small := newDatabase(b, *yearEngine, yearProviders, yearModels, yearKeys)
	reg, err := registry.Open(b.Context(), small.name)
	require.NoError(b, err)
	batch := make([]registry.UsageInput, 10_000)
	for i := range batch {
		r := small.nth(i)
		batch[i] = registry.UsageInput{ModelID: r.model, APIKeyID: r.key, Tokens: r.tokens, Latency: r.latency,
			At: until.Add(-time.Duration(i) * 50 * time.Minute)}
	}
	require.NoError(b, reg.RecordUsageBatch(b.Context(), batch))
	require.NoError(b, reg.Close())
	for _, size := range []struct {
		recorded string
		database
	}{{"1e4", small}, {fmt.Sprintf("%.0e", float64(*yearRequests)), large}} {
		b.Run("recorded="+size.recorded, func(b *testing.B) {
			to := size.ours(b)
			benchmark(b, size.database, to, 64)
			require.NoError(b, to.close())
		})
	}
}

// isFilled reports whether an earlier run has filled the kept database.
func isFilled(b *testing.B) bool {
	b.Helper()
	reg, err := registry.Open(b.Context(), *yearKept)
	require.NoError(b, err)
	defer func() { require.NoError(b, reg.Close()) }()
	events, err := reg.Client().UsageEvent.Query().Count(b.Context())
	require.NoError(b, err)
	require.True(
		b, events == 0 || events >= *yearRequests, "%s has %d requests, neither none nor all of a year", *yearKept,
		events,
	)
	return events > 0
}

// reopen finds the models and keys of the kept database in the order in which newDatabase made them.
func reopen(b *testing.B) (d database) {
	b.Helper()
	d = database{engine: *yearEngine, name: *yearKept}
	reg, err := registry.Open(b.Context(), d.name)
	require.NoError(b, err)
	defer func() { require.NoError(b, reg.Close()) }()
	for i := range yearProviders {
		p, err := reg.FindProvider(b.Context(), fmt.Sprint("p", i))
		require.NoError(b, err)
		keys, err := reg.ListAPIKeys(b.Context(), registry.KeyFilter{ProviderID: p.ID})
		require.NoError(b, err)
		for m := range yearModels {
			model, err := reg.FindModel(b.Context(), p.ID, fmt.Sprint("m", m))
			require.NoError(b, err)
			d.models = append(d.models, model.ID)
			d.keys = append(d.keys, nil)
			for _, k := range keys {
				d.keys[len(d.keys)-1] = append(d.keys[len(d.keys)-1], k.ID)
			}
		}
	}
	return d
}

func questions(b *testing.B, d database, reg *registry.Registry, from, until time.Time) {
	b.Helper()
	ctx := b.Context()
	month := func(i int) (time.Time, time.Time) {
		start := from.AddDate(0, i%11, 0).Add(time.Duration(i%96*7) * time.Hour) // not only whole days
		return start, start.AddDate(0, 1, 0)
	}
	b.Run("stats/month", func(b *testing.B) {
		for i := range b.N {
			start, end := month(i)
			stats, err := reg.GetUsageStats(ctx, d.models[i%len(d.models)], start, end)
			require.NoError(b, err)
			require.NotZero(b, stats.Requests)
		}
	})
	b.Run("stats/year", func(b *testing.B) {
		for i := range b.N {
			stats, err := reg.GetUsageStats(ctx, d.models[i%len(d.models)], from, until)
			require.NoError(b, err)
			require.NotZero(b, stats.Requests)
		}
	})
	model, err := reg.GetModel(ctx, d.models[0])
	require.NoError(b, err)
	b.Run("breakdown", func(b *testing.B) {
		for range b.N {
			costs, err := reg.GetCostBreakdown(ctx, model.ProviderID)
			require.NoError(b, err)
			require.Len(b, costs, yearModels)
		}
	})
	b.Run("report/day/provider", func(b *testing.B) {
		for range b.N {
			rows, err := reg.UsageReport(
				ctx,
				registry.ReportInput{
					Start: from, End: until, By: []registry.Dimension{registry.ByProvider}, Step: registry.StepDay,
				},
			)
			require.NoError(b, err)
			require.Len(b, rows, 365*yearProviders)
		}
	})
	raw := d.raw(b, 4)
	defer func() { require.NoError(b, raw.Close()) }()
	const sums = `SELECT COUNT(*), SUM(input_tokens), SUM(output_tokens), SUM(cache_read_tokens),
	SUM(cache_write_tokens), SUM(reasoning_tokens),
 SUM(cost), SUM(latency_ms), COUNT(cost) FROM usage_events `
	scan := func(b *testing.B, query string, args ...any) {
		b.Helper()
		rows, err := raw.QueryContext(ctx, query, args...)
		require.NoError(b, err)
		n := 0
		for rows.Next() {
			n++
		}
		require.NoError(b, rows.Err())
		require.NoError(b, rows.Close())
		require.NotZero(b, n)
	}
	b.Run("raw/stats/month", func(b *testing.B) {
		for i := range b.N {
			start, end := month(i)
			scan(b, sums+"WHERE model_id = $1 AND at >= $2 AND at < $3", d.models[i%len(d.models)], start, end)
		}
	})
	b.Run("raw/stats/year", func(b *testing.B) {
		for i := range b.N {
			scan(b, sums+"WHERE model_id = $1 AND at >= $2 AND at < $3", d.models[i%len(d.models)], from, until)
		}
	})
	b.Run("raw/report/day/provider", func(b *testing.B) {
		day := map[string]string{"sqlite": "date(e.at)", "postgres": "date_trunc('day', e.at)"}[d.engine]
		for range b.N {
			scan(b, `SELECT m.provider_id, `+day+
				`, COUNT(*), SUM(e.input_tokens), SUM(e.output_tokens), SUM(e.cache_read_tokens), SUM(e.cost),
				SUM(e.latency_ms)
 FROM usage_events e JOIN models m ON m.id = e.model_id WHERE e.at >= $1 AND e.at < $2 GROUP BY 1, 2`, from, until)
		}
	})
	b.Run("raw/breakdown", func(b *testing.B) {
		for range b.N {
			scan(
				b,
				"SELECT m.model_id, SUM(e.cost) FROM usage_events e JOIN models m ON m.id = e.model_id WHERE"+
					" m.provider_id = $1 GROUP BY m.model_id",
				model.ProviderID,
			)
		}
	})
}
