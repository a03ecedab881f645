package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/meter"
)

// TestPoolIsRemembered: what does not change the keys, groups and leases of a provider leaves a process what it
// remembers of them, and the next batch goes by that.
func TestPoolIsRemembered(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	ctx := t.Context()
	its := r.elsewhere(t)
	for name, change := range map[string]func() error{
		"nothing": func() error { return nil },
		"UpdateProvider": func() error {
			_, err := r.UpdateProvider(ctx, r.provider.ID, ProviderUpdate{Description: new("x")})
			return err
		},
		"CreateModel": func() error {
			_, err := r.CreateModel(ctx, ModelInput{ProviderID: r.provider.ID, ModelID: "n"})
			return err
		},
		"ExplainKeys": func() error {
			_, err := r.ExplainKeys(ctx, AcquireInput{ProviderID: r.provider.ID})
			return err
		},
		"another pool": func() error { return r.other.DegradeKey(ctx, its.ID, "x", time.Hour) },
		"rolled back": func() error {
			err := r.other.InTx(ctx, func(tx *Registry) error {
				return errors.Join(tx.DegradeKey(ctx, r.key.ID, "x", time.Hour), errors.ErrUnsupported)
			})
			if !errors.Is(err, errors.ErrUnsupported) {
				return err
			}
			return nil
		},
	} {
		lease := r.lease(t)
		pool := r.commits.Last().Pools[r.provider.ID]
		require.NoError(t, change(), name)
		require.True(t, r.remembers(t), name)
		require.NoError(t, lease.Release(ctx))
		require.Same(t, pool, r.commits.Last().Pools[r.provider.ID], "%s: it was read again", name)
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
	in := AcquireInput{ProviderID: r.provider.ID, ModelID: r.model.ID, TTL: time.Hour}
	used := UsageInput{ModelID: r.model.ID, APIKeyID: id, Tokens: meter.Tokens{InputTokens: 5}}
	spare := r.add(t, uuid.Nil)
	var made *ent.QuotaGroup
	ignore := func(_ any, err error) error { return err }
	within := func(do func(tx *Registry) error) error { return r.other.InTx(ctx, do) }
	return []poolChange{

		{
			name:   "UpdateAPIKey",
			change: func() error { return ignore(r.other.UpdateAPIKey(ctx, id, KeyUpdate{Weight: new(2)})) },
		},
		{
			name:   "disable",
			change: func() error { return ignore(r.other.UpdateAPIKey(ctx, id, KeyUpdate{Disabled: new(true)})) },
		},
		{
			name:   "enable",
			change: func() error { return ignore(r.other.UpdateAPIKey(ctx, id, KeyUpdate{Disabled: new(false)})) },
		},
		{name: "DegradeKey", change: func() error { return r.other.DegradeKey(ctx, id, "x", time.Hour) }},
		{name: "RestoreKey", change: func() error { return r.other.RestoreKey(ctx, id) }},
		{name: "IncrementUsage", change: func() error { return r.other.IncrementUsage(ctx, id, 1, 1) }},
		{name: "RecordUsage", change: func() error { return r.other.RecordUsage(ctx, used) }},
		{
			name:   "RecordUsageBatch",
			change: func() error { return r.other.RecordUsageBatch(ctx, []UsageInput{used, used}) },
		},
		{
			name:   "ObserveHeaders",
			change: func() error { return r.other.ObserveHeaders(ctx, id, http.Header{"Retry-After": {"1"}}) },
		},
		{name: "ResetDailyUsage", change: func() error { return ignore(r.other.ResetDailyUsage(ctx)) }},
		{name: "AddAPIKey", change: func() error {
			return ignore(r.other.AddAPIKey(ctx, KeyInput{ProviderID: r.provider.ID, APIKey: "sk-test-another-one"}))
		}},
		{name: "RotateAPIKey", change: func() error {
			return ignore(r.other.RotateAPIKey(ctx, spare.ID, KeyRotationInput{APIKey: "sk-test-rotated"}))
		}},
		{name: "DeleteAPIKey", change: func() error { return r.other.DeleteAPIKey(ctx, spare.ID) }},
		{name: "UndeleteAPIKey", change: func() error { return ignore(r.other.UndeleteAPIKey(ctx, spare.ID)) }},
		{name: "PurgeAPIKey", change: func() error { return r.other.PurgeAPIKey(ctx, spare.ID) }},
		{name: "CreateQuotaGroup", change: func() (err error) {
			made, err = r.other.CreateQuotaGroup(ctx, QuotaGroupInput{ProviderID: r.provider.ID, Name: "h"})
			return err
		}},
		{name: "UpdateQuotaGroup", change: func() error {
			return ignore(r.other.UpdateQuotaGroup(ctx, made.ID, QuotaGroupUpdate{Limits: &Limits{Concurrency: 9}}))
		}},
		{name: "DeleteQuotaGroup", change: func() error { return r.other.DeleteQuotaGroup(ctx, made.ID) }},
		{name: "AcquireKey", change: func() error { return ignore(r.other.AcquireKey(ctx, in)) }},
		{name: "AcquireKey in a transaction", change: func() error {
			return within(func(tx *Registry) error { return ignore(tx.AcquireKey(ctx, in)) })
		}},
		{name: "RecordUsage in a transaction", change: func() error {
			return within(func(tx *Registry) error { return tx.RecordUsage(ctx, used) })
		}},
		{name: "AcquireKey in a transaction of its own", change: func() error {
			return r.InTx(ctx, func(tx *Registry) error { return ignore(tx.AcquireKey(ctx, in)) })
		}},
		{name: "Ent, after a request of another provider", change: func() error {
			return within(func(tx *Registry) error {
				if err := tx.ObserveHeaders(ctx, its.ID, http.Header{"Retry-After": {"1"}}); err != nil {
					return err
				}
				return tx.Past().APIKey.UpdateOneID(id).SetLabel("after").Exec(ctx)
			})
		}},
		{name: "PurgeModel", change: func() error {
			m, err := r.CreateModel(ctx, ModelInput{ProviderID: r.provider.ID, ModelID: "gone"})
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

// changesPastUs are those of Ent and of SQL.
func changesPastUs(t *testing.T, r *remembering) []poolChange {
	t.Helper()
	ctx, id := t.Context(), r.key.ID
	return []poolChange{
		{name: "Ent", change: func() error { return r.Past().APIKey.UpdateOneID(id).SetLabel("label").Exec(ctx) }},
		{
			name:   "Ent, of a group",
			change: func() error { return r.Past().QuotaGroup.UpdateOne(r.group).SetConcurrency(50).Exec(ctx) },
		},
		{name: "Ent, of the incident", change: func() error {
			update := r.Past().Provider.UpdateOneID(r.provider.ID)
			return update.SetCoolingUntil(time.Now().Add(-time.Hour)).SetCoolingReason("server").Exec(ctx)
		}},
		{name: "SQL, of keys", change: func() error { return r.exec(ctx, "UPDATE api_keys SET requests_today = 0") }},
		{
			name:   "SQL, of a lease",
			change: func() error { return r.exec(ctx, "UPDATE key_leases SET reserved_tokens = 1") },
		},
		{name: "SQL, a lease less", change: func() error {
			return r.exec(ctx, "DELETE FROM key_leases WHERE id IN (SELECT id FROM key_leases LIMIT 1)")
		}},
		{name: "SQL, a lease more", change: func() error {
			return r.exec(ctx, "INSERT INTO key_leases (id, api_key_id, acquired_at, expires_at)"+
				" VALUES ($1, $2, now(), now() + interval '1 hour')", uuid.New(), id)
		}},
		{name: "SQL, no lease", change: func() error { return r.exec(ctx, "TRUNCATE key_leases") }},
	}
}

// TestPoolIsForgotten: whatever changes keys, groups or leases of a provider, through the registry or past it, has
// other processes forget what they remember of them.
func TestPoolIsForgotten(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	ctx, id := t.Context(), r.key.ID
	for _, c := range slices.Concat(changesOfOthers(t, r), changesPastUs(t, r)) {
		if c.name == "UndeleteProvider" { // there is nothing to lease before
			require.NoError(t, c.change(), c.name)
			continue
		}
		r.lease(t)
		require.NoError(t, c.change(), c.name)
		require.False(t, r.remembers(t), c.name)
	}
	r.lease(t)
	compareMemory(t, r.Registry, r.now())
	require.NoError(t, r.Past().APIKey.Update().Where(apikey.ID(id)).SetConcurrency(1).SetDisabled(false).Exec(ctx))
}

// TestPoolAtOnce has processes lease the first keys of providers at once.
func TestPoolAtOnce(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	for i := range 60 {
		p, err := r.CreateProvider(t.Context(), ProviderInput{Name: fmt.Sprint("at-once-", i)})
		require.NoError(t, err)
		begin := make(chan struct{})
		var all sync.WaitGroup
		for _, reg := range []*Registry{r.Registry, r.other} {
			all.Go(func() {
				<-begin
				_, err := reg.AcquireKey(t.Context(), AcquireInput{ProviderID: p.ID, TTL: time.Hour})
				var none *NoKeyError
				if !errors.As(err, &none) {
					t.Errorf("%v", err)
				}
			})
		}
		close(begin)
		all.Wait()
	}
}

// TestPoolMemoryOfMany has several processes lease, record and change keys at once: what each of them remembers in the
// end, if it is said to be true, is what the database has, and nobody waited for somebody who waited for him.
func TestPoolMemoryOfMany(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	ctx := t.Context()
	second, err := r.CreateProvider(ctx, ProviderInput{Name: "q"})
	require.NoError(t, err)
	keys := []uuid.UUID{r.key.ID, r.add(t, r.group.ID).ID, r.add(t, uuid.Nil).ID}
	for i := range 3 {
		key, err := r.AddAPIKey(ctx, KeyInput{ProviderID: second.ID, APIKey: fmt.Sprintf("sk-test-second-%d", i)})
		require.NoError(t, err)
		keys = append(keys, key.ID)
	}
	pools := []uuid.UUID{r.provider.ID, second.ID}
	var all sync.WaitGroup
	for i, reg := range []*Registry{r.Registry, r.Registry, r.other, r.other} {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 0)) //nolint:gosec // not for secrets
			for range 30 {
				if err := reg.anything(ctx, random, pools, keys, r.model.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for _, reg := range []*Registry{r.Registry, r.other} {
		for _, id := range pools { // one of both processes has held it last
			if lease, err := reg.AcquireKey(ctx, AcquireInput{ProviderID: id, TTL: time.Hour}); err == nil {
				require.NoError(t, lease.Release(ctx))
			}
		}
		require.Equal(t, 1, compareMemory(t, reg, reg.now()))
	}
	require.NoError(t, errors.Join(r.Close(), r.other.Close())) // then servers tell what they counted
	db, err := sql.Open("pgx", r.name)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	var deadlocks int
	const asked = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
	require.NoError(t, db.QueryRowContext(ctx, asked).Scan(&deadlocks))
	require.Zero(t, deadlocks)
}

// anything does one of the things that change pools.
func (r *Registry) anything(ctx context.Context, random *rand.Rand, pools, keys []uuid.UUID, model uuid.UUID) error {
	i := random.IntN(len(keys))
	pool, key := pools[i/3], keys[i]
	switch random.IntN(10) {
	case 0:
		return r.IncrementUsage(ctx, key, 1, 1)
	case 1:
		_, err := r.UpdateAPIKey(ctx, key, KeyUpdate{Weight: new(1 + random.IntN(5)), Priority: new(random.IntN(2))})
		return err
	case 2:
		return errors.Join(r.DegradeKey(ctx, key, "x", time.Hour), r.RestoreKey(ctx, key))
	case 3:
		_, err := r.ResetDailyUsage(ctx)
		return err
	case 4:
		return r.RecordUsageBatch(
			ctx, []UsageInput{{ModelID: model, APIKeyID: keys[1]}, {ModelID: model, APIKeyID: keys[0]}},
		)
	}
	lease, err := r.AcquireKey(ctx, AcquireInput{ProviderID: pool, TTL: time.Hour})
	if err != nil {
		if errors.Is(err, ErrNoKeyAvailable) {
			return nil
		}
		return err
	}
	if random.IntN(3) == 0 {
		_, err := lease.Fail(ctx, Failure{Status: http.StatusTooManyRequests})
		return err
	}
	return lease.Release(ctx)
}
