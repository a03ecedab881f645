package registry_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	_ "github.com/mattn/go-sqlite3" // the driver sqlite3, to make databases that are none of ours
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

func openOnce(t *testing.T, name string, options ...registry.Option) {
	t.Helper()
	reg, err := registry.Open(t.Context(), name, options...)
	require.NoError(t, err)
	require.NoError(t, reg.SetSetting(t.Context(), "opened", name))
	require.NoError(t, reg.Close())
}

// openForeign runs statements on a database that is none of ours.
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

// openState returns what there is in a folder: names, modes and checksums.
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

func TestOpen(t *testing.T) {
	t.Parallel()
	t.Run("OK_exactly_that_file", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{
			"plain.db", "with space.db", "what?.db", "a?mode=memory", "#1.db", "100%.db", "%41.db", "a&b=c.db",
			"Größe 数据 🙂.db", `it's "quoted".db`, `back\slash.db`, ":memory:", "-rf",
		} {
			dir := t.TempDir()
			escaped := "file://" + dir + "/" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(name)
			openOnce(t, escaped)
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, entries, 1, "%q", name)
			require.Equal(t, name, entries[0].Name())

			if strings.Contains(name, "?") {
				continue
			}
			reg, err := registry.Open(t.Context(), filepath.Join(dir, name))
			require.NoError(t, err, "%q", name)
			_, err = reg.GetSetting(t.Context(), "opened")
			require.NoError(t, err, "%q is another file than %q", escaped, name)
			require.NoError(t, reg.Close())
		}
	})
	t.Run("OK_owner_only", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "registry.db")
		reg, err := registry.Open(t.Context(), path)
		require.NoError(t, err)
		for _, suffix := range []string{"", "-wal", "-shm"} {
			info, err := os.Stat(path + suffix)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), suffix)
		}
		require.NoError(t, reg.Close())
	})
	t.Run("OK_empty_file", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "registry.db")
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		openOnce(t, path)
	})
	t.Run("OK_symlink", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		openOnce(t, filepath.Join(dir, "registry.db"))
		require.NoError(t, os.Symlink("registry.db", filepath.Join(dir, "link.db")))
		reg, err := registry.Open(t.Context(), filepath.Join(dir, "link.db"))
		require.NoError(t, err)
		_, err = reg.GetSetting(t.Context(), "opened")
		require.NoError(t, err)
		require.NoError(t, reg.Close())
	})
	t.Run("OK_again", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "registry.db")
		reg, err := registry.Open(t.Context(), path)
		require.NoError(t, err)
		provider := mustProvider(t, reg, "openai")
		m, k := mustModel(t, reg, provider.ID, "gpt-4", gpt4()), mustKey(t, reg, provider.ID, 1)
		record(t, reg, m, k, 1000, 500)
		before := dump(t, reg)
		require.NoError(t, reg.Close())
		for range 3 {
			reg, err := registry.Open(t.Context(), path)
			require.NoError(t, err)
			require.Equal(t, before, dump(t, reg))
			require.NoError(t, reg.Close())
		}
	})
	t.Run("OK_two_at_once", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "registry.db")
		one, err := registry.Open(t.Context(), path)
		require.NoError(t, err)
		two, err := registry.Open(t.Context(), path, registry.WithoutMigration())
		require.NoError(t, err)
		require.NoError(t, one.SetSetting(t.Context(), "who", "one"))
		require.NoError(t, two.SetSetting(t.Context(), "whom", "two"))
		require.Equal(t, dump(t, one), dump(t, two))
		require.NoError(t, one.Close())
		value, err := two.GetSetting(t.Context(), "who")
		require.NoError(t, err)
		require.Equal(t, "one", value)
		require.NoError(t, two.SetSetting(t.Context(), "alone", "yes"))
		require.NoError(t, two.Close())
	})
	t.Run("OK_memory", func(t *testing.T) {
		t.Parallel()
		one, err := registry.Open(t.Context(), ":memory:")
		require.NoError(t, err)
		two, err := registry.Open(t.Context(), "file::memory:")
		require.NoError(t, err)
		require.NoError(t, one.SetSetting(t.Context(), "who", "one"))
		_, err = two.GetSetting(t.Context(), "who")
		require.ErrorIs(t, err, registry.ErrNotFound)
		require.NoError(t, errors.Join(one.Close(), two.Close()))
	})
	t.Run("OK_durability", func(t *testing.T) {
		t.Parallel()
		for durability, want := range map[registry.Durability]int{
			registry.DurabilityFull: 2, registry.DurabilityRelaxed: 1,
		} {
			reg := registrytest.New(t, registry.WithDurability(durability))
			rows, err := reg.Client().QueryContext(t.Context(), "PRAGMA synchronous")
			require.NoError(t, err)
			require.True(t, rows.Next())
			var got int
			require.NoError(t, rows.Scan(&got))
			require.NoError(t, errors.Join(rows.Err(), rows.Close()))
			require.Equal(t, want, got)
		}
	})
	t.Run("ErrInvalidData_options", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		for name, option := range map[string]registry.Option{
			"an option is nil": nil,
			"clock":            registry.WithClock(nil),
			"not one of DurabilityFull and DurabilityRelaxed; above": registry.WithDurability(
				registry.DurabilityRelaxed + 1,
			),
			"not one of DurabilityFull and DurabilityRelaxed; below": registry.WithDurability(
				registry.DurabilityFull - 1,
			),
		} {
			_, err := registry.Open(t.Context(), filepath.Join(dir, "registry.db"), registry.WithoutMigration(), option)
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
			says, _, _ := strings.Cut(name, ";")
			require.ErrorContains(t, err, says)
		}
		require.Empty(t, openState(t, dir))
	})
	t.Run("ErrInvalidData_names", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
		require.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))
		before := openState(t, dir)
		for _, name := range []string{
			"", "file:", "a\x00b", "file:a%00b", "file:a%zz", "file:a?mode=ro", "file://elsewhere/a",
			"mysql://user:hunter2@host/db", "file://user:hunter2@host/a",
			filepath.Join(dir, "folder"), filepath.Join(dir, "folder") + "/", dir + "/.", "/", os.DevNull,
			filepath.Join(dir, "missing", "registry.db"), filepath.Join(dir, "file", "registry.db"),
			filepath.Join(dir, "loop"), filepath.Join(dir, strings.Repeat("x", 300)),
		} {
			_, err := registry.Open(t.Context(), name)
			require.ErrorIs(t, err, registry.ErrInvalidData, "%q", name)
			require.NotContains(t, err.Error(), "hunter2")
		}
		require.Equal(t, before, openState(t, dir))
	})
	t.Run("ErrCanceled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		path := filepath.Join(t.TempDir(), "registry.db")
		for _, name := range []string{":memory:", path} {
			_, err := registry.Open(ctx, name)
			require.ErrorIs(t, err, context.Canceled, name)
		}
		openOnce(t, path) // it is not in the way of the next one
	})
}

