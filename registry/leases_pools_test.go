package registry_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// These tests are about what operations of one process have another one remember of a pool. The tests of package commit
// compare the memory itself with the database.

// TestPoolIsRemembered: what does not change the keys, groups and leases of a provider leaves a process what it
// remembers of them.
func TestPoolIsRemembered(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	ctx := t.Context()
	its := r.elsewhere(t)
	for name, change := range map[string]func() error{
		"nothing": func() error { return nil },
		"UpdateProvider": func() error {
			_, err := r.UpdateProvider(ctx, r.provider.ID, registry.ProviderUpdate{Description: new("x")})
			return err
		},
		"CreateModel": func() error {
			_, err := r.CreateModel(ctx, registry.ModelInput{ProviderID: r.provider.ID, ModelID: "n"})
			return err
		},
		"ExplainKeys": func() error {
			_, err := r.ExplainKeys(ctx, registry.AcquireInput{ProviderID: r.provider.ID})
			return err
		},
		"another pool": func() error { return r.other.DegradeKey(ctx, its.ID, "x", time.Hour) },
		"rolled back": func() error {
			err := r.other.InTx(ctx, func(tx *registry.Registry) error {
				return errors.Join(tx.DegradeKey(ctx, r.key.ID, "x", time.Hour), errors.ErrUnsupported)
			})
			if !errors.Is(err, errors.ErrUnsupported) {
				return err
			}
			return nil
		},
	} {
		lease := r.lease(t)
		require.NoError(t, change(), name)
		require.True(t, r.remembers(t), name)
		require.NoError(t, lease.Release(ctx))
	}
}

// poolChange is what changes keys, groups or leases of a provider.
type poolChange struct {
	name   string
	change func() error
}

