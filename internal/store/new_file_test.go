package store_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/store"
)

func TestPasswordInAScheme(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"root:hunter2@tcp(h)/db?x=http://y", "user=x password=hunter2 host=y://", "hunter2://",
		"postgres+hunter2 x://y",
		"host=h user=u password=hunter2", "postgres:/user:hunter2@host/db", "postgresql:user:hunter2@host/db",
	} {
		_, err := store.ParseName(name)
		require.ErrorIs(t, err, store.ErrName)
		if name != "hunter2://" {
			require.NotContains(t, err.Error(), "hunter2", "%q", name)
		}
	}
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
	require.Equal(t, store.Corrupt, store.Classify(err), "%v", err)
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
