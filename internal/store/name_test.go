package store_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
			"/tmp/#1.db":                    "/tmp/#1.db",
			"/tmp/100%.db":                  "/tmp/100%.db",
			"/tmp/%41.db":                   "/tmp/%41.db",
			"/tmp/Größe 数据 🙂.db":            "/tmp/Größe 数据 🙂.db",
			`/tmp/it's "quoted".db`:         `/tmp/it's "quoted".db`,
			`/tmp/back\slash.db`:            `/tmp/back\slash.db`,
			"/tmp/user:me@here.db":          "/tmp/user:me@here.db",
			"-rf":                           here + "/-rf",
			"--help":                        here + "/--help",
			"c:a.db":                        here + "/c:a.db",
			"c:me@here.db":                  here + "/c:me@here.db",
			"./sqlite:a.db":                 here + "/sqlite:a.db",
			"./FILE:a.db":                   here + "/FILE:a.db",
			"./:MEMORY:":                    here + "/:MEMORY:",
			"file:%3AMEMORY%3A":             here + "/:MEMORY:",
			"hosts=1":                       here + "/hosts=1",
			"my file a=b.db":                here + "/my file a=b.db",
			"a=b c=d.db":                    here + "/a=b c=d.db",
			"a;b=c.db":                      here + "/a;b=c.db",
			"./a host=b":                    here + "/a host=b",
			"/tmp/of a host=b.db":           "/tmp/of a host=b.db",
			"my ghost=b.db":                 here + "/my ghost=b.db",
			"file:/tmp/a%E2%80%A8b":         "/tmp/a\u2028b",
			"file:a.db":                     here + "/a.db",
			"file:/tmp/a.db":                "/tmp/a.db",
			"file:///tmp/a.db":              "/tmp/a.db",
			"file://localhost/tmp/a.db":     "/tmp/a.db",
			"file:/tmp/a%20b%3f%23%25.db":   "/tmp/a b?#%.db",
			"file:/tmp/a%3Fmode=memory":     "/tmp/a?mode=memory",
			"file:/tmp/a%2Fb.db":            "/tmp/a/b.db",
			"file:/tmp/a+b.db":              "/tmp/a+b.db",
			"file:/tmp/with space.db":       "/tmp/with space.db",
			"file:/tmp/new%0Aline.db":       "/tmp/new\nline.db",
			"file:/tmp/Gr%C3%B6%C3%9Fe.db":  "/tmp/Größe.db",
			"file:///tmp/%2e%2e/etc/passwd": "/etc/passwd",
			"file:%3Amemory%3A":             here + "/:memory:",
			"file:host=h dbname=gw":         here + "/host=h dbname=gw",
			"file:user:me@here":             here + "/user:me@here",
		} {
			parsed, err := store.ParseName(name)
			require.NoError(t, err, "%q", name)
			require.Equal(t, store.Name{Path: want}, parsed, "%q", name)
		}
	})

	// Each asks for what is done anyway.
	t.Run("OK_parameters", func(t *testing.T) {
		t.Parallel()
		for _, parameters := range []string{
			"_fk=1", "_fk=true", "_fk=ON", "_foreign_keys=yes", "_journal=WAL", "_journal_mode=wal", "mode=rwc",
			"cache=private",
			"_txlock=immediate", "_journal=WAL&_fk=true", "_fk=1&_fk=1&mode=rwc&cache=private",
		} {
			for name, want := range map[string]string{
				"a.db": here + "/a.db", "/tmp/%41.db": "/tmp/%41.db", "file:/tmp/%41.db": "/tmp/A.db", ":memory:": "",
				"file::memory:": "",
			} {
				parsed, err := store.ParseName(name + "?" + parameters)
				require.NoError(t, err, "%s?%s", name, parameters)
				require.Equal(t, store.Name{Path: want}, parsed, "%s?%s", name, parameters)
			}
		}
		parsed, err := store.ParseName("a.db?_busy_timeout=5000&cache=shared")
		require.NoError(t, err)
		require.Equal(t, here+"/a.db", parsed.Path)
		require.False(t, parsed.Shared, "every file is")
		require.Equal(t, 5*time.Second, *parsed.BusyTimeout)
		parsed, err = store.ParseName("file::memory:?cache=shared&_timeout=0")
		require.NoError(t, err)
		require.True(t, parsed.Shared)
		require.Zero(t, *parsed.BusyTimeout)
	})
}

