package batch_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/batch"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// ok is the answer to a batch in which nothing is wrong.
func ok[T any](items []T) []error { return make([]error, len(items)) }

func TestDo(t *testing.T) {
	t.Parallel()
	t.Run("OK_one", func(t *testing.T) {
		t.Parallel()
		var got [][]int
		q := batch.New(10, 10, 0, func(_ context.Context, items []int) []error {
			got = append(got, items)
			return ok(items)
		})
		require.NoError(t, q.Do(t.Context(), 1))
		require.NoError(t, q.Do(t.Context(), 2))
		require.Equal(t, [][]int{{1}, {2}}, got)
	})
	t.Run("OK_what_comes_meanwhile_is_one_batch", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var sizes []int
			begin := make(chan struct{})
			q := batch.New(4, 100, 0, func(_ context.Context, items []int) []error {
				<-begin
				sizes = append(sizes, len(items))
				return ok(items)
			})
			for i := range 10 {
				go func() {
					if err := q.Do(t.Context(), i); err != nil {
						t.Error(err)
					}
				}()
				synctest.Wait()
			}
			close(begin)
			synctest.Wait()
			require.Equal(t, []int{1, 4, 4, 1}, sizes)
		})
	})
	t.Run("OK_each_its_own_verdict", func(t *testing.T) {
		t.Parallel()
		odd := errors.New("odd")
		q := batch.New(16, 64, 0, func(_ context.Context, items []int) []error {
			errs := ok(items)
			for i, n := range items {
				if n%2 == 1 {
					errs[i] = odd
				}
			}
			return errs
		})
		var wg sync.WaitGroup
		for n := range 1000 {
			wg.Go(func() {
				err := q.Do(t.Context(), n)
				if (n%2 == 1) != errors.Is(err, odd) {
					t.Errorf("%d: %v", n, err)
				}
			})
		}
		wg.Wait()
	})
	t.Run("OK_nobody_is_answered_before_the_commit", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			commit := make(chan struct{})
			q := batch.New(4, 4, 0, func(_ context.Context, items []int) []error { <-commit; return ok(items) })
			var answered atomic.Int64
			for range 4 {
				go func() {
					_ = q.Do(t.Context(), 0)
					answered.Add(1)
				}()
			}
			synctest.Wait()
			require.Zero(t, answered.Load())
			close(commit)
			synctest.Wait()
			require.EqualValues(t, 4, answered.Load())
		})
	})
	t.Run("OK_no_goroutine_when_idle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			q := batch.New(2, 3, 0, func(_ context.Context, items []int) []error { return ok(items) })
			require.NoError(t, q.Do(t.Context(), 1))
			synctest.Wait() // and the bubble would complain about one that is left
			require.NoError(t, q.Do(t.Context(), 1))
		})
	})
}

// TestDoContext has callers whose contexts end: before the batch, while it waits and while it is committed.
func TestDoContext(t *testing.T) {
	t.Parallel()
	t.Run("OK_backpressure", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			commit := make(chan struct{})
			q := batch.New(2, 3, 0, func(_ context.Context, items []int) []error { <-commit; return ok(items) })
			for range 3 {
				go func() { _ = q.Do(t.Context(), 0) }()
			}
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			require.ErrorIs(t, q.Do(ctx, 1), context.DeadlineExceeded, "it waits for a place")
			close(commit)
			synctest.Wait()
			require.NoError(t, q.Do(t.Context(), 2))
		})
	})
	t.Run("ErrCanceled_takes_back_its_own", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			commit := make(chan struct{})
			var got []int
			q := batch.New(10, 10, 0, func(_ context.Context, items []int) []error {
				<-commit
				got = append(got, items...)
				return ok(items)
			})
			ctx, cancel := context.WithCancel(t.Context())
			errs := make([]error, 4)
			for i, ctx := range []context.Context{ctx, t.Context(), ctx, t.Context()} {
				go func() { errs[i] = q.Do(ctx, i) }()
				synctest.Wait()
			}
			cancel() // 0 is in the batch that has begun, 2 is not
			synctest.Wait()
			require.ErrorIs(t, errs[2], context.Canceled)
			close(commit)
			synctest.Wait()
			require.Equal(t, []int{0, 1, 3}, got)
			require.NoError(t, errs[0], "what has begun is answered with what became of it")
			require.NoError(t, errs[1])
			require.NoError(t, errs[3])
		})
	})
	t.Run("ErrUncertain", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			commit := make(chan struct{})
			q := batch.New(10, 1, 0, func(_ context.Context, items []int) []error { <-commit; return ok(items) })
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			err := q.Do(ctx, 1)
			require.ErrorIs(t, err, fault.ErrUncertain)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Less(t, time.Since(start), 2*time.Second)
			close(commit)
			require.NoError(t, q.Do(t.Context(), 2), "its place is free again")
		})
	})
	t.Run("ErrUncertain_ends_what_nobody_waits_for", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var committed []int
			q := batch.New(10, 10, 0, func(ctx context.Context, items []int) []error {
				if items[0] == 0 { // a server that does not answer
					<-ctx.Done()
				}
				committed = append(committed, len(items))
				return ok(items)
			})
			var wg sync.WaitGroup
			for _, wait := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second} {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), wait)
					defer cancel()
					if err := q.Do(ctx, 0); !errors.Is(err, fault.ErrUncertain) &&
						!errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
				})
				synctest.Wait()
			}
			wg.Wait()
			require.NoError(t, q.Do(t.Context(), 1), "the queue goes on")
			require.Equal(t, []int{1, 2, 1}, committed)
			q.Close()
		})
	})
	t.Run("ErrCanceled_before", func(t *testing.T) {
		t.Parallel()
		q := batch.New(1, 1, 0, func(_ context.Context, items []int) []error {
			t.Error("it is committed")
			return ok(items)
		})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, q.Do(ctx, 1), context.Canceled)
	})
}

