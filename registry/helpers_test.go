package registry_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/mattn/go-sqlite3" // the driver sqlite3, to make databases that are none of ours
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// engine is a database that a test runs on.
type engine struct {
	name string
	// new returns a registry of the test's own.
	new func(testing.TB, ...registry.Option) *registry.Registry
}

var (
	onSQLite   = engine{"sqlite", registrytest.New}
	onPostgres = engine{"postgres", newService}
)

// newService is registrytest.NewPostgres for a registry that opens as a service does whose migrations somebody else
// applies: by a role that may do to rows what it likes, and nothing else.
func newService(tb testing.TB, options ...registry.Option) *registry.Registry {
	tb.Helper()
	options = append([]registry.Option{
		registry.WithClock(func() time.Time { return registrytest.Start }), registry.WithoutMigration(),
	}, options...)
	reg, err := registry.Open(tb.Context(), serviceURL(tb), options...)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, reg.Close()) })
	return reg
}

// serviceURL returns the URL of a migrated database of the test's own for a service's role.
func serviceURL(tb testing.TB) string {
	tb.Helper()
	return pgtest.Database(tb, "service", prepareService) + asService
}

// prepareService migrates a database, and lets a service's role do to its rows what it likes.
func prepareService(ctx context.Context, url string) error {
	reg, err := registry.Open(ctx, url)
	if err != nil {
		return err
	}
	for _, statement := range []string{
		// Roles are the server's, where another run of the tests may have made it. Tests ask the server who waits.
		"DO $$ BEGIN CREATE ROLE " + serviceRole +
			" IN ROLE pg_read_all_stats; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$",
		"REVOKE ALL ON SCHEMA public FROM PUBLIC",
		"GRANT USAGE ON SCHEMA public TO " + serviceRole,
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO " + serviceRole,
	} {
		if _, err := reg.Client().ExecContext(ctx, statement); err != nil {
			return errors.Join(err, reg.Close())
		}
	}
	return reg.Close()
}

const (
	serviceRole = "modelscan_test_service"
	asService   = "&role=" + serviceRole // at the end of a URL
)

// filled returns the name of a database of the test's own, a copy of one that fill filled, once for a key.
func (e engine) filled(tb testing.TB, key string, fill func(name string)) (name string) {
	tb.Helper()
	if e.name == onPostgres.name {
		return pgtest.Database(tb, key, func(ctx context.Context, url string) error {
			err := prepareService(ctx, url)
			if err == nil {
				fill(url + asService)
			}
			return err
		}) + asService
	}
	filledFiles.Lock()
	defer filledFiles.Unlock()
	name = filepath.Join(tb.TempDir(), "registry.db")
	if content, ok := filledFiles.content[key]; ok {
		require.NoError(tb, os.WriteFile(name, content, 0o600))
		return name
	}
	fill(name)
	filledFiles.content[key] = must(os.ReadFile(name))
	return name
}

var filledFiles = struct {
	sync.Mutex
	content map[string][]byte
}{content: map[string][]byte{}}

// eachEngine runs a test of one goroutine on each database. With the race detector a run takes a quarter of such tests,
// on one of the databases. The test is parallel.
func eachEngine(t *testing.T, test func(*testing.T, engine)) {
	t.Helper()
	sample.OneGoroutine(t)
	engines := []engine{onSQLite, onPostgres}
	if sample.Race {
		i := rand.IntN(len(engines)) //nolint:gosec // not for secrets
		engines = engines[i : i+1]
	}
	eachOf(t, engines, test)
}

// eachEngineAtOnce runs a test in which goroutines meet on each database. The test is parallel.
func eachEngineAtOnce(t *testing.T, test func(*testing.T, engine)) {
	t.Helper()
	eachOf(t, []engine{onSQLite, onPostgres}, test)
}

func eachOf(t *testing.T, engines []engine, test func(*testing.T, engine)) {
	t.Helper()
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) { test(t, e) })
	}
}

// setup returns a registry of the test's own and the clock it goes by.
func (e engine) setup(tb testing.TB) (*registry.Registry, *registrytest.Clock) {
	tb.Helper()
	clock := registrytest.NewClock(registrytest.Start)
	return e.new(tb, registry.WithClock(clock.Now)), clock
}

// long skips a test under -short, and says why.
func long(tb testing.TB, why string) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("-short: " + why)
	}
}

func mustProvider(tb testing.TB, reg *registry.Registry, name string) *ent.Provider {
	tb.Helper()
	p, err := reg.CreateProvider(
		tb.Context(), registry.ProviderInput{Name: name, BaseURL: "https://" + name + ".example/v1"},
	)
	require.NoError(tb, err)
	return p
}

// gpt4 are the rates of the examples: 30 and 60 dollars per million tokens.
func gpt4() money.Rates {
	return money.Rates{meter.Input: 30 * money.Dollar, meter.Output: 60 * money.Dollar}
}

