package registry_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3" // the driver sqlite3, to make databases that are none of ours
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

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
