package main_test

import (
	"bytes"
	"database/sql"
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
