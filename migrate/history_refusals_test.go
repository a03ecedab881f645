package migrate_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/registry"
)

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
