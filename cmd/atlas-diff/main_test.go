package main_test

import (
	"bytes"
	"database/sql"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/postgres"
	"ariga.io/atlas/sql/schema"
	"ariga.io/atlas/sql/sqlite"
	"github.com/stretchr/testify/require"

	main "github.com/jeffersonwarrior/modelscan/cmd/atlas-diff"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
)

// engine is a dialect under test.
type engine struct {
	name  string
	quote string // of names
	// dev returns an empty database of database/sql, and the flag that names it.
	dev  func(t *testing.T) (driver, dsn string, flags []string)
	open func(db schema.ExecQuerier) (migrate.Driver, error)
}

var (
	sqliteEngine = engine{"sqlite", "`", func(*testing.T) (driver, dsn string, flags []string) {
		return "sqlite3", "file:replay?mode=memory&_fk=1", nil
	}, sqlite.Open}
	postgresEngine = engine{"postgres", `"`, func(t *testing.T) (driver, dsn string, flags []string) {
		t.Helper()
		url := pgtest.Database(t, "", nil)
		return "pgx", url, []string{"-dev-url", url}
	}, postgres.Open}
	engines = []engine{sqliteEngine, postgresEngine}
)

// later is a name that sorts behind the files of [engine.copied], and before those that are planned now.
const later = "1_later.sql"

// diff runs the command and returns its exit code and what it printed.
func diff(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = main.Run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// command returns diff for one engine, and for an empty database of its own.
func (e engine) command(t *testing.T) func(args ...string) (code int, stdout, stderr string) {
	t.Helper()
	_, _, flags := e.dev(t)
	return func(args ...string) (code int, stdout, stderr string) {
		t.Helper()
		return diff(t, append(append([]string{"-dialect", e.name}, flags...), args...)...)
	}
}

// committed are the migration files of the repository.
func (e engine) committed() string { return "../../migrate/" + e.name }

// sql returns a text with the engine's quotes.
func (e engine) sql(text string) string { return strings.ReplaceAll(text, "`", e.quote) }

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
func (e engine) copied(t *testing.T, statements ...string) string {
	t.Helper()
	folder := t.TempDir()
	for name, content := range contents(t, e.committed()) {
		if name != "atlas.sum" {
			require.NoError(t, os.WriteFile(filepath.Join(folder, "0"+name), []byte(content), 0o600))
		}
	}
	if len(statements) > 0 {
		require.NoError(t, os.WriteFile(filepath.Join(folder, later), []byte(strings.Join(statements, ";\n")+";\n"),
			0o600))
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
		_, _, _ = postgresEngine.dev(t) // skips, where there is none
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

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			t.Run("OK", func(t *testing.T) {
				t.Parallel()
				folder := e.copied(t)
				before := contents(t, folder)
				code, stdout, stderr := e.command(t)("-check", "-dir", folder)
				require.Equal(t, e.name+": in sync with ent/schema\n", stdout)
				require.Empty(t, stderr)
				require.Zero(t, code)
				require.Equal(t, before, contents(t, folder))
			})
			t.Run("OK/there and back", func(t *testing.T) {
				t.Parallel()
				code, stdout, stderr := e.command(t)("-check", "-dir",
					e.copied(t, "CREATE TABLE x (id integer)", "DROP TABLE x"))
				require.Equal(t, e.name+": in sync with ent/schema\n", stdout)
				require.Empty(t, stderr)
				require.Zero(t, code)
			})
			for name, d := range drifts(t, e) {
				t.Run("ErrDrift/"+name, func(t *testing.T) {
					if !sample.Chance() {
						t.Skip("a run takes a part of the drifts: " + sample.Whole + " is not set")
					}
					t.Parallel()
					folder := t.TempDir()
					if d.statements != nil {
						folder = e.copied(t, d.statements...)
					}
					command := e.command(t)
					// What -check prints is what -name writes. A plan takes half a second, so that some drifts show it
					// for all.
					if reported[name] {
						before := contents(t, folder)
						code, stdout, stderr := command("-check", "-dir", folder)
						require.Equal(t, 1, code, stdout+stderr)
						require.Empty(t, stderr)
						require.Regexp(t, "^"+e.name+": the migration files lack, against ent/schema:\n", stdout)
						require.Contains(t, stdout, e.sql(d.planned))
						require.Equal(t, before, contents(t, folder))
					}

					// What is planned is what brings them together.
					code, stdout, stderr := command("-name", "mend", "-dir", folder)
					require.Zero(t, code, stderr)
					require.Regexp(t, `_mend\.sql\n$`, stdout)
					require.Contains(t, contents(t, folder)[filepath.Base(strings.TrimSpace(stdout))], e.sql(d.planned))
					code, stdout, _ = command("-check", "-dir", folder)
					require.Zero(t, code, stdout)
				})
			}
		})
	}
}

