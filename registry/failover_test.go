package registry_test

// These tests have servers, connections and networks fail, and have no source of their own.

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

func newFailoverLoad(t *testing.T, reg *registry.Registry, name string) *failoverLoad {
	t.Helper()
	l := &failoverLoad{reg: reg, name: name, outcomes: map[int]failoverOutcome{}, repeated: map[failoverOutcome]int{}}
	p := mustProvider(t, reg, name)
	l.model = mustModel(t, reg, p.ID, "m", money.Rates{meter.Input: 1_000_000}) // a nano-dollar for a token
	for i := range 4 {
		l.keys = append(l.keys, mustKey(t, reg, p.ID, i))
	}
	return l
}

// The server is stopped and started under load. The test is not parallel, for the sake of the times
// that it prints; nor are those of failovers.
func TestRestart(t *testing.T) {
	c := pgtest.Server(t)
	for _, mode := range []pgtest.Mode{pgtest.Fast, pgtest.Immediate} {
		t.Run(string(mode), func(t *testing.T) {
			l := newFailoverLoad(t, failoverOpen(t, c.URL("postgres")), string(mode))
			l.start(t)
			require.NoError(t, c.Restart(t.Context(), mode))
			l.more(t, failoverSome)
			require.Zero(t, l.check(t, string(mode)+" restart", c.URL("postgres")).lost)
		})
	}
}

// A primary is lost and its standby is promoted, which had not heard the last from it. A synchronous
// one has everything that was acknowledged. An asynchronous one has not: the test sees it.
func TestFailover(t *testing.T) {
	t.Run("synchronous", func(t *testing.T) {
		l, standby := testFailover(t, "synchronous_standby_names = '*'", func(l *failoverLoad, primary *sql.DB) {
			failoverUntil(t, primary, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
			l.quiet(t)
			// A commit whose context ends while it waits for the standby is not acknowledged.
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			err := l.reg.SetSetting(ctx, "waiting", "x")
			deadline, _ := ctx.Deadline()
			require.Less(t, time.Since(deadline), failoverOverrun)
			require.ErrorIs(t, err, registry.ErrUncertain)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
		require.Zero(t, l.check(t, "failover to a synchronous standby", standby.URL("postgres")).lost)
	})
	t.Run("asynchronous", func(t *testing.T) {
		const more = 100
		l, standby := testFailover(t, "", func(l *failoverLoad, _ *sql.DB) { l.more(t, more) })
		require.GreaterOrEqual(t, l.check(t, "failover to an asynchronous standby", standby.URL("postgres")).lost, more)
	})
}

// testFailover kills a primary when its standby has not heard from it for a while.
func testFailover(t *testing.T, settings string, while func(*failoverLoad, *sql.DB)) (*failoverLoad, *pgtest.Cluster) {
	t.Helper()
	primary := pgtest.Server(t, settings)
	standby, err := primary.Standby(t.Context(), "synchronous_standby_names = ''")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Close()) })
	l := newFailoverLoad(t,
		failoverOpen(t, fmt.Sprintf("postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/postgres?sslmode=disable"+
			"&target_session_attrs=read-write", primary.Port(), standby.Port())), "failover")
	t.Cleanup(func() {
		if t.Failed() {
			_ = primary.Kill() // lest Close wait for what waits for the standby
		}
	})
	l.start(t)
	first, second := failoverDB(t, primary.URL("postgres")), failoverDB(t, standby.URL("postgres"))
	resume := failoverPause(t, standby, second)
	while(l, first)
	require.NoError(t, primary.Kill())
	promoted := make(chan error, 1)
	go func() { promoted <- standby.Promote(t.Context()) }()
	// What it has not read it reads no more, once it is told to stop.
	failoverUntil(t, second, "SELECT status = 'stopping' FROM pg_stat_wal_receiver")
	require.NoError(t, resume())
	require.NoError(t, <-promoted)
	l.more(t, failoverSome)
	return l, standby
}

// failoverPause stops the process that receives for a standby, while that waits for more.
func failoverPause(t *testing.T, standby *pgtest.Cluster, db *sql.DB) (resume func() error) {
	t.Helper()
	require.Eventually(t, func() bool {
		var err error
		if resume, err = standby.Pause(t.Context(), "walreceiver"); err != nil {
			return false
		}
		var waits bool
		err = db.QueryRowContext(t.Context(), "SELECT wait_event IS NOT DISTINCT FROM 'WalReceiverMain' FROM"+
			" pg_stat_activity"+
			" WHERE backend_type = 'walreceiver'").Scan(&waits)
		return err == nil && waits || resume() != nil
	}, failoverPatience, time.Millisecond)
	return resume
}

// All connections are ended by the server, again and again.
func TestTerminated(t *testing.T) {
	long(t, "connections are terminated again and again")
	t.Parallel()
	url := registrytest.PostgresURL(t)
	l := newFailoverLoad(t, failoverOpen(t, url), "terminated")
	db := failoverDB(t, url)
	l.start(t)
	ended := 0
	strike := func() {
		var n int
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(pg_terminate_backend(pid)) FROM"+
			" pg_stat_activity"+
			" WHERE datname = current_database() AND pid <> pg_backend_pid()").Scan(&n))
		ended += n
	}
	failoverFor(t, time.Second, 50*time.Millisecond, strike)
	for ended <= 50 { // on a machine that is busy
		failoverFor(t, 500*time.Millisecond, 50*time.Millisecond, strike)
	}
	l.more(t, 50)
	require.Zero(t, l.check(t, fmt.Sprintf("%d connections terminated", ended), url).lost)
}

