package move_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/move"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// engine has databases of one engine.
type engine struct {
	name     string
	database func(t *testing.T) string
}

var (
	sqlite = engine{"sqlite", func(t *testing.T) string {
		t.Helper()
		return filepath.Join(t.TempDir(), "registry.db")
	}}
	postgres = engine{"postgres", func(t *testing.T) string { t.Helper(); return pgtest.Database(t, "", nil) }}
)

// eachWay runs a test from each engine to the other.
func eachWay(t *testing.T, test func(t *testing.T, from, to engine)) {
	t.Helper()
	t.Parallel()
	for _, way := range [][2]engine{{sqlite, postgres}, {postgres, sqlite}} {
		t.Run(way[0].name+"_to_"+way[1].name, func(t *testing.T) {
			t.Parallel()
			test(t, way[0], way[1])
		})
	}
}

// empty returns the name of a database that has tables, and nothing in them.
func (e engine) empty(t *testing.T) string {
	t.Helper()
	name := e.database(t)
	reg, err := registry.Open(t.Context(), name)
	require.NoError(t, err)
	require.NoError(t, reg.Close())
	return name
}

// filled returns the name of a database with a few rows of each kind: of texts, times, amounts, booleans, JSON, bytes,
// and NULL.
func (e engine) filled(t *testing.T) string {
	t.Helper()
	ctx, name := t.Context(), e.database(t)
	ring, err := registry.NewKeyring("a", map[string][]byte{"a": []byte("0123456789abcdefghijklmnopqrstuv")})
	require.NoError(t, err)
	reg, err := registry.Open(ctx, name, registry.WithKeyring(ring))
	require.NoError(t, err)
	for _, provider := range []string{"openai", "anthropic"} {
		p, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: provider, Description: "Größe 🙂\n"})
		require.NoError(t, err)
		m, err := reg.CreateModel(ctx, registry.ModelInput{
			ProviderID: p.ID, ModelID: "m", SupportsTools: true, Rates: money.Rates{meter.Input: 1},
		})
		require.NoError(t, err)
		k, err := reg.AddAPIKey(ctx, registry.KeyInput{
			ProviderID: p.ID, APIKey: "sk-0123456789abcdef", AllowedModels: []string{"*"},
		})
		require.NoError(t, err)
		require.NoError(t, reg.RecordUsage(ctx, registry.UsageInput{
			ModelID: m.ID, APIKeyID: k.ID, Latency: 3 * time.Millisecond,
			Tokens: meter.Tokens{InputTokens: 1000},
		}))
	}
	log, err := reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "openai"})
	require.NoError(t, err)
	_, err = reg.UpdateDiscoveryResult(ctx, log.ID, []byte(`{"b": 1.10, "a": [null]}`), discoverylog.StatusSuccess)
	require.NoError(t, err)
	require.NoError(t, reg.SetSetting(ctx, "k", "v"))
	require.NoError(t, reg.Close())
	return name
}

func isURL(name string) bool { return strings.Contains(name, "://") }

