package registry_test

// These tests read from a standby, and have no source of their own.

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestReplica runs one pair of servers for all its tests, one after the other: some stop the standby.
func TestReplica(t *testing.T) {
	t.Parallel()
	primary := pgCluster(t, "max_connections = 100")
	standby, err := primary.Standby(t.Context(), "max_standby_streaming_delay = 0", "hot_standby_feedback = off")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Close()) })
	pair := replicas{primary, standby}
	pair.makeTemplate(t)

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
	require.Eventually(t, func() bool { // it has the last row of openOperations, and all before
		n, err := reg.Client().BudgetCrossing.Query().Count(t.Context())
		return err == nil && n == 1
	}, replicaPatience, 10*time.Millisecond)

	// The last statement of a connection stays to be seen. Each operation brings some to the standby
	// that a look at its position may hide, and so it is called until one is seen.
	db := failoverDB(t, r.standby.URL(database))
	last := func() (queries string, err error) {
		err = db.QueryRowContext(t.Context(), "SELECT coalesce(string_agg(query, ' '), '') FROM pg_stat_activity"+
			" WHERE application_name = $1 AND query NOT LIKE '%pg_last_wal_replay_lsn%'", mark).Scan(&queries)
		return queries, err
	}
	tables := map[string]string{
		"FindAPIKey": "api_keys", "GetAPIKey": "api_keys", "FindModel": "models", "FindProvider": "providers",
		"GetModel": "models", "GetProvider": "providers",
		"GetCostBreakdown": "usage_totals", "ListUsageEvents": "usage_events", "PriceHistory": "prices",
		"UnpricedUsage": "usage_totals", "UsageReport": "usage_horizons",
		"GetModelsByProvider": "models", "GetRecentDiscoveries": "discovery_logs",
		"GetSetting": "settings", "GetUsageStats": "usage_horizons", "ListModels": "models", "ListAPIKeys": "api_keys",
		"PriceAt": "prices", "LatestSDKVersion": "sdk_versions", "ListAudit": "audit_log",
		"GetConsumer": "consumers", "FindConsumer": "consumers", "ListConsumers": "consumers",
		"GetAccessKey": "access_keys", "ListAccessKeys": "access_keys",
		"GetBudget": "budgets", "FindBudget": "budgets", "ListBudgets": "budgets", "GetGrant": "budget_grants",
		"ListGrants": "budget_grants", "ListBudgetCrossings": "budget_crossings",
		"GetDimension": "dimensions", "FindDimension": "dimensions", "ListDimensions": "dimensions",
	}
	asksPrimary := []string{
		"Authenticate", "ExplainBudgets", "ExplainKeys", "GetLease", "GetLeastUsedKey", "PoolHealth", "RevealAPIKey",
		"VerifyLedger",
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
			var seen string
			if err == nil {
				seen, err = last()
			}
			if err != nil {
				t.Logf("%s: %v", name, err)
				return false
			}
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
		tick := time.NewTicker(5 * time.Millisecond)
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
