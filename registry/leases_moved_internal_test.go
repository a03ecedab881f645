package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
)

// TestPoolMoved moves rows from one provider to another: both pools are forgotten, and a batch that remembers where a
// key was looks again.
func TestPoolMoved(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for name, move := range map[string]func(r *remembering, to *ent.APIKey, lease *Lease) error{
		"keys": func(r *remembering, to *ent.APIKey, _ *Lease) error {
			return r.exec(ctx, "UPDATE api_keys SET provider_id = $1, quota_group_id = NULL", to.ProviderID)
		},
		"groups": func(r *remembering, to *ent.APIKey, _ *Lease) error {
			return r.exec(ctx, "UPDATE quota_groups SET provider_id = $1", to.ProviderID)
		},
		"leases": func(r *remembering, to *ent.APIKey, lease *Lease) error {
			const update = "UPDATE key_leases SET api_key_id = $1, quota_group_id = NULL WHERE id = $2"
			return r.exec(ctx, update, to.ID, lease.ID)
		},
	} {
		r := newRemembering(t)
		to := r.elsewhere(t)
		require.NoError(t, move(r, to, r.lease(t)), name)
		require.False(t, r.remembers(t), name)
	}

	r := newRemembering(t)
	its := r.elsewhere(t)
	moved := AcquireInput{ProviderID: its.ProviderID, Exclude: []uuid.UUID{its.ID}, TTL: time.Hour}
	r.lease(t)
	const update = "UPDATE api_keys SET provider_id = $1, quota_group_id = NULL WHERE id = $2"
	require.NoError(t, r.exec(ctx, update, its.ProviderID, r.key.ID))
	_, err := r.other.AcquireKey(ctx, moved)
	require.NoError(t, err)
	require.NoError(t, r.ObserveHeaders(ctx, r.key.ID, http.Header{"Retry-After": {"60"}}))
	_, err = r.other.AcquireKey(ctx, moved)
	require.ErrorIs(t, err, ErrNoKeyAvailable, "the provider has just said so")
}

// TestPoolOfNoProvider: a provider is gone whose pool a process remembers.
func TestPoolOfNoProvider(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	ctx := t.Context()
	for name, remove := range map[string]func(id uuid.UUID) error{
		"PurgeProvider": func(id uuid.UUID) error { return r.other.PurgeProvider(ctx, id) },
		"DELETE":        func(id uuid.UUID) error { return r.exec(ctx, "DELETE FROM providers WHERE id = $1", id) },
		"TRUNCATE":      func(uuid.UUID) error { return r.exec(ctx, "TRUNCATE providers CASCADE") },
	} {
		p, err := r.CreateProvider(ctx, ProviderInput{Name: "gone"})
		require.NoError(t, err)
		_, err = r.AddAPIKey(ctx, KeyInput{ProviderID: p.ID, APIKey: "sk-test-gone"})
		require.NoError(t, err)
		in := AcquireInput{ProviderID: p.ID, TTL: time.Hour}
		_, err = r.AcquireKey(ctx, in)
		require.NoError(t, err)
		require.NoError(t, remove(p.ID), name)
		_, err = r.AcquireKey(ctx, in)
		require.ErrorIs(t, err, ErrNoKeyAvailable, name)
	}
}

