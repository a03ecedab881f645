package registry_test

// These tests have servers, connections and networks fail, and have no source of their own.

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
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

	happened int // uncertain writes that were committed

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
