package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// Errors as SQLite makes them when a statement is run.
func TestClassifyStatements(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before string // what is run first
		fails  string // what fails
		code   error  // sqlite3.ErrNo or sqlite3.ErrNoExtended
		want   error
	}{
		"unique": {
			before: "CREATE TABLE t (x UNIQUE); INSERT INTO t VALUES (1)", fails: "INSERT INTO t VALUES (1)",
			code: sqlite3.ErrConstraintUnique, want: fault.ErrConflict,
		},
		"partial unique index": {
			before: "CREATE TABLE t (x, gone); CREATE UNIQUE INDEX i ON t (x) WHERE gone IS NULL;" +
				" INSERT INTO t VALUES (1, NULL), (1, 2)",
			fails: "INSERT INTO t VALUES (1, NULL)", code: sqlite3.ErrConstraintUnique, want: fault.ErrConflict,
		},
		"primary key": {
			before: "CREATE TABLE t (x text PRIMARY KEY); INSERT INTO t VALUES ('a')",
			fails:  "INSERT INTO t VALUES ('a')", code: sqlite3.ErrConstraintPrimaryKey, want: fault.ErrConflict,
		},
		"integer primary key": {
			before: "CREATE TABLE t (x INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)",
			fails:  "INSERT INTO t VALUES (1)", code: sqlite3.ErrConstraintPrimaryKey, want: fault.ErrConflict,
		},
		"rowid": {
			before: "CREATE TABLE t (x); INSERT INTO t (rowid) VALUES (1)", fails: "INSERT INTO t (rowid) VALUES (1)",
			code: sqlite3.ErrConstraintRowID, want: fault.ErrConflict,
		},
		"insert without parent": {
			before: "CREATE TABLE p (id PRIMARY KEY); CREATE TABLE c (p REFERENCES p)",
			fails:  "INSERT INTO c VALUES (1)", code: sqlite3.ErrConstraintForeignKey, want: fault.ErrForeignKey,
		},
		"delete parent, no action": {
			before: "CREATE TABLE p (id PRIMARY KEY); CREATE TABLE c (p REFERENCES p); INSERT INTO p VALUES (1);" +
				" INSERT INTO c VALUES (1)",
			fails: "DELETE FROM p", code: sqlite3.ErrConstraintForeignKey, want: fault.ErrForeignKey,
		},
		"delete parent, restrict": {
			before: "CREATE TABLE p (id PRIMARY KEY); CREATE TABLE c (p REFERENCES p ON DELETE RESTRICT);" +
				" INSERT INTO p VALUES (1); INSERT INTO c VALUES (1)",
			fails: "DELETE FROM p", code: sqlite3.ErrConstraintTrigger, want: fault.ErrForeignKey,
		},
		"cascade into restrict": {
			before: "CREATE TABLE p (id PRIMARY KEY); " +
				"CREATE TABLE c (id PRIMARY KEY, p REFERENCES p ON DELETE CASCADE);" +
				" CREATE TABLE d (c REFERENCES c ON DELETE RESTRICT);" +
				" INSERT INTO p VALUES (1); INSERT INTO c VALUES (2, 1); INSERT INTO d VALUES (2)",
			fails: "DELETE FROM p", code: sqlite3.ErrConstraintTrigger, want: fault.ErrForeignKey,
		},
		"commit without parent": {
			before: "CREATE TABLE p (id PRIMARY KEY); CREATE TABLE c (p REFERENCES p DEFERRABLE INITIALLY DEFERRED);" +
				" BEGIN; INSERT INTO c VALUES (1)",
			fails: "COMMIT", code: sqlite3.ErrConstraintForeignKey, want: fault.ErrForeignKey,
		},
		"check": {
			before: "CREATE TABLE t (x CHECK (x > 0))", fails: "INSERT INTO t VALUES (0)",
			code: sqlite3.ErrConstraintCheck, want: fault.ErrInvalidData,
		},
		"not null": {
			before: "CREATE TABLE t (x NOT NULL)", fails: "INSERT INTO t VALUES (NULL)",
			code: sqlite3.ErrConstraintNotNull, want: fault.ErrInvalidData,
		},
		"strict type": {
			before: "CREATE TABLE t (x integer) STRICT", fails: "INSERT INTO t VALUES ('a')",
			code: sqlite3.ErrConstraint, want: fault.ErrInvalidData,
		},
		"mismatch": {
			before: "CREATE TABLE t (x INTEGER PRIMARY KEY)", fails: "INSERT INTO t VALUES ('a')",
			code: sqlite3.ErrMismatch, want: fault.ErrInvalidData,
		},
		"too big": {fails: "SELECT length(zeroblob(2000000000))", code: sqlite3.ErrTooBig, want: fault.ErrInvalidData},
		"full": {
			before: "CREATE TABLE t (x); PRAGMA max_page_count = 1", fails: "INSERT INTO t VALUES (zeroblob(100000))",
			code: sqlite3.ErrFull, want: fault.ErrDiskFull,
		},
		"query only": {
			before: "CREATE TABLE t (x); PRAGMA query_only = 1", fails: "INSERT INTO t VALUES (1)",
			code: sqlite3.ErrReadonly, want: fault.ErrReadOnly,
		},
		"syntax":        {fails: "SELECT FROM WHERE", code: sqlite3.ErrError, want: nil},
		"no such table": {fails: "SELECT 1 FROM t", code: sqlite3.ErrError, want: nil},
	} {
		t.Run("Err_"+strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			db := rawDB(t, store.FileURI(filepath.Join(t.TempDir(), "test.db"))+"?_fk=1")
			_, err := db.ExecContext(t.Context(), test.before)
			require.NoError(t, err)
			_, err = db.ExecContext(t.Context(), test.fails)
			requireCode(t, test.code, err)
			require.Equal(t, test.want, store.Classify(err), "%v", err)
			require.Equal(
				t, test.want, store.Classify(fmt.Errorf("wrapped: %w", errors.Join(errors.New("and joined"), err))),
			)
		})
	}
}