// refusedNames are names that mean no database, and what the error says of each.
var refusedNames = map[string]string{
	"":                                   "empty",
	"file:":                              "empty",
	"?_fk=1":                             "empty",
	"\x00":                               "control character",
	"a\x00b":                             "control character",
	"file:a\x00b":                        "control character",
	"modelscan.db\n":                     "control character",
	"a\tb":                               "control character",
	"a\u0085b":                           "control character",
	"a\u2028b":                           "control character",
	"a\u2029":                            "control character",
	"file:a\u2028b":                      "control character",
	"a\x7f":                              "percent escapes",
	":memory: ":                          "a database in memory is :memory:",
	" :memory:":                          "a database in memory is :memory:",
	":MEMORY:":                           "a database in memory is :memory:",
	":Memory:?_fk=1":                     "a database in memory is :memory:",
	"file::memory: ":                     "a database in memory is :memory:",
	"FILE::memory:":                      "a database in memory is :memory:",
	"FILE:x.db":                          "small letters",
	"File:/tmp/x.db?_fk=1":               "small letters",
	"sqlite:x.db":                        "file:PATH",
	"SQLite3:/tmp/x.db":                  "file:PATH",
	"jdbc:sqlite:x.db":                   "file:PATH",
	"file:a%00b":                         "escape",
	"file:a%zz":                          "escape",
	"file:a%2":                           "escape",
	"file:a.db#top":                      "%23",
	"what?.db":                           "%3f",
	"file:what?.db":                      "%3f",
	"a.db?":                              "%3f",
	"file:a.db?":                         "%3f",
	"a.db?hunter2":                       "%3f",
	"a.db?hunter2=1":                     "%3f",
	"a.db?_fk=1;x=2":                     "%3f",
	"a.db?_fk=%zz":                       "%3f",
	"a.db?_pragma=foreign_keys(1)":       "_journal_mode",
	"a.db?_auth_pass=hunter2":            "it takes _fk",
	"file:a.db?_auth_pass=hunter2":       "it takes _fk",
	"a.db?_fk=0":                         "_fk: foreign keys are always on",
	"a.db?_fk=1&_fk=hunter2":             "_fk: foreign keys are always on",
	"a.db?_journal=DELETE":               "_journal: the journal mode is always WAL",
	":memory:?_journal_mode=MEMORY":      "always WAL",
	"a.db?_busy_timeout=5s":              "milliseconds",
	"a.db?_busy_timeout=-1":              "milliseconds",
	"a.db?_busy_timeout=99999999999":     "milliseconds",
	"a.db?_txlock=deferred":              "immediate",
	"a.db?_synchronous=NORMAL":           "WithDurability",
	"a.db?cache=hunter2":                 "private or shared",
	"file:a.db?mode=ro":                  "leave it out",
	"a.db?mode=rw":                       "WithoutMigration",
	"file:a?mode=memory":                 ":memory:",
	"host=127.0.0.1 dbname=gw":           "postgres://user:password@host:5432/database",
	" host = h":                          "postgres://",
	"dbname=gw":                          "postgres://",
	"user=me password=hunter2":           "postgres://",
	"user=me pass word password=hunter2": "postgres://",
	"HOST=h":                             "postgres://",
	"sslmode=disable host=h":             "postgres://",
	"service=gw":                         "postgres://",
	"statement_timeout=5000 host=h dbname=gw":       "postgres://",
	"default_query_exec_mode=exec host=h dbname=gw": "postgres://",
	"pool_max_conns=10 host=h":                      "postgres://",
	"work_mem=4MB dbname=gw":                        "postgres://",
	"foo=bar host=h dbname=gw":                      "postgres://",
	"foo=/var/run host=h dbname=gw":                 "postgres://",
	"foo='a b' HOST = h":                            "postgres://",
	"a host=b":                                      "file:PATH",
	"hostname=h port=5432":                          "postgres://",
	"server=localhost;database=gw":                  "postgres://",
	"Data Source=h; Pwd=hunter2":                    "postgres://",
	"foo=hunter2;host=h":                            "postgres://",
	"postgres:gw":                                   "postgres://",
	"user:hunter2@host:5432/db":                     "postgres://",
	"user:hunter2@tcp(host:3306)/gw":                "postgres://",
	"file://elsewhere/a.db":                         "another host",
	"file://user:hunter2@host/a.db":                 "another host",
	"postgres://user:hunter2@host/db":               "postgres://",
	"mysql://user:hunter2@host:3306/db":             "mysql://",
	"https://user:hunter2@host/a.db":                "https://",
	"libsql://host?authToken=hunter2":               "libsql://",
}