// A file that is refused is as it was: its bytes, its mode and what lies beside it.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 20_000)
	_, err := rand.Read(noise)
	require.NoError(t, err)
	write := func(content []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			require.NoError(t, os.WriteFile(path, content, 0o600))
		}
	}
	foreign := func(statement string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			openForeign(t, path, statement)
		}
	}
	ours := func(statement string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			openOnce(t, path)
			// In this journal mode nothing lies beside the file.
			openForeign(t, path, statement, "PRAGMA journal_mode = DELETE")
		}
	}
	for name, test := range map[string]struct {
		make func(t *testing.T, path string)
		want []error
	}{
		"random_bytes": {write(noise), []error{registry.ErrCorrupt}},
		"text": {
			make: write([]byte(strings.Repeat("This is no database.\n", 100))), want: []error{registry.ErrCorrupt},
		},
		"short_text":   {make: write([]byte("no")), want: []error{registry.ErrCorrupt}},
		"header_alone": {make: write([]byte("SQLite format 3\x00")), want: []error{registry.ErrCorrupt}},
		"zeroes":       {make: write(make([]byte, 8192)), want: []error{registry.ErrCorrupt}},
		"other_tables": {make: foreign("CREATE TABLE t (x)"), want: []error{registry.ErrSchema, migrate.ErrForeign}},
		"other_id": {
			make: foreign("PRAGMA application_id = 42"), want: []error{registry.ErrSchema, migrate.ErrForeign},
		},
		"our_tables_other_id": {
			make: ours("PRAGMA application_id = 42"), want: []error{registry.ErrSchema, migrate.ErrForeign},
		},
		"newer": {
			make: ours("INSERT INTO atlas_schema_revisions SELECT '29991231235959', 'future', type, applied, total," +
				" executed_at," +
				" execution_time, error, error_stmt, hash, partial_hashes, operator_version FROM" +
				" atlas_schema_revisions LIMIT 1"),
			want: []error{registry.ErrSchema, migrate.ErrNewer},
		},
		"edited": {
			make: ours("UPDATE atlas_schema_revisions SET hash = 'h1:other'"),
			want: []error{registry.ErrSchema, migrate.ErrEdited},
		},
		"no_history": {
			make: ours("DELETE FROM atlas_schema_revisions"), want: []error{registry.ErrSchema, migrate.ErrForeign},
		},
	} {
		t.Run("Err_"+name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "other.db")
			test.make(t, path)
			require.NoError(t, os.Chmod(path, 0o640))
			before := openState(t, dir)
			for _, options := range [][]registry.Option{nil, {registry.WithoutMigration()}} {
				_, err := registry.Open(t.Context(), path, options...)
				for _, want := range test.want {
					require.ErrorIs(t, err, want)
				}
				require.ErrorContains(t, err, path)
				require.Equal(t, before, openState(t, dir))
			}
		})
	}
}

