package registry_test

// These tests read from a standby, and have no source of their own.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/registry"
)

func init() { faultChildren["replica leak"] = replicaLeak }

const (
	// replicaAge is how old an answer may be.
	replicaAge = time.Second
	// replicaPatience is how long it may take until a replica is used again, on a busy machine.
	replicaPatience = 30 * time.Second
)

// replicas are a server and a standby that follows it.
type replicas struct{ primary, standby *pgtest.Cluster }

// open returns a registry on a new database, whose replica is used.
func (r replicas) open(t *testing.T, options ...registry.Option) *registry.Registry {
	t.Helper()
	return r.openAt(t, r.standby.URL, options...)
}

// openAt is open with another way to the replica.
func (r replicas) openAt(
	t *testing.T, way func(database string) string, options ...registry.Option,
) *registry.Registry {
	t.Helper()
	database := r.database(t)
	reg, err := registry.Open(
		t.Context(), r.primary.URL(database), append(options, registry.WithReadReplica(way(database)))...,
	)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	replicaUsed(t, reg, true)
	return reg
}

var replicaDatabases atomic.Int32

func (r replicas) database(t *testing.T) (name string) {
	t.Helper()
	name = fmt.Sprint("db", replicaDatabases.Add(1))
	pgRun(t, r.primary.URL("postgres"), "CREATE DATABASE "+name+" TEMPLATE template0")
	return name
}

// replicaReads reports whether the replica answers a read.
func replicaReads(ctx context.Context, reg *registry.Registry) (bool, error) {
	return pgQuery[bool](ctx, reg, "SELECT pg_is_in_recovery()")
}

// replicaUsed waits until the replica is used, or is not.
func replicaUsed(t *testing.T, reg *registry.Registry, want bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		is, err := replicaReads(t.Context(), reg)
		require.NoError(t, err)
		return is == want
	}, replicaPatience, 10*time.Millisecond, "used: %v", !want)
}

// pause stops the standby from replaying what it gets, until resume is called.
func (r replicas) pause(t *testing.T) (resume func()) {
	t.Helper()
	url := r.standby.URL("postgres")
	pgRun(t, url, "SELECT pg_wal_replay_pause()")
	require.Eventually(t, func() bool {
		return pgValue[string](t, url, "SELECT pg_get_wal_replay_pause_state()") == "paused"
	}, replicaPatience, time.Millisecond)
	return func() { pgRun(t, url, "SELECT pg_wal_replay_resume()") }
}

