package proof_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/proof"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// newLedger returns a registry with three requests on a day.
func newLedger(t *testing.T, name string) *registry.Registry {
	t.Helper()
	ctx := t.Context()
	reg, err := registry.Open(ctx, name)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	p, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: "openai"})
	require.NoError(t, err)
	m, err := reg.CreateModel(ctx, registry.ModelInput{ProviderID: p.ID, ModelID: "m", Rates: money.Rates{"input": 1}})
	require.NoError(t, err)
	k, err := reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: p.ID, APIKey: "sk-0123456789abcdef"})
	require.NoError(t, err)
	for i := range 3 {
		at := start.Add(time.Duration(i) * time.Second)
		require.NoError(t, reg.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, At: at}))
	}
	return reg
}

// planned notes SQLite's plan of each query.
type planned struct {
	store.DB
	t     *testing.T
	lines []string
}

func (p *planned) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	rows, err := p.DB.QueryContext(ctx, "EXPLAIN QUERY PLAN "+query, args...)
	require.NoError(p.t, err)
	for rows.Next() {
		var id, parent, unused int
		var detail string
		require.NoError(p.t, rows.Scan(&id, &parent, &unused, &detail))
		p.lines = append(p.lines, detail)
	}
	require.NoError(p.t, rows.Err())
	require.NoError(p.t, rows.Close())
	return p.DB.QueryContext(ctx, query, args...)
}

// TestPlans shows that SQLite reads by indexes alone what is verified.
func TestPlans(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "registry.db")
	newLedger(t, file)
	db, err := store.OpenSQLite(t.Context(), store.Config{Path: file, Existing: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	p := &planned{DB: db, t: t}
	client := ent.NewClient(ent.Driver(p))
	days := 0
	require.NoError(t, proof.NewReader(p, client, true).Each(t.Context(), func(d *proof.Day) error {
		if d.NumEvents > 0 {
			days++
		}
		return nil
	}))
	require.Equal(t, 1, days)
	counters := 0
	require.NoError(t, proof.Counters(t.Context(), client, nil, func(proof.Counter) error { counters++; return nil }))
	require.Equal(t, 1, counters)
	for _, want := range []string{
		"SEARCH t USING INDEX usagequarter_model_id_period_start (model_id=? AND period_start>? AND period_start<?)",
		"SEARCH t USING PRIMARY KEY (model_id=? AND period_start>? AND period_start<?)",
		"SEARCH t USING COVERING INDEX usage_model_id_period_start (model_id=? AND period_start>?)",
		"SEARCH t USING PRIMARY KEY (model_id=? AND period_start>?)",
		"SEARCH e USING PRIMARY KEY (id>? AND id<?)",
		"SEARCH u USING INDEX usage_api_key_id_period_start (api_key_id=?) LEFT-JOIN",
	} {
		require.Contains(t, p.lines, want)
	}
	for _, line := range p.lines {
		require.False(t, strings.HasPrefix(line, "SCAN t") || strings.HasPrefix(line, "SCAN u"), line)
		require.NotContains(t, line, "TEMP B-TREE")
	}
}

// TestPartitionGone takes the partition of a day away from under the snapshot that is to verify it, after its horizon
// was moved: the day is read again.
func TestPartitionGone(t *testing.T) {
	t.Parallel()
	ctx, name := t.Context(), pgtest.Database(t, "", nil)
	newLedger(t, name)
	db, err := store.OpenPostgres(ctx, store.PostgresConfig{URL: name})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	client := ent.NewClient(ent.Driver(db))
	reader, loads := proof.NewReader(db, client, false), 0
	d, err := proof.Settled(ctx, client, func() (*proof.Day, error) {
		loads++
		s, err := db.Snapshot(ctx)
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Close()) }()
		if loads > 1 {
			return proof.Load(reader, ctx, ent.NewClient(ent.Driver(s)), start)
		}
		require.NoError(
			t, client.UsageHorizon.Create().SetID(ledger.EventsPart).SetCompleteFrom(start.Add(utc.Day)).Exec(ctx),
		)
		_, err = db.ExecContext(ctx, "DROP TABLE usage_events_"+start.Format("20060102"))
		require.NoError(t, err)
		d, err := proof.Load(reader, ctx, ent.NewClient(ent.Driver(s)), start)
		require.NoError(t, err)
		require.Equal(t, utc.Beginning, d.Events)
		require.NotEmpty(t, proof.Faulty(d), "its events are missing")
		return d, nil
	})
	require.NoError(t, err)
	require.Equal(t, 2, loads)
	require.Empty(t, proof.Faulty(d))
}