// reported are the drifts with which -check is tried before they are mended.
var reported = map[string]bool{"there are no files": true, "a table is missing": true, "a CHECK is changed": true,
	"a collation is missing": true}

// drift is what files have on top of the committed ones, and what is planned then.
type drift struct {
	statements []string
	planned    string
}

func drifts(t *testing.T, e engine) map[string]drift {
	t.Helper()
	all := map[string]drift{
		"there are no files":  {nil, "CREATE TABLE `providers` ("},
		"a table is missing":  {[]string{"DROP TABLE settings"}, "CREATE TABLE `settings` ("},
		"a table is too many": {[]string{"CREATE TABLE extra (id integer)"}, "DROP TABLE `extra`;"},
		"an index is missing": {
			statements: []string{"DROP INDEX provider_name"},
			planned:    "CREATE UNIQUE INDEX `provider_name` ON `providers` (`name`) WHERE deleted_at IS NULL;",
		},
		"an index is too many": {
			statements: []string{"CREATE INDEX extra ON settings (value)"}, planned: "DROP INDEX `extra`;",
		},
		"an index is not one": {
			statements: index("provider_name",
				"CREATE INDEX provider_name ON providers (name) WHERE deleted_at IS NULL"),
			planned: "CREATE UNIQUE INDEX `provider_name`",
		},
		"an index is for all": {
			statements: index("provider_name", "CREATE UNIQUE INDEX provider_name ON providers (name)"),
			planned:    "(`name`) WHERE deleted_at IS NULL;",
		},
		"an index is other": {
			statements: index("provider_name",
				"CREATE UNIQUE INDEX provider_name ON providers (display_name) WHERE deleted_at IS NULL"),
			planned: "ON `providers` (`name`) WHERE",
		},
	}
	maps.Copy(all, map[string]func(t *testing.T) map[string]drift{"sqlite": sqliteDrifts,
		"postgres": postgresDrifts}[e.name](t))
	return all
}

// index returns statements that make a committed index anew.
func index(name, definition string) []string { return []string{"DROP INDEX " + name, definition} }

