package main_test

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/sqlite"
	_ "github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"

	main "github.com/jeffersonwarrior/modelscan/cmd/atlas-diff"
)

// committed are the migration files of the repository.
const committed = "../../migrate/sqlite"

// later is a name that sorts behind the files of [copied], and before those that are planned now.
const later = "1_later.sql"

// diff runs the command and returns its exit code and what it printed.
func diff(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = main.Run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// contents returns the files of a folder, by name.
func contents(t *testing.T, folder string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	files := map[string]string{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(folder, e.Name()))
		require.NoError(t, err)
		files[e.Name()] = string(content)
	}
	return files
}

// copied returns a folder with the committed files, and one more if there are statements for it.
// The files get older versions, so that the clock does not matter.
func copied(t *testing.T, statements ...string) string {
	t.Helper()
	folder := t.TempDir()
	for name, content := range contents(t, committed) {
		require.NoError(t, os.WriteFile(filepath.Join(folder, "0"+name), []byte(content), 0o600))
	}
	require.NoError(t, os.Remove(filepath.Join(folder, "0atlas.sum")))
	if len(statements) > 0 {
		require.NoError(t, os.WriteFile(filepath.Join(folder, later), []byte(strings.Join(statements, ";\n")+";\n"), 0o600))
	}
	rehash(t, folder)
	return folder
}

// rehash writes the folder's atlas.sum.
func rehash(t *testing.T, folder string) {
	t.Helper()
	dir, err := migrate.NewLocalDir(folder)
	require.NoError(t, err)
	sum, err := dir.Checksum()
	require.NoError(t, err)
	require.NoError(t, migrate.WriteSumFile(dir, sum))
}

// TestCommitted is the gate: the committed files and ent/schema say the same.
func TestCommitted(t *testing.T) {
	t.Chdir("../..") // the default folder
	before := contents(t, "migrate/sqlite")
	code, stdout, stderr := diff(t, "-check")
	require.Equal(t, "sqlite: in sync with ent/schema\n", stdout)
	require.Empty(t, stderr)
	require.Zero(t, code)
	require.Equal(t, before, contents(t, "migrate/sqlite"))
}

