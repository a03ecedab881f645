package main_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCommitted is the gate: the committed files and ent/schema say the same.
func TestCommitted(t *testing.T) {
	t.Chdir("../..") // the default folder
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			before := contents(t, "migrate/"+e.name)
			code, stdout, stderr := e.command(t)("-check")
			require.Equal(t, e.name+": in sync with ent/schema\n", stdout)
			require.Empty(t, stderr)
			require.Zero(t, code)
			require.Equal(t, before, contents(t, "migrate/"+e.name))
		})
	}
	t.Run("all", func(t *testing.T) {
		_, _, flags := postgresEngine.dev(t)
		code, stdout, stderr := diff(t, append(flags, "-check")...)
		require.Equal(t, "sqlite: in sync with ent/schema\npostgres: in sync with ent/schema\n", stdout)
		require.Empty(t, stderr)
		require.Zero(t, code)
	})
	t.Run("all/on a server of its own", func(t *testing.T) {
		_, _, _ = postgresEngine.dev(t) // skips without PostgreSQL
		code, stdout, stderr := diff(t, "-check")
		require.Equal(t, "sqlite: in sync with ent/schema\npostgres: in sync with ent/schema\n", stdout)
		require.Empty(t, stderr)
		require.Zero(t, code)
	})
}

// TestPairs: the files of both engines have the same names.
func TestPairs(t *testing.T) {
	t.Parallel()
	names := func(e engine) (names []string) {
		for name := range contents(t, e.committed()) {
			if filepath.Ext(name) == ".sql" {
				names = append(names, name)
			}
		}
		return names
	}
	require.NotEmpty(t, names(sqliteEngine))
	require.ElementsMatch(t, names(sqliteEngine), names(postgresEngine))
}

func TestHash(t *testing.T) {
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			t.Run("OK", func(t *testing.T) {
				t.Parallel()
				command := e.command(t)
				folder := e.copied(t, "DROP TABLE settings")
				require.NoError(t, os.WriteFile(filepath.Join(folder, later), []byte("CREATE TABLE x (id integer);\n"),
					0o600))
				before := contents(t, folder)
				code, stdout, stderr := command("-hash", "-dir", folder)
				require.Zero(t, code, stderr)
				require.Empty(t, stderr)
				require.Equal(t, filepath.Join(folder, "atlas.sum")+"\n", stdout)
				after := contents(t, folder)
				require.NotEqual(t, before["atlas.sum"], after["atlas.sum"])
				delete(before, "atlas.sum")
				rehash(t, folder)
				require.Equal(t, contents(t, folder), after)
				delete(after, "atlas.sum")
				require.Equal(t, before, after)

				code, stdout, _ = command("-check", "-dir", folder)
				require.Equal(t, 1, code)
				require.Contains(t, stdout, e.sql("DROP TABLE `x`;"))
			})
			t.Run("OK/in order", func(t *testing.T) {
				t.Parallel()
				command := e.command(t)
				folder := e.copied(t)
				before := contents(t, folder)
				code, _, stderr := command("-hash", "-dir", folder)
				require.Zero(t, code, stderr)
				require.Equal(t, before, contents(t, folder))
			})
			t.Run("ErrNoFolder", func(t *testing.T) {
				t.Parallel()
				command := e.command(t)
				code, stdout, stderr := command("-hash", "-dir", filepath.Join(t.TempDir(), "missing"))
				require.Equal(t, 2, code)
				require.Empty(t, stdout)
				require.Contains(t, stderr, "missing")
			})
		})
	}
}