// TestWrite mends what is damaged, beside those who record, and nothing that others have changed otherwise.
func TestWrite(t *testing.T) {
	t.Parallel()
	for engine, name := range map[string]string{
		"sqlite": filepath.Join(t.TempDir(), "registry.db"), "postgres": pgtest.Database(t, "", nil),
	} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			reg := newLedger(t, name)
			var db store.DB
			var err error
			if engine == "sqlite" {
				db, err = store.OpenSQLite(ctx, store.Config{Path: name, Existing: true})
			} else {
				db, err = store.OpenPostgres(ctx, store.PostgresConfig{URL: name})
			}
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			client := ent.NewClient(ent.Driver(db))
			exec := func(statement string) {
				_, err := db.ExecContext(ctx, statement)
				require.NoError(t, err)
			}
			mend := func() (d *proof.Day, err error) {
				d, err = proof.NewReader(db, client, false).Day(ctx, start)
				require.NoError(t, err)
				pieces, left := d.Mend(1)
				require.Empty(t, left)
				for i := range pieces {
					tx, failed := client.Tx(ctx)
					require.NoError(t, failed)
					if failed := pieces[i].Write(ctx, tx.Client(), db.Dialect()); failed != nil {
						err = failed
						require.NoError(t, tx.Rollback())
						continue
					}
					require.NoError(t, tx.Commit())
				}
				return d, err
			}
			for _, damage := range []string{
				"DELETE FROM usage_quarters", "UPDATE usage_tracking SET request_count = request_count + 1",
				"UPDATE usage_totals SET digest = NULL", "UPDATE usage_total_quarters SET average_latency_ms = 7",
			} {
				exec(damage)
				_, err := mend()
				require.NoError(t, err, damage)
				d, err := mend()
				require.NoError(t, err)
				require.Empty(t, proof.Faulty(d), damage)
			}
			exec("UPDATE usage_totals SET request_count = request_count + 1")
			d, err := proof.NewReader(db, client, false).Day(ctx, start)
			require.NoError(t, err)
			pieces, _ := d.Mend(10)
			require.Len(t, pieces, 1)
			exec("UPDATE usage_totals SET request_count = request_count - 2")
			tx, err := client.Tx(ctx)
			require.NoError(t, err)
			err = pieces[0].Write(ctx, tx.Client(), db.Dialect())
			require.NoError(t, tx.Rollback())
			require.ErrorIs(t, err, bulk.ErrStale, "somebody else has changed it")

			// What is recorded after the day was read is kept.
			d, err = proof.NewReader(db, client, false).Day(ctx, start)
			require.NoError(t, err)
			pieces, _ = d.Mend(10)
			require.Len(t, pieces, 1)
			m := reg.Client().Model.Query().OnlyX(ctx)
			k := reg.Client().APIKey.Query().OnlyX(ctx)
			at := start.Add(time.Minute)
			require.NoError(t, reg.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, At: at}))
			tx, err = client.Tx(ctx)
			require.NoError(t, err)
			require.NoError(t, pieces[0].Write(ctx, tx.Client(), db.Dialect()))
			require.NoError(t, tx.Commit())
			require.EqualValues(t, 4, client.UsageTotal.Query().OnlyX(ctx).RequestCount)
			tx, err = client.Tx(ctx)
			require.NoError(t, err)
			d, err = proof.NewReader(db, tx.Client(), true).Day(ctx, start)
			require.NoError(t, tx.Rollback())
			require.NoError(t, err)
			require.Empty(t, proof.Faulty(d))
		})
	}
}