func TestCheck(t *testing.T) {
	t.Parallel()
	db, _ := replay(t, committed)
	// rebuilt returns statements that make a committed table anew, with another definition.
	rebuilt := func(t *testing.T, table, old, with string) []string {
		t.Helper()
		rows, err := db.QueryContext(t.Context(), "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL"+
			" ORDER BY type DESC", table)
		require.NoError(t, err)
		defer func() { require.NoError(t, rows.Close()) }()
		statements := []string{"DROP TABLE " + table}
		for rows.Next() {
			var statement string
			require.NoError(t, rows.Scan(&statement))
			statements = append(statements, statement)
		}
		require.NoError(t, rows.Err())
		require.Contains(t, statements[1], old)
		statements[1] = strings.ReplaceAll(statements[1], old, with)
		return statements
	}
	// index returns statements that make a committed index anew.
	index := func(name, definition string) []string { return []string{"DROP INDEX " + name, definition} }

	t.Run("OK", func(t *testing.T) {
		t.Parallel()
		folder := copied(t)
		before := contents(t, folder)
		code, stdout, stderr := diff(t, "-check", "-dir", folder)
		require.Equal(t, "sqlite: in sync with ent/schema\n", stdout)
		require.Empty(t, stderr)
		require.Zero(t, code)
		require.Equal(t, before, contents(t, folder))
	})
	t.Run("OK/-dialect", func(t *testing.T) {
		t.Parallel()
		code, stdout, stderr := diff(t, "-check", "-dialect", "sqlite", "-dir", committed)
		require.Equal(t, "sqlite: in sync with ent/schema\n", stdout)
		require.Empty(t, stderr)
		require.Zero(t, code)
	})
	t.Run("OK/there and back", func(t *testing.T) {
		t.Parallel()
		code, stdout, stderr := diff(t, "-check", "-dir", copied(t, "CREATE TABLE x (id integer)", "DROP TABLE x"))
		require.Equal(t, "sqlite: in sync with ent/schema\n", stdout)
		require.Empty(t, stderr)
		require.Zero(t, code)
	})
	for name, tt := range map[string]struct {
		statements []string // what the files have on top of the committed ones
		planned    string
	}{
		"a table is missing":      {[]string{"DROP TABLE settings"}, "CREATE TABLE `settings` ("},
		"a column is missing":     {[]string{"ALTER TABLE models DROP COLUMN deprecated_at"}, "ALTER TABLE `models` ADD COLUMN `deprecated_at` datetime NULL;"},
		"an index is missing":     {[]string{"DROP INDEX provider_name"}, "CREATE UNIQUE INDEX `provider_name` ON `providers` (`name`) WHERE deleted_at IS NULL;"},
		"a table is too many":     {[]string{"CREATE TABLE extra (id integer)"}, "DROP TABLE `extra`;"},
		"a column is too many":    {[]string{"ALTER TABLE settings ADD COLUMN extra text NULL"}, "INSERT INTO `new_settings` (`key`, `value`, `updated_at`) SELECT"},
		"an index is too many":    {[]string{"CREATE INDEX extra ON settings (value)"}, "DROP INDEX `extra`;"},
		"an index is not one":     {index("provider_name", "CREATE INDEX provider_name ON providers (name) WHERE deleted_at IS NULL"), "CREATE UNIQUE INDEX `provider_name`"},
		"an index is for all":     {index("provider_name", "CREATE UNIQUE INDEX provider_name ON providers (name)"), "(`name`) WHERE deleted_at IS NULL;"},
		"an index is other":       {index("provider_name", "CREATE UNIQUE INDEX provider_name ON providers (display_name) WHERE deleted_at IS NULL"), "ON `providers` (`name`) WHERE"},
		"a CHECK is changed":      {rebuilt(t, "settings", "BETWEEN 1 AND 256", "BETWEEN 1 AND 9"), "CHECK (length(key) BETWEEN 1 AND 256)"},
		"a CHECK is missing":      {rebuilt(t, "settings", ",\n  CONSTRAINT `settings_key` CHECK (length(key) BETWEEN 1 AND 256)", ""), "CHECK (length(key) BETWEEN 1 AND 256)"},
		"a CHECK is too many":     {rebuilt(t, "settings", "PRIMARY KEY (`key`)", "PRIMARY KEY (`key`), CONSTRAINT `extra` CHECK (value <> '')"), "CREATE TABLE `new_settings`"},
		"a column may be NULL":    {rebuilt(t, "settings", "`value` text NOT NULL", "`value` text NULL"), "`value` text NOT NULL"},
		"a type is changed":       {rebuilt(t, "settings", "`value` text", "`value` integer"), "`value` text NOT NULL"},
		"a default is changed":    {rebuilt(t, "model_families", "DEFAULT ('')", "DEFAULT ('x')"), "`description` text NOT NULL DEFAULT ('')"},
		"a foreign key restricts": {rebuilt(t, "model_families", "ON DELETE CASCADE", "ON DELETE RESTRICT"), "REFERENCES `providers` (`id`) ON DELETE CASCADE"},
		"a foreign key is missing": {rebuilt(t, "model_families", ",\n  CONSTRAINT `model_families_providers_families` FOREIGN KEY (`provider_id`) REFERENCES `providers` (`id`) ON DELETE CASCADE", ""),
			"REFERENCES `providers` (`id`) ON DELETE CASCADE"},
		"a primary key is other": {rebuilt(t, "settings", "PRIMARY KEY (`key`)", "PRIMARY KEY (`value`)"), "PRIMARY KEY (`key`)"},
		"there are no files":     {nil, "CREATE TABLE `providers` ("},
	} {
		t.Run("ErrDrift/"+name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			if tt.statements != nil {
				folder = copied(t, tt.statements...)
			}
			before := contents(t, folder)
			code, stdout, stderr := diff(t, "-check", "-dir", folder)
			require.Equal(t, 1, code, stdout)
			require.Empty(t, stderr)
			require.Regexp(t, "^sqlite: the migration files lack, against ent/schema:\n", stdout)
			require.Contains(t, stdout, tt.planned)
			require.Equal(t, before, contents(t, folder))

			// What is planned is what brings them together.
			code, stdout, stderr = diff(t, "-name", "mend", "-dir", folder)
			require.Zero(t, code, stderr)
			require.Contains(t, stdout, "_mend.sql\n")
			code, stdout, _ = diff(t, "-check", "-dir", folder)
			require.Zero(t, code, stdout)
		})
	}
}

