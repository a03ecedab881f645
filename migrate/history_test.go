package migrate_test

import (
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// requireOnly requires that err is want, and none of the package's other errors.
func requireOnly(tb testing.TB, err, want error) {
	tb.Helper()
	require.ErrorIs(tb, err, want)
	for _, other := range []error{
		migrate.ErrChecksum, migrate.ErrEdited, migrate.ErrHistory, migrate.ErrNewer, migrate.ErrForeign,
		migrate.ErrForeignKeys,
	} {
		if other != want { //nolint:errorlint // the sentinels themselves
			require.NotErrorIs(tb, err, other)
		}
	}
}

// insertRevision returns the statement that records a migration as the CLI would.
func insertRevision(version, description string, kind, applied, total int, hash, partialHashes string) string {
	return fmt.Sprintf("INSERT INTO atlas_schema_revisions VALUES ('%s', '%s', %d, %d, %d, "+
		"'2026-01-02 03:04:05.678901234+02:00', 1000, '', '', '%s', CAST('%s' AS blob), 'Atlas CLI')",
		version, description, kind, applied, total, hash, partialHashes)
}

// executedAt is the time in [insertRevision].
var executedAt = time.Date(2026, time.January, 2, 1, 4, 5, 678901234, time.UTC)

// files returns what lies in a file's folder, by name.
func files(tb testing.TB, path string) map[string]string {
	tb.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(tb, err)
	all := map[string]string{}
	for _, e := range entries {
		all[e.Name()] = digest(tb, filepath.Join(filepath.Dir(path), e.Name()))
	}
	return all
}

// laterRevision records a migration that this program does not know.
var laterRevision = insertRevision("99990101000000", "later", 2, 1, 1, "x", "null")

// refusal is what makes a database unusable, and what is said of it.
type refusal struct {
	name   string
	fresh  bool     // it starts from an empty file, not from a migrated one
	change []string // what makes it unusable
	want   error
	text   string
}

func refusals(tb testing.TB) []refusal {
	tb.Helper()
	oldest := embedded(tb)[0]
	return []refusal{
		{
			name:   "ErrEdited",
			change: []string{"UPDATE atlas_schema_revisions SET hash = 'x' WHERE version = " + oldest.Version()},
			want:   migrate.ErrEdited, text: oldest.Name(),
		},
		{
			name:   "ErrNewer",
			change: []string{laterRevision},
			want:   migrate.ErrNewer, text: "99990101000000_later",
		},
		{
			name:   "ErrNewer, two",
			change: []string{laterRevision, insertRevision("99990102000000", "last", 2, 0, 1, "x", "null")},
			want:   migrate.ErrNewer, text: "99990101000000_later",
		},
		{
			name:   "ErrNewer, made by the CLI",
			change: []string{laterRevision, "PRAGMA application_id = 0"},
			want:   migrate.ErrNewer, text: "99990101000000_later",
		},
		{
			name:   "ErrHistory, one in between",
			change: []string{insertRevision("20000101000000", "between", 2, 1, 1, "x", "null")},
			want:   migrate.ErrHistory, text: "20000101000000_between",
		},
		{
			name:   "ErrForeign, another application_id",
			change: []string{fmt.Sprintf("PRAGMA application_id = %d", 0x47503131)},
			want:   migrate.ErrForeign, text: "0x47503131",
		},
		{
			name:   "ErrForeign, another application_id in an empty database",
			fresh:  true,
			change: []string{"PRAGMA application_id = -1"},
			want:   migrate.ErrForeign, text: "application_id",
		},
		{
			name:   "ErrForeign, tables without revisions",
			fresh:  true,
			change: []string{"CREATE TABLE providers (id integer)"},
			want:   migrate.ErrForeign, text: "no migration",
		},
		{
			name:  "ErrForeign, tables without revisions under our application_id",
			fresh: true,
			change: []string{"CREATE TABLE t (id integer)",
				fmt.Sprintf("PRAGMA application_id = %d", migrate.ApplicationID)},
			want: migrate.ErrForeign, text: "no migration",
		},
		{
			name:   "ErrForeign, a view",
			fresh:  true,
			change: []string{"CREATE VIEW v AS SELECT 1"},
			want:   migrate.ErrForeign, text: "no migration",
		},
		{
			name:   "ErrForeign, a table with a name like SQLite's",
			fresh:  true,
			change: []string{"CREATE TABLE sqlitex (id integer)"},
			want:   migrate.ErrForeign, text: "no migration",
		},
		{
			name:   "ErrForeign, no revision is left",
			change: []string{"DELETE FROM atlas_schema_revisions"},
			want:   migrate.ErrForeign, text: "no migration",
		},
		{
			name:  "ErrForeign, tables with a cloud identifier alone",
			fresh: true,
			change: []string{createRevisions, insertRevision(".atlas_cloud_identifier", "uuid", 2, 0, 0, "", "null"),
				"CREATE TABLE t (id integer)"},
			want: migrate.ErrForeign, text: "no migration",
		},
		{
			name:  "ErrForeign, another application under Atlas",
			fresh: true,
			change: []string{createRevisions, insertRevision("20200101000000", "users", 2, 1, 1, "x", "null"),
				"CREATE TABLE users (id integer)"},
			want: migrate.ErrForeign, text: "20200101000000_users",
		},
		{
			name:   "ErrForeign, another and younger application under Atlas",
			fresh:  true,
			change: []string{createRevisions, laterRevision, "CREATE TABLE users (id integer)"},
			want:   migrate.ErrForeign, text: "99990101000000_later",
		},
	}
}

// TestRefusal shows which databases are not touched, and that they are not.
func TestRefusal(t *testing.T) {
	t.Parallel()
	for _, tt := range refusals(t) {
		for _, journal := range journals {
			t.Run(tt.name+"/"+journal, func(t *testing.T) {
				t.Parallel()
				path := newPath(t)
				db := sql.OpenDB(connector{dsn: dsnIn(path, journal)})
				if !tt.fresh {
					_, err := migrate.Apply(t.Context(), db, migrate.SQLite)
					require.NoError(t, err)
				}
				run(t, db, tt.change...)
				require.NoError(t, db.Close())
				before, all := digest(t, path), files(t, path)

				db = database(t, path)
				db.SetMaxIdleConns(0)
				requireOnly(t, migrate.Verify(t.Context(), db, migrate.SQLite), tt.want)
				_, err := migrate.Status(t.Context(), db, migrate.SQLite)
				requireOnly(t, err, tt.want)
				applied, err := migrate.Apply(t.Context(), db, migrate.SQLite)
				requireOnly(t, err, tt.want)
				require.ErrorContains(t, err, tt.text)
				require.Empty(t, applied)

				for _, options := range [][]registry.Option{nil, {registry.WithoutMigration()}} {
					_, err = registry.Open(t.Context(), path, options...)
					requireOnly(t, err, tt.want)
					require.ErrorIs(t, err, registry.ErrSchema)
					require.ErrorContains(t, err, path)
					require.ErrorContains(t, err, tt.text)
				}
				require.Equal(t, before, digest(t, path))
				if journal == "delete" {
					require.Equal(t, all, files(t, path))
				}
			})
		}
	}

	t.Run("ErrNewer, while a newer program is at work", func(t *testing.T) {
		t.Parallel()
		path := newPath(t)
		newer := pool(t, connector{dsn: dsnIn(path, "wal")})
		_, err := migrate.Apply(t.Context(), newer, migrate.SQLite)
		require.NoError(t, err)
		run(t, newer, "PRAGMA wal_checkpoint(TRUNCATE)", laterRevision, "CREATE TABLE later (id integer)")
		before, log := digest(t, path), digest(t, path+"-wal")
		_, err = registry.Open(t.Context(), path)
		requireOnly(t, err, migrate.ErrNewer)
		require.Equal(t, before, digest(t, path))
		require.Equal(t, log, digest(t, path+"-wal"))
		require.Equal(t, []string{"99990101000000"},
			column[string](t, newer, "SELECT version FROM atlas_schema_revisions WHERE hash = 'x'"))
	})
}

// TestRefusalOfHistories shows which histories are not continued.
func TestRefusalOfHistories(t *testing.T) {
	t.Parallel()
	for _, journal := range journals {
		t.Run("ErrHistory, a file was skipped/"+journal, func(t *testing.T) {
			t.Parallel()
			path := newPath(t)
			db := sql.OpenDB(connector{dsn: dsnIn(path, journal)})
			all := map[string]string{
				first: "CREATE TABLE a (id integer);\n", second: "CREATE TABLE b (id integer);\n",
				third: "CREATE TABLE c (id integer);\n",
			}
			dir := directory(t, all)
			delete(all, second)
			applyDir(t, db, directory(t, all))
			require.NoError(t, db.Close())
			before := digest(t, path)

			db = database(t, path)
			_, err := migrate.StatusDir(t.Context(), db, migrate.SQLite, dir)
			requireOnly(t, err, migrate.ErrHistory)
			applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, dir)
			requireOnly(t, err, migrate.ErrHistory)
			require.ErrorContains(t, err, third+" without "+second)
			require.Empty(t, applied)
			require.Equal(t, before, digest(t, path))
		})
	}
	t.Run("ErrEdited, a file in the middle", func(t *testing.T) {
		t.Parallel()
		path := newPath(t)
		db := database(t, path)
		all := map[string]string{first: "CREATE TABLE a (id integer);\n", second: "CREATE TABLE b (id integer);\n"}
		applyDir(t, db, directory(t, all))
		before := digest(t, path)
		all[first] = "CREATE TABLE a (id integer); -- edited\n"
		all[third] = "CREATE TABLE c (id integer);\n"
		_, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, directory(t, all))
		requireOnly(t, err, migrate.ErrEdited)
		require.ErrorContains(t, err, first)
		require.Equal(t, before, digest(t, path))
	})
	for name, change := range map[string]string{
		"ErrPartialHashes": "UPDATE atlas_schema_revisions SET partial_hashes = '{'",
		"ErrTable":         "ALTER TABLE atlas_schema_revisions DROP COLUMN operator_version",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := newPath(t)
			db := database(t, path)
			_, err := migrate.Apply(t.Context(), db, migrate.SQLite)
			require.NoError(t, err)
			run(t, db, change)
			before := digest(t, path)
			_, err = migrate.Apply(t.Context(), db, migrate.SQLite)
			require.ErrorContains(t, err, "atlas_schema_revisions")
			require.Error(t, migrate.Verify(t.Context(), db, migrate.SQLite))
			_, err = registry.Open(t.Context(), path)
			require.Error(t, err)
			require.Equal(t, before, digest(t, path))
		})
	}
}