// requireCode sees to it that an error has the code that a test is about.
func requireCode(t *testing.T, want, err error) {
	t.Helper()
	var sqliteErr sqlite3.Error
	require.ErrorAs(t, err, &sqliteErr)
	var code sqlite3.ErrNo
	if errors.As(want, &code) {
		require.Equal(t, code, sqliteErr.Code, "%v", err)
		return
	}
	require.Equal(t, want, error(sqliteErr.ExtendedCode), "%v", err)
}

// Errors that take more than a statement.
func TestClassifyRealErrors(t *testing.T) {
	t.Parallel()
	t.Run("Err_busy", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		dsn := store.FileURI(filepath.Join(dir, "test.db")) + "?_busy_timeout=0"
		_, err := rawDB(t, dsn).ExecContext(t.Context(), "BEGIN IMMEDIATE")
		require.NoError(t, err)
		_, err = rawDB(t, dsn).ExecContext(t.Context(), "BEGIN IMMEDIATE")
		requireCode(t, sqlite3.ErrBusy, err)
		requireKind(t, fault.ErrBusy, err)
	})
	t.Run("Err_busy_snapshot", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		path := filepath.Join(dir, "test.db")
		raw(t, path, "PRAGMA journal_mode = WAL; CREATE TABLE t (x)")
		db := rawDB(t, store.FileURI(path))
		_, err := db.ExecContext(t.Context(), "BEGIN; SELECT * FROM t")
		require.NoError(t, err)
		raw(t, path, "INSERT INTO t VALUES (1)")
		_, err = db.ExecContext(t.Context(), "INSERT INTO t VALUES (2)")
		requireCode(t, sqlite3.ErrBusySnapshot, err)
		requireKind(t, fault.ErrBusy, err)
	})
	t.Run("Err_locked", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		db := rawDB(t, store.FileURI(filepath.Join(dir, "test.db")))
		_, err := db.ExecContext(t.Context(), "CREATE TABLE t (x); INSERT INTO t VALUES (1), (2)")
		require.NoError(t, err)
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close()) }()
		rows, err := conn.QueryContext(t.Context(), "SELECT x FROM t")
		require.NoError(t, err)
		defer func() { require.NoError(t, errors.Join(rows.Err(), rows.Close())) }()
		require.True(t, rows.Next())
		_, err = conn.ExecContext(t.Context(), "DROP TABLE t")
		requireCode(t, sqlite3.ErrLocked, err)
		requireKind(t, fault.ErrBusy, err)
	})
	t.Run("Err_mode_ro", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		path := filepath.Join(dir, "test.db")
		raw(t, path, "CREATE TABLE t (x)")
		_, err := rawDB(t, store.FileURI(path)+"?mode=ro").ExecContext(t.Context(), "INSERT INTO t VALUES (1)")
		requireCode(t, sqlite3.ErrReadonly, err)
		requireKind(t, fault.ErrReadOnly, err)
	})
	t.Run("Err_not_authorized", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		conn, err := rawDB(t, store.FileURI(filepath.Join(dir, "test.db"))).Conn(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close()) }()
		require.NoError(t, conn.Raw(func(c any) error {
			c.(*sqlite3.SQLiteConn).RegisterAuthorizer(
				func(int, string, string, string) int { return sqlite3.SQLITE_DENY },
			)
			return nil
		}))
		_, err = conn.ExecContext(t.Context(), "CREATE TABLE t (x)")
		requireCode(t, sqlite3.ErrAuth, err)
		requireKind(t, fault.ErrReadOnly, err)
	})
	t.Run("Err_not_a_database", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		path := filepath.Join(dir, "test.db")
		require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("text ", 1000)), 0o600))
		_, err := rawDB(t, store.FileURI(path)).ExecContext(t.Context(), "SELECT * FROM sqlite_master")
		requireCode(t, sqlite3.ErrNotADB, err)
		requireKind(t, fault.ErrCorrupt, err)
	})
	t.Run("Err_corrupt", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		path := filepath.Join(dir, "test.db")
		raw(t, path, "PRAGMA page_size = 4096; CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(100))")
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte{0xff, 0xff, 0xff, 0xff}, 4096) // the type of t's page
		require.NoError(t, errors.Join(err, f.Close()))
		_, err = rawDB(t, store.FileURI(path)).ExecContext(t.Context(), "SELECT * FROM t")
		requireCode(t, sqlite3.ErrCorrupt, err)
		requireKind(t, fault.ErrCorrupt, err)
	})
	t.Run("Err_open_in_a_missing_folder", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		_, err := rawDB(t, store.FileURI(filepath.Join(dir, "missing", "test.db"))).ExecContext(t.Context(), "SELECT 1")
		requireCode(t, sqlite3.ErrCantOpen, err)
		requireKind(t, fault.ErrInvalidData, err)
	})
}

