package migrate_test

import (
	"context"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
)

// TestAutomaticRollback: some errors make SQLite roll back the whole transaction by itself. What
// is written after that is written for good, and must not be.
func TestAutomaticRollback(t *testing.T) {
	t.Parallel()
	const a = "CREATE TABLE a (id integer PRIMARY KEY, v text);\n" +
		"INSERT INTO a WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000)" +
		" SELECT n, hex(randomblob(500)) FROM c;\n"
	for name, statement := range map[string]string{
		"update":        "UPDATE a SET v = v || v;",
		"copy":          "INSERT INTO b SELECT id, v FROM a;",
		"update of new": "ALTER TABLE a ADD COLUMN y text; UPDATE a SET y = v;",
	} {
		t.Run("ErrDiskFull/"+name, func(t *testing.T) {
			t.Parallel()
			path := newPath(t)
			dir := directory(t, map[string]string{
				first: a, second: "CREATE TABLE b (id integer, v text);\n" + statement +
					"\nCREATE TABLE c (id integer);\n",
			})
			full := pool(t, connector{dsn: dsn(path), connect: func(conn *sqlite3.SQLiteConn) error {
				_, err := conn.Exec("PRAGMA max_page_count = 700", nil)
				return err
			}})
			applied, err := migrate.ApplyDir(t.Context(), full, migrate.SQLite, dir)
			require.Equal(t, []string{first}, applied)
			require.ErrorContains(t, err, "database or disk is full")
			require.Equal(t, []string{"20260101000000"},
				column[string](t, full, "SELECT version FROM atlas_schema_revisions"))

			db := database(t, path) // there is room again
			applied, err = migrate.ApplyDir(t.Context(), db, migrate.SQLite, dir)
			require.NoError(t, err)
			require.Equal(t, []string{second}, applied)
			fresh := database(t, newPath(t))
			applyDir(t, fresh, dir)
			require.Equal(t, schemaOf(t, fresh), schemaOf(t, db))
		})
	}
	t.Run("ErrCanceled", func(t *testing.T) {
		t.Parallel()
		path := newPath(t)
		dir := directory(t, map[string]string{
			first: "CREATE TABLE a (id integer);\n",
			second: "CREATE TABLE b (id integer);\nINSERT INTO b WITH RECURSIVE c(n) AS" +
				" (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000000000) SELECT stop(n) FROM c;\n",
		})
		ctx, cancel := context.WithCancel(t.Context())
		db := pool(t, connector{dsn: dsn(path), connect: function("stop", func(n int64) int64 {
			if n == 1000 {
				cancel()
			}
			return n
		})})
		_, err := migrate.ApplyDir(ctx, db, migrate.SQLite, dir)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, []string{"CREATE TABLE a (id integer)"}, schemaOf(t, db))
		require.Equal(t, []string{"20260101000000"},
			column[string](t, db, "SELECT version FROM atlas_schema_revisions"))
	})
}

// TestWait: a context ends the wait for somebody else's transaction.
func TestWait(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	other := database(t, path)
	other.SetMaxOpenConns(1)
	run(t, other, "BEGIN IMMEDIATE")
	t.Cleanup(func() { _, _ = other.Exec("ROLLBACK") })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := migrate.Apply(ctx, database(t, path), migrate.SQLite)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(began), 10*time.Second)
}

// TestPrepareFails: no connection goes back to its pool without foreign keys. (With a context
// that ends at this moment instead of the authorizer it happens about once in two thousand times.)
func TestPrepareFails(t *testing.T) {
	t.Parallel()
	db := pool(t, connector{dsn: dsn(newPath(t)), connect: func(conn *sqlite3.SQLiteConn) error {
		conn.RegisterAuthorizer(func(op int, pragma, argument, _ string) int {
			if op == sqlite3.SQLITE_PRAGMA && pragma == "busy_timeout" && argument == "100" {
				return sqlite3.SQLITE_DENY
			}
			return sqlite3.SQLITE_OK
		})
		return nil
	}})
	db.SetMaxOpenConns(1)
	_, err := migrate.Apply(t.Context(), db, migrate.SQLite)
	require.Error(t, err)
	require.Equal(t, 1, one[int](t, db, "PRAGMA foreign_keys"))
}

// TestLaterBaseline: the CLI records a baseline as one row, which stands for all files up to it.
func TestLaterBaseline(t *testing.T) {
	t.Parallel()
	dir := directory(t, map[string]string{
		first: "CREATE TABLE a (id integer);\n", second: "CREATE TABLE b (id integer);\n",
		third: "CREATE TABLE c (id integer);\n",
	})
	db := database(t, newPath(t))
	run(t, db, "CREATE TABLE a (id integer)", "CREATE TABLE b (id integer)", createRevisions,
		insertRevision("20260102000000", "second", 1, 0, 0, "", "null"))
	applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, dir)
	require.NoError(t, err)
	require.Equal(t, []string{third}, applied)
}

func TestLaterBaselineOfCLI(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	two := map[string]string{first: "CREATE TABLE a (id integer);\n", second: "CREATE TABLE b (id integer);\n"}
	db := database(t, c.path)
	run(t, db, "CREATE TABLE a (id integer)", "CREATE TABLE b (id integer)")
	c.must(t, "No migration files to execute", "apply", from(folder(t, two)), "--baseline", "20260102000000")
	c.must(t, "Migration Status: OK", "status", from(folder(t, two)))
	_, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, directory(t, two))
	require.NoError(t, err)
}

// TestWaitExclusive: outside of WAL mode, a transaction that is committing or that has outgrown
// the cache keeps readers out too; Apply promises to wait for a minute.
func TestWaitExclusive(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	other := database(t, path)
	other.SetMaxOpenConns(1)
	run(t, other, "BEGIN EXCLUSIVE")
	time.AfterFunc(2*time.Second, func() { _, _ = other.Exec("ROLLBACK") })
	_, err := migrate.Apply(t.Context(), pool(t, connector{dsn: uri(path) + "_fk=1&_busy_timeout=500"}), migrate.SQLite)
	require.NoError(t, err)
}