// TestHistory shows which histories are continued.
func TestHistory(t *testing.T) {
	t.Parallel()
	two := map[string]string{first: "CREATE TABLE a (id integer);\n", second: "CREATE TABLE b (id integer);\n"}
	begun := map[string]string{first: two[first]}

	t.Run("OK/the next file", func(t *testing.T) {
		t.Parallel()
		db := database(t, newPath(t))
		applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, directory(t, begun))
		require.NoError(t, err)
		require.Equal(t, []string{first}, applied)
		before := column[string](t, db, "SELECT executed_at FROM atlas_schema_revisions")
		dir := directory(t, two)
		state, err := migrate.StatusDir(t.Context(), db, migrate.SQLite, dir)
		require.NoError(t, err)
		require.Len(t, state.Applied, 1)
		require.Equal(t, []string{second}, state.Pending)

		applied, err = migrate.ApplyDir(t.Context(), db, migrate.SQLite, dir)
		require.NoError(t, err)
		require.Equal(t, []string{second}, applied)
		require.Equal(t, []string{"20260101000000", "20260102000000"}, versions(t, db))
		require.Equal(t, before, column[string](t, db, "SELECT executed_at FROM atlas_schema_revisions")[:1])
	})
	t.Run("OK/a cloud identifier is no revision", func(t *testing.T) {
		t.Parallel()
		db := database(t, newPath(t))
		run(t, db, createRevisions, insertRevision(".atlas_cloud_identifier", "b5e3f1c2", 2, 0, 0, "", "null"))
		dir := directory(t, begun)
		state, err := migrate.StatusDir(t.Context(), db, migrate.SQLite, dir)
		require.NoError(t, err)
		require.Equal(t, migrate.State{Pending: []string{first}}, state)
		applyDir(t, db, dir)
		applyDir(t, db, directory(t, two))
		state, err = migrate.StatusDir(t.Context(), db, migrate.SQLite, directory(t, two))
		require.NoError(t, err)
		require.Len(t, state.Applied, 2)
		require.Empty(t, state.Pending)
		require.Equal(t, "b5e3f1c2", one[string](t, db,
			"SELECT description FROM atlas_schema_revisions WHERE version LIKE '.%'"))
	})
	t.Run("OK/a baseline has no hash", func(t *testing.T) {
		t.Parallel()
		db := database(t, newPath(t))
		run(t, db, "CREATE TABLE a (id integer)", createRevisions,
			insertRevision("20260101000000", "first", 1, 0, 0, "", "null"))
		state, err := migrate.StatusDir(t.Context(), db, migrate.SQLite, directory(t, two))
		require.NoError(t, err)
		require.Len(t, state.Applied, 1)
		require.Equal(t, executedAt, state.Applied[0].ExecutedAt)
		applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, directory(t, two))
		require.NoError(t, err)
		require.Equal(t, []string{second}, applied)
	})
	t.Run("OK/`atlas migrate set`", func(t *testing.T) {
		t.Parallel()
		db := database(t, newPath(t))
		dir := directory(t, two)
		sums, err := dir.Checksum()
		require.NoError(t, err)
		sum, err := sums.SumByName(first)
		require.NoError(t, err)
		run(t, db, "CREATE TABLE a (id integer)", createRevisions,
			insertRevision("20260101000000", "first", 4, 0, 0, sum, "null"))
		applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, dir)
		require.NoError(t, err)
		require.Equal(t, []string{second}, applied)
	})
	t.Run("OK/a failed start of the CLI", func(t *testing.T) {
		t.Parallel()
		db := database(t, newPath(t))
		run(t, db, createRevisions)
		applied, err := migrate.Apply(t.Context(), db, migrate.SQLite)
		require.NoError(t, err)
		require.Equal(t, names(embedded(t)), applied)
	})
}

