package registry_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

const (
	// failoverPatience is how long the tests here wait for anything.
	failoverPatience = time.Minute
	// failoverFarewell is a bit more than a call may go on after its context has ended, and
	// failoverOverrun what it may on a machine that is busy.
	failoverFarewell = 400 * time.Millisecond
	failoverOverrun  = time.Second
)

// failoverOutcome is what a write returned.
type failoverOutcome int

const (
	failoverRefused failoverOutcome = iota // nothing was done
	failoverUncertain
	failoverAcked
)

func (o failoverOutcome) String() string { return []string{"refused", "uncertain", "acked"}[o] }

// failoverLoad writes to a registry, and notes what came of each write. Writes are numbered from 0:
// a setting, a request, or both in a transaction in turns. Whatever a write returns, it is repeated until it is
// acknowledged; each request has an id, by which it is counted once.
type failoverLoad struct {
	reg   *registry.Registry
	name  string
	model *ent.Model
	keys  []*ent.APIKey
	limit time.Duration // of the writes of every other goroutine; 0: none

	stop atomic.Bool
	all  sync.WaitGroup

	mu         sync.Mutex
	next       int
	outcomes   map[int]failoverOutcome
	repeated   map[failoverOutcome]int // how often a write was repeated that returned this
	acked      int
	last       time.Time     // acknowledgement
	gap        time.Duration // longest time between two
	overrun    time.Duration // longest time after a deadline
	unexpected []error
}

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

const (
	failoverWriters = 8 // goroutines that write
	// failoverSome is how many writes are acknowledged before a fault and after it: several of each goroutine and kind.
	failoverSome = 80
)

// start writes until finish is called. It returns when some writes have been acknowledged.
func (l *failoverLoad) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(func() { cancel(); l.finish() })
	for g := range failoverWriters {
		limit := l.limit * time.Duration(g%2)
		l.all.Go(func() {
			for !l.stop.Load() {
				n, err := l.write(ctx, limit)
				l.repeat(ctx, n, limit, err)
			}
		})
	}
	l.more(t, failoverSome)
}

// more waits for acknowledgements.
func (l *failoverLoad) more(t *testing.T, n int) {
	t.Helper()
	acked := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.acked
	}
	before := acked()
	require.Eventually(t, func() bool { return acked() >= before+n }, failoverPatience, 5*time.Millisecond)
}

// quiet waits until nothing has been acknowledged for a while.
func (l *failoverLoad) quiet(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return time.Since(l.last) > 100*time.Millisecond
	}, failoverPatience, 5*time.Millisecond)
}

func (l *failoverLoad) finish() {
	l.stop.Store(true)
	l.all.Wait()
}

// write makes the next write once. It has a limit of time unless that is 0.
func (l *failoverLoad) write(ctx context.Context, limit time.Duration) (n int, err error) {
	l.mu.Lock()
	n = l.next
	l.next++
	l.mu.Unlock()
	return n, l.try(ctx, n, limit)
}

// repeat makes a write that returned an error again, until it is acknowledged, with more patience each time.
func (l *failoverLoad) repeat(ctx context.Context, n int, limit time.Duration, err error) {
	for ; err != nil && ctx.Err() == nil; limit *= 2 {
		l.mu.Lock()
		l.repeated[l.outcomes[n]]++
		l.mu.Unlock()
		err = l.try(ctx, n, limit)
	}
}

func (l *failoverLoad) try(ctx context.Context, n int, limit time.Duration) (err error) {
	var deadline time.Time
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
		deadline, _ = ctx.Deadline()
	}
	switch n % 3 {
	case 0:
		err = l.set(ctx, l.reg, n)
	case 1:
		err = l.record(ctx, l.reg, n)
	case 2:
		err = l.reg.InTx(ctx, func(tx *registry.Registry) error {
			if err := l.record(ctx, tx, n); err != nil {
				return err
			}
			return l.set(ctx, tx, n)
		})
	}
	l.note(n, err, deadline)
	return err
}

func (l *failoverLoad) set(ctx context.Context, reg *registry.Registry, n int) error {
	return reg.SetSetting(ctx, fmt.Sprintf("%s/%d", l.name, n), "x")
}