func TestWithoutMigration(t *testing.T) {
	t.Parallel()
	t.Run("OK_up_to_date", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "registry.db")
		openOnce(t, path)
		openOnce(t, path, registry.WithoutMigration())
	})
	t.Run("ErrInvalidData_missing", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		_, err := registry.Open(t.Context(), filepath.Join(dir, "registry.db"), registry.WithoutMigration())
		require.ErrorIs(t, err, registry.ErrInvalidData)
		require.Empty(t, openState(t, dir))
	})
	t.Run("ErrSchema_pending", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		path := filepath.Join(dir, "registry.db")
		for name, prepare := range map[string]func(){
			"empty": func() { require.NoError(t, os.WriteFile(path, nil, 0o640)) },
			"ours":  func() { openForeign(t, path, fmt.Sprintf("PRAGMA application_id = %d", migrate.ApplicationID)) },
		} {
			prepare()
			before := openState(t, dir)
			_, err := registry.Open(t.Context(), path, registry.WithoutMigration())
			require.ErrorIs(t, err, registry.ErrSchema, name)
			require.ErrorContains(t, err, "_init.sql", name)
			require.Equal(t, before, openState(t, dir), name)
			require.NoError(t, os.Remove(path))
		}
		_, err := registry.Open(t.Context(), ":memory:", registry.WithoutMigration())
		require.ErrorIs(t, err, registry.ErrSchema)
	})
}

// A relative name means the file that it meant when it was opened.
func TestOpenRelative(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	t.Chdir(first)
	reg, err := registry.Open(t.Context(), "registry.db")
	require.NoError(t, err)
	reg2, err := registry.Open(t.Context(), "file:two%20words.db")
	require.NoError(t, err)
	t.Chdir(second)
	for _, reg := range []*registry.Registry{reg, reg2} {
		require.NoError(t, reg.SetSetting(t.Context(), "after", "chdir")) // the reader's connection is opened here
		value, err := reg.GetSetting(t.Context(), "after")
		require.NoError(t, err)
		require.Equal(t, "chdir", value)
		require.NoError(t, reg.Close())
	}
	require.Empty(t, openState(t, second))
	require.Len(t, openState(t, first), 2)
}

