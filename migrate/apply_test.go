package migrate_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
)

// family is a schema of parents and children that go with them.
const family = `CREATE TABLE parents (id integer PRIMARY KEY);
CREATE TABLE children (id integer PRIMARY KEY, parent_id integer NOT NULL REFERENCES parents (id) ON DELETE CASCADE);
INSERT INTO parents VALUES (1), (2);
INSERT INTO children VALUES (10, 1), (20, 2);
`

// TestFailure shows that a file is applied whole or not at all.
func TestFailure(t *testing.T) {
	t.Parallel()
	const fails = `CREATE TABLE c (id integer);
INSERT INTO a VALUES (2);
INSERT INTO c SELECT id FROM missing;
CREATE TABLE d (id integer);
`
	t.Run("ErrStatement", func(t *testing.T) {
		t.Parallel()
		db := database(t, newPath(t))
		dir := directory(t, map[string]string{
			first: "CREATE TABLE a (id integer);\n", second: "INSERT INTO a VALUES (1);\n", third: fails,
		})
		applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, dir)
		require.Equal(t, []string{first, second}, applied)
		require.ErrorContains(t, err, third)
		require.ErrorContains(t, err, "INSERT INTO c SELECT id FROM missing")
		require.ErrorContains(t, err, "no such table: missing")
		var cause sqlite3.Error
		require.ErrorAs(t, err, &cause)

		require.Equal(t, []string{"CREATE TABLE a (id integer)"}, schemaOf(t, db))
		require.Equal(t, []int{1}, column[int](t, db, "SELECT id FROM a"))
		require.Equal(t, []string{"20260101000000", "20260102000000"},
			column[string](t, db, "SELECT version FROM atlas_schema_revisions"))
		state, err := migrate.StatusDir(t.Context(), db, migrate.SQLite, dir)
		require.NoError(t, err)
		require.Len(t, state.Applied, 2)
		require.Equal(t, []string{third}, state.Pending)

		run(t, db, "CREATE TABLE missing AS SELECT 3 AS id")
		applied, err = migrate.ApplyDir(t.Context(), db, migrate.SQLite, dir)
		require.NoError(t, err)
		require.Equal(t, []string{third}, applied)
		require.Equal(t, []int{1, 2}, column[int](t, db, "SELECT id FROM a"))
		require.Equal(t, []int{3}, column[int](t, db, "SELECT id FROM c"))
	})
	t.Run("ErrStatement, in the first file", func(t *testing.T) {
		t.Parallel()
		path := newPath(t)
		db := database(t, path)
		run(t, db, "PRAGMA user_version = 1")
		before := digest(t, path)
		applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, directory(t, map[string]string{
			first: "CREATE TABLE a (id integer);\n" + fails,
		}))
		require.ErrorContains(t, err, first)
		require.Empty(t, applied)
		require.Equal(t, before, digest(t, path))
	})
}