func open(t *testing.T, name string) (db store.DB) {
	t.Helper()
	var err error
	if isURL(name) {
		db, err = store.OpenPostgres(t.Context(), store.PostgresConfig{URL: name})
	} else {
		db, err = store.OpenSQLite(t.Context(), store.Config{Path: name, Existing: true})
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// exec runs a statement as another process would.
func exec(t *testing.T, name, statement string) {
	t.Helper()
	driver := "sqlite3"
	if isURL(name) {
		driver = "pgx"
	}
	db, err := sql.Open(driver, name)
	require.NoError(t, err)
	result, err := db.ExecContext(t.Context(), statement)
	require.NoError(t, err)
	n, err := result.RowsAffected()
	require.NoError(t, err)
	require.Positive(t, n, statement)
	require.NoError(t, db.Close())
}

// run moves, and calls a function once, when the settings are copied: they are behind all that it may change.
func run(ctx context.Context, t *testing.T, from, to string, copied func()) ([]move.Copied, error) {
	t.Helper()
	called := false
	moved, err := move.New(open(t, from), open(t, to), func(table string, done, total int64) {
		require.LessOrEqual(t, done, total, table)
		if table == "settings" && done == total && !called {
			called = true
			copied()
		}
	}).Run(ctx)
	require.True(t, called)
	return moved, err
}

func nothing() {}

func requireUnderWay(t *testing.T, name string, want bool) {
	t.Helper()
	db := open(t, name)
	moving, err := move.IsUnderWay(t.Context(), db.Writer(), db.Dialect())
	require.NoError(t, err)
	require.Equal(t, want, moving)
}

// TestRun moves a database to the other engine, and back.
func TestRun(t *testing.T) {
	eachWay(t, func(t *testing.T, from, to engine) {
		t.Helper()
		first, second, third := from.filled(t), to.empty(t), from.empty(t)
		moved, err := run(t.Context(), t, first, second, nothing)
		require.NoError(t, err)
		rows := map[string]int64{}
		for _, table := range moved {
			rows[table.Name] = table.Rows
			require.Len(t, table.Digest, 64)
		}
		for table, n := range map[string]int64{
			"providers": 2, "models": 2, "prices": 2, "api_keys": 2, "data_keys": 1, "quota_groups": 0,
			"usage_events": 2, "usage_quarters": 2, "usage_tracking": 2, "discovery_logs": 1, "settings": 1,
		} {
			require.Contains(t, rows, table)
			require.Equal(t, n, rows[table], table)
		}
		require.NotContains(t, rows, "pool_states", "they are of processes that have the source open")
		requireUnderWay(t, second, false)

		back, err := run(t.Context(), t, second, third, nothing)
		require.NoError(t, err)
		require.Equal(t, moved, back)
	})
}

// TestRunChanged changes a row after it was copied, and before the databases are compared. The next run starts over.
func TestRunChanged(t *testing.T) {
	const statement = "UPDATE providers SET description = 'changed' WHERE name = 'openai'"
	eachWay(t, func(t *testing.T, from, to engine) {
		t.Helper()
		source, target := from.filled(t), to.empty(t)
		_, err := run(t.Context(), t, source, target, func() { exec(t, source, statement) })
		require.ErrorIs(t, err, fault.ErrConflict)
		require.ErrorContains(t, err, "the source changed while it was moved")
		requireUnderWay(t, target, true)

		_, err = run(t.Context(), t, source, target, func() {
			exec(t, target, "UPDATE providers SET description = 'other' WHERE name = 'openai'")
		})
		require.ErrorIs(t, err, fault.ErrConflict)
		require.ErrorContains(t, err, "table providers has 2 rows with digest")

		moved, err := run(t.Context(), t, source, target, nothing)
		require.NoError(t, err)
		again, err := run(t.Context(), t, target, from.empty(t), nothing)
		require.NoError(t, err)
		require.Equal(t, moved, again)
	})
}

// TestRunEnds ends the context of a run: the next one goes on with what was copied.
func TestRunEnds(t *testing.T) {
	eachWay(t, func(t *testing.T, from, to engine) {
		t.Helper()
		source, target := from.filled(t), to.empty(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err := run(ctx, t, source, target, cancel)
		require.Error(t, err) // the registry makes its own of it: a driver may say that the connection is lost
		requireUnderWay(t, target, true)
		_, err = run(t.Context(), t, source, target, nothing)
		require.NoError(t, err)
		requireUnderWay(t, target, false)
	})
}

// TestRunRefuses has targets that are not empty, or that another run has taken over.
func TestRunRefuses(t *testing.T) {
	eachWay(t, func(t *testing.T, from, to engine) {
		t.Helper()
		source, target := from.filled(t), to.filled(t)
		_, err := move.New(open(t, source), open(t, target), func(string, int64, int64) {}).Run(t.Context())
		require.ErrorIs(t, err, fault.ErrConflict)
		require.ErrorContains(t, err, "the target is not empty")
		requireUnderWay(t, target, false)

		target = to.empty(t)
		_, err = run(t.Context(), t, source, target, func() {
			exec(t, target, "UPDATE modelscan_move SET owner = 'another'")
		})
		require.ErrorIs(t, err, fault.ErrConflict)
		require.ErrorContains(t, err, "another move has taken over")
	})
}