// openOperations returns every operation of a registry by its name. All of them succeed in any
// order, and those that write change something.
func openOperations(
	t *testing.T, reg *registry.Registry,
) map[string]func(ctx context.Context, reg *registry.Registry) error {
	t.Helper()
	ctx := t.Context()
	provider, doomed, purged := mustProvider(t, reg, "kept"), mustProvider(t, reg, "doomed"), mustProvider(t, reg, "purged")
	var models, keys []uuid.UUID
	for i := range 4 {
		models = append(models, mustModel(t, reg, provider.ID, fmt.Sprint("m", i), gpt4()).ID)
	}
	for i := range 6 {
		keys = append(keys, mustKey(t, reg, provider.ID, i).ID)
	}
	require.NoError(t, reg.IncrementUsage(ctx, keys[0], 1, 1))
	_, err := reg.Past().APIKey.UpdateOneID(keys[0]).AddTokenCount(1).Save(ctx) // for RepairLedger
	require.NoError(t, err)
	require.NoError(t, reg.DegradeKey(ctx, keys[1], "429", time.Hour))
	require.NoError(t, reg.SetSetting(ctx, "kept", "old"))
	require.NoError(t, reg.SetSetting(ctx, "doomed", "old"))
	log, err := reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "openai"})
	require.NoError(t, err)
	_, err = reg.CreateSDKVersion(ctx, registry.SDKVersionInput{ProviderID: provider.ID, Version: "1"})
	require.NoError(t, err)
	acquire := registry.AcquireInput{ProviderID: provider.ID, ModelID: models[0], TTL: time.Hour}
	open, err := reg.AcquireKey(ctx, acquire)
	require.NoError(t, err)
	var groups []uuid.UUID
	for i := range 2 {
		group, err := reg.CreateQuotaGroup(
			ctx, registry.QuotaGroupInput{ProviderID: provider.ID, Name: fmt.Sprint("group ", i)},
		)
		require.NoError(t, err)
		groups = append(groups, group.ID)
	}

	return withEntities(t, reg, groups[0], map[string]func(context.Context, *registry.Registry) error{
		"AcquireKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.AcquireKey(ctx, acquire))
		},
		"CreateQuotaGroup": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: provider.ID, Name: "new"}))
		},
		"DeleteQuotaGroup": func(ctx context.Context, reg *registry.Registry) error { return reg.DeleteQuotaGroup(ctx, groups[1]) },
		"ExplainKeys": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ExplainKeys(ctx, acquire))
		},
		"GetLease": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(
				reg.GetLease(ctx, open.ID),
			)
		},
		"ListQuotaGroups": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListQuotaGroups(ctx, registry.QuotaGroupFilter{ProviderID: provider.ID}))
		},
		"ObserveHeaders": func(ctx context.Context, reg *registry.Registry) error {
			return reg.ObserveHeaders(ctx, keys[0], http.Header{"Retry-After": {"1"}})
		},
		"PoolHealth": func(ctx context.Context, reg *registry.Registry) error { return openSecond(reg.PoolHealth(ctx)) },
		"UpdateQuotaGroup": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(
				reg.UpdateQuotaGroup(
					ctx, groups[0], registry.QuotaGroupUpdate{Limits: &registry.Limits{Concurrency: 1}},
				),
			)
		},
		"InTx": func(ctx context.Context, reg *registry.Registry) error {
			return reg.InTx(ctx, func(tx *registry.Registry) error { return tx.SetSetting(ctx, "in tx", "x") })
		},
		"AddAPIKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: provider.ID, APIKey: secret(99)}))
		},
		"CreateDiscoveryLog": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(
				reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "new", ProviderID: provider.ID}),
			)
		},
		"CreateFamily": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.CreateFamily(ctx, registry.FamilyInput{ProviderID: provider.ID, Name: "new"}))
		},
		"CreateModel": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.CreateModel(ctx, registry.ModelInput{ProviderID: provider.ID, ModelID: "new"}))
		},
		"CreateModels": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.CreateModels(ctx, []registry.ModelInput{
				{ProviderID: provider.ID, ModelID: "new 1"}, {ProviderID: provider.ID, ModelID: "new 2"},
			}))
		},
		"CreateProvider": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.CreateProvider(ctx, registry.ProviderInput{Name: "new"}))
		},
		"CreateSDKVersion": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(
				reg.CreateSDKVersion(ctx, registry.SDKVersionInput{ProviderID: provider.ID, Version: "2"}),
			)
		},
		"DegradeKey": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DegradeKey(ctx, keys[2], "500", time.Hour)
		},
		"DeleteAPIKey": func(ctx context.Context, reg *registry.Registry) error { return reg.DeleteAPIKey(ctx, keys[3]) },
		"DeleteModel":  func(ctx context.Context, reg *registry.Registry) error { return reg.DeleteModel(ctx, models[1]) },
		"DeleteProvider": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DeleteProvider(ctx, doomed.ID)
		},
		"DeleteSetting": func(ctx context.Context, reg *registry.Registry) error { return reg.DeleteSetting(ctx, "doomed") },
		"DeprecateModel": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DeprecateModel(ctx, models[2], time.Time{})
		},
		"FindAPIKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.FindAPIKey(ctx, provider.ID, secret(0)))
		},
		"FindModel": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.FindModel(ctx, provider.ID, "m0"))
		},
		"FindProvider": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.FindProvider(ctx, "kept"))
		},
		"GetCostBreakdown": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetCostBreakdown(ctx, provider.ID))
		},
		"GetLeastUsedKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetLeastUsedKey(ctx, provider.ID))
		},
		"GetModel": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetModel(ctx, models[0]))
		},
		"GetModelsByProvider": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetModelsByProvider(ctx, provider.ID, registry.Page{}))
		},
		"GetProvider": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetProvider(ctx, provider.ID))
		},
		"GetRecentDiscoveries": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetRecentDiscoveries(ctx, registry.DiscoveryFilter{}))
		},
		"GetSetting": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetSetting(ctx, "kept"))
		},
		"GetUsageStats": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetUsageStats(ctx, models[0], registrytest.Start, registrytest.Start.Add(time.Hour)))
		},
		"ImportCatalog": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ImportCatalog(ctx, catalog.Snapshot{Source: "test", Providers: []catalog.Provider{
				{
					Name: "imported", AuthMethod: "bearer",
					Models: []catalog.Model{{ModelID: "m", Rates: gpt4(), Family: "f"}},
				},
			}}, nil))
		},
		"IncrementUsage": func(ctx context.Context, reg *registry.Registry) error {
			return reg.IncrementUsage(ctx, keys[0], 10, 10)
		},
		"LatestSDKVersion": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.LatestSDKVersion(ctx, provider.ID))
		},
		"ListAPIKeys": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListAPIKeys(ctx, registry.KeyFilter{ProviderID: provider.ID}))
		},
		"ListAudit": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListAudit(ctx, registry.AuditFilter{}))
		},
		"ListFamilies": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListFamilies(ctx, registry.FamilyFilter{ProviderID: provider.ID}))
		},
		"ListModels": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListModels(ctx, registry.ModelFilter{}))
		},
		"ListProviders": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListProviders(ctx, registry.ProviderFilter{}))
		},
		"ListSDKVersions": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListSDKVersions(ctx, registry.SDKVersionFilter{ProviderID: provider.ID}))
		},
		"ListUsageEvents": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListUsageEvents(ctx, registry.EventFilter{}))
		},
		"ListSettings": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListSettings(ctx, registry.SettingFilter{}))
		},
		"PriceAt": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.PriceAt(ctx, models[0], registrytest.Start))
		},
		"PriceHistory": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.PriceHistory(ctx, registry.PriceFilter{ModelID: models[0]}))
		},
		"Reprice": func(ctx context.Context, reg *registry.Registry) error {
			_, err := reg.UpdateModelPricing(
				ctx, models[0], registry.PriceInput{Rates: money.Rates{meter.Input: 3}, EffectiveFrom: time.Unix(0, 0)},
			)
			if err == nil {
				_, err = reg.Reprice(ctx, registry.RepriceInput{ModelID: models[0]})
			}
			return err
		},
		"UnpricedUsage": func(ctx context.Context, reg *registry.Registry) error { return openSecond(reg.UnpricedUsage(ctx)) },
		"Prune": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.Prune(ctx, registry.PruneInput{}))
		},
		"PurgeAPIKey":   func(ctx context.Context, reg *registry.Registry) error { return reg.PurgeAPIKey(ctx, keys[4]) },
		"PurgeModel":    func(ctx context.Context, reg *registry.Registry) error { return reg.PurgeModel(ctx, models[3]) },
		"PurgeProvider": func(ctx context.Context, reg *registry.Registry) error { return reg.PurgeProvider(ctx, purged.ID) },
		"RecordUsage": func(ctx context.Context, reg *registry.Registry) error {
			return reg.RecordUsage(ctx, registry.UsageInput{
				ModelID: models[0], APIKeyID: keys[0], Tokens: meter.Tokens{InputTokens: 1},
			})
		},
		"RecordUsageBatch": func(ctx context.Context, reg *registry.Registry) error {
			return reg.RecordUsageBatch(ctx, []registry.UsageInput{{ModelID: models[0], APIKeyID: keys[0]}})
		},
		"RepairLedger": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.RepairLedger(ctx)) // of the counters of a key
		},
		"ResetDailyUsage": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(
				reg.ResetDailyUsage(ctx),
			)
		},
		"RevealAPIKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.RevealAPIKey(ctx, keys[0]))
		},
		"RotateAPIKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.RotateAPIKey(ctx, keys[5], registry.KeyRotationInput{APIKey: secret(500)}))
		},
		"RotateKeyring": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.RotateKeyring(ctx, registry.KeyringRotationInput{DataKey: true}))
		},
		"RestoreKey": func(ctx context.Context, reg *registry.Registry) error { return reg.RestoreKey(ctx, keys[1]) },
		"SetSetting": func(ctx context.Context, reg *registry.Registry) error { return reg.SetSetting(ctx, "kept", "new") },
		"UpdateAPIKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UpdateAPIKey(ctx, keys[5], registry.KeyUpdate{Label: ptr("new")}))
		},
		"UpdateDiscoveryResult": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UpdateDiscoveryResult(ctx, log.ID, "found", discoverylog.StatusSuccess))
		},
		"UpdateModel": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UpdateModel(ctx, models[0], registry.ModelUpdate{Name: ptr("new")}))
		},
		"UpdateModelPricing": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(
				reg.UpdateModelPricing(ctx, models[0], registry.PriceInput{Rates: money.Rates{meter.Input: 1}}),
			)
		},
		"UsageReport": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(
				reg.UsageReport(
					ctx, registry.ReportInput{Start: registrytest.Start, End: registrytest.Start.Add(time.Hour)},
				),
			)
		},
		"UpdateProvider": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UpdateProvider(ctx, provider.ID, registry.ProviderUpdate{DisplayName: ptr("New")}))
		},
		"VerifyLedger": func(ctx context.Context, reg *registry.Registry) error { return openSecond(reg.VerifyLedger(ctx)) },
	})
}