// TestPoolPurged purges a provider while others wait for its pool: they find what they would have found afterwards.
func TestPoolPurged(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	ctx := t.Context()
	key := r.elsewhere(t)
	calls := map[string]struct {
		call func() error
		want error
	}{
		"AcquireKey": {call: func() error {
			_, err := r.AcquireKey(ctx, AcquireInput{ProviderID: key.ProviderID, TTL: time.Hour})
			return err
		}, want: ErrNoKeyAvailable},
		"DegradeKey":      {call: func() error { return r.DegradeKey(ctx, key.ID, "x", time.Hour) }, want: ErrNotFound},
		"ResetDailyUsage": {call: func() error { _, err := r.ResetDailyUsage(ctx); return err }},
		"UPDATE": {call: func() error {
			return r.exec(ctx, "UPDATE api_keys SET label = 'x' WHERE provider_id = $1", r.provider.ID)
		}},
	}
	var all sync.WaitGroup
	var errs sync.Map
	require.NoError(t, r.other.InTx(ctx, func(tx *Registry) error {
		if err := tx.PurgeProvider(ctx, key.ProviderID); err != nil {
			return err
		}
		for name, c := range calls {
			all.Go(func() { errs.Store(name, c.call()) })
		}
		require.Eventually(t, func() bool {
			rows, err := r.client.QueryContext(ctx, "SELECT 1 FROM pg_stat_activity"+
				" WHERE datname = current_database() AND wait_event_type = 'Lock'")
			require.NoError(t, err)
			n := 0
			for ; rows.Next(); n++ {
			}
			require.NoError(t, errors.Join(rows.Err(), rows.Close()))
			return n >= 3
		}, 20*time.Second, time.Millisecond)
		return nil
	}))
	all.Wait()
	for name, c := range calls {
		got, _ := errs.Load(name)
		err, _ := got.(error)
		require.ErrorIs(t, err, c.want, name)
	}
}

// TestPoolBesideEnt leases keys that somebody updates through Ent's client meanwhile, who takes the row before the
// pool: neither waits for the other in vain.
func TestPoolBesideEnt(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	var all sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	errs := make([]error, 2)
	for i := range errs {
		all.Go(func() {
			for ctx.Err() == nil && errs[i] == nil {
				lease, err := r.AcquireKey(t.Context(), AcquireInput{ProviderID: r.provider.ID, TTL: time.Hour})
				if err == nil {
					err = lease.Release(t.Context())
				}
				errs[i] = err
			}
		})
	}
	for n := range sample.Of(300) {
		err := r.other.Past().APIKey.UpdateOneID(r.key.ID).SetLabel(fmt.Sprint(n)).Exec(ctx)
		require.NoError(t, err, "update %d", n)
	}
	stop()
	all.Wait()
	require.NoError(t, errors.Join(errs...))
}

// TestPoolTrigger: the function of the triggers, which has its owner's rights, is not for tables of others.
func TestPoolTrigger(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	ctx := t.Context()
	require.NoError(t, r.exec(ctx, "CREATE TABLE mine (provider_id uuid)"))
	require.NoError(t, r.exec(ctx, "CREATE TRIGGER mine AFTER TRUNCATE ON mine"+
		" FOR EACH STATEMENT EXECUTE FUNCTION pool_changed()"))
	require.ErrorContains(t, r.exec(ctx, "TRUNCATE mine"), "pool_changed is not for table mine")
	require.ErrorIs(t, r.InTx(ctx, func(tx *Registry) error {
		_, err := tx.client.ExecContext(ctx, "SET LOCAL ROLE pg_monitor") // one that has no rights here
		require.NoError(t, err)
		_, err = tx.client.ExecContext(ctx, "CREATE TEMP TABLE mine (provider_id uuid)")
		require.NoError(t, err)
		const trigger = "CREATE TRIGGER mine AFTER TRUNCATE ON pg_temp.mine" +
			" FOR EACH STATEMENT EXECUTE FUNCTION public.pool_changed()"
		_, err = tx.client.ExecContext(ctx, trigger)
		require.ErrorContains(t, err, "permission denied for function public.pool_changed")
		return errors.ErrUnsupported
	}), errors.ErrUnsupported)
}

// TestMemoryIsBounded asks again and again for keys of unknown providers.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	reg, err := Open(t.Context(), ":memory:")
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	for range commit.MaxRemembered {
		_, err := reg.AcquireKey(t.Context(), AcquireInput{ProviderID: uuid.New(), TTL: time.Hour})
		require.ErrorIs(t, err, ErrNoKeyAvailable)
	}
	require.LessOrEqual(t, len(reg.commits.Last().Pools)+len(reg.commits.Last().Providers), commit.MaxRemembered+2)
}