// TestFailureAtTheEnd shows the same of a file whose statements all succeed, and of one that is canceled.
func TestFailureAtTheEnd(t *testing.T) {
	t.Parallel()
	t.Run("ErrForeignKeys", func(t *testing.T) {
		t.Parallel()
		db := database(t, newPath(t))
		dir := directory(t, map[string]string{first: family,
			second: "CREATE TABLE c (id integer);\nDELETE FROM parents WHERE id = 2;\n"})
		applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, dir)
		requireOnly(t, err, migrate.ErrForeignKeys)
		require.ErrorContains(t, err, second)
		require.ErrorContains(t, err, "row 20 of children has no parents")
		require.Equal(t, []string{first}, applied)
		require.Equal(t, []int{1, 2}, column[int](t, db, "SELECT id FROM parents"))
		require.Equal(t, []int{10, 20}, column[int](t, db, "SELECT id FROM children"))
		require.Len(t, schemaOf(t, db), 2)
		require.Equal(t, []string{"20260101000000"}, versions(t, db))
	})
	t.Run("ErrForeignKeys, of a row without rowid", func(t *testing.T) {
		t.Parallel()
		db := database(t, newPath(t))
		_, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, directory(t, map[string]string{
			first: "CREATE TABLE p (id text PRIMARY KEY);\n" +
				"CREATE TABLE c (id text PRIMARY KEY, p text REFERENCES p (id)) WITHOUT ROWID;\nINSERT INTO c VALUES" +
				" ('x', 'y');\n",
		}))
		requireOnly(t, err, migrate.ErrForeignKeys)
		require.ErrorContains(t, err, "of c has no p")
		require.Empty(t, schemaOf(t, db))
	})
	t.Run("ErrForeignKeys, that cannot be checked", func(t *testing.T) {
		t.Parallel()
		db := database(t, newPath(t))
		_, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, directory(t, map[string]string{
			first: "CREATE TABLE p (id text);\nCREATE TABLE c (p text REFERENCES p (id));\nINSERT INTO c VALUES" +
				" ('x');\n",
		}))
		require.ErrorContains(t, err, "foreign key mismatch")
		require.Empty(t, schemaOf(t, db))
	})
	t.Run("ErrCanceled, in the middle of a file", func(t *testing.T) {
		t.Parallel()
		path := newPath(t)
		dir := directory(t, map[string]string{
			first: "CREATE TABLE a (id integer);\n",
			second: "CREATE TABLE b (id integer);\nWITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c" +
				" WHERE n < 1000000000)" +
				" SELECT SUM(stop(n)) FROM c;\n",
		})
		ctx, cancel := context.WithCancel(t.Context())
		db := pool(t, connector{dsn: dsn(path), connect: function("stop", func(n int64) int64 {
			if n == 1000 {
				cancel()
			}
			return n
		})})
		db.SetMaxOpenConns(1)
		applied, err := migrate.ApplyDir(ctx, db, migrate.SQLite, dir)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, []string{first}, applied)
		require.Equal(t, []string{"CREATE TABLE a (id integer)"}, schemaOf(t, db))
		require.Equal(t, []string{"20260101000000"},
			column[string](t, db, "SELECT version FROM atlas_schema_revisions"))
		require.Equal(t, 1, one[int](t, db, "PRAGMA foreign_keys"))
		require.Equal(t, 60000, one[int](t, db, "PRAGMA busy_timeout"))
		run(t, db, "BEGIN IMMEDIATE", "ROLLBACK") // no transaction was left open
	})
}

// TestRebuild shows that a table is rebuilt without the rows that refer to it being deleted.
func TestRebuild(t *testing.T) {
	t.Parallel()
	dir := load(t, "testdata/rebuild")
	files, err := dir.Files()
	require.NoError(t, err)
	require.Len(t, files, 2)
	for _, statement := range []string{"PRAGMA foreign_keys = off", "INSERT INTO `new_parents`", "DROP TABLE `parents`",
		"RENAME TO"} {
		require.Contains(t, string(files[1].Bytes()), statement) // else it is no rebuild
	}
	begun := directory(t, map[string]string{files[0].Name(): string(files[0].Bytes())})
	for _, foreignKeys := range []string{"0", "1"} {
		t.Run("OK/foreign_keys "+foreignKeys, func(t *testing.T) {
			t.Parallel()
			db := pool(t, connector{dsn: uri(newPath(t)) + "_fk=" + foreignKeys})
			db.SetMaxOpenConns(1)
			applyDir(t, db, begun)
			run(t, db, "INSERT INTO parents VALUES (1, 'x'), (2, NULL)",
				"INSERT INTO children VALUES (10, 1), (20, 2), (21, 2)")
			applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, dir)
			require.NoError(t, err)
			require.Equal(t, []string{files[1].Name()}, applied)

			require.Equal(t, []string{"1 x", "2 "},
				column[string](t, db, "SELECT id || ' ' || name FROM parents ORDER BY id"))
			require.Equal(t, []string{"10 1", "20 2", "21 2"},
				column[string](t, db, "SELECT id || ' ' || parent_id FROM children ORDER BY id"))
			require.Contains(t, one[string](t, db, "SELECT sql FROM sqlite_master WHERE name = 'children'"),
				"REFERENCES `parents`")
			require.Empty(t, column[string](t, db, `SELECT "table" FROM pragma_foreign_key_check`))
			fresh := database(t, newPath(t))
			applyDir(t, fresh, dir)
			require.Equal(t, schemaOf(t, fresh), schemaOf(t, db))
			if foreignKeys == "1" { // the rows still belong together
				run(t, db, "DELETE FROM parents WHERE id = 2")
				require.Equal(t, []int{10}, column[int](t, db, "SELECT id FROM children"))
			}
		})
	}
}

