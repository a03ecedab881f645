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

	"github.com/jeffersonwarrior/modelscan/internal/fault"
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
		requireKind(t, context.Canceled, errors.Join(rows.Err(), rows.Close()))
	})
	t.Run("Err_deadline_in_a_statement", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		db := openAt(t, filepath.Join(dir, "test.db"))
		exec1(t, db, "CREATE TABLE t (x)")
		requireKind(t, context.Canceled, interrupted(t, func(ctx context.Context, query string) error {
			_, err := db.ExecContext(ctx, query)
			return err
		}))
	})
	t.Run("Err_ended_transaction", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		tx := begin(t, openAt(t, filepath.Join(dir, "test.db")))
		require.NoError(t, tx.Rollback())
		requireKind(t, fault.ErrClosed, tx.Commit())
	})
	t.Run("Err_closed_connection", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		conn, err := rawDB(t, store.FileURI(filepath.Join(dir, "test.db"))).Conn(t.Context())
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		requireKind(t, fault.ErrClosed, conn.PingContext(t.Context()))
	})
	t.Run("Err_closed_database", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		db := openAt(t, filepath.Join(dir, "test.db"))
		require.NoError(t, db.Close())
		_, err := db.ExecContext(t.Context(), "SELECT 1")
		requireKind(t, fault.ErrClosed, err)
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
		want error
	}{
		{err: ioError(syscall.ENOSPC), want: fault.ErrDiskFull},
		{err: ioError(syscall.EDQUOT), want: fault.ErrDiskFull},
		{err: ioError(syscall.EFBIG), want: fault.ErrDiskFull},
		{err: ioError(syscall.EROFS), want: fault.ErrReadOnly},
		{err: ioError(syscall.EIO), want: fault.ErrUnavailable},
		{err: ioError(0), want: fault.ErrUnavailable},
		{err: cannotOpen(syscall.EACCES), want: fault.ErrReadOnly},
		{err: cannotOpen(syscall.EPERM), want: fault.ErrReadOnly},
		{err: cannotOpen(syscall.EROFS), want: fault.ErrReadOnly},
		{err: cannotOpen(syscall.ENOSPC), want: fault.ErrDiskFull},
		{err: cannotOpen(syscall.EISDIR), want: fault.ErrInvalidData},
		{err: cannotOpen(syscall.ENOENT), want: fault.ErrInvalidData},
		{err: cannotOpen(syscall.EMFILE), want: fault.ErrUnavailable},
		{err: cannotOpen(syscall.ENFILE), want: fault.ErrUnavailable},
		{err: cannotOpen(0), want: fault.ErrUnavailable},
		{err: sqlite3.Error{Code: sqlite3.ErrPerm}, want: fault.ErrReadOnly},
		// The driver gives the context's error instead.
		{err: sqlite3.Error{Code: sqlite3.ErrInterrupt}, want: context.Canceled},
		{
			err:  sqlite3.Error{Code: sqlite3.ErrReadonly, ExtendedCode: sqlite3.ErrReadonlyDbMoved},
			want: fault.ErrReadOnly,
		},
		{err: sqlite3.Error{Code: sqlite3.ErrCorrupt, ExtendedCode: sqlite3.ErrCorruptVTab}, want: fault.ErrCorrupt},
		{err: sqlite3.Error{Code: sqlite3.ErrNomem}, want: fault.ErrUnavailable},
		{err: sqlite3.Error{Code: sqlite3.ErrIoErr, ExtendedCode: sqlite3.ErrIoErr.Extend(32)}, want: fault.ErrCorrupt},
		{
			err: sqlite3.Error{
				Code: sqlite3.ErrIoErr, ExtendedCode: sqlite3.ErrIoErr.Extend(33), SystemErrno: syscall.EIO,
			},
			want: fault.ErrCorrupt,
		},
		{err: sqlite3.Error{Code: sqlite3.ErrProtocol}, want: nil},
		{err: &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, want: fault.ErrReadOnly},
		{err: &fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS}, want: fault.ErrReadOnly},
		{err: &fs.PathError{Op: "open", Path: "x", Err: syscall.ENOSPC}, want: fault.ErrDiskFull},
		{err: &fs.PathError{Op: "open", Path: "x", Err: syscall.EDQUOT}, want: fault.ErrDiskFull},
		{err: &fs.PathError{Op: "open", Path: "x", Err: syscall.EMFILE}, want: fault.ErrUnavailable},
		{err: errors.Join(store.ErrClosed, errors.New("sql: database is closed")), want: fault.ErrClosed},
		{err: fmt.Errorf("wait: %w", context.DeadlineExceeded), want: context.Canceled},
		{err: sql.ErrNoRows, want: nil},
	} {
		require.Equal(t, test.want, store.Classify(test.err), "%#v", test.err)
		require.Equal(t, test.want, store.Classify(fmt.Errorf("wrapped: %w", test.err)), "%#v", test.err)
	}
}