// replicaLoad reads settings from several goroutines, every five milliseconds, until stop, which returns how many
// reads there were and how long the longest took. None may fail.
func replicaLoad(t *testing.T, reg *registry.Registry) (stop func() (reads int64, longest time.Duration)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var (
		all   sync.WaitGroup
		mu    sync.Mutex
		fails error
		reads int64
		most  time.Duration
	)
	for range 4 {
		all.Go(func() {
			for tick := time.NewTicker(5 * time.Millisecond); ctx.Err() == nil; <-tick.C {
				begin := time.Now()
				_, err := reg.GetSetting(t.Context(), "kept")
				took := time.Since(begin)
				mu.Lock()
				reads, most, fails = reads+1, max(most, took), errors.Join(fails, err)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	stop = func() (int64, time.Duration) {
		cancel()
		all.Wait()
		require.NoError(t, fails)
		return reads, most
	}
	t.Cleanup(func() { cancel(); all.Wait() })
	return stop
}

// TestReplica runs one pair of servers for all its tests, one after the other: some stop the standby.
func TestReplica(t *testing.T) {
	t.Parallel()
	primary := pgCluster(t, "max_connections = 100")
	standby, err := primary.Standby(t.Context(), "max_standby_streaming_delay = 0", "hot_standby_feedback = off")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Close()) })
	pair := replicas{primary, standby}

	t.Run("OK_reads", pair.testReads)
	t.Run("OK_stale_and_fresh", pair.testFresh)
	t.Run("OK_never_too_old", pair.testAge)
	t.Run("OK_stopped_and_killed", pair.testGone)
	t.Run("OK_stalled", pair.testStalled)
	t.Run("OK_conflict", pair.testConflict)
	t.Run("OK_not_there_at_open", pair.testNotThere)
	t.Run("OK_nothing_left", pair.testLeak)
}

// testReads shows which statements reach the standby: those of plain reads, and no others.
func (r replicas) testReads(t *testing.T) {
	database := r.database(t)
	mark := "reads_of_" + database
	reg, err := registry.Open(
		t.Context(), r.primary.URL(database),
		registry.WithReadReplica(r.standby.URL(database)+"&application_name="+mark), registry.WithKeyring(ring(t, "a")),
	)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	operations := openOperations(t, reg)
	replicaUsed(t, reg, true)
	require.Eventually(t, func() bool { // it has the last rows
		n, err := reg.Client().QuotaGroup.Query().Count(t.Context())
		return err == nil && n == 2
	}, replicaPatience, 10*time.Millisecond)

	// The last statement of a connection stays to be seen. Each operation brings some to the standby
	// that a look at its position may hide, and so it is called until one is seen.
	last := func() string {
		return pgValue[string](t, r.standby.URL(database), "SELECT coalesce(string_agg(query, ' '), '') FROM"+
			" pg_stat_activity"+
			" WHERE application_name = $1 AND query NOT LIKE '%pg_last_wal_replay_lsn%'", mark)
	}
	tables := map[string]string{
		"FindAPIKey": "api_keys", "GetAPIKey": "api_keys", "FindModel": "models", "FindProvider": "providers",
		"GetModel": "models", "GetProvider": "providers",
		"GetCostBreakdown": "usage_totals", "ListUsageEvents": "usage_events", "PriceHistory": "prices",
		"UnpricedUsage": "usage_totals", "UsageReport": "usage_horizons",
		"GetModelsByProvider": "models", "GetRecentDiscoveries": "discovery_logs",
		"GetSetting": "settings", "GetUsageStats": "usage_horizons", "ListModels": "models", "ListAPIKeys": "api_keys",
		"PriceAt": "prices", "LatestSDKVersion": "sdk_versions", "ListAudit": "audit_log",
	}
	asksPrimary := []string{
		"ExplainKeys", "GetLease", "GetLeastUsedKey", "PoolHealth", "RevealAPIKey", "VerifyLedger",
	}
	for name, operate := range operations {
		if !openReads(name) || slices.Contains(asksPrimary, name) {
			continue
		}
		table, known := tables[name]
		require.Eventually(t, func() bool {
			// On a goroutine of its own, which may outlive the test when the machine is busy: an error is another try.
			err := openSecond(pgQuery[int](t.Context(), reg, "SELECT 1 AS nothing"))
			if err == nil {
				err = operate(t.Context(), reg)
			}
			if err != nil {
				t.Logf("%s: %v", name, err)
				return false
			}
			seen := last()
			return strings.Contains(seen, `"`+table+`"`) || strings.Contains(seen, " "+table+" ") ||
				!known && strings.Contains(seen, `FROM "`)
		}, replicaPatience, time.Millisecond, "%s is not seen at the standby", name)
	}
	t.Logf("%d operations read at the standby", len(tables))

	// What is read within a transaction is not: not by the client, and not by operations.
	require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
		for range 20 {
			at, err := replicaReads(t.Context(), tx)
			require.NoError(t, err)
			require.False(t, at)
		}
		if err := tx.SetSetting(t.Context(), "mine", "1"); err != nil {
			return err
		}
		require.Equal(t, "1", must(tx.GetSetting(t.Context(), "mine")))
		return tx.InTx(t.Context(), func(tx *registry.Registry) error {
			at, err := replicaReads(t.Context(), tx)
			require.False(t, at)
			return err
		})
	}))
	// What could write goes to the primary, though it begins like a read.
	require.False(t, must(pgQuery[bool](t.Context(), reg, "WITH x AS (SELECT 1) SELECT pg_is_in_recovery()")))
	for name, operate := range operations {
		if !openReads(name) {
			require.NoError(t, operate(t.Context(), reg), name) // the standby would refuse it
		}
	}
}

