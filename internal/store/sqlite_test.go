package store_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

func TestCheckVersion(t *testing.T) {
	t.Parallel()
	t.Run("OK", func(t *testing.T) {
		t.Parallel()
		require.NoError(t, store.CheckVersion("3.51.3", 3_051_003))
		require.NoError(t, store.CheckVersion("3.52.0", 3_052_000))
		name, number, _ := sqlite3.Version()
		require.NoError(t, store.CheckVersion(name, number))
	})
	t.Run("ErrOld", func(t *testing.T) {
		t.Parallel()
		require.ErrorContains(t, store.CheckVersion("3.51.2", 3_051_002), "SQLite 3.51.2")
		require.ErrorContains(t, store.CheckVersion("3.40.1", 3_040_001), "3.51.3 or newer")
	})
}

func TestFileModes(t *testing.T) {
	t.Parallel()
	for _, umask := range []string{"000", "022", "077"} {
		t.Run("OK_umask_"+umask, func(t *testing.T) {
			t.Parallel()
			modes := modesUnder(t, umask, filepath.Join(t.TempDir(), "test.db"))
			require.Equal(t, " 0600\n-shm 0600\n-wal 0600\n", modes)
		})
	}
	t.Run("OK_behind_a_link", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "link.db")
		require.NoError(t, os.Symlink("target.db", path))
		require.Equal(t, " 0600\n-shm 0600\n-wal 0600\n", modesUnder(t, "000", path))
	})
	t.Run("OK_existing", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "test.db")
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.NoError(t, os.Chmod(path, 0o640)) // the owner's choice is kept, for the files beside it too
		require.Equal(t, " 0640\n-shm 0640\n-wal 0640\n", modesUnder(t, "000", path))
	})
}

// Several goroutines, and as many connections, may find no file at once.
func TestOpenAtOnce(t *testing.T) {
	t.Parallel()
	for range 5 {
		path := filepath.Join(t.TempDir(), "test.db")
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				db, err := store.OpenSQLite(t.Context(), store.Config{Path: path})
				if err == nil {
					_, err = db.ExecContext(t.Context(), fmt.Sprintf("CREATE TABLE t%d (x)", i))
					err = errors.Join(err, db.Close())
				}
				errs[i] = err
			})
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
		require.Equal(t, []int{len(errs)}, query1[int](t, openAt(t, path), "SELECT count(*) FROM sqlite_master"))
	}
}

// pragmas returns those of a connection that matter here.
func pragmas(t *testing.T, conn *sql.Conn) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, name := range []string{
		"foreign_keys", "query_only", "synchronous", "busy_timeout", "journal_mode", "auto_vacuum",
	} {
		var value string
		require.NoError(t, conn.QueryRowContext(t.Context(), "PRAGMA "+name).Scan(&value))
		got[name] = value
	}
	return got
}

func TestPragmas(t *testing.T) {
	t.Parallel()
	for durability, synchronous := range map[store.Durability]string{store.Full: "2", store.Relaxed: "1"} {
		t.Run(fmt.Sprintf("OK_durability_%d", durability), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "test.db")
			db, err := store.OpenSQLite(t.Context(), store.Config{Path: path, Durability: durability})
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()

			require.Equal(t, 1, db.Writer().Stats().MaxOpenConnections)
			for range 2 {
				writer, err := db.Writer().Conn(t.Context())
				require.NoError(t, err)
				got := pragmas(t, writer)
				delete(got, "query_only")
				require.Equal(t, map[string]string{
					"foreign_keys": "1", "synchronous": synchronous, "busy_timeout": "100",
					"journal_mode": "wal", "auto_vacuum": "2",
				}, got)
				require.NoError(t, discard(writer)) // the next one is new
			}

			n := db.Readers().Stats().MaxOpenConnections
			require.Equal(t, max(4, runtime.NumCPU()), n)
			readers := make([]*sql.Conn, n)
			for i := range readers { // all of them are open at once
				readers[i], err = db.Readers().Conn(t.Context())
				require.NoError(t, err)
			}
			for _, reader := range readers {
				got := pragmas(t, reader)
				delete(got, "synchronous") // who does not write does not sync
				require.Equal(t, map[string]string{
					"foreign_keys": "1", "query_only": "1", "busy_timeout": "10000",
					"journal_mode": "wal", "auto_vacuum": "2",
				}, got)
				_, err := reader.ExecContext(t.Context(), "CREATE TABLE t (x)")
				require.Equal(t, fault.ErrReadOnly, store.Classify(err), "%v", err)
				require.NoError(t, reader.Close())
			}
		})
	}
	t.Run("OK_memory", func(t *testing.T) {
		t.Parallel()
		db := openAt(t, "")
		require.Same(t, db.Writer(), db.Readers())
		conn, err := db.Writer().Conn(t.Context())
		require.NoError(t, err)
		got := pragmas(t, conn)
		require.NoError(t, conn.Close())
		require.Equal(t, "1", got["foreign_keys"])
		require.Equal(t, "memory", got["journal_mode"])
	})
}

