package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

func init() { faultChildren["lease"] = leaseChild }

// leaseCount is how many leases TestLeaseProcesses takes on each database: some tens of each goroutine, so that all
// meet.
var leaseCount = flag.Int("leases", 3200, "leases of TestLeaseProcesses")

const (
	leaseGoroutines = 64 // of each process
	leaseKeys       = 20 // of each pool
	leaseAtOnce     = 16 // of a key with limits: all of its pool together take more than there are goroutines
)

// leasePools are a pool of equal keys, and one whose keys have limits that are reached.
type leasePools struct {
	Equal, Limited           uuid.UUID // providers
	EqualModel, LimitedModel uuid.UUID
	Leases                   int // that each process takes of the equal pool; of the other, all that there are
}

// held is a lease that somebody had: its interval lies within that in which it was open.
type held struct {
	ID, Key  uuid.UUID
	From, To int64 // nanoseconds of the machine's clock
	Settled  bool
}

// TestLeaseProcesses has processes of many goroutines lease keys of one database. What they held is checked as a queue
// is: no key is held more often at once, or in a day, than its limits say; equal keys are leased equally; no lease is
// lost, and none is counted twice. Leases that are left open when the processes end are free again when they expire.
func TestLeaseProcesses(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) { testLeaseProcesses(t, filepath.Join(t.TempDir(), "registry.db")) })
	t.Run("postgres", func(t *testing.T) { testLeaseProcesses(t, registrytest.PostgresURL(t)) })
}

func testLeaseProcesses(t *testing.T, database string) {
	t.Parallel()
	clock := registrytest.NewClock(registrytest.Start)
	reg, err := registry.Open(t.Context(), database, registry.WithClock(clock.Now))
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	pools, limits := newLeasePools(t, reg)
	all := runLeaseChildren(t, database, pools)

	limited := 0
	for _, l := range limits {
		limited += int(l.requests)
	}
	require.Len(t, all, processes*pools.Leases+limited, "all that there were, and not one more")
	require.Empty(t, checkHeld(all, limits))
	checkRecorded(t, reg, all)

	left := processes * leaseGoroutines
	open, err := reg.Client().KeyLease.Query().Count(t.Context())
	require.NoError(t, err)
	require.Equal(t, left, open)
	// They expire, and what they reserved is free.
	clock.Advance(time.Hour)
	lease, err := reg.AcquireKey(t.Context(), registry.AcquireInput{ProviderID: pools.Equal, TTL: time.Hour})
	require.NoError(t, err)
	require.NoError(t, lease.Release(t.Context()))
	keys, err := reg.ListAPIKeys(t.Context(), registry.KeyFilter{ProviderID: pools.Equal})
	require.NoError(t, err)
	var requests int64
	for _, k := range keys {
		requests += k.RequestsToday
	}
	require.EqualValues(t, processes*pools.Leases-left, requests)
	open, err = reg.Client().KeyLease.Query().Count(t.Context())
	require.NoError(t, err)
	require.Zero(t, open)
	t.Logf("%d leases of %d processes with %d goroutines each", len(all), processes, leaseGoroutines)
}

// keyLimits are what a key may be held for; zero: without limit. Equal keys have the same pool.
type keyLimits struct {
	atOnce, requests int64
	equal            bool
}

func newLeasePools(t *testing.T, reg *registry.Registry) (pools leasePools, limits map[uuid.UUID]keyLimits) {
	t.Helper()
	limits = map[uuid.UUID]keyLimits{}
	add := func(name string, in func(i int) registry.KeyInput) (provider, model uuid.UUID) {
		p := mustProvider(t, reg, name)
		for i := range leaseKeys {
			key := in(i)
			key.ProviderID, key.APIKey = p.ID, secret(i)
			k, err := reg.AddAPIKey(t.Context(), key)
			require.NoError(t, err)
			limits[k.ID] = keyLimits{key.Limits.Concurrency, key.Limits.RequestsPerDay, name == "equal"}
		}
		return p.ID, mustModel(t, reg, p.ID, "m", gpt4()).ID
	}
	pools.Leases = *leaseCount * 3 / 4 / processes
	pools.Equal, pools.EqualModel = add("equal", func(int) registry.KeyInput { return registry.KeyInput{} })
	pools.Limited, pools.LimitedModel = add("limited", func(i int) registry.KeyInput {
		return registry.KeyInput{ // some are wanted more often than they may be held at once
			Weight: 1 + i%5*20, Limits: registry.Limits{
				Concurrency: leaseAtOnce, RequestsPerDay: int64(*leaseCount / 4 / leaseKeys),
			},
		}
	})
	return pools, limits
}

