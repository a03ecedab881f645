package migrate_test

import (
	"crypto/sha256"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/registry"
)

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
