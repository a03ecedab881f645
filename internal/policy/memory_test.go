package policy_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/policy"
)

// database is what a memory looks at and reads.
type database struct {
	*policy.Memory
	now     atomic.Int64 // nanoseconds
	version atomic.Int64
	looks   atomic.Int64
	reads   atomic.Int64
	label   atomic.Value // of the one access key in the database
	hook    atomic.Value // func(ctx) error: runs within a look
}

var hash = policy.Hash{1}

func newDatabase() *database {
	d := &database{}
	d.now.Store(1)
	d.label.Store("a")
	d.hook.Store(func(context.Context) error { return nil })
	d.Memory = policy.New(d.clock, func(ctx context.Context) (int64, error) {
		d.looks.Add(1)
		version := d.version.Load()
		return version, d.hook.Load().(func(context.Context) error)(ctx)
	})
	return d
}

func (d *database) clock() time.Time { return time.Unix(0, d.now.Load()) }

func (d *database) advance(by time.Duration) { d.now.Add(int64(by)) }

// change changes the label, in another process.
func (d *database) change(label string) {
	d.label.Store(label)
	d.version.Add(1)
}

func (d *database) read(context.Context) (*policy.AccessKey, error) {
	d.reads.Add(1)
	return &policy.AccessKey{Label: d.label.Load().(string), Consumers: []policy.Consumer{{ID: uuid.New()}}}, nil
}

// get returns the label of the access key, as registry gets it.
func (d *database) get(ctx context.Context) (string, error) {
	if key := d.Remembered(hash, d.clock()); key != nil {
		return key.Label, nil
	}
	key, err := d.AccessKey(ctx, hash, d.read)
	if err != nil {
		return "", err
	}
	return key.Label, nil
}

func (d *database) require(t *testing.T, label string, looks, reads int64) {
	t.Helper()
	got, err := d.get(t.Context())
	require.NoError(t, err)
	require.Equal(t, label, got)
	require.Equal(t, []int64{looks, reads}, []int64{d.looks.Load(), d.reads.Load()}, "looks and reads")
}

func TestMemory(t *testing.T) {
	t.Parallel()
	d := newDatabase()
	d.require(t, "a", 1, 1)
	d.require(t, "a", 1, 1)
	d.change("b")
	d.advance(policy.Trust - 1)
	d.require(t, "a", 1, 1)
	d.advance(1)
	d.require(t, "b", 2, 2)
	d.advance(policy.Trust)
	d.require(t, "b", 3, 2)
	d.advance(-1) // the clock has gone back
	d.require(t, "b", 4, 2)
	d.change("c")
	d.Expire()
	d.require(t, "c", 5, 3)

	failed := errors.New("failed")
	d.Expire()
	d.hook.Store(func(context.Context) error { return failed })
	_, err := d.get(t.Context())
	require.ErrorIs(t, err, failed)
	d.hook.Store(func(context.Context) error { return nil })
	d.require(t, "c", 7, 3)
	_, err = d.AccessKey(t.Context(), policy.Hash{2}, func(context.Context) (*policy.AccessKey, error) {
		return nil, failed
	})
	require.ErrorIs(t, err, failed)
	require.Nil(t, d.Remembered(policy.Hash{2}, d.clock()), "what is not there is not remembered")
}

// TestMemoryOutdated reads a row while others change it and look: what was read is not remembered under their version.
func TestMemoryOutdated(t *testing.T) {
	t.Parallel()
	d := newDatabase()
	key, err := d.AccessKey(t.Context(), hash, func(ctx context.Context) (*policy.AccessKey, error) {
		old, err := d.read(ctx)
		d.change("b")
		d.Expire()
		_, other := d.AccessKey(ctx, policy.Hash{2}, d.read)
		return old, errors.Join(err, other)
	})
	require.NoError(t, err)
	require.Equal(t, "a", key.Label)
	d.require(t, "b", 2, 3)

	// A look that began before the process's own change is not believed afterwards.
	d.Expire()
	d.hook.Store(func(context.Context) error {
		d.change("c")
		d.Expire()
		return nil
	})
	_, err = d.get(t.Context())
	require.NoError(t, err)
	d.hook.Store(func(context.Context) error { return nil })
	d.require(t, "c", 4, 4)
}

// TestMemoryFull remembers no more access keys than there is room for.
func TestMemoryFull(t *testing.T) {
	t.Parallel()
	d := newDatabase()
	one := func(context.Context) (*policy.AccessKey, error) { return &policy.AccessKey{}, nil }
	remembered := func(n int) (all int) {
		for i := range n {
			if d.Remembered(policy.Hash{byte(i), byte(i >> 8), byte(i >> 16)}, d.clock()) != nil {
				all++
			}
		}
		return all
	}
	const most = 100_000
	for i := range most + 1 {
		_, err := d.AccessKey(t.Context(), policy.Hash{byte(i), byte(i >> 8), byte(i >> 16)}, one)
		require.NoError(t, err)
		if i == most-1 {
			require.Equal(t, most, remembered(most))
		}
	}
	require.Equal(t, 1, remembered(most+1))
}

// waiting makes looks wait for a token, which says how they end.
func (d *database) waiting() (end chan error) {
	end = make(chan error)
	d.hook.Store(func(ctx context.Context) error {
		select {
		case err := <-end:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return end
}

// callers have many goroutines get the access key, and returns a function that waits for their errors.
func (d *database) callers(ctx context.Context, n int) (wait func() []error) {
	var all sync.WaitGroup
	errs := make([]error, n)
	for i := range errs {
		all.Go(func() { _, errs[i] = d.get(ctx) })
	}
	synctest.Wait() // one looks, and the others wait for it
	return func() []error {
		all.Wait()
		return errs
	}
}

// TestMemoryShares has many callers share one look, and its error.
func TestMemoryShares(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]error{"OK": nil, "Err": errors.New("failed")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase()
				end := d.waiting()
				wait := d.callers(t.Context(), 20)
				end <- want
				for _, err := range wait() {
					require.Equal(t, want, err)
				}
				require.EqualValues(t, 1, d.looks.Load())
			})
		})
	}
}

// TestMemoryGivesUp ends the contexts of the caller who looks, and of one who waits: the others look again.
func TestMemoryGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		end := d.waiting()
		ctx, cancel := context.WithCancel(t.Context())
		first := d.callers(ctx, 1)
		others := d.callers(t.Context(), 3)
		ended, leave := context.WithCancel(t.Context())
		leave()
		_, err := d.get(ended)
		require.ErrorIs(t, err, context.Canceled)
		cancel()
		require.ErrorIs(t, first()[0], context.Canceled)
		end <- nil
		require.NoError(t, errors.Join(others()...))
		require.EqualValues(t, 2, d.looks.Load())
	})
}

// TestMemorySlow has looks take longer than they are believed: callers who waited for one of others share one more,
// which began after their call.
func TestMemorySlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase()
		end := d.waiting()
		wait := d.callers(t.Context(), 20)
		for range 2 {
			synctest.Wait()
			d.advance(2 * policy.Trust)
			end <- nil
		}
		require.NoError(t, errors.Join(wait()...))
		require.EqualValues(t, 2, d.looks.Load())
	})
}

// TestMemoryPanics has a look panic: the next caller looks again.
func TestMemoryPanics(t *testing.T) {
	t.Parallel()
	d := newDatabase()
	d.hook.Store(func(context.Context) error { panic("look") })
	require.PanicsWithValue(t, "look", func() { _, _ = d.get(t.Context()) })
	d.hook.Store(func(context.Context) error { return nil })
	d.require(t, "a", 2, 1)
}
