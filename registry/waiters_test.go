package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestLeaseWait waits for keys.
func TestLeaseWait(t *testing.T) { eachEngineAtOnce(t, testLeaseWait) }

func testLeaseWait(t *testing.T, e engine) {
	limits := []registry.KeyInput{{Limits: registry.Limits{Concurrency: 1, RequestsPerMinute: 2}}}
	t.Run("for a lease", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, limits)
		first := p.acquire(t, 1)
		got := make(chan error)
		go func() {
			in := p.want(1)
			in.Wait = true
			_, err := p.AcquireKey(t.Context(), in)
			got <- err
		}()
		require.NoError(t, first.Settle(t.Context(), used(1)))
		require.NoError(t, <-got)
	})
	t.Run("for time", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, limits)
		for range 2 {
			require.NoError(t, p.acquire(t, 1).Settle(t.Context(), used(1)))
		}
		got := make(chan error)
		go func() {
			in := p.want(1)
			in.Wait = true
			_, err := p.AcquireKey(t.Context(), in)
			got <- err
		}()
		p.clock.Advance(time.Minute)
		require.NoError(t, <-got)
	})
	t.Run("not for what comes after the deadline", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 2))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		in := p.want(1)
		in.Wait, in.Exclude = true, []uuid.UUID{p.keys[1].ID}
		require.NoError(t, p.DegradeKey(t.Context(), p.keys[1].ID, "excluded, and back before", time.Second))
		for name, out := range map[string]func(){
			"degraded": func() { require.NoError(t, p.DegradeKey(t.Context(), p.keys[0].ID, "", time.Hour)) },
			"limited": func() {
				p.clock.Advance(time.Hour)
				_, err := p.UpdateAPIKey(
					t.Context(), p.keys[0].ID, registry.KeyUpdate{Limits: &registry.Limits{RequestsPerDay: 1}},
				)
				require.NoError(t, err)
				require.NoError(t, p.acquire(t, 1).Settle(t.Context(), used(1)))
				record(t, p.Registry, p.model, p.keys[0], 1, 1)
			},
		} {
			out()
			_, err := p.AcquireKey(ctx, in)
			require.NoError(t, ctx.Err(), "%s: it returns at once", name)
			require.ErrorIs(t, err, registry.ErrNoKeyAvailable, name)
			require.NotErrorIs(t, err, context.DeadlineExceeded, name)
			require.ErrorContains(t, err, "before the context's deadline", name)
		}
	})
	t.Run("for what a request may give back before", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{TokensPerDay: 10}}})
		p.acquire(t, 10)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		in := p.want(10)
		in.Wait = true
		_, err := p.AcquireKey(ctx, in)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
	t.Run("until the context ends", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, limits)
		p.acquire(t, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		in := p.want(1)
		in.Wait = true
		_, err := p.AcquireKey(ctx, in)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, registry.ErrNoKeyAvailable, "and says what it waited for")
	})
	t.Run("until a context ends whose deadline passes with the answer", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, limits)
		p.acquire(t, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		in := p.want(1)
		in.Wait = true
		_, err := p.AcquireKey(late{ctx}, in)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, registry.ErrNoKeyAvailable)
	})
}

// late is a context whose deadline has passed already, and that ends later, as if the timer were slow.
type late struct{ context.Context }

// Deadline implements context.Context.
func (late) Deadline() (time.Time, bool) { return time.Unix(0, 0), true }
