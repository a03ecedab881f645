package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// Errors of what was canceled or closed.
func TestClassifyEnded(t *testing.T) {
	t.Parallel()
	t.Run("Err_canceled_statement", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		db := openAt(t, filepath.Join(dir, "test.db"))
		ctx, cancel := context.WithCancel(t.Context())
		rows, err := db.QueryContext(ctx, endless)
		require.NoError(t, err)
		require.True(t, rows.Next())
		cancel()
		for rows.Next() {
			continue
		}
		requireKind(t, store.Canceled, errors.Join(rows.Err(), rows.Close()))
	})
	t.Run("Err_deadline_in_a_statement", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		db := openAt(t, filepath.Join(dir, "test.db"))
		exec1(t, db, "CREATE TABLE t (x)")
		requireKind(t, store.Canceled, interrupted(t, func(ctx context.Context, query string) error {
			_, err := db.ExecContext(ctx, query)
			return err
		}))
	})
	t.Run("Err_ended_transaction", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		tx := begin(t, openAt(t, filepath.Join(dir, "test.db")))
		require.NoError(t, tx.Rollback())
		requireKind(t, store.Closed, tx.Commit())
	})
	t.Run("Err_closed_connection", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		conn, err := rawDB(t, store.FileURI(filepath.Join(dir, "test.db"))).Conn(t.Context())
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		requireKind(t, store.Closed, conn.PingContext(t.Context()))
	})
	t.Run("Err_closed_database", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		db := openAt(t, filepath.Join(dir, "test.db"))
		require.NoError(t, db.Close())
		_, err := db.ExecContext(t.Context(), "SELECT 1")
		requireKind(t, store.Closed, err)
	})
}

// Errors that take another file system, another user or a machine that fails.
func TestClassifyCodes(t *testing.T) {
	t.Parallel()
	ioError := func(errno syscall.Errno) error {
		return sqlite3.Error{Code: sqlite3.ErrIoErr, ExtendedCode: sqlite3.ErrIoErrWrite, SystemErrno: errno}
	}
	cannotOpen := func(errno syscall.Errno) error {
		return sqlite3.Error{Code: sqlite3.ErrCantOpen, SystemErrno: errno}
	}
	for _, test := range []struct {
		err  error
		want store.Kind
	}{
		{err: ioError(syscall.ENOSPC), want: store.DiskFull},
		{err: ioError(syscall.EDQUOT), want: store.DiskFull},
		{err: ioError(syscall.EFBIG), want: store.DiskFull},
		{err: ioError(syscall.EROFS), want: store.ReadOnly},
		{err: ioError(syscall.EIO), want: store.Unavailable},
		{err: ioError(0), want: store.Unavailable},
		{err: cannotOpen(syscall.EACCES), want: store.ReadOnly},
		{err: cannotOpen(syscall.EPERM), want: store.ReadOnly},
		{err: cannotOpen(syscall.EROFS), want: store.ReadOnly},
		{err: cannotOpen(syscall.ENOSPC), want: store.DiskFull},
		{err: cannotOpen(syscall.EISDIR), want: store.Invalid},
		{err: cannotOpen(syscall.ENOENT), want: store.Invalid},
		{err: cannotOpen(syscall.EMFILE), want: store.Unavailable},
		{err: cannotOpen(syscall.ENFILE), want: store.Unavailable},
		{err: cannotOpen(0), want: store.Unavailable},
		{err: sqlite3.Error{Code: sqlite3.ErrPerm}, want: store.ReadOnly},
		// The driver gives the context's error instead.
		{err: sqlite3.Error{Code: sqlite3.ErrInterrupt}, want: store.Canceled},
		{err: sqlite3.Error{Code: sqlite3.ErrReadonly, ExtendedCode: sqlite3.ErrReadonlyDbMoved}, want: store.ReadOnly},
		{err: sqlite3.Error{Code: sqlite3.ErrCorrupt, ExtendedCode: sqlite3.ErrCorruptVTab}, want: store.Corrupt},
		{err: sqlite3.Error{Code: sqlite3.ErrNomem}, want: store.Unavailable},
		{err: sqlite3.Error{Code: sqlite3.ErrIoErr, ExtendedCode: sqlite3.ErrIoErr.Extend(32)}, want: store.Corrupt},
		{
			err: sqlite3.Error{
				Code: sqlite3.ErrIoErr, ExtendedCode: sqlite3.ErrIoErr.Extend(33), SystemErrno: syscall.EIO,
			},
			want: store.Corrupt,
		},
		{err: sqlite3.Error{Code: sqlite3.ErrProtocol}, want: store.Unknown},
		{err: &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, want: store.ReadOnly},
		{err: &fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS}, want: store.ReadOnly},
		{err: &fs.PathError{Op: "open", Path: "x", Err: syscall.ENOSPC}, want: store.DiskFull},
		{err: &fs.PathError{Op: "open", Path: "x", Err: syscall.EDQUOT}, want: store.DiskFull},
		{err: &fs.PathError{Op: "open", Path: "x", Err: syscall.EMFILE}, want: store.Unavailable},
		{err: errors.Join(store.ErrClosed, errors.New("sql: database is closed")), want: store.Closed},
		{err: fmt.Errorf("wait: %w", context.DeadlineExceeded), want: store.Canceled},
		{err: sql.ErrNoRows, want: store.Unknown},
	} {
		require.Equal(t, test.want, store.Classify(test.err), "%#v", test.err)
		require.Equal(t, test.want, store.Classify(fmt.Errorf("wrapped: %w", test.err)), "%#v", test.err)
	}
}