// testFresh pauses the standby: what goes there is old, and so one sees what does.
func (r replicas) testFresh(t *testing.T) {
	reg := r.open(t)
	p := mustProvider(t, reg, "openai")
	m := mustModel(t, reg, p.ID, "gpt-4", gpt4())
	one, two := mustKey(t, reg, p.ID, 1), mustKey(t, reg, p.ID, 2)
	require.NoError(t, reg.SetSetting(t.Context(), "kept", "old"))
	require.Eventually(t, func() bool {
		at, err := replicaReads(t.Context(), reg)
		require.NoError(t, err)
		_, err = reg.GetSetting(t.Context(), "kept")
		return at && err == nil
	}, replicaPatience, time.Millisecond)

	// The standby may be used for a moment yet. That moment can be over on a busy machine, and then
	// there is another.
	var stale, fresh int
	for range 10 {
		if stale > 0 {
			break
		}
		resume := r.pause(t)
		require.NoError(t, reg.SetSetting(t.Context(), "kept", "new"))
		for range 10 {
			// Never from the standby: the key that has served least is the other one each time.
			record(t, reg, m, one, 1, 1)
			require.Equal(t, two.ID, must(reg.GetLeastUsedKey(t.Context(), p.ID)).ID)
			record(t, reg, m, two, 1, 1)
			require.Equal(t, one.ID, must(reg.GetLeastUsedKey(t.Context(), p.ID)).ID)
			require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
				require.Equal(t, "new", must(tx.GetSetting(t.Context(), "kept")))
				return nil
			}))
			if must(reg.GetSetting(t.Context(), "kept")) == "old" {
				stale++
			} else {
				fresh++
			}
		}
		// All of them are disabled: the reason for each is as of now, too.
		for _, k := range []string{one.ID.String(), two.ID.String()} {
			_, err := reg.Client().ExecContext(t.Context(), "UPDATE api_keys SET disabled = true WHERE id = $1", k)
			require.NoError(t, err)
		}
		var none *registry.NoKeyError
		_, err := reg.GetLeastUsedKey(t.Context(), p.ID)
		require.ErrorAs(t, err, &none)
		require.Len(t, none.Keys, 2)
		_, err = reg.Client().ExecContext(t.Context(), "UPDATE api_keys SET disabled = false")
		require.NoError(t, err)

		// And not at all when it is too far behind.
		replicaUsed(t, reg, false)
		require.Never(t, func() bool {
			at, err := replicaReads(t.Context(), reg)
			return err != nil || at || must(reg.GetSetting(t.Context(), "kept")) != "new"
		}, time.Second, 10*time.Millisecond, "it is used though it is behind")
		resume()
		replicaUsed(t, reg, true)
		require.NoError(t, reg.SetSetting(t.Context(), "kept", "old"))
		require.Eventually(t, func() bool {
			at, err := replicaReads(t.Context(), reg)
			require.NoError(t, err)
			return at && must(reg.GetSetting(t.Context(), "kept")) == "old"
		}, replicaPatience, time.Millisecond)
	}
	require.Positive(t, stale, "no read went to the standby")
	t.Logf("while it was paused: %d reads of the standby, %d of the primary", stale, fresh)
}

// testAge pauses and resumes the standby again and again: what a read returns had been there at most
// a second before the read began.
func (r replicas) testAge(t *testing.T) {
	reg := r.open(t)
	require.NoError(t, reg.SetSetting(t.Context(), "kept", "0"))
	require.Eventually(t, func() bool {
		_, err := reg.GetSetting(t.Context(), "kept")
		return err == nil
	}, replicaPatience, time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	var (
		all       sync.WaitGroup
		mu        sync.Mutex
		committed = []time.Time{time.Now()} // of each value
		fails     error
		oldest    time.Duration
		reads     int
	)
	all.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		for n := 1; ctx.Err() == nil; n++ {
			err := reg.SetSetting(t.Context(), "kept", strconv.Itoa(n))
			mu.Lock()
			committed, fails = append(committed, time.Now()), errors.Join(fails, err)
			mu.Unlock()
			<-tick.C
		}
	})
	for range 2 {
		all.Go(func() {
			for tick := time.NewTicker(5 * time.Millisecond); ctx.Err() == nil; <-tick.C {
				begin := time.Now()
				text, err := reg.GetSetting(t.Context(), "kept")
				var n int
				if err == nil {
					n, err = strconv.Atoi(text)
				}
				mu.Lock()
				reads++
				if n+1 < len(committed) { // there was a newer one
					if age := begin.Sub(committed[n+1]); age > oldest {
						oldest = age
					}
				}
				fails = errors.Join(fails, err)
				mu.Unlock()
			}
		})
	}
	for range 2 {
		resume := r.pause(t)
		replicaUsed(t, reg, false)
		resume()
		replicaUsed(t, reg, true)
	}
	cancel()
	all.Wait()
	require.NoError(t, fails)
	require.LessOrEqual(t, oldest, replicaAge)
	require.Greater(t, oldest, replicaAge/20, "nothing was read at the standby while it was paused")
	t.Logf(
		"%d reads of %d values; the oldest answer had been overtaken %s before it was asked for", reads, len(committed),
		oldest.Round(time.Millisecond),
	)
}

