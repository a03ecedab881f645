package migrate_test

import (
	"context"
	"database/sql"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`^\d{14}_[a-z0-9]+(_[a-z0-9]+)*\.sql$`)
	seen := map[string]bool{}
	for _, f := range embedded(t) {
		require.Regexp(t, name, f.Name())
		require.False(t, seen[f.Version()], "two files of version %s", f.Version())
		seen[f.Version()] = true
		// Apply runs every file in a transaction and from the first file on.
		for _, directive := range []string{"atlas:txmode", "atlas:checkpoint"} {
			require.NotContains(t, string(f.Bytes()), directive, f.Name())
		}
		require.NotContains(t, string(f.Bytes()), "\r", f.Name())
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := directory(t, map[string]string{first: "CREATE TABLE a (id integer);\n",
		second: "CREATE TABLE b (id integer);\n"})
	files, err := dir.Files()
	require.NoError(t, err)
	sum, err := dir.Checksum()
	require.NoError(t, err)
	text, err := sum.MarshalText()
	require.NoError(t, err)
	// with returns the folder after a change.
	with := func(change func(fstest.MapFS)) fstest.MapFS {
		fsys := fstest.MapFS{"sqlite/atlas.sum": {Data: text}}
		for _, f := range files {
			fsys["sqlite/"+f.Name()] = &fstest.MapFile{Data: f.Bytes()}
		}
		change(fsys)
		return fsys
	}

	t.Run("OK", func(t *testing.T) {
		t.Parallel()
		loaded, err := migrate.Load(with(func(fstest.MapFS) {}), "sqlite")
		require.NoError(t, err)
		got, err := loaded.Files()
		require.NoError(t, err)
		require.Equal(t, []string{first, second}, names(got))
	})
	for name, tt := range map[string]struct {
		change func(fstest.MapFS)
		text   string
	}{
		"edited": {
			change: func(f fstest.MapFS) { f["sqlite/"+first].Data = []byte("CREATE TABLE c (id integer);\n") },
			text:   first + " was edited",
		},
		"line ends": {change: func(f fstest.MapFS) {
			f["sqlite/"+
				second].Data = []byte("CREATE TABLE b (id integer);\r\n")
		}, text: second + " was edited"},
		"added before": {
			change: func(f fstest.MapFS) { f["sqlite/0_x.sql"] = &fstest.MapFile{} }, text: "0_x.sql was added",
		},
		"added after": {
			change: func(f fstest.MapFS) { f["sqlite/"+third] = &fstest.MapFile{} }, text: third + " was added",
		},
		"removed":      {change: func(f fstest.MapFS) { delete(f, "sqlite/"+first) }, text: first + " was removed"},
		"removed last": {change: func(f fstest.MapFS) { delete(f, "sqlite/"+second) }, text: second + " was removed"},
		"no atlas.sum": {
			change: func(f fstest.MapFS) { delete(f, "sqlite/atlas.sum") }, text: "checksum file not found",
		},
		"bad atlas.sum": {change: func(f fstest.MapFS) { f["sqlite/atlas.sum"].Data = []byte("x") }, text: "checksum"},
		"old atlas.sum": {
			change: func(f fstest.MapFS) { f["sqlite/atlas.sum"].Data = append([]byte("h1:AAAA"), text[7:]...) },
			text:   "checksum",
		},
	} {
		t.Run("ErrChecksum/"+name, func(t *testing.T) {
			t.Parallel()
			_, err := migrate.Load(with(tt.change), "sqlite")
			require.ErrorIs(t, err, migrate.ErrChecksum)
			require.ErrorContains(t, err, tt.text)
		})
	}
	t.Run("ErrNoFolder", func(t *testing.T) {
		t.Parallel()
		_, err := migrate.Load(fstest.MapFS{}, "sqlite")
		require.Error(t, err)
	})
	t.Run("ErrSubfolder", func(t *testing.T) {
		t.Parallel()
		_, err := migrate.Load(with(func(f fstest.MapFS) { f["sqlite/x/y"] = &fstest.MapFile{} }), "sqlite")
		require.Error(t, err)
	})
}