// TestClassifyFiles classifies errors of the file system, and similar errors that have other causes.
func TestClassifyFiles(t *testing.T) {
	t.Parallel()
	t.Run("Err_missing_file", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		_, err := os.Stat(filepath.Join(dir, "missing"))
		requireKind(t, fault.ErrInvalidData, err)
	})
	t.Run("Err_file_as_folder", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
		_, err := os.Stat(filepath.Join(dir, "file", "test.db"))
		requireKind(t, fault.ErrInvalidData, err)
	})
	t.Run("Err_folder_as_file", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		_, err := os.OpenFile(dir, os.O_RDWR, 0)
		requireKind(t, fault.ErrInvalidData, err)
	})
	t.Run("Err_long_name", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		_, err := os.Stat(filepath.Join(dir, strings.Repeat("x", 5000)))
		requireKind(t, fault.ErrInvalidData, err)
	})
	t.Run("Err_symlink_loop", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		require.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))
		_, err := os.Stat(filepath.Join(dir, "loop"))
		requireKind(t, fault.ErrInvalidData, err)
	})
	t.Run("Err_full_device", func(t *testing.T) {
		t.Parallel()
		requireKind(t, fault.ErrDiskFull, os.WriteFile("/dev/full", []byte("x"), 0o600))
	})
	t.Run("Err_none", func(t *testing.T) {
		t.Parallel()
		requireKind(t, nil, nil)
	})
	t.Run("Err_other", func(t *testing.T) {
		t.Parallel()
		requireKind(t, nil, errors.New("database is locked, disk full, UNIQUE constraint failed"))
	})
}