// TestConnection shows that a connection goes back to its pool as it came.
func TestConnection(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		files map[string]string
		err   string
	}{
		"OK": {files: map[string]string{first: family, second: "CREATE TABLE b (id integer);\n"}},
		"ErrStatement": {
			files: map[string]string{first: family, second: "DROP TABLE missing;\n"}, err: "no such table",
		},
		"ErrForeignKeys": {
			files: map[string]string{first: family, second: "DELETE FROM parents;\n"},
			err:   migrate.ErrForeignKeys.Error(),
		},
		"OK, a file sets them": {
			files: map[string]string{first: "PRAGMA foreign_keys = on;\nPRAGMA busy_timeout = 7;\n" + family},
		},
	} {
		for _, foreignKeys := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s/foreign_keys %d", name, foreignKeys), func(t *testing.T) {
				t.Parallel()
				const timeout = 1234
				var during []string
				db := pool(t, connector{
					dsn: fmt.Sprintf("%s_busy_timeout=%d&_fk=%d", uri(newPath(t)), timeout, foreignKeys),
					exec: func(query string) {
						if strings.HasPrefix(query, "PRAGMA") || strings.HasPrefix(query, "BEGIN") {
							during = append(during, query)
						}
					},
				})
				db.SetMaxOpenConns(1)
				_, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, directory(t, tt.files))
				if tt.err == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, tt.err)
				}
				// They are off before the transaction, inside of which the pragma would do nothing.
				require.GreaterOrEqual(t, len(during), 2)
				require.Equal(t, []string{"PRAGMA foreign_keys = 0; PRAGMA busy_timeout = 100", "BEGIN IMMEDIATE"},
					during[:2])
				require.Equal(t, foreignKeys, one[int](t, db, "PRAGMA foreign_keys"))
				require.Equal(t, timeout, one[int](t, db, "PRAGMA busy_timeout"))
				run(t, db, "BEGIN IMMEDIATE", "ROLLBACK")
			})
		}
	}
	t.Run("ErrBusy", func(t *testing.T) {
		t.Parallel()
		path := newPath(t)
		other := database(t, path)
		other.SetMaxOpenConns(1)
		db := pool(t, connector{dsn: uri(path) + "_busy_timeout=1234&_fk=1", exec: func(query string) {
			if strings.HasPrefix(query, "CREATE TABLE a") { // a reader keeps the file from changing
				run(t, other, "BEGIN")
				require.Zero(t, one[int](t, other, "SELECT COUNT(*) FROM sqlite_master"))
			}
		}})
		db.SetMaxOpenConns(1)
		_, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, directory(t, map[string]string{
			first: "CREATE TABLE a (id integer);\nPRAGMA busy_timeout = 0;\n",
		}))
		var busy sqlite3.Error
		require.ErrorAs(t, err, &busy)
		require.Equal(t, sqlite3.ErrBusy, busy.Code)
		run(t, other, "COMMIT")
		require.Equal(t, 1, one[int](t, db, "PRAGMA foreign_keys"))
		require.Equal(t, 1234, one[int](t, db, "PRAGMA busy_timeout"))
		require.Empty(t, schemaOf(t, db))
		run(t, db, "BEGIN IMMEDIATE", "ROLLBACK")
	})
}