// testGone stops the standby in each way there is, and starts it again.
func (r replicas) testGone(t *testing.T) {
	reg := r.open(t)
	require.NoError(t, reg.SetSetting(t.Context(), "kept", "1"))
	replicaUsed(t, reg, true)
	for name, stop := range map[string]func() error{
		"fast":      func() error { return r.standby.Stop(t.Context(), pgtest.Fast) },
		"immediate": func() error { return r.standby.Stop(t.Context(), pgtest.Immediate) },
		"kill":      r.standby.Kill,
	} {
		require.Eventually(t, func() bool { // it has the row
			at, err := replicaReads(t.Context(), reg)
			require.NoError(t, err)
			_, err = reg.GetSetting(t.Context(), "kept")
			return at && err == nil
		}, replicaPatience, time.Millisecond)
		finish := replicaLoad(t, reg)
		begin := time.Now()
		require.NoError(t, stop())
		replicaUsed(t, reg, false)
		require.NoError(t, r.standby.Run(t.Context()))
		replicaUsed(t, reg, true)
		away := time.Since(begin)
		reads, longest := finish()
		t.Logf(
			"%s: %d reads in %s, none failed, the longest took %s", name, reads, away.Round(time.Millisecond),
			longest.Round(time.Millisecond),
		)
		require.Less(t, longest, 2*replicaAge)
	}
}

// testStalled holds up the way to the standby, which answers no more and refuses nothing.
func (r replicas) testStalled(t *testing.T) {
	proxy := pgProxyTo(t, pgHost(t, r.standby.URL("postgres")))
	reg := r.openAt(t, func(database string) string { return proxy.url(t, r.standby.URL(database)) })
	require.NoError(t, reg.SetSetting(t.Context(), "kept", "1"))
	require.Eventually(t, func() bool {
		_, err := reg.GetSetting(t.Context(), "kept")
		return err == nil
	}, replicaPatience, time.Millisecond)
	for _, cut := range []bool{false, true} {
		finish := replicaLoad(t, reg)
		proxy.set(true, cut)
		replicaUsed(t, reg, false)
		require.NoError(t, reg.SetSetting(t.Context(), "meanwhile", "works"))
		proxy.set(false, false)
		replicaUsed(t, reg, true)
		reads, longest := finish()
		t.Logf("cut %v: %d reads, none failed, the longest took %s", cut, reads, longest.Round(time.Millisecond))
		require.Less(t, longest, 3*replicaAge)
	}
}

