package registry_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3" // the driver sqlite3, to make databases that are none of ours
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
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
}

// TestOpenOptions shows what options and names do, and which are refused.
func TestOpenOptions(t *testing.T) {
	t.Parallel()
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
		"random_bytes": {make: write(noise), want: []error{registry.ErrCorrupt}},
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

// settingKeys returns the keys of all settings.
func settingKeys(t *testing.T, reg *registry.Registry) []string {
	t.Helper()
	all, err := reg.ListSettings(t.Context(), registry.SettingFilter{})
	require.NoError(t, err)
	keys := []string{}
	for _, s := range all {
		keys = append(keys, s.ID)
	}
	return keys
}

func TestInTx(t *testing.T) { eachEngineAtOnce(t, testInTx) }

func testInTx(t *testing.T, e engine) {
	t.Parallel()
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
		require.Equal(t, []string{"1", "2 kept", "5 kept", "9 kept"}, settingKeys(t, reg))
		require.Equal(t, errRollback, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			require.NoError(t, tx.InTx(t.Context(), func(tx *registry.Registry) error {
				put(tx, "lost with the outer one")
				return nil
			}))
			return errRollback
		}))
		require.Len(t, settingKeys(t, reg), 4)
	})
}

// TestInTxEnds ends transactions by a panic, by leaving the goroutine and by the end of a context.
func TestInTxEnds(t *testing.T) { eachEngineAtOnce(t, testInTxEnds) }

func testInTxEnds(t *testing.T, e engine) {
	t.Parallel()
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
		require.Empty(t, settingKeys(t, reg))
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
		require.Empty(t, settingKeys(t, reg))
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
			require.Empty(t, settingKeys(t, reg))
		}
		require.NoError(t, reg.SetSetting(t.Context(), "the pool", "is usable"))
	})
}
