package registry_test

// These tests read from a standby, and have no source of their own.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/registry"
)

func init() { faultChildren["replica leak"] = replicaLeak }

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
	database, other := r.database(t), r.database(t)
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
	for i := range 10 { // closed early and late
		reg, err := registry.Open(ctx, args[0], registry.WithReadReplica(args[1]))
		if err != nil {
			return err
		}
		for range 6 * i {
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
