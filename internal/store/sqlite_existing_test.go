package store_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

func TestHeaderOfANewFile(t *testing.T) {
	t.Parallel()
	for name, content := range map[string][]byte{"missing": nil, "empty": {}} {
		t.Run("OK_"+name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "test.db")
			if content != nil {
				require.NoError(t, os.WriteFile(path, content, 0o600))
			}
			db := openAt(t, path)

			require.NotZero(t, header(t, path, 52), "auto-vacuum: the largest root page")
			require.Equal(t, uint32(1), header(t, path, 64), "incremental vacuum")
			require.Equal(t, []int{2}, query1[int](t, db, "SELECT auto_vacuum FROM pragma_auto_vacuum"))
			require.Equal(t, []int{0}, query1[int](t, db, "SELECT count(*) FROM sqlite_master"))
		})
	}
	t.Run("OK_existing_is_kept", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "test.db")
		raw(t, path, "PRAGMA application_id = 7; CREATE TABLE t (x)")
		db, err := store.OpenSQLite(t.Context(), store.Config{Path: path, ApplicationID: 0x12345678})
		require.NoError(t, err)
		require.NoError(t, db.Close())
		require.Equal(t, uint32(7), header(t, path, 68))
		require.Zero(t, header(t, path, 52))
	})
}

func TestInspect(t *testing.T) {
	t.Parallel()
	refusal := errors.New("not this one")
	refuse := func(context.Context, *sql.DB) error { return refusal }

	t.Run("OK_new_files_are_not_inspected", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "empty.db"), nil, 0o600))
		for _, name := range []string{"missing.db", "empty.db"} {
			db, err := store.OpenSQLite(t.Context(), store.Config{Path: filepath.Join(dir, name), Inspect: refuse})
			require.NoError(t, err, name)
			require.NoError(t, db.Close())
		}
	})
	t.Run("OK_read_only", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "test.db")
		raw(t, path, "CREATE TABLE t (x)")
		db, err := store.OpenSQLite(t.Context(),
			store.Config{Path: path, Inspect: func(ctx context.Context, db *sql.DB) error {
				_, err := db.ExecContext(ctx, "DROP TABLE t")
				require.Equal(t, fault.ErrReadOnly, store.Classify(err))
				return nil
			}})
		require.NoError(t, err)
		require.NoError(t, db.Close())
	})
	t.Run("OK_rolls_back_a_hot_journal", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "test.db")
		hotJournal(t, path)
		db, err := store.OpenSQLite(t.Context(),
			store.Config{Path: path, Inspect: func(ctx context.Context, db *sql.DB) error {
				var n int
				if err := db.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(&n); err != nil {
					return err
				}
				require.Equal(t, 1, n)
				return nil
			}})
		require.NoError(t, err)
		require.Equal(t, []int{1}, query1[int](t, db, "SELECT count(*) FROM t"))
		require.NoError(t, db.Close())
	})
	t.Run("ErrRefused", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		path := filepath.Join(dir, "test.db")
		raw(t, path, "CREATE TABLE t (x)")
		before, err := os.ReadFile(path)
		require.NoError(t, err)
		_, err = store.OpenSQLite(t.Context(), store.Config{Path: path, Inspect: refuse})
		require.ErrorIs(t, err, refusal)
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, before, after)
		require.Equal(t, []string{"test.db"}, listing(t, dir))
	})
}

// hotJournal leaves a database as a process does that dies within a transaction that had begun
// to write to the file: the copy of a database in the middle of one.
func hotJournal(t *testing.T, path string) {
	t.Helper()
	origin := path + ".origin"
	raw(t, origin, "CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(100))")
	db := rawDB(t, store.FileURI(origin))
	_, err := db.ExecContext(t.Context(), "PRAGMA cache_size = 1; BEGIN;"+
		" INSERT INTO t WITH RECURSIVE c(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM c LIMIT 1000) SELECT"+
		" zeroblob(1000) FROM c")
	require.NoError(t, err)
	for _, suffix := range []string{"", "-journal"} {
		b, err := os.ReadFile(origin + suffix)
		require.NoError(t, err)
		require.NotEmpty(t, b)
		require.NoError(t, os.WriteFile(path+suffix, b, 0o600))
	}
	_, err = db.ExecContext(t.Context(), "ROLLBACK")
	require.NoError(t, err)
}

// Existing files alone are opened, and nothing is done to an empty one.
func TestExisting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "test.db")
	_, err := store.OpenSQLite(t.Context(), store.Config{Path: path, Existing: true})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Empty(t, listing(t, dir))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	refusal := errors.New("not this one")
	_, err = store.OpenSQLite(
		t.Context(),
		store.Config{Path: path, Existing: true, Inspect: func(context.Context, *sql.DB) error { return refusal }},
	)
	require.ErrorIs(t, err, refusal)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Zero(t, info.Size())
}

func TestApplicationIDOfANewFile(t *testing.T) {
	t.Parallel()
	for name, content := range map[string][]byte{"missing": nil, "empty": {}} {
		t.Run("OK_"+name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "test.db")
			if content != nil {
				require.NoError(t, os.WriteFile(path, content, 0o600))
			}
			db, err := store.OpenSQLite(t.Context(), store.Config{Path: path, ApplicationID: 0x12345678})
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			require.Equal(t, uint32(0x12345678), header(t, path, 68), "application_id")
			require.Equal(t, []int{0x12345678}, query1[int](t, db, "SELECT application_id FROM pragma_application_id"))
		})
	}
}

// SQLite takes a file of one byte for an empty one.
func TestOneByte(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	_, err := store.OpenSQLite(t.Context(),
		store.Config{Path: path, Inspect: func(ctx context.Context, db *sql.DB) error {
			var n int
			return db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&n)
		}})
	require.Equal(t, fault.ErrCorrupt, store.Classify(err), "%v", err)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "x", string(content))
}

// A database in WAL mode that is refused leaves no log and no index beside it.
func TestRefusedInWALMode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "test.db")
	raw(t, path, "PRAGMA journal_mode = WAL; CREATE TABLE t (x)")
	require.Equal(t, []string{"test.db"}, listing(t, dir))
	refusal := errors.New("not this one")
	_, err := store.OpenSQLite(t.Context(),
		store.Config{Path: path, Inspect: func(ctx context.Context, db *sql.DB) error {
			var n int
			return errors.Join(db.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(&n), refusal)
		}})
	require.ErrorIs(t, err, refusal)
	require.Equal(t, []string{"test.db"}, listing(t, dir))
}