// discard makes the pool drop a connection.
func discard(conn *sql.Conn) error {
	err := conn.Raw(func(any) error { return driver.ErrBadConn })
	if errors.Is(err, driver.ErrBadConn) {
		return nil
	}
	return err
}

// A connection without the pragmas that it must have is refused.
func TestExpectedPragmas(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	for _, test := range []struct {
		pragma string
		want   int64
		says   string
	}{
		{pragma: "foreign_keys", want: 0},
		{pragma: "foreign_keys", want: 1},
		{pragma: "foreign_keys", want: 2, says: "PRAGMA foreign_keys: it is 1, not 2"},
		{pragma: "synchronous", want: 1},
		{pragma: "synchronous", want: 2},
		{pragma: "synchronous", want: 9, says: "PRAGMA synchronous: it is 1, not 9"},
		{pragma: "query_only", want: 1},
		{pragma: "query_only", want: 2, says: "PRAGMA query_only: it is 1, not 2"},
		{pragma: "no_such_pragma", want: 1, says: "PRAGMA no_such_pragma: EOF"},
		{pragma: "foreign_keys(", want: 1, says: "syntax error"},
	} {
		db := store.Open(path, test.pragma, test.want)
		err := db.PingContext(t.Context())
		if test.says == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, test.says)
		}
		require.NoError(t, db.Close())
	}
}

// A statement that ran before is not compiled again: the authorizer is asked at compile time.
func TestStatementCache(t *testing.T) {
	t.Parallel()
	db := open(t)
	exec1(t, db, "CREATE TABLE t (x)")
	require.Equal(t, 256, store.CachedStatements)
	for name, pool := range map[string]*sql.DB{"writer": db.Writer(), "readers": db.Readers()} {
		t.Run("OK_"+name, func(t *testing.T) {
			conn, err := pool.Conn(t.Context())
			require.NoError(t, err)
			defer func() { require.NoError(t, conn.Close()) }()
			asked := 0
			require.NoError(t, conn.Raw(func(c any) error {
				c.(interface {
					RegisterAuthorizer(func(int, string, string, string) int)
				}).RegisterAuthorizer(func(int, string, string, string) int {
					asked++
					return sqlite3.SQLITE_OK
				})
				return nil
			}))
			run := func(i int) (compiled bool) {
				asked = 0
				var n int
				require.NoError(
					t, conn.QueryRowContext(t.Context(), fmt.Sprintf("SELECT count(*) + %d FROM t", i)).Scan(&n),
				)
				require.Equal(t, i, n)
				return asked > 0
			}
			for i := range 256 {
				require.True(t, run(i))
			}
			for i := range 256 {
				require.False(t, run(i), "statement %d of 256 was compiled again", i)
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600))
	require.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	for name, path := range map[string]string{
		"directory":      dir,
		"device":         os.DevNull,
		"missing_folder": filepath.Join(dir, "missing", "test.db"),
		"file_as_folder": filepath.Join(dir, "file", "test.db"),
		"symlink_loop":   filepath.Join(dir, "loop"),
	} {
		t.Run("Err_"+name, func(t *testing.T) {
			t.Parallel()
			_, err := store.OpenSQLite(t.Context(), store.Config{Path: path})
			require.Error(t, err)
			if !errors.Is(err, store.ErrName) {
				require.Equal(t, fault.ErrInvalidData, store.Classify(err), "%v", err)
			}
		})
	}
	t.Run("ErrCorrupt", func(t *testing.T) {
		t.Parallel()
		_, err := store.OpenSQLite(t.Context(), store.Config{Path: filepath.Join(dir, "file")})
		require.Equal(t, fault.ErrCorrupt, store.Classify(err), "%v", err)
	})
	t.Run("ErrCanceled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := store.OpenSQLite(ctx, store.Config{Path: filepath.Join(t.TempDir(), "test.db")})
		require.ErrorIs(t, err, context.Canceled)
	})
	require.Equal(t, []string{"file", "loop"}, listing(t, dir))
}

// The switch to WAL mode waits for whoever uses the file, until the context ends.
func TestEnterWALWaits(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	raw(t, path, "CREATE TABLE t (x)")
	other := rawDB(t, store.FileURI(path))
	_, err := other.ExecContext(t.Context(), "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
	require.NoError(t, err)

	t.Run("ErrCanceled", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := store.OpenSQLite(ctx, store.Config{Path: path})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
	t.Run("OK", func(t *testing.T) {
		opened := make(chan error)
		go func() {
			db, err := store.OpenSQLite(t.Context(), store.Config{Path: path})
			if err == nil {
				err = db.Close()
			}
			opened <- err
		}()
		select {
		case err := <-opened:
			require.FailNow(t, "it did not wait", "%v", err)
		default:
		}
		_, err := other.ExecContext(t.Context(), "COMMIT")
		require.NoError(t, err)
		require.NoError(t, <-opened)
	})
}