func mustModel(
	tb testing.TB, reg *registry.Registry, providerID uuid.UUID, modelID string, rates money.Rates,
) *ent.Model {
	tb.Helper()
	m, err := reg.CreateModel(tb.Context(), registry.ModelInput{ProviderID: providerID, ModelID: modelID, Rates: rates})
	require.NoError(tb, err)
	return m
}

// secret returns the n-th API key of the tests.
func secret(n int) string { return fmt.Sprintf("sk-test-%024d", n) }

func mustKey(tb testing.TB, reg *registry.Registry, providerID uuid.UUID, n int) *ent.APIKey {
	tb.Helper()
	k, err := reg.AddAPIKey(tb.Context(), registry.KeyInput{ProviderID: providerID, APIKey: secret(n)})
	require.NoError(tb, err)
	return k
}

// badTexts are texts that no name may be, whatever its length.
var badTexts = map[string]string{
	"empty":         "",
	"over-long":     strings.Repeat("x", 3000),
	"control":       "a\x07b",
	"newline":       "a\nb",
	"NUL":           "a\x00b",
	"DEL":           "a\x7fb",
	"invalid UTF-8": "a\xff\xfeb",
}

var errRollback = errors.New("roll back")

// record records a request at the time of the registry's clock.
func record(tb testing.TB, reg *registry.Registry, m *ent.Model, k *ent.APIKey, input, output int64) {
	tb.Helper()
	require.NoError(tb, reg.RecordUsage(tb.Context(), registry.UsageInput{
		ModelID: m.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: input, OutputTokens: output},
	}))
}

// like returns rows as those of another table with the same columns.
func like[T any](t require.TestingT, rows any) (all []*T) {
	text, err := json.Marshal(rows)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &all))
	return all
}

func ptr[T any](v T) *T { return &v }

func openOnce(t *testing.T, name string, options ...registry.Option) {
	t.Helper()
	reg, err := registry.Open(t.Context(), name, options...)
	require.NoError(t, err)
	require.NoError(t, reg.SetSetting(t.Context(), "opened", name))
	require.NoError(t, reg.Close())
}

// openForeign runs statements on a database of another application.
func openForeign(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	require.NoError(t, err)
	for _, statement := range statements {
		_, err = db.ExecContext(t.Context(), statement)
		require.NoError(t, err, statement)
	}
	require.NoError(t, db.Close())
}

// openState returns the files of a folder: names, modes and checksums.
func openState(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		var sum [sha256.Size]byte
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(filepath.Join(dir, e.Name()))
			require.NoError(t, err)
			sum = sha256.Sum256(content)
		}
		all = append(all, fmt.Sprintf("%s %s %x", e.Name(), info.Mode(), sum))
	}
	return all
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// keyringKey returns a key of the owner's.
func keyringKey(n byte) []byte {
	key := bytes.Repeat([]byte{n}, registry.KeyringKeySize)
	key[0]++
	return key
}

// ring returns a keyring of keys, of which the first is current.
func ring(tb testing.TB, ids ...string) registry.Keyring {
	tb.Helper()
	keys := map[string][]byte{}
	for _, id := range ids {
		keys[id] = keyringKey(id[0])
	}
	r, err := registry.NewKeyring(ids[0], keys)
	require.NoError(tb, err)
	return r
}

// requireReveals demands that a key is given back.
func requireReveals(t *testing.T, reg *registry.Registry, id uuid.UUID, want string) {
	t.Helper()
	got, err := reg.RevealAPIKey(t.Context(), id)
	require.NoError(t, err)
	require.True(t, got.Equal(registry.NewSecret(want)))
}

// collect returns all rows of a list.
func collect[R any](all iter.Seq2[R, error]) (rows []R, err error) {
	for row, err := range all {
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// recorded returns how many requests the events, the days, the totals and the counters of keys say there were, which
// must be the same number.
func recorded(tb testing.TB, reg *registry.Registry) int64 {
	tb.Helper()
	ctx, c := tb.Context(), reg.Client()
	events, err := c.UsageEvent.Query().Count(ctx)
	require.NoError(tb, err)
	var days, totals, counters int64
	for _, u := range must(c.Usage.Query().All(ctx)) {
		days += u.RequestCount
	}
	for _, u := range must(c.UsageTotal.Query().All(ctx)) {
		totals += u.RequestCount
	}
	for _, k := range must(c.APIKey.Query().All(ctx)) {
		counters += k.UsageCount
	}
	require.Equal(tb, int64(events), days)
	require.Equal(tb, days, totals)
	require.Equal(tb, days, counters)
	return days
}

func mustOpen(t *testing.T, name string, options ...registry.Option) *registry.Registry {
	t.Helper()
	reg, err := registry.Open(t.Context(), name, options...)
	require.NoError(t, err)
	return reg
}
