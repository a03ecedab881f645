package registry_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/registry"
)

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

// database makes a database, which is migrated.
func (r replicas) database(t *testing.T) (name string) {
	t.Helper()
	name = fmt.Sprint("db", replicaDatabases.Add(1))
	pgRun(t, r.primary.URL("postgres"), "CREATE DATABASE "+name+" TEMPLATE "+replicaTemplate)
	return name
}

// replicaTemplate is the database that others are copies of, because it takes a while to migrate.
const replicaTemplate = "migrated"

func (r replicas) makeTemplate(t *testing.T) {
	t.Helper()
	pgRun(t, r.primary.URL("postgres"), "CREATE DATABASE "+replicaTemplate)
	openOnce(t, r.primary.URL(replicaTemplate))
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
