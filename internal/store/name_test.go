package store_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/store"
)

func TestParseName(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	require.NoError(t, err)

	t.Run("OK", func(t *testing.T) {
		t.Parallel()
		for name, want := range map[string]string{
			":memory:":                      "",
			"file::memory:":                 "",
			"a.db":                          here + "/a.db",
			"./a.db":                        here + "/a.db",
			"./:memory:":                    here + "/:memory:",
			"a/../b.db":                     here + "/b.db",
			"/tmp/a.db":                     "/tmp/a.db",
			"/tmp//a.db":                    "/tmp/a.db",
			"/tmp/with space.db":            "/tmp/with space.db",
			"/tmp/what?.db":                 "/tmp/what?.db",
			"/tmp/a.db?mode=memory":         "/tmp/a.db?mode=memory",
			"/tmp/#1.db":                    "/tmp/#1.db",
			"/tmp/100%.db":                  "/tmp/100%.db",
			"/tmp/%41.db":                   "/tmp/%41.db",
			"/tmp/Größe 数据 🙂.db":            "/tmp/Größe 数据 🙂.db",
			`/tmp/it's "quoted".db`:         `/tmp/it's "quoted".db`,
			`/tmp/back\slash.db`:            `/tmp/back\slash.db`,
			"/tmp/new\nline.db":             "/tmp/new\nline.db",
			"-rf":                           here + "/-rf",
			"--help":                        here + "/--help",
			"c:a.db":                        here + "/c:a.db",
			"sqlite:a.db":                   here + "/sqlite:a.db",
			"file:a.db":                     here + "/a.db",
			"file:/tmp/a.db":                "/tmp/a.db",
			"file:///tmp/a.db":              "/tmp/a.db",
			"file://localhost/tmp/a.db":     "/tmp/a.db",
			"file:/tmp/a%20b%3f%23%25.db":   "/tmp/a b?#%.db",
			"file:/tmp/a%2Fb.db":            "/tmp/a/b.db",
			"file:/tmp/a+b.db":              "/tmp/a+b.db",
			"file:/tmp/with space.db":       "/tmp/with space.db",
			"file:/tmp/Gr%C3%B6%C3%9Fe.db":  "/tmp/Größe.db",
			"file:///tmp/%2e%2e/etc/passwd": "/etc/passwd",
			"file:%3Amemory%3A":             here + "/:memory:",
		} {
			path, err := store.ParseName(name)
			require.NoError(t, err, "%q", name)
			require.Equal(t, want, path, "%q", name)
		}
	})

	t.Run("ErrName", func(t *testing.T) {
		t.Parallel()
		for name, says := range map[string]string{
			"":                                  "empty",
			"file:":                             "empty",
			"\x00":                              "NUL",
			"a\x00b":                            "NUL",
			"file:a\x00b":                       "NUL",
			"file:a%00b":                        "escape",
			"file:a%zz":                         "escape",
			"file:a%2":                          "escape",
			"file:a.db?mode=ro":                 "no parameters",
			"file:a.db?":                        "no parameters",
			"file:a.db#top":                     "no parameters",
			"file:a.db?_auth_pass=hunter2":      "no parameters",
			"file::memory:?cache=shared":        "no parameters",
			"file://elsewhere/a.db":             "another host",
			"file://user:hunter2@host/a.db":     "another host",
			"postgres://user:hunter2@host/db":   "postgres://",
			"mysql://user:hunter2@host:3306/db": "mysql://",
			"https://user:hunter2@host/a.db":    "https://",
			"libsql://host?authToken=hunter2":   "libsql://",
		} {
			path, err := store.ParseName(name)
			require.ErrorIs(t, err, store.ErrName, "%q", name)
			require.ErrorContains(t, err, says, "%q", name)
			require.NotContains(t, err.Error(), "hunter2", "%q", name)
			require.Empty(t, path, "%q", name)
		}
	})
}

func FuzzParseName(f *testing.F) {
	for _, name := range []string{
		"", ":memory:", "a.db", "/a b", "file:a%20b", "file://localhost/a", "file://host/a", "file:a?b", "a\x00",
		"postgres://user:hunter2@host/db", "file:%", "file:%00", "..", "file:..", "://", "file://",
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		path, err := store.ParseName(name)
		if err != nil {
			require.ErrorIs(t, err, store.ErrName)
			require.Empty(t, path)
			return
		}
		if name == ":memory:" || name == "file::memory:" {
			require.Empty(t, path)
			return
		}
		require.True(t, filepath.IsAbs(path), "%q", path)
		require.Equal(t, filepath.Clean(path), path)
		require.NotContains(t, path, "\x00")
		again, err := store.ParseName(store.FileURI(path))
		require.NoError(t, err)
		require.Equal(t, path, again, "the path's URI means another one")
	})
}

// FuzzFileURI opens a file of any name there can be and finds exactly that file.
func FuzzFileURI(f *testing.F) {
	for _, name := range []string{
		"a.db", "with space", " ", "what?", "a?mode=memory", "a?mode=ro&cache=shared", "#", "a#b", "100%", "%41", "%00", "%zz", "%",
		"Größe", "数据", "🙂", `it's "quoted"`, `back\slash`, "-rf", "--", "file:a", "file:a?mode=ro", ":memory:", "file::memory:",
		"a&b=c", "a+b", "a;b", "a:b", "~", "$HOME", "new\nline", "tab\t", "\x01", "\x7f", "\xff\xfe", "a-wal", "a-journal", "...",
		strings.Repeat("x", 200), strings.Repeat("ö?", 60),
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" || name == "." || name == ".." || len(name) > 200 || strings.ContainsAny(name, "/\x00") {
			t.Skip("not a file name")
		}
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		parsed, err := store.ParseName(path)
		require.NoError(t, err)
		require.Equal(t, path, parsed)

		db, err := store.OpenSQLite(t.Context(), store.Config{Path: path})
		require.NoError(t, err)
		exec1(t, db, "CREATE TABLE t (x)")
		require.Empty(t, query1[int](t, db, "SELECT x FROM t")) // the readers find it too
		_, err = os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, sorted(name, name+"-shm", name+"-wal"), listing(t, dir))
		require.NoError(t, db.Close())
		require.Equal(t, []string{name}, listing(t, dir))
	})
}

func sorted(names ...string) []string { return slices.Sorted(slices.Values(names)) }

func listing(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return sorted(names...)
}