// TestHistoryOfOthers continues what the CLI began, and what has more than our tables.
func TestHistoryOfOthers(t *testing.T) {
	t.Parallel()
	two := map[string]string{first: "CREATE TABLE a (id integer);\n", second: "CREATE TABLE b (id integer);\n"}
	begun := map[string]string{first: two[first]}
	t.Run("OK/the CLI stopped in the middle of a file", func(t *testing.T) {
		t.Parallel()
		db := database(t, newPath(t))
		dir := directory(t, map[string]string{
			first:  two[first],
			second: "CREATE TABLE b (id integer);\nCREATE TABLE c (id integer);\nCREATE TABLE d (id integer);\n",
		})
		sums, err := dir.Checksum()
		require.NoError(t, err)
		sum1, err := sums.SumByName(first)
		require.NoError(t, err)
		sum2, err := sums.SumByName(second)
		require.NoError(t, err)
		done := sha256.Sum256([]byte("CREATE TABLE b (id integer);"))
		run(t, db, "CREATE TABLE a (id integer)", "CREATE TABLE b (id integer)", createRevisions,
			insertRevision("20260101000000", "first", 2, 1, 1, sum1, "null"),
			insertRevision("20260102000000", "second", 2, 1, 3, sum2,
				`["h1:`+base64.StdEncoding.EncodeToString(done[:])+`"]`))
		state, err := migrate.StatusDir(t.Context(), db, migrate.SQLite, dir)
		require.NoError(t, err)
		require.Len(t, state.Applied, 1)
		require.Equal(t, []string{second}, state.Pending)

		applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, dir)
		require.NoError(t, err)
		require.Equal(t, []string{second}, applied)
		fresh := database(t, newPath(t))
		applyDir(t, fresh, dir)
		require.Equal(t, schemaOf(t, fresh), schemaOf(t, db))
		require.Equal(t, history(t, fresh), history(t, db))
		state, err = migrate.StatusDir(t.Context(), db, migrate.SQLite, dir)
		require.NoError(t, err)
		require.Len(t, state.Applied, 2)
		require.Equal(t, executedAt, state.Applied[1].ExecutedAt) // when it was begun, as the CLI has it
	})
	t.Run("OK/made by the CLI", func(t *testing.T) {
		t.Parallel()
		path := newPath(t)
		db := database(t, path)
		_, err := migrate.Apply(t.Context(), db, migrate.SQLite)
		require.NoError(t, err)
		run(t, db, "PRAGMA application_id = 0") // all that tells the two apart
		before := history(t, db)
		require.NoError(t, migrate.Verify(t.Context(), db, migrate.SQLite))
		require.Zero(t, one[int64](t, db, "PRAGMA application_id"))
		reg, err := registry.Open(t.Context(), path)
		require.NoError(t, err)
		require.NoError(t, reg.Close())
		require.EqualValues(t, migrate.ApplicationID, one[int64](t, db, "PRAGMA application_id"))
		require.Equal(t, before, history(t, db))
	})
	t.Run("OK/other tables are let be", func(t *testing.T) {
		t.Parallel()
		db := database(t, newPath(t))
		applyDir(t, db, directory(t, begun))
		run(t, db, "CREATE TABLE mine (id integer)", "INSERT INTO mine VALUES (1)")
		applyDir(t, db, directory(t, two))
		require.Equal(t, []int{1}, column[int](t, db, "SELECT id FROM mine"))
	})
	t.Run("OK/WithoutMigration", func(t *testing.T) {
		t.Parallel()
		path := newPath(t)
		db := database(t, path)
		run(t, db, "PRAGMA user_version = 1") // the file is there, and empty
		before := files(t, path)
		_, err := registry.Open(t.Context(), path, registry.WithoutMigration())
		require.ErrorIs(t, err, registry.ErrSchema)
		require.ErrorContains(t, err, embedded(t)[0].Name())
		require.Equal(t, before, files(t, path))
		_, err = migrate.Apply(t.Context(), db, migrate.SQLite)
		require.NoError(t, err)
		reg, err := registry.Open(t.Context(), path, registry.WithoutMigration())
		require.NoError(t, err)
		require.NoError(t, reg.Close())
	})
}
