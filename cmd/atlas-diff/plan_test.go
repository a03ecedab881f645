package main_test

import (
	"path/filepath"
	"strings"
	"testing"

	"ariga.io/atlas/sql/migrate"
	"github.com/stretchr/testify/require"
)

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