// runLeaseChildren runs the processes, and returns what they held.
func runLeaseChildren(t *testing.T, database string, pools leasePools) (all []held) {
	t.Helper()
	text, err := json.Marshal(pools)
	require.NoError(t, err)
	type running struct {
		begin io.Closer
		out   *json.Decoder
		err   *bytes.Buffer
		wait  func() error
	}
	children := make([]running, processes)
	for i := range children {
		cmd := faultChild(t, "lease", database, string(text))
		c := running{err: new(bytes.Buffer), wait: cmd.Wait}
		cmd.Stderr = c.err
		c.begin, err = cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		c.out = json.NewDecoder(out)
		require.NoError(t, cmd.Start())
		children[i] = c
	}
	read := func(c running, v any) {
		if err := c.out.Decode(v); err != nil {
			err = errors.Join(err, c.wait()) // after which nobody writes to its errors
			require.NoError(t, err, c.err.String())
		}
	}
	for _, c := range children {
		read(c, new(string)) // it is ready
	}
	for _, c := range children {
		require.NoError(t, c.begin.Close())
	}
	for _, c := range children {
		var some []held
		read(c, &some)
		err := c.wait()
		require.NoError(t, err, c.err.String())
		require.Empty(t, c.err.String())
		all = append(all, some...)
	}
	return all
}

func leaseChild(ctx context.Context, args ...string) (err error) {
	var pools leasePools
	if err := json.Unmarshal([]byte(args[1]), &pools); err != nil {
		return err
	}
	reg, out, err := beginChild(ctx, args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	var (
		all  sync.WaitGroup
		next atomic.Int64
		errs [leaseGoroutines]error
		own  [leaseGoroutines][]held
	)
	for g := range own {
		all.Go(func() { own[g], errs[g] = holdLeases(ctx, reg, pools, &next) })
	}
	all.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	return out.Encode(slices.Concat(own[:]...))
}

// holdLeases holds a lease of the pool with limits while it takes and settles one of the equal pool, again and again
// until the process has had its share of the one and the other has none. It leaves its last lease of the equal pool
// open.
func holdLeases(
	ctx context.Context, reg *registry.Registry, pools leasePools, next *atomic.Int64,
) (all []held, err error) {
	equal := registry.AcquireInput{
		ProviderID: pools.Equal, ModelID: pools.EqualModel, EstimatedTokens: 10, TTL: time.Hour,
	}
	limited := registry.AcquireInput{ProviderID: pools.Limited, ModelID: pools.LimitedModel, TTL: time.Hour}
	for left, more := true, true; left || more; {
		var outer, inner *registry.Lease
		var from, to int64
		if left {
			if outer, err = acquireUnlessSpent(ctx, reg, limited); err != nil {
				return all, err
			}
			left, from = outer != nil, time.Now().UnixNano()
		}
		n := next.Add(1)
		if more = n <= int64(pools.Leases); more {
			if inner, err = reg.AcquireKey(ctx, equal); err != nil {
				return all, err
			}
			keep := n+leaseGoroutines > int64(pools.Leases) // each goroutine has one of these
			now := time.Now().UnixNano()
			all = append(all, held{ID: inner.ID, Key: inner.KeyID, From: now, To: now, Settled: !keep})
			if !keep {
				if err := inner.Settle(ctx, used(7)); err != nil {
					return all, err
				}
			}
			more = !keep
		}
		to = time.Now().UnixNano()
		if outer == nil {
			continue
		}
		all = append(all, held{ID: outer.ID, Key: outer.KeyID, From: from, To: to, Settled: true})
		if err := outer.Settle(ctx, used(7)); err != nil {
			return all, err
		}
	}
	return all, nil
}

// acquireUnlessSpent returns a lease, or nil when the keys have had their day.
func acquireUnlessSpent(
	ctx context.Context, reg *registry.Registry, in registry.AcquireInput,
) (*registry.Lease, error) {
	for {
		lease, err := reg.AcquireKey(ctx, in)
		var none *registry.NoKeyError
		if !errors.As(err, &none) {
			return lease, err
		}
		if !slices.ContainsFunc(none.Keys, func(v registry.KeyVerdict) bool { return v.Reason == registry.KeyBusy }) {
			return nil, nil //nolint:nilnil // as documented
		}
	}
}

// checkHeld returns what is wrong with what was held.
func checkHeld(all []held, limits map[uuid.UUID]keyLimits) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	seen, byKey := map[uuid.UUID]bool{}, map[uuid.UUID][]held{}
	for _, h := range all {
		if seen[h.ID] {
			say("lease %s was handed out twice", h.ID)
		}
		seen[h.ID] = true
		byKey[h.Key] = append(byKey[h.Key], h)
	}
	fewest, most := len(all), 0
	for key, l := range limits {
		own := byKey[key]
		if l.requests > 0 && int64(len(own)) > l.requests {
			say("key %s had %d requests of %d", key, len(own), l.requests)
		}
		if n := atOnce(own); l.atOnce > 0 && n > l.atOnce {
			say("key %s was held %d times at once, of %d", key, n, l.atOnce)
		}
		if l.equal {
			fewest, most = min(fewest, len(own)), max(most, len(own))
		}
	}
	if most > fewest+1 {
		say("equal keys were leased %d and %d times", fewest, most)
	}
	return wrong
}