// changesOfOthers are those of another registry.
func changesOfOthers(t *testing.T, r *remembering) []poolChange {
	t.Helper()
	ctx, id := t.Context(), r.key.ID
	its := r.elsewhere(t)
	in := registry.AcquireInput{ProviderID: r.provider.ID, ModelID: r.model.ID, TTL: time.Hour}
	open, err := r.AcquireKey(ctx, in)
	require.NoError(t, err)
	renew := func(reg *registry.Registry) error {
		l, err := reg.GetLease(ctx, open.ID)
		if err != nil {
			return err
		}
		return l.Renew(ctx, registry.RenewInput{TTL: 2 * time.Hour, EstimatedTokens: 10})
	}
	used := registry.UsageInput{ModelID: r.model.ID, APIKeyID: id, Tokens: meter.Tokens{InputTokens: 5}}
	spare := r.add(t, uuid.Nil)
	var made *ent.QuotaGroup
	ignore := func(_ any, err error) error { return err }
	update := func(up registry.KeyUpdate) error { return ignore(r.other.UpdateAPIKey(ctx, id, up)) }
	within := func(do func(tx *registry.Registry) error) error { return r.other.InTx(ctx, do) }
	return []poolChange{
		{name: "UpdateAPIKey", change: func() error { return update(registry.KeyUpdate{Weight: new(2)}) }},
		{name: "disable", change: func() error { return update(registry.KeyUpdate{Disabled: new(true)}) }},
		{name: "enable", change: func() error { return update(registry.KeyUpdate{Disabled: new(false)}) }},
		{name: "DegradeKey", change: func() error { return r.other.DegradeKey(ctx, id, "x", time.Hour) }},
		{name: "RestoreKey", change: func() error { return r.other.RestoreKey(ctx, id) }},
		{name: "IncrementUsage", change: func() error { return r.other.IncrementUsage(ctx, id, 1, 1) }},
		{name: "RecordUsage", change: func() error { return r.other.RecordUsage(ctx, used) }},
		{
			name:   "RecordUsageBatch",
			change: func() error { return r.other.RecordUsageBatch(ctx, []registry.UsageInput{used, used}) },
		},
		{
			name:   "ObserveHeaders",
			change: func() error { return r.other.ObserveHeaders(ctx, id, http.Header{"Retry-After": {"1"}}) },
		},
		{name: "ResetDailyUsage", change: func() error { return ignore(r.other.ResetDailyUsage(ctx)) }},
		{name: "AddAPIKey", change: func() error {
			in := registry.KeyInput{ProviderID: r.provider.ID, APIKey: "sk-test-another-one"}
			return ignore(r.other.AddAPIKey(ctx, in))
		}},
		{name: "RotateAPIKey", change: func() error {
			return ignore(r.other.RotateAPIKey(ctx, spare.ID, registry.KeyRotationInput{APIKey: "sk-test-rotated"}))
		}},
		{name: "DeleteAPIKey", change: func() error { return r.other.DeleteAPIKey(ctx, spare.ID) }},
		{name: "UndeleteAPIKey", change: func() error { return ignore(r.other.UndeleteAPIKey(ctx, spare.ID)) }},
		{name: "PurgeAPIKey", change: func() error { return r.other.PurgeAPIKey(ctx, spare.ID) }},
		{name: "CreateQuotaGroup", change: func() (err error) {
			made, err = r.other.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: r.provider.ID, Name: "h"})
			return err
		}},
		{name: "UpdateQuotaGroup", change: func() error {
			up := registry.QuotaGroupUpdate{Limits: &registry.Limits{Concurrency: 9}}
			return ignore(r.other.UpdateQuotaGroup(ctx, made.ID, up))
		}},
		{name: "DeleteQuotaGroup", change: func() error { return r.other.DeleteQuotaGroup(ctx, made.ID) }},
		{name: "AcquireKey", change: func() error { return ignore(r.other.AcquireKey(ctx, in)) }},
		{name: "AcquireKey in a transaction", change: func() error {
			return within(func(tx *registry.Registry) error { return ignore(tx.AcquireKey(ctx, in)) })
		}},
		{name: "Renew", change: func() error { return renew(r.other) }},
		{name: "Renew in a transaction", change: func() error { return within(renew) }},
		{name: "Renew in a transaction of its own", change: func() error { return r.InTx(ctx, renew) }},
		{name: "RecordUsage in a transaction", change: func() error {
			return within(func(tx *registry.Registry) error { return tx.RecordUsage(ctx, used) })
		}},
		{name: "AcquireKey in a transaction of its own", change: func() error {
			return r.InTx(ctx, func(tx *registry.Registry) error { return ignore(tx.AcquireKey(ctx, in)) })
		}},
		{name: "Ent, after a request of another provider", change: func() error {
			return within(func(tx *registry.Registry) error {
				if err := tx.ObserveHeaders(ctx, its.ID, http.Header{"Retry-After": {"1"}}); err != nil {
					return err
				}
				return tx.Past().APIKey.UpdateOneID(id).SetLabel("after").Exec(ctx)
			})
		}},
		{name: "PurgeModel", change: func() error {
			m, err := r.CreateModel(ctx, registry.ModelInput{ProviderID: r.provider.ID, ModelID: "gone"})
			if err == nil {
				err = r.other.PurgeModel(ctx, m.ID)
			}
			return errors.Join(err, r.Past().APIKey.UpdateOneID(id).SetLabel("none of its leases was open").Exec(ctx))
		}},
		{name: "DeleteProvider", change: func() error { return r.other.DeleteProvider(ctx, r.provider.ID) }},
		{
			name:   "UndeleteProvider",
			change: func() error { return ignore(r.other.UndeleteProvider(ctx, r.provider.ID)) },
		},
	}
}

// TestPoolIsForgotten: every operation that changes keys, groups or leases of a provider has other processes forget
// what they remember of them.
func TestPoolIsForgotten(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	for _, c := range changesOfOthers(t, r) {
		if c.name == "UndeleteProvider" { // there is nothing to lease before
			require.NoError(t, c.change(), c.name)
			continue
		}
		r.lease(t)
		require.NoError(t, c.change(), c.name)
		require.False(t, r.remembers(t), c.name)
	}
	r.lease(t)
	r.requireKnown(t, r.Registry, r.provider.ID)
}