func TestErr(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args []string
		text string
	}{
		"no flag":          {nil, "-name add_x"},
		"both flags":       {[]string{"-check", "-name", "x"}, "-name add_x"},
		"-hash and -check": {[]string{"-hash", "-check"}, "-name add_x"},
		"-hash and -name":  {[]string{"-hash", "-name", "x"}, "-name add_x"},
		"all flags":        {[]string{"-hash", "-name", "x", "-check"}, "-name add_x"},
		"an empty name":    {[]string{"-name", ""}, "-name add_x"},
		"an argument":      {[]string{"-check", "x"}, "-name add_x"},
		"unknown flag":     {[]string{"-check", "-x"}, "-x"},
		"help":             {[]string{"-h"}, "-check"},
		"unknown dialect": {
			args: []string{"-check", "-dialect", "mysql"}, text: `dialect "mysql": not one of: sqlite, postgres, all`,
		},
		"no dialect": {
			args: []string{"-check", "-dialect", ""}, text: `dialect "": not one of: sqlite, postgres, all`,
		},
		"-dir for all": {args: []string{"-check", "-dialect", "all"}, text: "give -dialect too"},
		"-dev-url": {
			args: []string{"-check", "-dev-url", "postgres://u:secret@localhost/x"}, text: "-dev-url is for PostgreSQL",
		},
	} {
		t.Run("ErrFlags/"+name, func(t *testing.T) {
			t.Parallel()
			folder := sqliteEngine.copied(t, "DROP TABLE settings")
			before := contents(t, folder)
			code, stdout, stderr := diff(t, append([]string{"-dialect", "sqlite", "-dir", folder}, tt.args...)...)
			require.Equal(t, 2, code)
			require.Empty(t, stdout)
			require.Contains(t, stderr, tt.text)
			require.Equal(t, before, contents(t, folder))
		})
	}
	for _, name := range []string{"Add", "add x", "add-x", "add__x", "_x", "x_", "../x", "x.sql", "x\n", "é"} {
		t.Run("ErrName/"+name, func(t *testing.T) {
			t.Parallel()
			folder := sqliteEngine.copied(t, "DROP TABLE settings")
			before := contents(t, folder)
			code, stdout, stderr := diff(t, "-dialect", "sqlite", "-dir", folder, "-name", name)
			require.Equal(t, 2, code)
			require.Empty(t, stdout)
			require.Contains(t, stderr, "not lower-case words joined by _")
			require.Equal(t, before, contents(t, folder))
		})
	}
	for name, spoil := range map[string]func(t *testing.T, folder string){
		"edited": func(t *testing.T, folder string) {
			t.Helper()
			require.NoError(t, os.WriteFile(filepath.Join(folder, later), []byte("CREATE TABLE x (id text);\n"), 0o600))
		},
		"added": func(t *testing.T, folder string) {
			t.Helper()
			require.NoError(t, os.WriteFile(filepath.Join(folder, "2_x.sql"), nil, 0o600))
		},
		"removed": func(t *testing.T, folder string) {
			t.Helper()
			require.NoError(t, os.Remove(filepath.Join(folder, later)))
		},
		"no atlas.sum": func(t *testing.T, folder string) {
			t.Helper()
			require.NoError(t, os.Remove(filepath.Join(folder, "atlas.sum")))
		},
	} {
		t.Run("ErrChecksum/"+name, func(t *testing.T) {
			t.Parallel()
			folder := sqliteEngine.copied(t, "DROP TABLE settings")
			spoil(t, folder)
			before := contents(t, folder)
			for _, args := range [][]string{{"-check"}, {"-name", "x"}} {
				code, stdout, stderr := diff(t, append(args, "-dialect", "sqlite", "-dir", folder)...)
				require.Equal(t, 2, code)
				require.Empty(t, stdout)
				require.Contains(t, stderr, "do not match their atlas.sum")
			}
			require.Equal(t, before, contents(t, folder))
		})
	}
	t.Run("ErrNoFolder", func(t *testing.T) {
		t.Parallel()
		for _, args := range [][]string{{"-check"}, {"-name", "x"}} {
			code, stdout, stderr := diff(t,
				append(args, "-dialect", "sqlite", "-dir", filepath.Join(t.TempDir(), "missing"))...)
			require.Equal(t, 2, code)
			require.Empty(t, stdout)
			require.Contains(t, stderr, "missing")
		}
	})
}