// The network between the registry and the server fails. Every other write has a deadline.
func TestNetwork(t *testing.T) {
	long(t, "connections stall")
	t.Parallel()
	direct := registrytest.PostgresURL
	for fault, strike := range map[string]func(*testing.T, *faultProxy, *failoverLoad){
		"stalls": func(t *testing.T, p *faultProxy, l *failoverLoad) {
			t.Helper()
			for _, d := range []time.Duration{time.Second, 300 * time.Millisecond, 300 * time.Millisecond} {
				resume := p.stall()
				<-time.After(d)
				resume()
				l.more(t, 20)
			}
		},
		"resets": func(t *testing.T, p *faultProxy, _ *failoverLoad) {
			t.Helper()
			failoverFor(t, time.Second, 50*time.Millisecond, func() { p.each((*faultWire).reset) })
		},
		"half-closed": func(t *testing.T, p *faultProxy, _ *failoverLoad) {
			t.Helper()
			turn := 0
			failoverFor(t, time.Second, 50*time.Millisecond, func() {
				turn++
				p.each([]func(*faultWire){(*faultWire).leave, (*faultWire).leaveServer}[turn%2])
			})
		},
		"a byte at a time": func(t *testing.T, p *faultProxy, l *failoverLoad) {
			t.Helper()
			p.chunk.Store(1)
			l.more(t, 20)
			p.chunk.Store(0)
		},
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			url := direct(t)
			p, through := newFaultProxy(t, url)
			l := newFailoverLoad(t, failoverOpen(t, through), "network")
			t.Cleanup(p.close) // first
			l.limit = 200 * time.Millisecond
			l.start(t)
			strike(t, p, l)
			l.more(t, 50)
			l.finish()
			p.close()
			require.Zero(t, l.check(t, "network: "+fault, url).lost)
		})
	}
}

// Two transactions wait for each other: one of them is told so, and the other goes on.
func TestDeadlock(t *testing.T) {
	t.Parallel()
	reg := failoverOpen(t, registrytest.PostgresURL(t))
	l := newFailoverLoad(t, reg, "deadlock")
	var both, first sync.WaitGroup
	first.Add(2)
	var errs [2]error
	for i := range errs {
		both.Go(func() {
			waited := false
			errs[i] = reg.InTx(t.Context(), func(tx *registry.Registry) error {
				err := tx.IncrementUsage(t.Context(), l.keys[i].ID, 1, 0)
				if !waited {
					waited = true
					first.Done()
					first.Wait()
				}
				if err != nil {
					return err
				}
				return tx.IncrementUsage(t.Context(), l.keys[1-i].ID, 1, 0)
			})
		})
	}
	both.Wait()
	if errs[0] == nil {
		errs[0], errs[1] = errs[1], errs[0]
	}
	require.ErrorIs(t, errs[0], registry.ErrBusy)
	require.NotErrorIs(t, errs[0], registry.ErrUncertain)
	require.NoError(t, errs[1])
	keys, err := reg.ListAPIKeys(t.Context(), registry.KeyFilter{ProviderID: l.model.ProviderID})
	require.NoError(t, err)
	for _, k := range keys[:2] {
		require.EqualValues(t, 1, k.UsageCount)
	}
}

// TestIsolation uses servers whose default isolation level is stricter. The registry's transactions are READ COMMITTED
// even so: two callers want the only key, and the second one sees that the first one has it.
func TestIsolation(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"serializable", "repeatable read"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			url := registrytest.PostgresURL(t)
			db := failoverDB(t, url)
			var name string
			require.NoError(t, db.QueryRowContext(t.Context(), "SELECT current_database()").Scan(&name))
			_, err := db.ExecContext(
				t.Context(), "ALTER DATABASE "+name+" SET default_transaction_isolation = '"+level+"'",
			)
			require.NoError(t, err)
			reg := failoverOpen(t, url)
			l := newFailoverLoad(t, reg, strings.ReplaceAll(level, " ", "-"))
			l.start(t)
			l.more(t, failoverSome)
			l.finish()
			one, two := mustProvider(t, reg, "one"), failoverOpen(t, url)
			_, err = reg.AddAPIKey(
				t.Context(),
				registry.KeyInput{ProviderID: one.ID, APIKey: secret(1), Limits: registry.Limits{Concurrency: 1}},
			)
			require.NoError(t, err)
			in := registry.AcquireInput{ProviderID: one.ID, TTL: time.Minute}
			second := make(chan error, 1)
			require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
				if _, err := tx.AcquireKey(t.Context(), in); err != nil {
					return err
				}
				go func() {
					_, err := two.AcquireKey(t.Context(), in)
					second <- err
				}()
				require.Eventually(t, func() bool { // the second waits for the first
					var waiting int
					err := db.QueryRowContext(
						t.Context(),
						"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND"+
							" wait_event_type = 'Lock'",
					).Scan(&waiting)
					return err == nil && waiting > 0
				}, failoverPatience, 10*time.Millisecond)
				return nil
			}))
			require.ErrorIs(t, <-second, registry.ErrNoKeyAvailable)
			require.NoError(t, two.Close())
			require.NoError(t, reg.Close())
			require.Zero(t, l.check(t, level, url).lost)
		})
	}
}
