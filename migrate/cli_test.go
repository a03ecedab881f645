package migrate_test

import (
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// cli is the Atlas CLI with the repository's atlas.hcl, on one database.
type cli struct{ binary, path, locks string }

func newCLI(t *testing.T) cli {
	t.Helper()
	binary, err := exec.LookPath("atlas")
	if err != nil {
		t.Skip("atlas is not on PATH: install the Atlas CLI, community edition (https://atlasgo.io/docs), to run this" +
			" test")
	}
	path := newPath(t)
	require.NotContains(t, path, ",", "the CLI takes what follows for another variable")
	return cli{binary: binary, path: path, locks: t.TempDir()}
}

// run runs `atlas migrate` and returns what it prints.
func (c cli) run(command string, args ...string) (string, error) {
	args = append([]string{"migrate", command, "--env", "sqlite", "--var", "url=sqlite://" + c.path + "?_fk=1"},
		args...)
	cmd := exec.Command(c.binary, args...)
	cmd.Dir = ".."
	// Its lock is one file in TMPDIR, for all databases of a host.
	cmd.Env = append(os.Environ(), "ATLAS_NO_UPDATE_NOTIFIER=1", "TMPDIR="+c.locks)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must is run, and requires that it succeeds and prints a text.
func (c cli) must(t *testing.T, text, command string, args ...string) {
	t.Helper()
	out, err := c.run(command, args...)
	require.NoError(t, err, out)
	require.Contains(t, out, text)
}

func from(folder string) string { return "--dir=file://" + folder }

// copiesParents is a file that comes after [family].
const copiesParents = "CREATE TABLE c (id integer);\nINSERT INTO c SELECT id FROM parents;\n"

func TestCLI(t *testing.T) {
	t.Parallel()
	t.Run("OK/validate", func(t *testing.T) {
		t.Parallel()
		newCLI(t).must(t, "", "validate")
	})
	t.Run("OK/the CLI first", func(t *testing.T) {
		t.Parallel()
		c := newCLI(t)
		c.must(t, "migrating version "+embedded(t)[0].Version(), "apply")
		db := database(t, c.path)
		require.Equal(t, createRevisions,
			one[string](t, db, "SELECT sql FROM sqlite_master WHERE name = 'atlas_schema_revisions'"))
		require.Zero(t, one[int64](t, db, "PRAGMA application_id"))
		before := history(t, db)
		state, err := migrate.Status(t.Context(), db, migrate.SQLite)
		require.NoError(t, err)
		require.Len(t, state.Applied, len(embedded(t)))
		require.Empty(t, state.Pending)

		reg, err := registry.Open(t.Context(), c.path)
		require.NoError(t, err)
		_, err = reg.CreateProvider(t.Context(), registry.ProviderInput{Name: "openai"})
		require.NoError(t, err)
		require.NoError(t, reg.Close())
		require.EqualValues(t, migrate.ApplicationID, one[int64](t, db, "PRAGMA application_id"))
		require.Equal(t, before, history(t, db))
		fresh := database(t, newPath(t))
		_, err = migrate.Apply(t.Context(), fresh, migrate.SQLite)
		require.NoError(t, err)
		require.Equal(t, schemaOf(t, fresh), schemaOf(t, db))
		require.Equal(t, history(t, fresh), history(t, db))
		c.must(t, "Migration Status: OK", "status")
	})
	t.Run("OK/the library first", func(t *testing.T) {
		t.Parallel()
		c := newCLI(t)
		reg, err := registry.Open(t.Context(), c.path)
		require.NoError(t, err)
		require.NoError(t, reg.Close())
		c.must(t, "Migration Status: OK", "status")
		c.must(t, "No migration files to execute", "apply")
		require.NoError(t, migrate.Verify(t.Context(), database(t, c.path), migrate.SQLite))
	})
}

// TestCLITurns has the CLI and the library take turns.
func TestCLITurns(t *testing.T) {
	t.Parallel()
	two := map[string]string{first: family, second: copiesParents}
	begun := map[string]string{first: two[first]}
	t.Run("OK/taking turns from the library on", func(t *testing.T) {
		t.Parallel()
		c := newCLI(t)
		db := database(t, c.path)
		all := folder(t, two)
		applyDir(t, db, directory(t, begun))
		c.must(t, "Migration Status: PENDING", "status", from(all))
		c.must(t, "1 migration", "apply", from(all))
		requireTurns(t, c, db, all)
	})
	t.Run("OK/taking turns from the CLI on", func(t *testing.T) {
		t.Parallel()
		c := newCLI(t)
		db := database(t, c.path)
		all := folder(t, two)
		c.must(t, "1 migration", "apply", "1", from(all))
		applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, load(t, all))
		require.NoError(t, err)
		require.Equal(t, []string{second}, applied)
		requireTurns(t, c, db, all)
	})
	t.Run("OK/the CLI rebuilds as the library does", func(t *testing.T) {
		t.Parallel()
		c := newCLI(t)
		wd, err := os.Getwd()
		require.NoError(t, err)
		db := database(t, c.path)
		files, err := load(t, "testdata/rebuild").Files()
		require.NoError(t, err)
		applyDir(t, db, directory(t, map[string]string{files[0].Name(): string(files[0].Bytes())}))
		run(t, db, "INSERT INTO parents VALUES (1, 'x')", "INSERT INTO children VALUES (10, 1)")
		c.must(t, "1 migration", "apply", from(wd+"/testdata/rebuild"))
		require.Equal(t, []int{10}, column[int](t, db, "SELECT id FROM children"))
		requireTurns(t, c, db, wd+"/testdata/rebuild")
	})
}

// TestCLIContinues shows from where the library goes on that the CLI has left, and from where it does not.
func TestCLIContinues(t *testing.T) {
	t.Parallel()
	two := map[string]string{first: family, second: copiesParents}
	begun := map[string]string{first: two[first]}
	t.Run("OK/the CLI stops in the middle", func(t *testing.T) {
		t.Parallel()
		c := newCLI(t)
		db := database(t, c.path)
		all := folder(t, map[string]string{
			first: family,
			second: "CREATE TABLE c (id integer);\nINSERT INTO c SELECT id FROM missing;\nCREATE TABLE d (id" +
				" integer);\n",
		})
		out, err := c.run("apply", from(all), "--tx-mode", "none")
		require.Error(t, err)
		require.Contains(t, out, "no such table: missing")
		require.Equal(t, []string{"1 of 3"}, column[string](t, db,
			"SELECT applied || ' of ' || total FROM atlas_schema_revisions WHERE applied < total"))
		state, err := migrate.StatusDir(t.Context(), db, migrate.SQLite, load(t, all))
		require.NoError(t, err)
		require.Len(t, state.Applied, 1)
		require.Equal(t, []string{second}, state.Pending)

		// The cause is still there: the library stops at the same statement,
		before := history(t, db)
		_, err = migrate.ApplyDir(t.Context(), db, migrate.SQLite, load(t, all))
		require.ErrorContains(t, err, "INSERT INTO c SELECT id FROM missing")
		require.Equal(t, before, history(t, db))
		// and goes on with it when it is gone.
		run(t, db, "CREATE TABLE missing AS SELECT 3 AS id")
		applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, load(t, all))
		require.NoError(t, err)
		require.Equal(t, []string{second}, applied)
		require.Equal(t, []int{3}, column[int](t, db, "SELECT id FROM c"))
		run(t, db, "DROP TABLE missing")
		require.Len(t, schemaOf(t, db), 4)
		c.must(t, "Migration Status: OK", "status", from(all))
	})
	t.Run("OK/the CLI's whole file fails", func(t *testing.T) {
		t.Parallel()
		c := newCLI(t)
		db := database(t, c.path)
		all := folder(t, map[string]string{first: "CREATE TABLE a (id integer);\nINSERT INTO a SELECT id FROM" +
			" missing;\n"})
		_, err := c.run("apply", from(all))
		require.Error(t, err)
		require.Empty(t, history(t, db))
		applyDir(t, db, directory(t, two)) // an empty revisions table is a new database
		require.Equal(t, []string{"20260101000000", "20260102000000"}, versions(t, db))
	})
	t.Run("OK/a baseline of the CLI", func(t *testing.T) {
		t.Parallel()
		c := newCLI(t)
		db := database(t, c.path)
		run(t, db, "CREATE TABLE parents (id integer PRIMARY KEY)")
		_, err := migrate.StatusDir(t.Context(), db, migrate.SQLite, directory(t, two))
		requireOnly(t, err, migrate.ErrForeign)
		c.must(t, "No migration files to execute", "apply", from(folder(t, begun)), "--baseline", "20260101000000")
		applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, directory(t, two))
		require.NoError(t, err)
		require.Equal(t, []string{second}, applied)
		c.must(t, "Migration Status: OK", "status", from(folder(t, two)))
	})
	t.Run("OK/`atlas migrate set`", func(t *testing.T) {
		t.Parallel()
		c := newCLI(t)
		db := database(t, c.path)
		all := folder(t, two)
		applyDir(t, db, load(t, all))
		c.must(t, "20260101000000", "set", "20260101000000", from(all))
		run(t, db, "DROP TABLE c")
		applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, load(t, all))
		require.NoError(t, err)
		require.Equal(t, []string{second}, applied)
		c.must(t, "Migration Status: OK", "status", from(all))
	})
	t.Run("ErrForeign", func(t *testing.T) {
		t.Parallel()
		c := newCLI(t)
		c.must(t, "2 migrations", "apply", from(folder(t, two)))
		before := files(t, c.path)
		_, err := registry.Open(t.Context(), c.path)
		requireOnly(t, err, migrate.ErrForeign)
		require.ErrorIs(t, err, registry.ErrSchema)
		require.Equal(t, before, files(t, c.path))
	})
	t.Run("ErrNewer", func(t *testing.T) {
		t.Parallel()
		c := newCLI(t)
		db := database(t, c.path)
		c.must(t, "2 migrations", "apply", from(folder(t, two)))
		before := files(t, c.path)
		_, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, directory(t, begun))
		requireOnly(t, err, migrate.ErrNewer)
		require.Equal(t, before, files(t, c.path))
	})
}

// requireTurns requires that nobody can tell from a database who applied which file.
func requireTurns(t *testing.T, c cli, db *sql.DB, folder string) {
	t.Helper()
	c.must(t, "Migration Status: OK", "status", from(folder))
	c.must(t, "No migration files to execute", "apply", from(folder))
	state, err := migrate.StatusDir(t.Context(), db, migrate.SQLite, load(t, folder))
	require.NoError(t, err)
	require.Empty(t, state.Pending)
	applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, load(t, folder))
	require.NoError(t, err)
	require.Empty(t, applied)
	fresh := database(t, newPath(t))
	applyDir(t, fresh, load(t, folder))
	require.Equal(t, schemaOf(t, fresh), schemaOf(t, db))
	require.Equal(t, history(t, fresh), history(t, db))
	require.Equal(t, one[string](t, fresh, "SELECT sql FROM sqlite_master WHERE name = 'atlas_schema_revisions'"),
		one[string](t, db, "SELECT sql FROM sqlite_master WHERE name = 'atlas_schema_revisions'"))
	require.Len(t, column[string](t, db, "SELECT DISTINCT operator_version FROM atlas_schema_revisions"), 2,
		fmt.Sprint(history(t, db)))
}