func sqliteDrifts(t *testing.T) map[string]drift {
	t.Helper()
	db, _ := sqliteEngine.replay(t, sqliteEngine.committed())
	// rebuilt returns statements that make a committed table anew, with another definition.
	rebuilt := func(table, old, with string) []string {
		rows, err := db.QueryContext(t.Context(),
			"SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL"+
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
	return map[string]drift{
		"a column is missing": {
			statements: []string{"ALTER TABLE models DROP COLUMN deprecated_at"},
			planned:    "ALTER TABLE `models` ADD COLUMN `deprecated_at` datetime NULL;",
		},
		"a column is too many": {
			statements: []string{"ALTER TABLE settings ADD COLUMN extra text NULL"},
			planned:    "INSERT INTO `new_settings` (`key`, `value`, `updated_at`) SELECT",
		},
		"a CHECK is changed": {
			statements: rebuilt("settings", "BETWEEN 1 AND 256", "BETWEEN 1 AND 9"),
			planned:    "CHECK (length(key) BETWEEN 1 AND 256)",
		},
		"a CHECK is missing": {
			statements: rebuilt("settings",
				",\n  CONSTRAINT `settings_key` CHECK (length(key) BETWEEN 1 AND 256)", ""),
			planned: "CHECK (length(key) BETWEEN 1 AND 256)",
		},
		"a CHECK is too many": {
			statements: rebuilt("settings", "PRIMARY KEY (`key`)",
				"PRIMARY KEY (`key`), CONSTRAINT `extra` CHECK (value <> '')"),
			planned: "CREATE TABLE `new_settings`",
		},
		"a column may be NULL": {
			statements: rebuilt("settings", "`value` text NOT NULL", "`value` text NULL"),
			planned:    "`value` text NOT NULL",
		},
		"a type is changed": {
			statements: rebuilt("settings", "`value` text", "`value` integer"), planned: "`value` text NOT NULL",
		},
		"a default is changed": {
			statements: rebuilt("model_families", "DEFAULT ('')", "DEFAULT ('x')"),
			planned:    "`description` text NOT NULL DEFAULT ('')",
		},
		"a foreign key restricts": {
			statements: rebuilt("model_families", "ON DELETE CASCADE", "ON DELETE RESTRICT"),
			planned:    "REFERENCES `providers` (`id`) ON DELETE CASCADE",
		},
		"a foreign key is missing": {
			statements: rebuilt("model_families",
				",\n  CONSTRAINT `model_families_providers_families` FOREIGN KEY (`provider_id`) REFERENCES"+
					" `providers`"+
					" (`id`) ON DELETE CASCADE", ""),
			planned: "REFERENCES `providers` (`id`) ON DELETE CASCADE",
		},
		"a primary key is other": {
			statements: rebuilt("settings", "PRIMARY KEY (`key`)", "PRIMARY KEY (`value`)"),
			planned:    "PRIMARY KEY (`key`)",
		},
	}
}

func postgresDrifts(*testing.T) map[string]drift {
	alter := func(table string, changes ...string) (statements []string) {
		for _, change := range changes {
			statements = append(statements, "ALTER TABLE "+table+" "+change)
		}
		return statements
	}
	const families = "ADD CONSTRAINT model_families_providers_families FOREIGN KEY (provider_id) REFERENCES providers" +
		" (id)"
	return map[string]drift{
		"a column is missing": {
			statements: alter("models", "DROP COLUMN deprecated_at"),
			planned:    "ALTER TABLE `models` ADD COLUMN `deprecated_at` timestamptz NULL;",
		},
		"a column is too many": {
			statements: alter("settings", "ADD COLUMN extra text NULL"),
			planned:    "ALTER TABLE `settings` DROP COLUMN `extra`;",
		},
		"a CHECK is changed": {
			statements: alter("settings", "DROP CONSTRAINT settings_key",
				"ADD CONSTRAINT settings_key CHECK (length(key) BETWEEN 1 AND 9)"),
			planned: "ADD CONSTRAINT `settings_key` CHECK (length(key) BETWEEN 1 AND 256)",
		},
		"a CHECK is missing": {
			statements: alter("settings", "DROP CONSTRAINT settings_key"),
			planned:    "ADD CONSTRAINT `settings_key` CHECK (length(key) BETWEEN 1 AND 256)",
		},
		"a CHECK is too many": {
			statements: alter("settings", "ADD CONSTRAINT extra CHECK (value <> '')"),
			planned:    "DROP CONSTRAINT `extra`",
		},
		"a column may be NULL": {
			statements: alter("settings", "ALTER value DROP NOT NULL"), planned: "ALTER COLUMN `value` SET NOT NULL",
		},
		"a type is changed": {
			statements: alter("models", "ALTER max_output_tokens TYPE integer"),
			planned:    "ALTER COLUMN `max_output_tokens` TYPE bigint",
		},
		"a type is jsonb": {
			statements: alter("discovery_logs", "ALTER discovered_data TYPE jsonb"),
			planned:    "ALTER COLUMN `discovered_data` TYPE json",
		},
		"a default is changed": {
			statements: alter("model_families", "ALTER description SET DEFAULT 'x'"),
			planned:    "ALTER COLUMN `description` SET DEFAULT ''",
		},
		"a default is missing": {
			statements: alter("model_families", "ALTER description DROP DEFAULT"),
			planned:    "ALTER COLUMN `description` SET DEFAULT ''",
		},
		"a foreign key restricts": {
			statements: alter("model_families", "DROP CONSTRAINT model_families_providers_families",
				families+" ON DELETE RESTRICT"),
			planned: "REFERENCES `providers` (`id`) ON UPDATE NO ACTION ON DELETE CASCADE",
		},
		"a foreign key is missing": {
			statements: alter("model_families", "DROP CONSTRAINT model_families_providers_families"),
			planned:    "REFERENCES `providers` (`id`) ON UPDATE NO ACTION ON DELETE CASCADE",
		},
		"a primary key is other": {
			statements: alter("settings", "DROP CONSTRAINT settings_pkey", "ADD PRIMARY KEY (value)"),
			planned:    "ADD PRIMARY KEY (`key`)",
		},
		// What the graph does not say.
		"a collation is missing": {
			statements: alter("providers", `ALTER name TYPE varchar COLLATE "default"`),
			planned:    "ALTER TABLE `providers` ALTER COLUMN `name` TYPE character varying COLLATE `C`;",
		},
		"a collation is other": {
			statements: alter("settings", `ALTER value TYPE varchar COLLATE "POSIX"`),
			planned:    "ALTER COLUMN `value` TYPE character varying COLLATE `C`;",
		},
		"a collation and a default are other": {
			statements: alter("model_families",
				`ALTER description TYPE varchar COLLATE "default"`, "ALTER description SET DEFAULT 'x'"),
			planned: "ALTER COLUMN `description` TYPE character varying COLLATE `C`," +
				" ALTER COLUMN `description` SET DEFAULT '';",
		},
		"a collation is missing, beside another change": {
			statements: alter("settings",
				`ALTER value TYPE varchar COLLATE "default"`, "ADD COLUMN extra text"),
			planned: "DROP COLUMN `extra`, ALTER COLUMN `value` TYPE character varying COLLATE `C`;",
		},
		"a new column has no collation": {
			statements: alter("settings", "DROP COLUMN value", "ADD COLUMN value varchar NOT NULL"),
			planned:    "ALTER COLUMN `value` TYPE character varying COLLATE `C`;",
		},
		"an index has NULL last": {
			statements: index("apikey_provider_id_usage_count_last_used_at_id",
				"CREATE INDEX apikey_provider_id_usage_count_last_used_at_id ON api_keys (provider_id, usage_count,"+
					" last_used_at, id) WHERE deleted_at IS NULL"),
			planned: "(`provider_id`, `usage_count`, `last_used_at` NULLS FIRST, `id`) WHERE deleted_at IS NULL;",
		},
		"an index has what is never NULL first": {
			statements: index("model_provider_id",
				"CREATE INDEX model_provider_id ON models (provider_id NULLS FIRST)"),
			planned: "CREATE INDEX `model_provider_id` ON `models` (`provider_id`);",
		},
	}
}

func TestName(t *testing.T) {
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			t.Run("OK", func(t *testing.T) {
				t.Parallel()
				command := e.command(t)
				folder := e.copied(t, "ALTER TABLE models DROP COLUMN deprecated_at", "CREATE TABLE extra (id integer)")
				before := contents(t, folder)
				code, stdout, stderr := command("-name", "mend_it_2", "-dir", folder)
				require.Zero(t, code, stderr)
				require.Empty(t, stderr)
				after := contents(t, folder)
				require.Len(t, after, len(before)+1)
				name := filepath.Base(strings.TrimSpace(stdout))
				require.Equal(t, filepath.Join(folder, name)+"\n", stdout)
				require.Regexp(t, `^\d{14}_mend_it_2\.sql$`, name)
				require.Greater(t, name, later)
				require.Contains(t, after[name], e.sql("ALTER TABLE `models` ADD COLUMN `deprecated_at`"))
				require.Contains(t, after[name], e.sql("DROP TABLE `extra`"))
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

				code, stdout, _ = command("-check", "-dir", folder)
				require.Equal(t, e.name+": in sync with ent/schema\n", stdout)
				require.Zero(t, code)
				require.Equal(t, after, contents(t, folder))
			})
			t.Run("OK/nothing to plan", func(t *testing.T) {
				t.Parallel()
				command := e.command(t)
				folder := e.copied(t)
				before := contents(t, folder)
				code, stdout, stderr := command("-name", "nothing", "-dir", folder)
				require.Equal(t, e.name+": in sync with ent/schema, nothing to plan\n", stdout)
				require.Empty(t, stderr)
				require.Zero(t, code)
				require.Equal(t, before, contents(t, folder))
			})
			t.Run("OK/from nothing", func(t *testing.T) {
				t.Parallel()
				command := e.command(t)
				folder := t.TempDir()
				code, stdout, stderr := command("-name", "init", "-dir", folder)
				require.Zero(t, code, stderr)
				planned := contents(t, folder)
				require.Len(t, planned, 2)
				name := filepath.Base(strings.TrimSpace(stdout))
				require.Contains(t, planned, name)

				_, drv := e.replay(t, e.committed())
				want, err := drv.InspectSchema(t.Context(), "", nil)
				require.NoError(t, err)
				require.NotEmpty(t, want.Tables)
				_, drv = e.replay(t, folder)
				got, err := drv.InspectSchema(t.Context(), "", nil)
				require.NoError(t, err)
				changes, err := drv.SchemaDiff(want, got)
				require.NoError(t, err)
				require.Empty(t, changes)
				changes, err = drv.SchemaDiff(got, want)
				require.NoError(t, err)
				require.Empty(t, changes)
				// Until there is a second file, the first one is just this.
				if files := contents(t, e.committed()); len(files) == 2 {
					for file, content := range files {
						if file != "atlas.sum" {
							require.Equal(t, content, planned[name])
						}
					}
				}
			})
		})
	}
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

// replay returns a database that a folder's files were applied to, and Atlas's view of it.
func (e engine) replay(t *testing.T, folder string) (*sql.DB, migrate.Driver) {
	t.Helper()
	driver, dsn, _ := e.dev(t)
	db, err := sql.Open(driver, dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	db.SetMaxOpenConns(1)
	drv, err := e.open(db)
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

// TestErrSQL: a file that fails, and what it leaves behind.
func TestErrSQL(t *testing.T) {
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			folder := e.copied(t, "DROP TABLE missing")
			before := contents(t, folder)
			command := e.command(t)
			for _, args := range [][]string{{"-check"}, {"-name", "x"}} {
				code, stdout, stderr := command(append(args, "-dir", folder)...)
				require.Equal(t, 2, code)
				require.Empty(t, stdout)
				require.Regexp(t, `no such table: missing|table "missing" does not exist`, stderr)
			}
			require.Equal(t, before, contents(t, folder))
			code, _, stderr := command("-check", "-dir", e.copied(t))
			require.Zero(t, code, stderr)
		})
	}
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