// atOnce returns how many of the intervals overlap at the most.
func atOnce(own []held) (most int64) {
	type end struct{ at, by int64 }
	ends := make([]end, 0, 2*len(own))
	for _, h := range own {
		ends = append(ends, end{h.From, 1}, end{h.To, -1})
	}
	slices.SortFunc(ends, func(a, b end) int {
		if a.at != b.at {
			return int(min(1, max(-1, a.at-b.at)))
		}
		return int(b.by - a.by) // an interval of no length overlaps too
	})
	n := int64(0)
	for _, e := range ends {
		n += e.by
		most = max(most, n)
	}
	return most
}

// checkRecorded demands that the ledger has the request of each lease that was settled, once, and no other.
func checkRecorded(t *testing.T, reg *registry.Registry, all []held) {
	t.Helper()
	want := map[string]uuid.UUID{}
	for _, h := range all {
		if h.Settled {
			want[h.ID.String()] = h.Key
		}
	}
	events, err := reg.Client().UsageEvent.Query().Select(usageevent.FieldRequestID, usageevent.FieldAPIKeyID).
		All(t.Context())
	require.NoError(t, err)
	require.Len(t, events, len(want))
	for _, e := range events {
		require.Equal(t, want[e.RequestID], e.APIKeyID)
		delete(want, e.RequestID)
	}
	require.Empty(t, want, "leases that were lost")
	report, err := reg.VerifyLedger(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Differences)
}

// TestCheckHeld shows that the checker sees each violation.
func TestCheckHeld(t *testing.T) {
	t.Parallel()
	var keys []uuid.UUID
	limits := map[uuid.UUID]keyLimits{}
	for i := range 4 {
		keys = append(keys, uuid.New())
		limits[keys[i]] = keyLimits{atOnce: 2, requests: 10, equal: i < 2}
	}
	var good []held
	for i := range 10 {
		for _, key := range keys {
			for n := range 2 { // two at once, ten in all
				if i < 5 {
					good = append(good, held{ID: uuid.New(), Key: key, From: int64(10*i + n), To: int64(10*i + 5 + n)})
				}
			}
		}
	}
	require.Empty(t, checkHeld(good, limits))
	for name, plant := range map[string]func([]held) []held{
		"handed out twice": func(all []held) []held { all[3].ID = all[20].ID; return all },
		"requests of": func(all []held) []held {
			return append(all, held{ID: uuid.New(), Key: keys[3], From: 1000, To: 1001})
		},
		"at once": func(all []held) []held { all[7].To = 100; return all },
		"equal keys": func(all []held) []held {
			return slices.DeleteFunc(all, func(h held) bool { return h.Key == keys[0] && h.From < 10 })
		},
	} {
		wrong := checkHeld(plant(slices.Clone(good)), limits)
		require.Len(t, wrong, 1, name)
		require.Contains(t, wrong[0], name)
	}
}