// TestDoOnBusyMachine has callers who come back, and more to do for each core than there are callers: waiting for a
// larger batch ends by the clock, for letting others run once may take as long as all of it should.
func TestDoOnBusyMachine(t *testing.T) {
	var stop atomic.Bool
	var busy, callers sync.WaitGroup
	for range 4 * runtime.GOMAXPROCS(0) {
		busy.Go(func() {
			for !stop.Load() {
				_ = len(t.Name())
			}
		})
	}
	var batches atomic.Int64
	q := batch.New(100, 100, 0, func(_ context.Context, items []int) []error { batches.Add(1); return ok(items) })
	for range 8 {
		callers.Go(func() {
			for i := range 3 {
				if err := q.Do(context.Background(), i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	began := time.Now()
	if err := q.Do(t.Context(), 0); err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	stop.Store(true)
	busy.Wait()
	require.Less(t, took, 5*time.Second)
}

func TestClose(t *testing.T) {
	t.Parallel()
	t.Run("OK_drains", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			commit := make(chan struct{})
			committed := 0
			q := batch.New(
				2, 10, 0,
				func(_ context.Context, items []int) []error { <-commit; committed += len(items); return ok(items) },
			)
			var acked atomic.Int64
			for range 7 {
				go func() {
					if q.Do(t.Context(), 0) == nil {
						acked.Add(1)
					}
				}()
			}
			synctest.Wait()
			closed := make(chan struct{})
			go func() { q.Close(); close(closed) }()
			synctest.Wait()
			select {
			case <-closed:
				t.Fatal("it did not wait")
			default:
			}
			require.ErrorIs(t, q.Do(t.Context(), 0), fault.ErrClosed)
			close(commit)
			<-closed
			synctest.Wait()
			require.Equal(t, 7, committed)
			require.EqualValues(t, 7, acked.Load())
			q.Close()
		})
	})
	t.Run("OK_under_load", func(t *testing.T) {
		t.Parallel()
		var committed, acked atomic.Int64
		q := batch.New(8, 16, 0, func(_ context.Context, items []int) []error {
			committed.Add(int64(len(items)))
			runtime.Gosched()
			return ok(items)
		})
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for {
					if err := q.Do(t.Context(), 0); err != nil {
						if !errors.Is(err, fault.ErrClosed) {
							t.Error(err)
						}
						return
					}
					acked.Add(1)
				}
			})
		}
		for acked.Load() < 1000 {
			runtime.Gosched()
		}
		q.Close()
		after := committed.Load()
		wg.Wait()
		require.Equal(t, committed.Load(), after, "nothing is committed after Close has returned")
		require.Equal(t, committed.Load(), acked.Load())
	})
}

// TestCancelAnywhere ends contexts at any moment: what was taken back is not committed, everything else
// is, once.
func TestCancelAnywhere(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	times := map[int]int{}
	q := batch.New(8, 16, 0, func(_ context.Context, items []int) []error {
		mu.Lock()
		defer mu.Unlock()
		for _, n := range items {
			times[n]++
		}
		return ok(items)
	})
	var wg sync.WaitGroup
	acked := make([]bool, 2000)
	for n := range acked {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%50)*time.Microsecond)
			defer cancel()
			acked[n] = q.Do(ctx, n) == nil
		})
	}
	wg.Wait()
	q.Close()
	for n, ok := range acked {
		if ok != (times[n] == 1) || times[n] > 1 {
			t.Errorf("%d: acked %t, committed %d times", n, ok, times[n])
		}
	}
}