// record records a request of now, or of a day whose partition may have to be made.
func (l *failoverLoad) record(ctx context.Context, reg *registry.Registry, n int) error {
	in := registry.UsageInput{
		ModelID: l.model.ID, APIKeyID: l.keys[n%len(l.keys)].ID, RequestID: fmt.Sprintf("%s/%d", l.name, n),
		Tokens: meter.Tokens{InputTokens: int64(n%7 + 1)},
	}
	if n%10 == 1 {
		in.At = failoverBeginning.Add(time.Duration(n) * 15 * time.Minute)
	}
	return reg.RecordUsage(ctx, in)
}

var failoverBeginning = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

func (l *failoverLoad) note(n int, err error, deadline time.Time) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	var passes bool // what is not repeated by itself
	for _, kind := range []error{registry.ErrUnavailable, registry.ErrBusy, registry.ErrReadOnly} {
		passes = passes || n%3 == 2 && errors.Is(err, kind)
	}
	switch {
	case err == nil:
		l.outcomes[n] = failoverAcked
		l.acked++
		if !l.last.IsZero() {
			l.gap = max(l.gap, now.Sub(l.last))
		}
		l.last = now
	case errors.Is(err, registry.ErrUncertain):
		l.outcomes[n] = failoverUncertain
	default:
		l.outcomes[n] = max(l.outcomes[n], failoverRefused) // it may have happened before
		if !passes && (deadline.IsZero() || !errors.Is(err, context.DeadlineExceeded)) {
			l.unexpected = append(l.unexpected, fmt.Errorf("write %d: %w", n, err))
		}
	}
	if !deadline.IsZero() {
		l.overrun = max(l.overrun, now.Sub(deadline))
	}
}

// failoverReport is what a load and a database say about each other.
type failoverReport struct {
	acked, lost, uncertain, refused int

	happened int // of those that were uncertain

	stored map[int]bool // by the number of the write
	wrong  []string     // other than lost
}

// reopen opens the database anew. Nobody else may use it any more.
func (l *failoverLoad) reopen(t *testing.T, url string) {
	t.Helper()
	require.NoError(t, l.reg.Close())
	// A server may go on with a commit whose client is gone.
	db := failoverDB(t, url)
	failoverUntil(t, db, "SELECT count(*) = 0 FROM pg_stat_activity"+
		" WHERE datname = current_database() AND application_name = 'modelscan'")
	l.reg = failoverOpen(t, url)
}

// check compares the database with what the writes returned. Nobody may use it any more.
func (l *failoverLoad) check(t *testing.T, fault, url string) failoverReport {
	t.Helper()
	l.finish()
	l.reopen(t, url)
	r := l.compare(t)
	t.Logf("fault=%q acked=%d lost=%d uncertain=%d happened=%d refused=%d repeated=%v longest_gap=%dms"+
		" overrun=%dms", fault,
		r.acked, r.lost, r.uncertain, r.happened, r.refused, l.repeated, l.gap.Milliseconds(), l.overrun.Milliseconds())
	require.Empty(t, r.wrong[:min(20, len(r.wrong))])
	require.Less(t, l.overrun, failoverOverrun)
	return r
}

func (l *failoverLoad) compare(t *testing.T) failoverReport {
	t.Helper()
	r := failoverReport{stored: map[int]bool{}}
	wrong := func(format string, args ...any) { r.wrong = append(r.wrong, fmt.Sprintf(format, args...)) }
	set := l.settings(t)
	recorded := l.requests(t, wrong)
	maps.Copy(r.stored, set)
	maps.Copy(r.stored, recorded)
	for n := range r.stored {
		if _, ok := l.outcomes[n]; !ok || set[n] != (n%3 != 1) || recorded[n] != (n%3 != 0) {
			wrong("write %d: setting %t, request %t", n, set[n], recorded[n])
		}
	}
	for n, outcome := range l.outcomes {
		switch outcome {
		case failoverAcked:
			r.acked++
			if !r.stored[n] {
				r.lost++
			}
		case failoverUncertain:
			r.uncertain++
			if r.stored[n] {
				r.happened++
			}
		case failoverRefused:
			r.refused++
			if r.stored[n] {
				wrong("write %d was refused, and is there", n)
			}
		}
	}
	for _, err := range l.unexpected[:min(5, len(l.unexpected))] {
		wrong("%v", err)
	}
	report := verified(t, l.reg)
	for _, d := range report.Differences[:min(5, len(report.Differences))] {
		wrong("%+v", d)
	}
	return r
}