func TestName(t *testing.T) {
	t.Parallel()
	t.Run("OK", func(t *testing.T) {
		t.Parallel()
		folder := copied(t, "ALTER TABLE models DROP COLUMN deprecated_at", "CREATE TABLE extra (id integer)")
		before := contents(t, folder)
		code, stdout, stderr := diff(t, "-name", "mend_it_2", "-dir", folder)
		require.Zero(t, code, stderr)
		require.Empty(t, stderr)
		after := contents(t, folder)
		require.Len(t, after, len(before)+1)
		name := filepath.Base(strings.TrimSpace(stdout))
		require.Equal(t, filepath.Join(folder, name)+"\n", stdout)
		require.Regexp(t, `^\d{14}_mend_it_2\.sql$`, name)
		require.Greater(t, name, later)
		require.Contains(t, after[name], "ALTER TABLE `models` ADD COLUMN `deprecated_at`")
		require.Contains(t, after[name], "DROP TABLE `extra`")
		require.Contains(t, after["atlas.sum"], name)
		require.NotEqual(t, before["atlas.sum"], after["atlas.sum"])
		for file, content := range before {
			if file != "atlas.sum" {
				require.Equal(t, content, after[file])
			}
		}
		dir, err := migrate.NewLocalDir(folder)
		require.NoError(t, err)
		require.NoError(t, migrate.Validate(dir))

		code, stdout, _ = diff(t, "-check", "-dir", folder)
		require.Equal(t, "sqlite: in sync with ent/schema\n", stdout)
		require.Zero(t, code)
		require.Equal(t, after, contents(t, folder))
	})
	t.Run("OK/nothing to plan", func(t *testing.T) {
		t.Parallel()
		folder := copied(t)
		before := contents(t, folder)
		code, stdout, stderr := diff(t, "-name", "nothing", "-dir", folder)
		require.Equal(t, "sqlite: in sync with ent/schema, nothing to plan\n", stdout)
		require.Empty(t, stderr)
		require.Zero(t, code)
		require.Equal(t, before, contents(t, folder))
	})
	t.Run("OK/from nothing", func(t *testing.T) {
		t.Parallel()
		folder := t.TempDir()
		code, stdout, stderr := diff(t, "-name", "init", "-dir", folder)
		require.Zero(t, code, stderr)
		planned := contents(t, folder)
		require.Len(t, planned, 2)
		name := filepath.Base(strings.TrimSpace(stdout))
		require.Contains(t, planned, name)

		_, drv := replay(t, committed)
		want, err := drv.InspectSchema(t.Context(), "", nil)
		require.NoError(t, err)
		require.NotEmpty(t, want.Tables)
		_, drv = replay(t, folder)
		got, err := drv.InspectSchema(t.Context(), "", nil)
		require.NoError(t, err)
		changes, err := drv.SchemaDiff(want, got)
		require.NoError(t, err)
		require.Empty(t, changes)
		changes, err = drv.SchemaDiff(got, want)
		require.NoError(t, err)
		require.Empty(t, changes)
		// Until there is a second file, the first one is just this.
		if files := contents(t, committed); len(files) == 2 {
			for file, content := range files {
				if file != "atlas.sum" {
					require.Equal(t, content, planned[name])
				}
			}
		}
	})
}