// testConflict lets the standby cancel reads because the primary has removed the rows that they see.
func (r replicas) testConflict(t *testing.T) {
	reg := r.open(t)
	for i := range 50 {
		require.NoError(t, reg.SetSetting(t.Context(), fmt.Sprint("k", i), "v"))
	}
	require.Eventually(t, func() bool {
		n, err := pgQuery[int](t.Context(), reg, "SELECT count(*) FROM settings")
		require.NoError(t, err)
		at, err := replicaReads(t.Context(), reg)
		require.NoError(t, err)
		return at && n >= 50
	}, replicaPatience, 10*time.Millisecond)
	database := must(pgQuery[string](t.Context(), reg, "SELECT current_database()"))
	conflicts := func() int {
		return pgValue[int](
			t, r.standby.URL(database),
			"SELECT confl_snapshot + confl_lock FROM pg_stat_database_conflicts WHERE datname = $1", database,
		)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	errs, reads := make([]error, 4), make([]int, 4)
	for i := range errs {
		all.Go(func() {
			for ctx.Err() == nil && errs[i] == nil {
				var n int
				if i%2 == 0 {
					n, errs[i] = pgQuery[int](t.Context(), reg, "SELECT count(*) FROM settings, pg_sleep(0.05)")
				} else { // canceled when a part of the rows has come
					n, errs[i] = replicaRows(
						t.Context(), reg, "SELECT repeat(key, 2000), pg_sleep(0.002) FROM settings",
					)
				}
				if errs[i] == nil && n < 50 {
					errs[i] = fmt.Errorf("%d rows", n)
				}
				reads[i]++
			}
		})
	}
	require.Eventually(t, func() bool {
		for i := range 50 {
			require.NoError(t, reg.SetSetting(t.Context(), fmt.Sprint("k", i), "other"))
		}
		pgRun(t, r.primary.URL(database), "VACUUM settings")
		return conflicts() >= 3
	}, replicaPatience, 10*time.Millisecond, "the standby canceled nothing")
	cancel()
	all.Wait()
	require.NoError(t, errors.Join(errs...))
	sum := 0
	for _, n := range reads {
		sum += n
	}
	t.Logf("%d reads, %d canceled by the standby, none failed", sum, conflicts())
}

// replicaRows returns how many rows a query has.
func replicaRows(ctx context.Context, reg *registry.Registry, query string) (n int, err error) {
	rows, err := reg.Client().QueryContext(ctx, query)
	if err != nil {
		return 0, err
	}
	for rows.Next() {
		n++
	}
	return n, errors.Join(rows.Err(), rows.Close())
}

// testNotThere opens registries whose replica is missing, or is another server.
func (r replicas) testNotThere(t *testing.T) {
	hole := pgFake(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	database := r.database(t)
	openOnce(t, r.primary.URL(database))
	other := r.database(t)
	openOnce(t, r.primary.URL(other))
	for name, replica := range map[string]string{
		"refused":        "postgres://user:hunter2@" + pgRefused(t) + "/db",
		"black hole":     "postgres://user:hunter2@" + hole + "/db?sslmode=disable",
		"unknown":        "postgres://user:hunter2@modelscan.invalid/db",
		"wrong user":     pgAs(t, r.standby.URL(database), "nobody"),
		"no database":    r.standby.URL("missing"),
		"the primary":    r.primary.URL(database),
		"another one's":  r.primary.URL("postgres"),
		"other database": r.standby.URL(other),
	} {
		opened, closed := time.Hour, time.Hour
		for try := 0; try < 3 && (opened >= 4*replicaAge || closed >= replicaAge); try++ { // on a machine that is busy
			opened, closed = r.useWithout(t, database, replica)
		}
		require.Less(t, opened, 4*replicaAge, "%s: something waits for the replica", name)
		require.Less(t, closed, replicaAge, "%s: Close waits for the replica", name)
	}
	// It comes later: it is found.
	proxy := pgProxyTo(t, pgHost(t, r.standby.URL(database)))
	proxy.set(false, true)
	reg, err := registry.Open(
		t.Context(), r.primary.URL(database), registry.WithReadReplica(proxy.url(t, r.standby.URL(database))),
	)
	require.NoError(t, err)
	at, err := replicaReads(t.Context(), reg)
	require.NoError(t, err)
	require.False(t, at)
	proxy.set(false, false)
	replicaUsed(t, reg, true)
	require.NoError(t, reg.Close())
	require.ErrorIs(t, openSecond(reg.GetSetting(t.Context(), "kept")), registry.ErrClosed)
}

// useWithout reads and writes while there is no replica, and returns how long that took, and Close.
func (r replicas) useWithout(t *testing.T, database, replica string) (used, closed time.Duration) {
	t.Helper()
	begin := time.Now()
	reg, err := registry.Open(t.Context(), r.primary.URL(database), registry.WithReadReplica(replica))
	require.NoError(t, err)
	for range 30 {
		at, err := replicaReads(t.Context(), reg)
		require.NoError(t, err)
		require.False(t, at)
		<-time.After(20 * time.Millisecond)
	}
	for i := range 20 {
		value := fmt.Sprint(i)
		require.NoError(t, reg.SetSetting(t.Context(), "kept", value))
		require.Equal(t, value, must(reg.GetSetting(t.Context(), "kept")))
	}
	used, begin = time.Since(begin), time.Now()
	require.NoError(t, reg.Close())
	return used, time.Since(begin)
}

// testLeak opens and closes registries in a process of its own, where nothing else runs.
func (r replicas) testLeak(t *testing.T) {
	hole := pgFake(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	database := r.database(t)
	openOnce(t, r.primary.URL(database))
	for name, replica := range map[string]string{
		"used": r.standby.URL(database), "refused": "postgres://" + pgRefused(t) +
			"/db", "black hole": "postgres://" + hole + "/db?sslmode=disable",
	} {
		out, err := faultChild(t, "replica leak", r.primary.URL(database), replica).CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
	}
	require.Eventually(t, func() bool {
		return pgValue[int](
			t, r.standby.URL("postgres"), "SELECT count(*) FROM pg_stat_activity WHERE datname = $1", database,
		) == 0
	}, replicaPatience, 10*time.Millisecond, "a connection is left")
}

// replicaLeak fails if a goroutine is left when registries are closed.
func replicaLeak(ctx context.Context, args ...string) error {
	before := runtime.NumGoroutine()
	for i := range 20 { // closed early and late
		reg, err := registry.Open(ctx, args[0], registry.WithReadReplica(args[1]))
		if err != nil {
			return err
		}
		for range 3 * i {
			_, err = reg.GetSetting(ctx, "opened")
			if err != nil {
				return errors.Join(err, reg.Close())
			}
		}
		if err := reg.Close(); err != nil {
			return err
		}
	}
	deadline, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for runtime.NumGoroutine() > before {
		select {
		case <-deadline.Done():
			stacks := make([]byte, 1<<20)
			return fmt.Errorf(
				"%d goroutines are left of %d:\n%s", runtime.NumGoroutine()-before, before,
				stacks[:runtime.Stack(stacks, true)],
			)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}
