package pgtest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
)

// program makes a folder with programs that say a version.
func programs(t *testing.T, folder, version string, names ...string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(folder, 0o700))
	for _, name := range names {
		script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(script), 0o700))
	}
	return folder
}

func TestFind(t *testing.T) {
	all := []string{"postgres", "initdb", "pg_basebackup"}
	t.Setenv("PATH", t.TempDir())
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	programs(t, root+"/9/bin", "9.6.24", all...)
	programs(t, root+"/14/bin", "14.9 (Debian 14.9-1)", all...)
	programs(t, root+"/99/bin", "99.1", "postgres", "initdb") // not whole
	require.NoError(t, os.MkdirAll(root+"/empty/bin", 0o700))
	pgtest.SetPlaces(t, root+"/*/bin")
	t.Setenv(pgtest.Variable, "")

	for _, version := range []string{"9.6.24", "14.9"} { // on $PATH, it is still too old
		t.Setenv("PATH", programs(t, t.TempDir(), version, all...)+":/bin:/usr/bin")
		_, err = pgtest.Find()
		require.ErrorIs(t, err, pgtest.ErrNotFound)
	}
	pgtest.SetLife(t, -1)
	tb := observe("", nil)
	if testing.Short() {
		require.Equal(t, "-short: the test needs a PostgreSQL server", tb.skipped)
		t.Skip("-short: what is said when there is no server")
	}
	require.Equal(t, "no PostgreSQL 15 or newer was found: install it (Debian, Ubuntu: apt-get install postgresql), "+
		"or set MODELSCAN_TEST_POSTGRES to the postgres:// URL of a server on which databases may"+
		" be created", tb.skipped)
	require.Empty(t, tb.failed)
	require.NoError(t, os.Remove(pgtest.NotePath(-1)))
	_, _, err = pgtest.Empty(t.Context())
	require.ErrorIs(t, err, pgtest.ErrNotFound)

	programs(t, root+"/15/bin", "15.18", all...)
	programs(t, root+"/18/bin", "18beta1", all...)
	programs(t, root+"/16/bin", "16.2", all...)
	bin, err := pgtest.Find()
	require.NoError(t, err)
	require.Equal(t, root+"/18/bin", bin)

	links := t.TempDir()
	require.NoError(t, os.Symlink(root+"/16/bin/initdb", links+"/initdb"))
	t.Setenv("PATH", links)
	bin, err = pgtest.Find()
	require.NoError(t, err)
	require.Equal(t, root+"/16/bin", bin)
}

// TestVariable: databases on somebody's server, where nothing stays.
func TestVariable(t *testing.T) {
	server := start(t).URL("postgres")
	t.Setenv(pgtest.Variable, server)
	url, err := pgtest.Shared(t.Context())
	require.NoError(t, err)
	require.Equal(t, server, url)
	databases := func() int { return one[int](t, server, "SELECT count(*) FROM pg_database") }
	before := databases()
	t.Run("OK", func(t *testing.T) {
		for range 2 {
			url := pgtest.Database(
				t, "x", func(_ context.Context, url string) error { return run(url, "CREATE TABLE a (id int)") },
			)
			require.Zero(t, one[int](t, url, "SELECT count(*) FROM a"))
		}
		require.Equal(t, before+2, databases())
	})
	require.Equal(t, before, databases())
	tb := observe("x", func(context.Context, string) error { return errors.New("filled too much") })
	require.Contains(t, tb.failed, "filled too much")
	require.Equal(t, before, databases())

	url, remove, err := pgtest.Empty(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, one[int](t, url, "SELECT 1"))
	require.Equal(t, before+1, databases())
	require.NoError(t, remove())
	require.Equal(t, before, databases())

	for _, wrong := range []string{
		"mysql://u:secret@localhost/x", "host=localhost password=secret", "postgres://u:secret@%zz/x",
	} {
		t.Setenv(pgtest.Variable, wrong)
		tb := observe("", nil)
		require.Contains(t, tb.failed, "MODELSCAN_TEST_POSTGRES is not a postgres:// URL")
		require.NotContains(t, tb.failed, "secret")
		require.Empty(t, tb.skipped)
	}
	t.Setenv(pgtest.Variable, "postgres://u:secret@127.0.0.1:1/x?sslmode=disable") // nobody is there
	tb = observe("", nil)
	require.Contains(t, tb.failed, "refused")
	require.NotContains(t, tb.failed, "secret")
	require.Empty(t, tb.skipped)
}