// openSecond returns the error of an operation, or what is wrong with the rows it returned.
func openSecond[T any](returned T, err error) error {
	if err != nil {
		return err
	}
	return rowsUntied(reflect.ValueOf(returned))
}

// openReads tells the operations that change nothing.
func openReads(name string) bool {
	for _, prefix := range []string{
		"Explain", "Find", "Get", "Latest", "List", "Pool", "Price", "Reveal", "Unpriced", "UsageReport", "Verify",
	} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// The tests below are about all operations there are.
func TestOperations(t *testing.T) { eachEngine(t, testOperations) }

func testOperations(t *testing.T, e engine) {
	t.Parallel()
	reg := e.new(t, registry.WithKeyring(ring(t, "a")))
	if e.name == onPostgres.name {
		requireService(t, reg)
	}
	operations := openOperations(t, reg)
	var names []string
	for method := range reflect.TypeFor[*registry.Registry]().Methods() {
		switch method.Name {
		case "As", "Client", "Past": // ask nothing of the database
		case "Close": // ends what the others need
		default:
			names = append(names, method.Name)
		}
	}
	require.Equal(t, names, slices.Sorted(maps.Keys(operations)))
	for name, operate := range operations {
		before := dump(t, reg)
		require.NoError(t, operate(t.Context(), reg), name)
		require.Equal(t, openReads(name), before == dump(t, reg), name)
	}
}

func TestCanceled(t *testing.T) { eachEngine(t, testCanceled) }

func testCanceled(t *testing.T, e engine) {
	t.Parallel()
	reg := e.new(t, registry.WithKeyring(ring(t, "a")))
	operations := openOperations(t, reg)
	before := dump(t, reg)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithTimeout(t.Context(), -time.Second)
	defer cancelLate()
	for name, operate := range operations {
		err := operate(ctx, reg)
		require.ErrorIs(t, err, context.Canceled, name)
		require.NotErrorIs(t, err, registry.ErrClosed, name)
		require.ErrorIs(t, operate(late, reg), context.DeadlineExceeded, name)
	}
	require.ErrorIs(t, reg.InTx(ctx, func(*registry.Registry) error {
		require.FailNow(t, "fn is called in an ended context")
		return nil
	}), context.Canceled)
	require.Equal(t, before, dump(t, reg))

	require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
		for name, operate := range operations {
			require.ErrorIs(t, operate(ctx, tx), context.Canceled, name)
		}
		return nil
	}))
	require.Equal(t, before, dump(t, reg))
}