func TestApply(t *testing.T) {
	t.Parallel()
	t.Run("OK", func(t *testing.T) {
		t.Parallel()
		db := database(t, newPath(t))
		start := time.Now()
		state, err := migrate.Status(t.Context(), db, migrate.SQLite)
		require.NoError(t, err)
		require.Equal(t, migrate.State{Pending: names(embedded(t))}, state)

		applied, err := migrate.Apply(t.Context(), db, migrate.SQLite)
		require.NoError(t, err)
		require.Equal(t, names(embedded(t)), applied)
		state, err = migrate.Status(t.Context(), db, migrate.SQLite)
		require.NoError(t, err)
		require.Empty(t, state.Pending)
		require.Len(t, state.Applied, len(applied))
		for i, r := range state.Applied {
			require.Equal(t, applied[i], r.Version+"_"+r.Name+".sql")
			require.Equal(t, time.UTC, r.ExecutedAt.Location())
			require.WithinRange(t, r.ExecutedAt, start, time.Now())
		}
		require.NoError(t, migrate.Verify(t.Context(), db, migrate.SQLite))
		require.EqualValues(t, migrate.ApplicationID, one[int64](t, db, "PRAGMA application_id"))
		require.Equal(t, "MSrg", string([]byte{migrate.ApplicationID >> 24, migrate.ApplicationID >> 16 & 0xff,
			migrate.ApplicationID >> 8 & 0xff, migrate.ApplicationID & 0xff}))
		require.Equal(t, "ok", one[string](t, db, "PRAGMA integrity_check"))
	})
	t.Run("OK/the CLI's table", func(t *testing.T) {
		t.Parallel()
		db := database(t, newPath(t))
		_, err := migrate.Apply(t.Context(), db, migrate.SQLite)
		require.NoError(t, err)
		require.Equal(t, createRevisions,
			one[string](t, db, "SELECT sql FROM sqlite_master WHERE name = 'atlas_schema_revisions'"))
		// What the CLI writes: no NULLs, and the hashes of statements only of an unfinished file.
		require.Zero(t, one[int](t, db,
			"SELECT COUNT(*) FROM atlas_schema_revisions WHERE error IS NOT '' OR error_stmt IS NOT ''"+
				" OR type <> 2 OR applied <> total OR typeof(partial_hashes) <> 'blob' OR CAST(partial_hashes AS"+
				" text) <> 'null'"))
		require.Equal(t, []string{"modelscan"},
			column[string](t, db, "SELECT DISTINCT operator_version FROM atlas_schema_revisions"))
	})
	t.Run("OK/in memory", func(t *testing.T) {
		t.Parallel()
		db := pool(t, connector{dsn: "file::memory:?_fk=1"})
		db.SetMaxOpenConns(1)
		applied, err := migrate.Apply(t.Context(), db, migrate.SQLite)
		require.NoError(t, err)
		require.Equal(t, names(embedded(t)), applied)
	})
	t.Run("OK/nothing to do", func(t *testing.T) {
		t.Parallel()
		path := newPath(t)
		db := database(t, path)
		_, err := migrate.Apply(t.Context(), db, migrate.SQLite)
		require.NoError(t, err)
		before := digest(t, path)

		applied, err := migrate.Apply(t.Context(), db, migrate.SQLite)
		require.NoError(t, err)
		require.Empty(t, applied)
		// A connection that cannot write is enough,
		applied, err = migrate.Apply(t.Context(), pool(t, connector{dsn: uri(path) + "mode=ro"}), migrate.SQLite)
		require.NoError(t, err)
		require.Empty(t, applied)
		// and nobody is waited for.
		other, err := db.Conn(t.Context())
		require.NoError(t, err)
		_, err = other.ExecContext(t.Context(), "BEGIN IMMEDIATE")
		require.NoError(t, err)
		end := sync.OnceFunc(func() {
			_, err := other.ExecContext(t.Context(), "ROLLBACK")
			require.NoError(t, err)
			require.NoError(t, other.Close())
		})
		defer end()
		applied, err = migrate.Apply(t.Context(), pool(t, connector{dsn: dsn(path), exec: func(query string) {
			if strings.HasPrefix(query, "BEGIN") {
				t.Error("Apply takes a lock")
				end()
			}
		}}), migrate.SQLite)
		require.NoError(t, err)
		require.Empty(t, applied)
		require.Equal(t, before, digest(t, path))
	})
}

