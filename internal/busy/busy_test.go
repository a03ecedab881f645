package busy_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/busy"
)

// locked returns a connection that holds the write lock of a database, and another one that waits for nobody.
func locked(t *testing.T) (holder, other *sql.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registry.db")
	conn := func() *sql.Conn {
		db, err := sql.Open("sqlite3", "file:"+path+"?_busy_timeout=0")
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		c, err := db.Conn(t.Context())
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		return c
	}
	holder, other = conn(), conn()
	exec(t, holder, "CREATE TABLE t (x integer)")
	exec(t, holder, "BEGIN IMMEDIATE")
	return holder, other
}

func exec(t *testing.T, c *sql.Conn, statement string) {
	t.Helper()
	_, err := c.ExecContext(t.Context(), statement)
	require.NoError(t, err)
}

// write returns a call that writes, and counts how often it is called. What is done before the nth call is given by n.
func write(t *testing.T, c *sql.Conn, before map[int]func()) (call func() error, calls *int) {
	t.Helper()
	calls = new(int)
	return func() error {
		*calls++
		if do := before[*calls]; do != nil {
			do()
		}
		_, err := c.ExecContext(context.WithoutCancel(t.Context()), "INSERT INTO t VALUES (1)")
		return err
	}, calls
}

func TestWait(t *testing.T) {
	t.Parallel()
	t.Run("OK_released", func(t *testing.T) {
		t.Parallel()
		holder, other := locked(t)
		call, calls := write(t, other, map[int]func(){4: func() { exec(t, holder, "COMMIT") }})
		require.NoError(t, busy.Wait(t.Context(), time.Hour, call))
		require.Equal(t, 4, *calls)
	})
	t.Run("OK_free", func(t *testing.T) {
		t.Parallel()
		holder, other := locked(t)
		exec(t, holder, "ROLLBACK")
		call, calls := write(t, other, nil)
		require.NoError(t, busy.Wait(t.Context(), 0, call))
		require.Equal(t, 1, *calls)
	})
	t.Run("Err_patience", func(t *testing.T) {
		t.Parallel()
		_, other := locked(t)
		call, calls := write(t, other, nil)
		begin := time.Now()
		err := busy.Wait(t.Context(), 20*time.Millisecond, call)
		require.True(t, busy.Is(err), "%v", err)
		require.GreaterOrEqual(t, time.Since(begin), 20*time.Millisecond)
		require.Greater(t, *calls, 1)
	})
	t.Run("ErrDeadline", func(t *testing.T) {
		t.Parallel()
		_, other := locked(t)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		call, _ := write(t, other, nil)
		require.ErrorIs(t, busy.Wait(ctx, time.Hour, call), context.DeadlineExceeded)
	})
	t.Run("ErrCanceled", func(t *testing.T) {
		t.Parallel()
		_, other := locked(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		call, _ := write(t, other, map[int]func(){2: cancel})
		require.ErrorIs(t, busy.Wait(ctx, time.Hour, call), context.Canceled)
	})
	t.Run("Err_other", func(t *testing.T) { // which waiting does not help
		t.Parallel()
		calls, other := 0, errors.New("database is locked, says somebody else")
		require.Equal(t, other, busy.Wait(t.Context(), time.Hour, func() error { calls++; return other }))
		require.Equal(t, 1, calls)
	})
}

func TestIs(t *testing.T) {
	t.Parallel()
	_, other := locked(t)
	_, err := other.ExecContext(t.Context(), "INSERT INTO t VALUES (1)")
	require.True(t, busy.Is(err), "%v", err)
	require.True(t, busy.Is(fmt.Errorf("wrapped: %w", errors.Join(errors.New("and joined"), err))))
	_, err = other.ExecContext(t.Context(), "SELECT FROM WHERE")
	require.Error(t, err)
	require.False(t, busy.Is(err), "%v", err)
	require.False(t, busy.Is(nil))
	require.False(t, busy.Is(context.DeadlineExceeded))
}
