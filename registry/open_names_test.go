package registry_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

func TestOpenParameters(t *testing.T) {
	t.Parallel()
	t.Run("OK_file", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		for _, name := range []string{
			"modelscan.db", "modelscan.db?_fk=1", "modelscan.db?_journal=WAL&_fk=true",
			"modelscan.db?mode=rwc&cache=shared&_busy_timeout=5000",
		} {
			openOnce(t, filepath.Join(dir, name))
			openOnce(t, "file:"+filepath.Join(dir, name))
		}
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, entries, 1)
		require.Equal(t, "modelscan.db", entries[0].Name())
	})
	t.Run("OK_no_keywords", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		for _, name := range []string{"my file a=b.db", "of host=a port=b.db", "a;b=c.db"} {
			openOnce(t, filepath.Join(dir, name))
			require.FileExists(t, filepath.Join(dir, name))
		}
	})
	t.Run("OK_private_memory", func(t *testing.T) {
		t.Parallel()
		one, two := mustOpen(t, ":memory:?_fk=true"), mustOpen(t, ":memory:?_fk=true")
		require.NoError(t, one.SetSetting(t.Context(), "who", "one"))
		_, err := two.GetSetting(t.Context(), "who")
		require.ErrorIs(t, err, registry.ErrNotFound)
		require.NoError(t, errors.Join(one.Close(), two.Close()))
		require.NoFileExists(t, ":memory:?_fk=true")
	})
	t.Run("ErrInvalidData", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		for _, name := range []string{
			"modelscan.db\n", "modelscan.db?_fk=0", "modelscan.db?_journal=DELETE", "modelscan.db?_pass=hunter2",
			"modelscan.db?", "what?.db",
		} {
			_, err := registry.Open(t.Context(), filepath.Join(dir, name))
			require.ErrorIs(t, err, registry.ErrInvalidData, "%q", name)
			require.NotContains(t, err.Error(), "hunter2")
		}
		require.Empty(t, openState(t, dir))
		for _, name := range []string{
			"host=127.0.0.1 dbname=gw", "user=me password=hunter2", "me:hunter2@tcp(host:3306)/gw",
			"statement_timeout=5000 host=127.0.0.1 dbname=gw", "default_query_exec_mode=exec host=x dbname=gw",
			"pool_max_conns=10 host=x", "work_mem=4MB dbname=x", "foo=bar host=x dbname=gw", "hostname=x port=5432",
			"server=localhost;database=gw", "foo=hunter2;host=x",
		} {
			_, err := registry.Open(t.Context(), name)
			require.ErrorIs(t, err, registry.ErrInvalidData, "%q", name)
			require.ErrorContains(t, err, "postgres://user:password@host:5432/database")
			require.NotContains(t, err.Error(), "hunter2")
			require.NoFileExists(t, name)
		}
		for name, says := range map[string]string{
			":memory: ": ":memory:", " :memory:": ":memory:", ":MEMORY:": ":memory:", "FILE:x.db": "file:",
			"sqlite:x.db": "file:PATH",
			"a\u2028b.db": "control character", "a\u2029b.db": "control character", "a\u0085b.db": "control character",
		} {
			_, err := registry.Open(t.Context(), name)
			require.ErrorIs(t, err, registry.ErrInvalidData, "%q", name)
			require.ErrorContains(t, err, says)
			require.NoFileExists(t, name)
		}
	})
}

// Those of a process that ask for a shared database in memory have one, until the last of them has closed it.
func TestOpenSharedMemory(t *testing.T) {
	t.Parallel()
	one, two := mustOpen(t, "file::memory:?cache=shared"), mustOpen(t, ":memory:?cache=shared")
	m, k, err := faultFixture(t.Context(), one)
	require.NoError(t, err)
	for range 3 { // neither goes by what it remembers of the other's
		record(t, one, m, k, 1, 1)
		record(t, two, m, k, 1, 1)
	}
	key, err := one.Client().APIKey.Get(t.Context(), k.ID)
	require.NoError(t, err)
	require.Equal(t, int64(6), key.UsageCount)
	require.Empty(t, verified(t, two).Differences)

	require.NoError(t, one.Close())
	_, err = one.GetSetting(t.Context(), "a")
	require.ErrorIs(t, err, registry.ErrClosed)
	require.ErrorIs(t, one.SetSetting(t.Context(), "a", "b"), registry.ErrClosed)
	record(t, two, m, k, 1, 1)
	require.NoError(t, two.Close())
	require.NoError(t, two.Close())

	three := mustOpen(t, "file::memory:?cache=shared")
	providers, err := three.ListProviders(t.Context(), registry.ProviderFilter{})
	require.NoError(t, err)
	require.Empty(t, providers)
	require.NoError(t, three.Close())
}