func TestClosed(t *testing.T) {
	t.Parallel()
	for name, database := range map[string]string{
		"file": filepath.Join(t.TempDir(), "registry.db"), "memory": ":memory:",
	} {
		t.Run("ErrClosed_"+name, func(t *testing.T) {
			t.Parallel()
			reg, err := registry.Open(t.Context(), database, registry.WithKeyring(ring(t, "a")))
			require.NoError(t, err)
			operations := openOperations(t, reg)
			require.NoError(t, reg.Close())
			require.NoError(t, reg.Close())
			for name, operate := range operations {
				require.ErrorIs(t, operate(t.Context(), reg), registry.ErrClosed, name)
			}
			require.NotNil(t, reg.Client())
		})
	}
	t.Run("ErrClosed_ended_transaction", func(t *testing.T) {
		t.Parallel()
		reg := registrytest.New(t, registry.WithKeyring(ring(t, "a")))
		operations := openOperations(t, reg)
		before := dump(t, reg)
		var ended []*registry.Registry
		require.NoError(
			t, reg.InTx(t.Context(), func(tx *registry.Registry) error { ended = append(ended, tx); return nil }),
		)
		require.ErrorIs(
			t,
			reg.InTx(t.Context(), func(tx *registry.Registry) error { ended = append(ended, tx); return errRollback }),
			errRollback,
		)
		for _, tx := range ended {
			for name, operate := range operations {
				require.ErrorIs(t, operate(t.Context(), tx), registry.ErrClosed, name)
			}
		}
		require.Equal(t, before, dump(t, reg))
	})
	t.Run("ErrInvalidData_within_a_transaction", func(t *testing.T) {
		t.Parallel()
		reg := registrytest.New(t)
		require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			require.ErrorIs(t, tx.Close(), registry.ErrInvalidData)
			return tx.SetSetting(t.Context(), "still", "open")
		}))
		require.NoError(t, reg.SetSetting(t.Context(), "and", "after"))
	})
}