// TestAll: both engines are planned, or neither.
func TestAll(t *testing.T) {
	folders := func(t *testing.T) (sqlite, postgres string) {
		t.Helper()
		t.Chdir(t.TempDir())
		for _, name := range []string{"sqlite", "postgres"} {
			require.NoError(t, os.MkdirAll(filepath.Join("migrate", name), 0o700))
		}
		return "migrate/sqlite", "migrate/postgres"
	}
	t.Run("OK", func(t *testing.T) {
		_, _, flags := postgresEngine.dev(t)
		sqlite, postgres := folders(t)
		code, stdout, stderr := diff(t, append(flags, "-name", "init")...)
		require.Zero(t, code, stderr)
		require.Regexp(t, `^migrate/sqlite/(\d{14}_init.sql)\nmigrate/postgres/(\d{14}_init.sql)\n$`, stdout)
		lines := strings.Fields(stdout)
		require.Equal(t, filepath.Base(lines[0]), filepath.Base(lines[1]))
		require.Len(t, contents(t, sqlite), 2)
		require.Len(t, contents(t, postgres), 2)

		code, stdout, stderr = diff(t, append(flags, "-name", "nothing")...)
		require.Zero(t, code, stderr)
		require.Equal(t, "sqlite: in sync with ent/schema, nothing to plan\npostgres: in sync with ent/schema,"+
			" nothing to plan\n", stdout)

		require.NoError(t, os.Remove(lines[1]))
		code, stdout, stderr = diff(t, "-hash")
		require.Zero(t, code, stderr)
		require.Equal(t, "migrate/sqlite/atlas.sum\nmigrate/postgres/atlas.sum\n", stdout)
		code, stdout, _ = diff(t, append(flags, "-check")...)
		require.Equal(t, 1, code)
		require.Contains(t, stdout, "sqlite: in sync with ent/schema\npostgres: the migration files lack")
	})
	const nobody = "postgres://u:secret@127.0.0.1:1/x?sslmode=disable"
	t.Run("ErrServer", func(t *testing.T) {
		sqlite, postgres := folders(t)
		code, stdout, stderr := diff(t, "-name", "init", "-dev-url", nobody)
		require.Equal(t, 2, code)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "postgres: ")
		require.Empty(t, contents(t, sqlite))
		require.Empty(t, contents(t, postgres))
	})
	t.Run("ErrServer/-check", func(t *testing.T) {
		t.Chdir("../..")
		code, stdout, stderr := diff(t, "-check", "-dev-url", nobody)
		require.Equal(t, 2, code)
		require.Equal(t, "sqlite: in sync with ent/schema\n", stdout)
		require.Contains(t, stderr, "refused")
	})
}

func TestDevURL(t *testing.T) {
	t.Parallel()
	t.Run("ErrNotClean", func(t *testing.T) {
		t.Parallel()
		driver, url, flags := postgresEngine.dev(t)
		db, err := sql.Open(driver, url)
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		_, err = db.Exec("CREATE TABLE precious (id integer); INSERT INTO precious VALUES (1)")
		require.NoError(t, err)
		folder := postgresEngine.copied(t, "DROP TABLE settings")
		before := contents(t, folder)
		for _, mode := range [][]string{{"-check"}, {"-name", "x"}} {
			args := append(append([]string{"-dialect", "postgres", "-dir", folder}, flags...), mode...)
			code, stdout, stderr := diff(t, args...)
			require.Equal(t, 2, code)
			require.Empty(t, stdout)
			require.Contains(t, stderr, "not clean")
		}
		require.Equal(t, before, contents(t, folder))
		var tables, rows int
		require.NoError(t, db.QueryRow("SELECT count(*), (SELECT count(*) FROM precious) FROM pg_tables WHERE"+
			" schemaname = 'public'").
			Scan(&tables, &rows))
		require.Equal(t, [2]int{1, 1}, [2]int{tables, rows})
	})
	for name, url := range map[string]string{
		"nobody there": "postgres://u:secret@127.0.0.1:1/x?sslmode=disable",
		"not a URL":    "host=127.0.0.1 password=secret",
		"no port":      "postgres://u:secret@127.0.0.1:x/x",
		"no escape":    "postgres://u:%zzsecret@127.0.0.1/x",
		"other scheme": "mysql://u:secret@127.0.0.1/x",
		"other option": "postgres://u:secret@127.0.0.1:1/x?sslmode=maybe",
	} {
		t.Run("Err/"+name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := diff(t, "-dialect", "postgres", "-check", "-dir", postgresEngine.copied(t),
				"-dev-url", url)
			require.Equal(t, 2, code)
			require.Empty(t, stdout)
			require.NotEmpty(t, stderr)
			require.NotContains(t, stderr, "secret")
		})
	}
}
