package registry_test

// These tests have servers, connections and networks fail, and have no source of their own.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// silence is a call during which the server stops to answer.
type silence struct {
	name string
	call func(ctx context.Context) error
}

func silences(t *testing.T, reg *registry.Registry, p *faultProxy) []silence {
	t.Helper()
	hush := func() { p.each((*faultWire).silence) }
	return []silence{

		{name: "connect", call: func(ctx context.Context) error {
			p.each((*faultWire).hangUp)
			defer p.stall()()
			return reg.SetSetting(ctx, "a", "b")
		}},
		{name: "begin", call: func(ctx context.Context) error {
			hush()
			return reg.SetSetting(ctx, "a", "b")
		}},
		{name: "read", call: func(ctx context.Context) error {
			hush()
			_, err := reg.GetSetting(ctx, "a")
			return err
		}},
		{name: "statement", call: func(ctx context.Context) error {
			return reg.InTx(ctx, func(tx *registry.Registry) error {
				hush()
				return tx.SetSetting(ctx, "a", "b")
			})
		}},
		{name: "between statements", call: func(ctx context.Context) error {
			return reg.InTx(ctx, func(*registry.Registry) error {
				hush()
				<-ctx.Done()
				return nil
			})
		}},
		{name: "nested transaction", call: func(ctx context.Context) error {
			return reg.InTx(ctx, func(tx *registry.Registry) error {
				return tx.InTx(ctx, func(*registry.Registry) error {
					hush()
					<-ctx.Done()
					return nil
				})
			})
		}},
		{name: "end of a nested transaction", call: func(ctx context.Context) error {
			return reg.InTx(ctx, func(tx *registry.Registry) error {
				return tx.InTx(ctx, func(*registry.Registry) error {
					hush()
					return nil
				})
			})
		}},
		{name: "end of an operation", call: func(ctx context.Context) error {
			return reg.InTx(t.Context(), func(tx *registry.Registry) error {
				return tx.InTx(ctx, func(*registry.Registry) error {
					hush()
					return errRollback
				})
			})
		}},
		{name: "rollback", call: func(ctx context.Context) error {
			return reg.InTx(ctx, func(*registry.Registry) error {
				hush()
				return errRollback
			})
		}},
		{name: "commit", call: func(ctx context.Context) error {
			return reg.InTx(ctx, func(tx *registry.Registry) error {
				defer hush()
				return tx.SetSetting(ctx, "a", "b")
			})
		}},
	}
}

// From some moment on a call hears nothing: it returns soon after its deadline.
func TestSilence(t *testing.T) {
	long(t, "servers do not answer")
	t.Parallel()
	p, through := newFaultProxy(t, registrytest.PostgresURL(t))
	reg := failoverOpen(t, through, registry.WithMaxConns(1))
	t.Cleanup(p.close) // first
	for _, c := range silences(t, reg, p) {
		best := failoverOverrun
		for try := 0; try < 3 && best >= failoverFarewell; try++ {
			require.NoError(t, reg.SetSetting(t.Context(), "a", "b"), "there is a connection")
			timeout := 100 * time.Millisecond
			if c.name == "commit" { // what comes before it takes a while on a busy machine
				timeout = 2 * time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			called := make(chan error, 1)
			go func() { called <- c.call(ctx) }()
			var err error
			select {
			case err = <-called:
			case <-time.After(10 * time.Second):
				p.each((*faultWire).hangUp)
				require.FailNow(t, "it hangs", "%s: %v", c.name, <-called)
			}
			deadline, _ := ctx.Deadline()
			best = min(best, time.Since(deadline))
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded, c.name)
			require.Equal(t, c.name == "commit", errors.Is(err, registry.ErrUncertain), c.name)
		}
		t.Logf("fault=%q overrun=%dms", "silence: "+c.name, best.Milliseconds())
		require.Less(t, best, failoverFarewell, c.name)
	}
}

// A connection is lost exactly when a commit, or the answer to one, is on its way. Nobody knows whether it
// happened, but what was done can be seen by the id of a request: RecordUsage repeats the commit by itself, and its
// callers may repeat RecordUsage.
func TestCommitLost(t *testing.T) {
	long(t, "connections are cut at each message")
	t.Parallel()
	url := registrytest.PostgresURL(t)
	p, through := newFaultProxy(t, url)
	l := newFailoverLoad(t, failoverOpen(t, through), "commit")
	t.Cleanup(p.close) // first

	want := map[int]bool{} // which writes are there
	for _, lost := range []faultSnag{{is: commitQuery}, {is: commitAnswer, fromServer: true}} {
		var cancel context.CancelFunc
		for _, how := range []func(*faultWire){
			(*faultWire).hangUp, (*faultWire).reset, func(w *faultWire) { w.silence(); cancel() },
		} {
			for range 3 { // kinds of writes
				var ctx context.Context
				ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
				lost.how = how
				done := p.lose(lost)
				n, err := l.write(ctx, 0)
				ended := ctx.Err() != nil
				cancel()
				require.True(t, done(), "write %d: %v", n, err)
				want[n] = lost.fromServer
				if n%3 == 1 && !ended {
					require.NoError(t, err, "it repeats the commit")
					want[n] = true
					continue
				}
				require.ErrorIs(t, err, registry.ErrUncertain)
			}
		}
	}
	p.close()
	l.reopen(t, url)
	r := l.compare(t)
	require.Empty(t, r.wrong)
	for n, stored := range want {
		require.Equal(t, stored, r.stored[n], "write %d", n)
	}
	for n := range want {
		l.repeat(t.Context(), n, 0, registry.ErrUncertain) // the acknowledged ones too
	}
	r = l.check(t, "commit lost", url)
	require.Zero(t, r.lost)
	require.Len(t, want, r.acked)
}

// A connection is lost at the first message of a write, at the second, and so on to the last. It is closed and reset in
// turns, so that each message is lost in both ways, by another kind of write. A run takes every third message.
func TestEachMessageLost(t *testing.T) {
	long(t, "connections are cut at each message")
	t.Parallel()
	for _, fromServer := range []bool{false, true} {
		t.Run(fmt.Sprintf("from server %t", fromServer), func(t *testing.T) {
			t.Parallel()
			url := registrytest.PostgresURL(t)
			p, through := newFaultProxy(t, url)
			l := newFailoverLoad(t, failoverOpen(t, through, registry.WithMaxConns(1)), "message")
			t.Cleanup(p.close) // first
			cuts, turn := 0, rand.IntN(2)
			step := int64(80 / sample.Of(80))
			first := 1 + rand.Int64N(step)
			t.Logf("turn %d, every %d. message from the %d.", turn, step, first)
			for n, cut := first, true; cut; n += step {
				cut = false
				for range 3 { // kinds of writes, each on a new connection
					turn++
					p.each((*faultWire).hangUp)
					how := []func(*faultWire){(*faultWire).hangUp, (*faultWire).reset}[turn%2]
					lost := p.lose(faultSnag{fromServer: fromServer, is: nth(n), how: how})
					n, err := l.write(t.Context(), 0)
					if lost() {
						cut = true
						cuts++
					}
					l.repeat(t.Context(), n, 0, err)
				}
			}
			require.Greater(t, int64(cuts)*step, int64(30))
			p.close()
			r := l.check(t, fmt.Sprintf("each of %d messages lost, from server %t", cuts, fromServer), url)
			require.Zero(t, r.lost)
			require.Zero(t, r.uncertain+r.refused)
			if step == 1 {
				require.Positive(t, l.repeated[failoverUncertain], "commits were among them")
			}
		})
	}
}