// settings returns which writes left a setting.
func (l *failoverLoad) settings(t *testing.T) map[int]bool {
	t.Helper()
	all, err := collect(registry.All(t.Context(), l.reg.ListSettings, registry.SettingFilter{}))
	require.NoError(t, err)
	set := map[int]bool{}
	for _, s := range all {
		if text, ok := strings.CutPrefix(s.ID, l.name+"/"); ok {
			n, err := strconv.Atoi(text)
			require.NoError(t, err)
			set[n] = true
		}
	}
	return set
}

// requests returns which writes left a request, after it has seen that each was counted once, and that quarters,
// days, totals and the counters of the keys say the same.
func (l *failoverLoad) requests(t *testing.T, wrong func(string, ...any)) map[int]bool {
	t.Helper()
	ctx, c := t.Context(), l.reg.Client()
	type sums struct{ requests, tokens int64 }
	var all sums
	byKey, recorded := map[uuid.UUID]sums{}, map[int]bool{}
	for _, e := range c.UsageEvent.Query().Where(usageevent.ModelID(l.model.ID)).AllX(ctx) {
		n, err := strconv.Atoi(strings.TrimPrefix(e.RequestID, l.name+"/"))
		require.NoError(t, err)
		if recorded[n] || e.InputTokens != int64(n%7+1) || e.APIKeyID != l.keys[n%len(l.keys)].ID ||
			int64(*e.Cost) != e.InputTokens {
			wrong("write %d was counted twice or not as it was made: %v", n, e)
		}
		recorded[n] = true
		of := byKey[e.APIKeyID]
		byKey[e.APIKeyID] = sums{of.requests + 1, of.tokens + e.InputTokens}
		all = sums{all.requests + 1, all.tokens + e.InputTokens}
	}
	counted := map[string]sums{}
	add := func(what string, requests, tokens int64) {
		counted[what] = sums{counted[what].requests + requests, counted[what].tokens + tokens}
	}
	for _, u := range c.UsageQuarter.Query().Where(usagequarter.ModelID(l.model.ID)).AllX(ctx) {
		add("quarter", u.RequestCount, u.InputTokens)
	}
	for _, u := range c.Usage.Query().Where(usage.ModelID(l.model.ID)).AllX(ctx) {
		add("day", u.RequestCount, u.InputTokens)
	}
	for _, u := range c.UsageTotalQuarter.Query().Where(usagetotalquarter.ModelID(l.model.ID)).AllX(ctx) {
		add("total quarter", u.RequestCount, u.InputTokens)
	}
	for _, u := range c.UsageTotal.Query().Where(usagetotal.ModelID(l.model.ID)).AllX(ctx) {
		add("total day", u.RequestCount, u.InputTokens)
	}
	for _, what := range []string{"quarter", "day", "total quarter", "total day"} {
		if counted[what] != all {
			wrong("%+v events, but %+v by %s", all, counted[what], what)
		}
	}
	keys := c.APIKey.Query().Where(apikey.ProviderID(l.model.ProviderID)).AllX(ctx)
	require.Len(t, keys, len(l.keys))
	for _, k := range keys {
		if of := (sums{k.UsageCount, k.TokenCount}); byKey[k.ID] != of {
			wrong("%+v events, but %+v of the key", byKey[k.ID], of)
		}
	}
	return recorded
}

// failoverDB returns a connection to a database beside the registry's.
func failoverDB(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// failoverUntil waits until a query says true.
func failoverUntil(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	require.Eventually(t, func() bool {
		var is sql.NullBool
		err := db.QueryRowContext(t.Context(), query, args...).Scan(&is)
		return err == nil && is.Bool
	}, failoverPatience, 5*time.Millisecond, query)
}

// failoverFor does something again and again for a time.
func failoverFor(t *testing.T, total, each time.Duration, do func()) {
	t.Helper()
	end, tick := time.After(total), time.NewTicker(each)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			do()
		case <-end:
			return
		case <-t.Context().Done():
			return
		}
	}
}

func failoverOpen(t *testing.T, url string, options ...registry.Option) *registry.Registry {
	t.Helper()
	reg, err := registry.Open(t.Context(), url, options...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	return reg
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
			l.more(t, failoverSome)
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

// TestIsolation has servers whose transactions see the state of their beginning by default, or fail each other. Those
// of the registry do neither: of two who want the one key that there is, the second sees, when the first is done, that
// he has it.
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
