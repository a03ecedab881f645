package main_test

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/sample"
)

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