func TestParseNameRefuses(t *testing.T) {
	t.Parallel()
	t.Run("ErrName", func(t *testing.T) {
		t.Parallel()
		for name, says := range refusedNames {
			parsed, err := store.ParseName(name)
			require.ErrorIs(t, err, store.ErrName, "%q", name)
			require.ErrorContains(t, err, says, "%q", name)
			require.NotContains(t, err.Error(), "hunter2", "%q", name)
			require.Zero(t, parsed, "%q", name)
		}
	})

	// A file that was made when parameters were taken for a part of the name is not silently left behind.
	t.Run("ErrName_file_with_parameters", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "a.db?_fk=1")
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		_, err := store.ParseName(path)
		require.ErrorIs(t, err, store.ErrName)
		require.ErrorContains(t, err, "rename it")
		parsed, err := store.ParseName(strings.Replace("file:"+path, "?", "%3f", 1))
		require.NoError(t, err)
		require.Equal(t, path, parsed.Path)
	})
}

func FuzzParseName(f *testing.F) {
	for _, name := range []string{
		"", ":memory:", "a.db", "/a b", "file:a%20b", "file://localhost/a", "file://host/a", "file:a?b", "a\x00",
		"a?_fk=1", "file:a?mode=rwc&cache=shared", ":memory:?_fk=1", "a?b", "host=h", "u:p@h", "a\n", "a=b host=h",
		"a=b;server=h", "my file a=b.db",
		":memory: ", ":MEMORY:", "FILE:x.db", "sqlite:x.db", "a\u2028", "a\u2029", "a\u0085", "file:%0a",
		"postgres://user:hunter2@host/db", "file:%", "file:%00", "..", "file:..", "://", "file://",
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		parsed, err := store.ParseName(name)
		if err != nil {
			require.ErrorIs(t, err, store.ErrName)
			require.Zero(t, parsed)
			return
		}
		path := parsed.Path
		if bare, _, _ := strings.Cut(name, "?"); bare == ":memory:" || bare == "file::memory:" {
			require.Empty(t, path)
			return
		}
		require.True(t, filepath.IsAbs(path), "%q", path)
		require.Equal(t, filepath.Clean(path), path)
		require.NotContains(t, path, "\x00")
		again, err := store.ParseName(store.FileURI(path))
		require.NoError(t, err)
		require.Equal(t, path, again.Path, "the path's URI means another one")
	})
}

// FuzzFileURI opens a file of any name there can be and finds exactly that file.
func FuzzFileURI(f *testing.F) {
	for _, name := range []string{
		"a.db", "with space", " ", "what?", "a?mode=memory", "a?mode=ro&cache=shared", "#", "a#b", "100%", "%41", "%00",
		"%zz", "%",
		"Größe", "数据", "🙂", `it's "quoted"`, `back\slash`, "-rf", "--", "file:a", "file:a?mode=ro", ":memory:",
		"file::memory:",
		"a&b=c", "a+b", "a;b", "a:b", "~", "$HOME", "new\nline", "tab\t", "\x01", "\x7f", "\xff\xfe", "a-wal",
		"a-journal", "...",
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
		parsed, err := store.ParseName(store.FileURI(path))
		require.NoError(t, err)
		require.Equal(t, path, parsed.Path)

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

func TestPasswordInAScheme(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"root:hunter2@tcp(h)/db?x=http://y", "user=x password=hunter2 host=y://", "hunter2://",
		"postgres+hunter2 x://y",
		"host=h user=u password=hunter2", "postgres:/user:hunter2@host/db", "postgresql:user:hunter2@host/db",
	} {
		_, err := store.ParseName(name)
		require.ErrorIs(t, err, store.ErrName)
		if name != "hunter2://" {
			require.NotContains(t, err.Error(), "hunter2", "%q", name)
		}
	}
}
