package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// The tests in a bubble have a clock that moves when everybody waits.
func TestPostgresRetry(t *testing.T) {
	t.Parallel()
	code := func(c string) error { return &pgconn.PgError{Code: c} }
	repeated := func(t *testing.T, ctx context.Context, failures int, err error) (calls int, _ error) {
		t.Helper()
		result := new(store.Postgres).Retry(ctx, func() error {
			if calls++; calls <= failures {
				return fmt.Errorf("call %d: %w", calls, err)
			}
			return nil
		})
		return calls, result
	}
	t.Run("OK_what_passes", func(t *testing.T) {
		t.Parallel()
		for _, passes := range []error{
			code("40001"), code("40P01"), code("55P03"), code("42P07"), code("57P01"), code("57P03"), code("53300"),
			code("08006"),
			io.ErrUnexpectedEOF, store.ErrStandby, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
			&net.OpError{Op: "dial", Err: &net.DNSError{IsTemporary: true}},
		} {
			synctest.Test(t, func(t *testing.T) {
				calls, err := repeated(t, t.Context(), 5, passes)
				require.NoError(t, err)
				require.Equal(t, 6, calls)
			})
		}
	})
	t.Run("Err_what_does_not", func(t *testing.T) {
		t.Parallel()
		for _, stays := range []error{
			code("23505"), code("23503"), code("22003"), code("28P01"), code("3D000"), code("42501"), code("25006"),
			code("53100"), code("53200"), code("42P01"), code("40003"), code("57014"), store.ErrClosed,
			store.ErrUnsupported, store.ErrRolledBack,
			errors.Join(store.ErrUncertain, io.ErrUnexpectedEOF), errors.Join(store.ErrUncertain, code("40001")),
			context.Canceled, context.DeadlineExceeded, &net.DNSError{IsNotFound: true}, errors.New("something else"),
		} {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				calls, err := repeated(t, t.Context(), 5, stays)
				require.ErrorIs(t, err, stays)
				require.Equal(t, 1, calls, "%v", stays)
				require.Zero(t, time.Since(begin))
			})
		}
	})
	t.Run("Err_patience", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			last := code("57P03")
			calls, err := repeated(t, t.Context(), 1<<30, last)
			require.ErrorIs(t, err, last)
			requireKind(t, fault.ErrUnavailable, err)
			require.InDelta(t, store.Patience, time.Since(begin), float64(time.Second))
			require.Less(t, calls, 500, "no busy loop")
			require.Greater(t, calls, 30)
		})
	})
	t.Run("Err_context", func(t *testing.T) {
		t.Parallel()
		for name, end := range map[string]func(context.Context) (context.Context, context.CancelFunc){
			"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, 3*time.Second)
			},
			"cancel": func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(3*time.Second, cancel)
				return ctx, cancel
			},
		} {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := end(t.Context())
				defer cancel()
				begin := time.Now()
				last := code("40001")
				_, err := repeated(t, ctx, 1<<30, last)
				require.ErrorIs(t, err, ctx.Err(), name)
				require.ErrorIs(t, err, last, name)
				require.Equal(t, 3*time.Second, time.Since(begin), name)
			})
		}
	})
}

// What the last repetition says does not hide what was wrong: the context ended in it.
func TestPostgresRetryTellsWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		calls := 0
		err := new(store.Postgres).Retry(ctx, func() error {
			if calls++; calls <= 3 {
				return &pgconn.PgError{Code: "57P03"}
			}
			<-ctx.Done()
			return ctx.Err()
		})
		requireCodePG(t, "57P03", err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		requireKind(t, fault.ErrUnavailable, err)
	})
}

// An attempt that the deadline cuts short says less than the one before it, also where the connection's timer is the
// first to see the deadline, and the context has not ended yet.
func TestPostgresRetryTellsWhyAtTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithCancel(t.Context())
		ctx := lateContext{parent, time.Now().Add(3 * time.Second)}
		calls := 0
		err := new(store.Postgres).Retry(ctx, func() error {
			if calls++; calls <= 3 {
				return &pgconn.PgError{Code: "57P03"}
			}
			<-time.After(time.Until(ctx.deadline)) // of the bubble
			time.AfterFunc(time.Microsecond, cancel)
			return &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
		})
		requireCodePG(t, "57P03", err)
		require.ErrorIs(t, err, context.Canceled)
	})
}

// lateContext ends some time after its deadline.
type lateContext struct {
	context.Context
	deadline time.Time
}

func (c lateContext) Deadline() (time.Time, bool) { return c.deadline, true }