// TestApplyAtOnce has two that apply.
func TestApplyAtOnce(t *testing.T) {
	t.Parallel()
	t.Run("OK/somebody else was faster", func(t *testing.T) {
		t.Parallel()
		path := newPath(t)
		other := database(t, path)
		var won []string
		faster := sync.OnceFunc(func() {
			var err error
			won, err = migrate.Apply(context.WithoutCancel(t.Context()), other, migrate.SQLite)
			require.NoError(t, err)
		})
		db := pool(t, connector{dsn: dsn(path), exec: func(query string) {
			if strings.HasPrefix(query, "BEGIN") {
				faster()
			}
		}})
		applied, err := migrate.Apply(t.Context(), db, migrate.SQLite)
		require.NoError(t, err)
		require.Empty(t, applied)
		require.Equal(t, names(embedded(t)), won)
		require.Equal(t, versionsOf(embedded(t)), versions(t, db))
	})
	for _, journal := range journals {
		t.Run("OK/others wait/"+journal, func(t *testing.T) {
			t.Parallel()
			path := newPath(t)
			other := pool(t, connector{dsn: uri(path) + "_busy_timeout=0&_journal_mode=" + journal})
			other.SetMaxOpenConns(1)
			run(t, other, "PRAGMA user_version = 1")
			tries, began := 0, false
			db := pool(t, connector{dsn: dsnIn(path, journal), exec: func(query string) {
				was := began
				began = strings.HasPrefix(query, "BEGIN")
				if !was {
					return
				}
				tries++ // The state was read; nobody may change it any more.
				_, err := other.ExecContext(t.Context(), "BEGIN IMMEDIATE")
				var busy sqlite3.Error
				require.ErrorAs(t, err, &busy)
				require.Equal(t, sqlite3.ErrBusy, busy.Code)
			}})
			applied, err := migrate.Apply(t.Context(), db, migrate.SQLite)
			require.NoError(t, err)
			require.Equal(t, names(embedded(t)), applied)
			require.Equal(t, len(applied)+1, tries) // the last time to see that nothing is left
		})
	}
}

func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	t.Run("ErrDialect", func(t *testing.T) {
		t.Parallel()
		path := newPath(t)
		db := database(t, path)
		run(t, db, "PRAGMA user_version = 1")
		before := digest(t, path)
		for _, d := range []migrate.Dialect{"", "mysql", "SQLite", "sqlite3", "postgresql"} {
			_, err := migrate.Apply(t.Context(), db, d)
			require.ErrorContains(t, err, "is not supported")
			_, err = migrate.Status(t.Context(), db, d)
			require.ErrorContains(t, err, "is not supported")
			require.ErrorContains(t, migrate.Verify(t.Context(), db, d), "is not supported")
		}
		require.Equal(t, before, digest(t, path))
	})
	t.Run("ErrClosed", func(t *testing.T) {
		t.Parallel()
		db := sql.OpenDB(connector{dsn: dsn(newPath(t))})
		require.NoError(t, db.Close())
		_, err := migrate.Apply(t.Context(), db, migrate.SQLite)
		require.Error(t, err)
		_, err = migrate.Status(t.Context(), db, migrate.SQLite)
		require.Error(t, err)
	})
	t.Run("ErrReadOnly", func(t *testing.T) {
		t.Parallel()
		path := newPath(t)
		run(t, database(t, path), "PRAGMA user_version = 1")
		before := digest(t, path)
		db := pool(t, connector{dsn: uri(path) + "mode=ro&_fk=1"})
		require.NoError(t, migrate.Verify(t.Context(), db, migrate.SQLite))
		_, err := migrate.Apply(t.Context(), db, migrate.SQLite)
		var readOnly sqlite3.Error
		require.ErrorAs(t, err, &readOnly)
		require.Equal(t, sqlite3.ErrReadonly, readOnly.Code)
		require.Equal(t, before, digest(t, path))
	})
	t.Run("ErrCanceled", func(t *testing.T) {
		t.Parallel()
		path := newPath(t)
		db := database(t, path)
		run(t, db, "PRAGMA user_version = 1")
		before := digest(t, path)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		applied, err := migrate.Apply(ctx, db, migrate.SQLite)
		require.ErrorIs(t, err, context.Canceled)
		require.Empty(t, applied)
		_, err = migrate.Status(ctx, db, migrate.SQLite)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, migrate.Verify(ctx, db, migrate.SQLite), context.Canceled)
		require.Equal(t, before, digest(t, path))
	})
}
