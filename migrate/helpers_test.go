package migrate_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	atlas "ariga.io/atlas/sql/migrate"
	"github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
)

// The files of most folders here.
const (
	first  = "20260101000000_first.sql"
	second = "20260102000000_second.sql"
	third  = "20260103000000_third.sql"
)

// createRevisions is the table of revisions as the Atlas CLI makes it, in sqlite_master.
const createRevisions = "CREATE TABLE `atlas_schema_revisions` (" +
	"`version` text NOT NULL, `description` text NOT NULL, `type` integer NOT NULL DEFAULT (2), " +
	"`applied` integer NOT NULL DEFAULT (0), `total` integer NOT NULL DEFAULT (0), " +
	"`executed_at` datetime NOT NULL, `execution_time` integer NOT NULL, `error` text NULL, `error_stmt` text NULL, " +
	"`hash` text NOT NULL, `partial_hashes` json NULL, `operator_version` text NOT NULL, PRIMARY KEY (`version`))"

// journals are the journal modes: what the CLI leaves, and what the registry works in.
var journals = []string{"delete", "wal"}

// uri returns the driver's name of a file, for parameters to follow.
func uri(path string) string { return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" }

// dsn returns the name of a file whose connections have foreign keys on.
func dsn(path string) string { return uri(path) + "_fk=1&_busy_timeout=60000" }

// dsnIn returns the name of a file that is put into a journal mode.
func dsnIn(path, journal string) string { return dsn(path) + "&_journal_mode=" + journal }

// database opens a file that is gone after the test.
func database(tb testing.TB, path string) *sql.DB {
	tb.Helper()
	return pool(tb, connector{dsn: dsn(path)})
}

func pool(tb testing.TB, c connector) *sql.DB {
	tb.Helper()
	db := sql.OpenDB(c)
	tb.Cleanup(func() { require.NoError(tb, db.Close()) })
	return db
}

// newPath returns the path of a file that does not exist, in a folder of its own.
func newPath(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(tb.TempDir(), "test.db")
}

// connector opens connections that a test can look into.
type connector struct {
	dsn     string
	connect func(*sqlite3.SQLiteConn) error // called with each new connection, unless nil
	exec    func(query string)              // called before each statement without rows, unless nil
}

func (c connector) Driver() driver.Driver { return &sqlite3.SQLiteDriver{ConnectHook: c.connect} }

func (c connector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.Driver().Open(c.dsn)
	if err != nil {
		return nil, err
	}
	return spy{conn.(*sqlite3.SQLiteConn), c.exec}, nil
}

type spy struct {
	*sqlite3.SQLiteConn
	exec func(query string)
}

func (s spy) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if s.exec != nil {
		s.exec(query)
	}
	return s.SQLiteConn.ExecContext(ctx, query, args)
}

// function returns a connect hook that gives SQL a function of one argument.
func function(name string, f func(n int64) int64) func(*sqlite3.SQLiteConn) error {
	return func(conn *sqlite3.SQLiteConn) error { return conn.RegisterFunc(name, f, false) }
}

func run(tb testing.TB, db *sql.DB, statements ...string) {
	tb.Helper()
	for _, s := range statements {
		_, err := db.ExecContext(tb.Context(), s)
		require.NoError(tb, err, s)
	}
}

// column returns the first column of a query's rows.
func column[T any](tb testing.TB, db *sql.DB, query string, args ...any) []T {
	tb.Helper()
	rows, err := db.QueryContext(tb.Context(), query, args...)
	require.NoError(tb, err, query)
	defer func() { require.NoError(tb, rows.Close()) }()
	var values []T
	for rows.Next() {
		var v T
		require.NoError(tb, rows.Scan(&v))
		values = append(values, v)
	}
	require.NoError(tb, rows.Err())
	return values
}

// one returns the only value of a query.
func one[T any](tb testing.TB, db *sql.DB, query string, args ...any) T {
	tb.Helper()
	values := column[T](tb, db, query, args...)
	require.Len(tb, values, 1, query)
	return values[0]
}

// schemaOf returns the statements of sqlite_master, but for the revisions table.
func schemaOf(tb testing.TB, db *sql.DB) []string {
	tb.Helper()
	return column[string](tb, db, "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"+
		" AND tbl_name <> 'atlas_schema_revisions' ORDER BY type, name")
}

// history returns all that the revisions say, but for the times and who wrote them.
func history(tb testing.TB, db *sql.DB) []string {
	tb.Helper()
	return column[string](tb, db, `SELECT printf('%s %s type %d, %d of %d, %s, %s, %s, %s', version, description, type,
		applied, total, quote(error), quote(error_stmt), hash, quote(partial_hashes))
		FROM atlas_schema_revisions ORDER BY version`)
}

// versions returns the versions that a database has applied.
func versions(tb testing.TB, db *sql.DB) []string {
	tb.Helper()
	return column[string](tb, db, "SELECT version FROM atlas_schema_revisions WHERE applied = total ORDER BY version")
}

// digest returns the SHA-256 of a file.
func digest(tb testing.TB, path string) string {
	tb.Helper()
	content, err := os.ReadFile(path)
	require.NoError(tb, err)
	return fmt.Sprintf("%x", sha256.Sum256(content))
}

// folder writes migration files and their atlas.sum, and returns where.
func folder(tb testing.TB, files map[string]string) string {
	tb.Helper()
	path := tb.TempDir()
	for name, content := range files {
		require.NoError(tb, os.WriteFile(filepath.Join(path, name), []byte(content), 0o600))
	}
	dir, err := atlas.NewLocalDir(path)
	require.NoError(tb, err)
	sum, err := dir.Checksum()
	require.NoError(tb, err)
	require.NoError(tb, atlas.WriteSumFile(dir, sum))
	return path
}

// load reads a folder the way that the embedded one is read.
func load(tb testing.TB, path string) atlas.Dir {
	tb.Helper()
	dir, err := migrate.Load(os.DirFS(path), ".")
	require.NoError(tb, err)
	return dir
}

// directory is load of folder.
func directory(tb testing.TB, files map[string]string) atlas.Dir {
	tb.Helper()
	return load(tb, folder(tb, files))
}

// embedded returns the embedded migration files.
func embedded(tb testing.TB) []atlas.File {
	tb.Helper()
	dir, err := migrate.Load(migrate.Files, "sqlite")
	require.NoError(tb, err)
	files, err := dir.Files()
	require.NoError(tb, err)
	require.NotEmpty(tb, files)
	return files
}

func names(files []atlas.File) []string {
	var all []string
	for _, f := range files {
		all = append(all, f.Name())
	}
	return all
}

func versionsOf(files []atlas.File) []string {
	var all []string
	for _, f := range files {
		all = append(all, f.Version())
	}
	return all
}

// applyDir applies all of a directory, which must succeed.
func applyDir(tb testing.TB, db *sql.DB, dir atlas.Dir) {
	tb.Helper()
	_, err := migrate.ApplyDir(tb.Context(), db, migrate.SQLite, dir)
	require.NoError(tb, err)
}