func TestHash(t *testing.T) {
	t.Parallel()
	t.Run("OK", func(t *testing.T) {
		t.Parallel()
		folder := copied(t, "DROP TABLE settings")
		require.NoError(t, os.WriteFile(filepath.Join(folder, later), []byte("CREATE TABLE x (id integer);\n"), 0o600))
		before := contents(t, folder)
		code, stdout, stderr := diff(t, "-hash", "-dir", folder)
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

		code, stdout, _ = diff(t, "-check", "-dir", folder)
		require.Equal(t, 1, code)
		require.Contains(t, stdout, "DROP TABLE `x`;")
	})
	t.Run("OK/in order", func(t *testing.T) {
		t.Parallel()
		folder := copied(t)
		before := contents(t, folder)
		code, _, stderr := diff(t, "-hash", "-dir", folder)
		require.Zero(t, code, stderr)
		require.Equal(t, before, contents(t, folder))
	})
	t.Run("ErrNoFolder", func(t *testing.T) {
		t.Parallel()
		code, stdout, stderr := diff(t, "-hash", "-dir", filepath.Join(t.TempDir(), "missing"))
		require.Equal(t, 2, code)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "missing")
	})
}

// replay returns a database that a folder's files were applied to, and Atlas's view of it.
func replay(t *testing.T, folder string) (*sql.DB, migrate.Driver) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:replay?mode=memory&_fk=1")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	db.SetMaxOpenConns(1)
	drv, err := sqlite.Open(db)
	require.NoError(t, err)
	dir, err := migrate.NewLocalDir(folder)
	require.NoError(t, err)
	executor, err := migrate.NewExecutor(drv, dir, migrate.NopRevisionReadWriter{})
	require.NoError(t, err)
	require.NoError(t, executor.ExecuteN(t.Context(), 0))
	return db, drv
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
		"unknown dialect":  {[]string{"-check", "-dialect", "postgres"}, `dialect "postgres": not one of: sqlite`},
		"no dialect":       {[]string{"-check", "-dialect", ""}, `dialect "": not one of: sqlite`},
	} {
		t.Run("ErrFlags/"+name, func(t *testing.T) {
			t.Parallel()
			folder := copied(t, "DROP TABLE settings")
			before := contents(t, folder)
			code, stdout, stderr := diff(t, append([]string{"-dir", folder}, tt.args...)...)
			require.Equal(t, 2, code)
			require.Empty(t, stdout)
			require.Contains(t, stderr, tt.text)
			require.Equal(t, before, contents(t, folder))
		})
	}
	for _, name := range []string{"Add", "add x", "add-x", "add__x", "_x", "x_", "../x", "x.sql", "x\n", "é"} {
		t.Run("ErrName/"+name, func(t *testing.T) {
			t.Parallel()
			folder := copied(t, "DROP TABLE settings")
			before := contents(t, folder)
			code, stdout, stderr := diff(t, "-dir", folder, "-name", name)
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
			folder := copied(t, "DROP TABLE settings")
			spoil(t, folder)
			before := contents(t, folder)
			for _, args := range [][]string{{"-check"}, {"-name", "x"}} {
				code, stdout, stderr := diff(t, append(args, "-dir", folder)...)
				require.Equal(t, 2, code)
				require.Empty(t, stdout)
				require.Contains(t, stderr, "do not match their atlas.sum")
			}
			require.Equal(t, before, contents(t, folder))
		})
	}
	t.Run("ErrSQL", func(t *testing.T) {
		t.Parallel()
		folder := copied(t, "DROP TABLE missing")
		before := contents(t, folder)
		for _, args := range [][]string{{"-check"}, {"-name", "x"}} {
			code, stdout, stderr := diff(t, append(args, "-dir", folder)...)
			require.Equal(t, 2, code)
			require.Empty(t, stdout)
			require.Contains(t, stderr, "no such table: missing")
		}
		require.Equal(t, before, contents(t, folder))
	})
	t.Run("ErrNoFolder", func(t *testing.T) {
		t.Parallel()
		for _, args := range [][]string{{"-check"}, {"-name", "x"}} {
			code, stdout, stderr := diff(t, append(args, "-dir", filepath.Join(t.TempDir(), "missing"))...)
			require.Equal(t, 2, code)
			require.Empty(t, stdout)
			require.Contains(t, stderr, "missing")
		}
	})
}