func TestInTx(t *testing.T) { eachEngineAtOnce(t, testInTx) }

func testInTx(t *testing.T, e engine) {
	t.Parallel()
	settings := func(t *testing.T, reg *registry.Registry) []string {
		t.Helper()
		all, err := reg.ListSettings(t.Context(), registry.SettingFilter{})
		require.NoError(t, err)
		keys := []string{}
		for _, s := range all {
			keys = append(keys, s.ID)
		}
		return keys
	}
	t.Run("OK_commit", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t)
		require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			p := mustProvider(t, tx, "openai")
			k := mustKey(t, tx, p.ID, 1)
			record(t, tx, mustModel(t, tx, p.ID, "gpt-4", gpt4()), k, 1, 1)
			// Others do not see it, and do not wait.
			all, err := reg.ListProviders(t.Context(), registry.ProviderFilter{})
			require.NoError(t, err)
			require.Empty(t, all)
			used, err := tx.GetLeastUsedKey(t.Context(), p.ID)
			require.NoError(t, err)
			require.Equal(t, int64(1), used.UsageCount)
			return nil
		}))
		_, err := reg.FindProvider(t.Context(), "openai")
		require.NoError(t, err)
	})
	t.Run("ErrOfFn", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t)
		before := dump(t, reg)
		err := reg.InTx(t.Context(), func(tx *registry.Registry) error {
			mustProvider(t, tx, "openai")
			require.NotEqual(t, before, dump(t, tx))
			return errRollback
		})
		require.Equal(t, errRollback, err, "it is returned as it is")
		require.Equal(t, before, dump(t, reg))
	})
	t.Run("OK_after_an_error_of_an_operation", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t)
		require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			p := mustProvider(t, tx, "openai")
			_, err := tx.CreateProvider(t.Context(), registry.ProviderInput{Name: "openai"})
			require.ErrorIs(t, err, registry.ErrConflict)
			// Of these two the first is good, and is undone with the second.
			_, err = tx.CreateModels(t.Context(), []registry.ModelInput{
				{ProviderID: p.ID, ModelID: "twice"}, {ProviderID: p.ID, ModelID: "twice"},
			})
			require.ErrorIs(t, err, registry.ErrConflict)
			mustModel(t, tx, p.ID, "once", nil)
			return nil
		}))
		models, err := reg.ListModels(t.Context(), registry.ModelFilter{})
		require.NoError(t, err)
		require.Equal(t, []string{"once"}, []string{models[0].ModelID})
	})
	t.Run("OK_nested", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t)
		put := func(tx *registry.Registry, key string) { require.NoError(t, tx.SetSetting(t.Context(), key, "")) }
		require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			put(tx, "1")
			require.NoError(t, tx.InTx(t.Context(), func(tx *registry.Registry) error {
				put(tx, "2 kept")
				require.Equal(t, errRollback, tx.InTx(t.Context(), func(tx *registry.Registry) error {
					put(tx, "3 undone")
					return tx.InTx(t.Context(), func(tx *registry.Registry) error {
						put(tx, "4 undone")
						return errRollback
					})
				}))
				put(tx, "5 kept")
				return nil
			}))
			require.Equal(t, errRollback, tx.InTx(t.Context(), func(tx *registry.Registry) error {
				put(tx, "6 undone")
				require.NoError(t, tx.InTx(t.Context(), func(tx *registry.Registry) error {
					put(tx, "7 undone with its surroundings")
					return nil
				}))
				return errRollback
			}))
			require.Panics(t, func() {
				_ = tx.InTx(t.Context(), func(tx *registry.Registry) error {
					put(tx, "8 undone")
					panic("in a nested transaction")
				})
			})
			put(tx, "9 kept")
			return nil
		}))
		require.Equal(t, []string{"1", "2 kept", "5 kept", "9 kept"}, settings(t, reg))
		require.Equal(t, errRollback, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			require.NoError(t, tx.InTx(t.Context(), func(tx *registry.Registry) error {
				put(tx, "lost with the outer one")
				return nil
			}))
			return errRollback
		}))
		require.Len(t, settings(t, reg), 4)
	})
	t.Run("ErrPanic", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t)
		for range 3 {
			require.PanicsWithValue(t, "of the caller", func() {
				_ = reg.InTx(t.Context(), func(tx *registry.Registry) error {
					require.NoError(t, tx.SetSetting(t.Context(), "a", "b"))
					panic("of the caller")
				})
			})
		}
		require.Empty(t, settings(t, reg))
		require.NoError(t, reg.SetSetting(t.Context(), "the pool", "is usable"))
	})
	t.Run("ErrGoexit", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t)
		done := make(chan struct{})
		go func() { // as t.FailNow does in a test
			defer close(done)
			_ = reg.InTx(t.Context(), func(tx *registry.Registry) error {
				if err := tx.SetSetting(t.Context(), "a", "b"); err != nil {
					return err
				}
				return tx.InTx(t.Context(), func(*registry.Registry) error {
					runtime.Goexit()
					return nil
				})
			})
		}()
		<-done
		require.Empty(t, settings(t, reg))
		require.NoError(t, reg.SetSetting(t.Context(), "the pool", "is usable"))
	})
	t.Run("ErrCanceled_before_commit", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t)
		for i := range 20 { // the rollback comes at once, or at the commit
			ctx, cancel := context.WithCancel(t.Context())
			err := reg.InTx(ctx, func(tx *registry.Registry) error {
				err := tx.SetSetting(ctx, "a", "b")
				cancel()
				for i%2 == 0 && err == nil {
					if _, over := tx.GetSetting(t.Context(), "a"); over != nil {
						break
					}
				}
				return err
			})
			require.ErrorIs(t, err, context.Canceled)
			require.NotErrorIs(t, err, registry.ErrClosed)
			require.Empty(t, settings(t, reg))
		}
		require.NoError(t, reg.SetSetting(t.Context(), "the pool", "is usable"))
	})
}