// TestPoolOfPurgedProvider: a provider is purged whose pool another process remembers.
func TestPoolOfPurgedProvider(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	r.lease(t)
	require.NoError(t, r.other.PurgeProvider(t.Context(), r.provider.ID))
	_, err := r.AcquireKey(t.Context(), registry.AcquireInput{ProviderID: r.provider.ID, TTL: time.Hour})
	require.ErrorIs(t, err, registry.ErrNoKeyAvailable)
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
			_, err := r.AcquireKey(ctx, registry.AcquireInput{ProviderID: key.ProviderID, TTL: time.Hour})
			return err
		}, want: registry.ErrNoKeyAvailable},
		"DegradeKey": {call: func() error {
			return r.DegradeKey(ctx, key.ID, "x", time.Hour)
		}, want: registry.ErrNotFound},
		"ResetDailyUsage": {call: func() error { _, err := r.ResetDailyUsage(ctx); return err }},
		"UPDATE": {call: func() error {
			_, err := r.Client().ExecContext(
				ctx, "UPDATE api_keys SET label = 'x' WHERE provider_id = $1", r.provider.ID,
			)
			return err
		}},
	}
	var all sync.WaitGroup
	var errs sync.Map
	require.NoError(t, r.other.InTx(ctx, func(tx *registry.Registry) error {
		if err := tx.PurgeProvider(ctx, key.ProviderID); err != nil {
			return err
		}
		for name, c := range calls {
			all.Go(func() { errs.Store(name, c.call()) })
		}
		require.Eventually(t, func() bool {
			n, err := pgQuery[int](ctx, r.Registry, "SELECT count(*) FROM pg_stat_activity"+
				" WHERE datname = current_database() AND wait_event_type = 'Lock'")
			require.NoError(t, err)
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

// TestPoolMemoryOfMany has several processes lease, record and change keys at once: what each of them remembers in the
// end, if it is said to be true, is what the database has, and nobody waited for somebody who waited for him.
func TestPoolMemoryOfMany(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	ctx := t.Context()
	second, err := r.CreateProvider(ctx, registry.ProviderInput{Name: "q"})
	require.NoError(t, err)
	keys := []uuid.UUID{r.key.ID, r.add(t, r.group.ID).ID, r.add(t, uuid.Nil).ID}
	for i := range 3 {
		keys = append(keys, mustKey(t, r.Registry, second.ID, i).ID)
	}
	pools := []uuid.UUID{r.provider.ID, second.ID}
	var all sync.WaitGroup
	for i, reg := range []*registry.Registry{r.Registry, r.Registry, r.other, r.other} {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 0)) //nolint:gosec // not for secrets
			for range 30 {
				if err := anything(ctx, reg, random, pools, keys, r.model.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for _, reg := range []*registry.Registry{r.Registry, r.other} {
		for _, id := range pools { // one of both processes has held it last
			if lease, err := reg.AcquireKey(ctx, registry.AcquireInput{ProviderID: id, TTL: time.Hour}); err == nil {
				require.NoError(t, lease.Release(ctx))
			}
			r.requireKnown(t, reg, id)
		}
	}
	require.NoError(t, errors.Join(r.Close(), r.other.Close())) // then servers tell what they counted
	const deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
	require.Zero(t, pgValue[int](t, r.url, deadlocks))
}

// anything does one of the things that change pools.
func anything(
	ctx context.Context, r *registry.Registry, random *rand.Rand, pools, keys []uuid.UUID, model uuid.UUID,
) error {
	i := random.IntN(len(keys))
	pool, key := pools[i/3], keys[i]
	switch random.IntN(10) {
	case 0:
		return r.IncrementUsage(ctx, key, 1, 1)
	case 1:
		update := registry.KeyUpdate{Weight: new(1 + random.IntN(5)), Priority: new(random.IntN(2))}
		_, err := r.UpdateAPIKey(ctx, key, update)
		return err
	case 2:
		return errors.Join(r.DegradeKey(ctx, key, "x", time.Hour), r.RestoreKey(ctx, key))
	case 3:
		_, err := r.ResetDailyUsage(ctx)
		return err
	case 4:
		return r.RecordUsageBatch(
			ctx, []registry.UsageInput{{ModelID: model, APIKeyID: keys[1]}, {ModelID: model, APIKeyID: keys[0]}},
		)
	}
	lease, err := r.AcquireKey(ctx, registry.AcquireInput{ProviderID: pool, TTL: time.Hour})
	if err != nil {
		if errors.Is(err, registry.ErrNoKeyAvailable) {
			return nil
		}
		return err
	}
	if random.IntN(3) == 0 {
		_, err := lease.Fail(ctx, registry.Failure{Status: http.StatusTooManyRequests})
		return err
	}
	return lease.Release(ctx)
}
