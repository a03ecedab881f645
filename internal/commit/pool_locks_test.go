package commit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
)

// TestPoolIsRemembered: what does not change the keys, groups and leases of a provider leaves a process what it
// remembers of them, and the next batch goes by that.
func TestPoolIsRemembered(t *testing.T) {
	t.Parallel()
	d, ctx := onPostgres(t), t.Context()
	other := d.another(t)
	elsewhere, key := d.elsewhere(ctx)
	for name, change := range map[string]func() error{
		"nothing": func() error { return nil },
		"the provider's description": func() error {
			return d.client.Provider.UpdateOneID(d.provider).SetDescription("x").Exec(ctx)
		},
		"a model": func() error {
			return d.client.Model.Create().SetProviderID(d.provider).SetModelID("n").SetCreatedAt(noon).
				SetUpdatedAt(noon).Exec(ctx)
		},
		"another pool": func() error {
			_, err := other.acquireOf(ctx, elsewhere, uuid.Nil)
			return errors.Join(err, d.client.APIKey.UpdateOneID(key).SetLabel("x").Exec(ctx))
		},
		"a look": func() error {
			_, err := d.Look(ctx, d.client, d.now, []uuid.UUID{d.provider})
			return err
		},
		"rolled back": func() error {
			err := other.write(ctx, func(tx *ent.Client) error {
				return errors.Join(tx.APIKey.UpdateOneID(d.key).SetLabel("x").Exec(ctx), errors.ErrUnsupported)
			})
			if !errors.Is(err, errors.ErrUnsupported) {
				return fmt.Errorf("it was not undone: %w", err)
			}
			return nil
		},
	} {
		l, is := d.lease(t), d.memory.last.Load().pools[d.provider]
		require.NoError(t, change(), name)
		require.True(t, d.remembers(t), name)
		require.NoError(t, d.end(ctx, l, End{Outcome: Released}, Call{}))
		require.Same(t, is, d.memory.last.Load().pools[d.provider], "%s: it was read again", name)
	}
}

// poolChange is what changes keys, groups or leases of a provider.
type poolChange struct {
	name   string
	change func() error
}

// changesByCalls are those of batches of another process, and of callers' transactions.
func changesByCalls(t *testing.T, d *database) []poolChange {
	t.Helper()
	ctx, other := t.Context(), d.another(t)
	_, key := d.elsewhere(ctx)
	within := func(call func(tx *ent.Client) Call, then func(tx *ent.Client) error) func() error {
		return func() error {
			return d.write(ctx, func(tx *ent.Client) error {
				write := func(body func(tx *ent.Client) error) error { return body(tx) }
				return errors.Join(other.DoWithin(ctx, write, []Call{call(tx)}), then(tx))
			})
		}
	}
	nothing := func(*ent.Client) error { return nil }
	observed := func(key uuid.UUID) Call { return Call{Now: noon, End: &End{Key: key, Outcome: Observed}} }
	return []poolChange{
		{"a request", func() error { return other.Do(ctx, d.call("a")) }},
		{"requests", func() error { return other.DoAll(ctx, []Call{d.call("b"), d.call("c")}) }},
		{"a lease", func() error { _, err := other.acquire(ctx); return err }},
		{"an observation", func() error { return other.Do(ctx, observed(d.key)) }},
		{"a use", func() error {
			return d.write(ctx, func(tx *ent.Client) error {
				return other.CountUse(ctx, tx, d.key, pool.Amount{Requests: 1}, noon)
			})
		}},
		{"a request in a transaction", within(func(*ent.Client) Call { return d.call("d") }, nothing)},
		{"a lease in a transaction", within(func(*ent.Client) Call {
			return Call{Now: noon, Acquire: &Acquire{ID: uuid.New(), Provider: d.provider, TTL: time.Minute}}
		}, nothing)},
		{"Ent, after a call for another pool", within(func(*ent.Client) Call { return observed(key) },
			func(tx *ent.Client) error { return tx.APIKey.UpdateOneID(d.key).SetLabel("after").Exec(ctx) })},
	}
}

// changesPastUs are those of Ent and of SQL.
func changesPastUs(ctx context.Context, d *database) []poolChange {
	sql := func(name, query string, args ...any) poolChange {
		return poolChange{"SQL, " + name, func() error {
			_, err := d.client.ExecContext(ctx, query, args...)
			return err
		}}
	}
	return []poolChange{
		{"Ent", func() error { return d.client.APIKey.UpdateOneID(d.key).SetLabel("label").Exec(ctx) }},
		{"Ent, of a group", func() error { return d.client.QuotaGroup.Update().SetConcurrency(50).Exec(ctx) }},
		{"Ent, of the incident", func() error {
			update := d.client.Provider.UpdateOneID(d.provider)
			return update.SetCoolingUntil(noon.Add(-time.Hour)).SetCoolingReason("server").Exec(ctx)
		}},
		sql("of keys", "UPDATE api_keys SET requests_today = 0"),
		sql("of a lease", "UPDATE key_leases SET reserved_tokens = 1"),
		sql("a lease less", "DELETE FROM key_leases WHERE id IN (SELECT id FROM key_leases LIMIT 1)"),
		sql("a lease more", "INSERT INTO key_leases (id, api_key_id, acquired_at, expires_at)"+
			" VALUES ($1, $2, $3, $4)", uuid.New(), d.key, noon, noon.Add(time.Hour)),
		sql("no lease", "TRUNCATE key_leases"),
	}
}

// TestPoolIsForgotten: whatever changes keys, groups or leases of a provider, by calls or past them, has other
// processes forget what they remember of them.
func TestPoolIsForgotten(t *testing.T) {
	t.Parallel()
	d, ctx := onPostgres(t), t.Context()
	d.client.APIKey.UpdateOneID(d.key).SetConcurrency(0).ExecX(ctx)
	for _, c := range slices.Concat(changesByCalls(t, d), changesPastUs(ctx, d)) {
		d.lease(t)
		require.NoError(t, c.change(), c.name)
		require.False(t, d.remembers(t), c.name)
	}
	d.lease(t)
	require.True(t, d.compareMemory(t))
}

// TestPoolMoved moves rows from one provider to another: both pools are forgotten, and a batch that remembers where a
// key was looks again.
func TestPoolMoved(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for name, move := range map[string]func(d *database, to, key uuid.UUID, l *Leased) error{
		"keys": func(d *database, to, _ uuid.UUID, _ *Leased) error {
			return d.client.APIKey.Update().SetProviderID(to).ClearQuotaGroupID().Exec(ctx)
		},
		"groups": func(d *database, to, _ uuid.UUID, _ *Leased) error {
			return d.client.QuotaGroup.Update().SetProviderID(to).Exec(ctx)
		},
		"leases": func(d *database, _, key uuid.UUID, l *Leased) error {
			return d.client.KeyLease.UpdateOneID(l.ID).SetAPIKeyID(key).ClearQuotaGroupID().Exec(ctx)
		},
	} {
		d := onPostgres(t)
		to, key := d.elsewhere(ctx)
		require.NoError(t, move(d, to, key, d.lease(t)), name)
		require.False(t, d.remembers(t), name)
	}

	d := onPostgres(t)
	other := d.another(t)
	to, its := d.elsewhere(ctx)
	d.lease(t)
	d.client.APIKey.UpdateOneID(d.key).SetProviderID(to).ClearQuotaGroupID().SetConcurrency(0).ExecX(ctx)
	_, err := other.acquireOf(ctx, to, uuid.Nil, its)
	require.NoError(t, err)
	said := []upstream.Quota{{Meter: upstream.Requests, Limit: -1, Reset: noon.Add(time.Minute)}}
	require.NoError(t, d.Do(ctx, Call{Now: noon, End: &End{Key: d.key, Said: said, Outcome: Observed}}))
	_, err = other.acquireOf(ctx, to, uuid.Nil, its)
	require.ErrorIs(t, err, fault.ErrNoKeyAvailable, "the provider has just said so")
}

// TestPoolOfNoProvider: a provider is gone whose pool a process remembers.
func TestPoolOfNoProvider(t *testing.T) {
	t.Parallel()
	d, ctx := onPostgres(t), t.Context()
	for _, remove := range []string{"DELETE FROM providers", "TRUNCATE providers CASCADE"} {
		provider, _ := d.elsewhere(ctx)
		_, err := d.acquireOf(ctx, provider, uuid.Nil)
		require.NoError(t, err)
		_, err = d.client.ExecContext(ctx, remove)
		require.NoError(t, err)
		_, err = d.acquireOf(ctx, provider, uuid.Nil)
		require.ErrorIs(t, err, fault.ErrNoKeyAvailable, remove)
	}
}

// TestPoolBesideEnt leases keys that somebody updates through Ent's client meanwhile, who takes the row before the
// pool: neither waits for the other in vain.
func TestPoolBesideEnt(t *testing.T) {
	t.Parallel()
	d := onPostgres(t)
	var all sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	errs := make([]error, 2)
	for i := range errs {
		all.Go(func() {
			for ctx.Err() == nil && errs[i] == nil {
				l, err := d.acquire(t.Context())
				if err == nil {
					err = d.end(t.Context(), l, End{Outcome: Released}, Call{})
				}
				errs[i] = err
			}
		})
	}
	for n := range sample.Of(300) {
		err := d.client.APIKey.UpdateOneID(d.key).SetLabel(fmt.Sprint(n)).Exec(ctx)
		require.NoError(t, err, "update %d", n)
	}
	stop()
	all.Wait()
	require.NoError(t, errors.Join(errs...))
}

// TestPoolTrigger: the function of the triggers, which has its owner's rights, is not for tables of others.
func TestPoolTrigger(t *testing.T) {
	t.Parallel()
	d, ctx := onPostgres(t), t.Context()
	exec := func(c *ent.Client, query string) error {
		_, err := c.ExecContext(ctx, query)
		return err
	}
	require.NoError(t, exec(d.client, "CREATE TABLE mine (provider_id uuid)"))
	require.NoError(t, exec(d.client, "CREATE TRIGGER mine AFTER TRUNCATE ON mine"+
		" FOR EACH STATEMENT EXECUTE FUNCTION pool_changed()"))
	require.ErrorContains(t, exec(d.client, "TRUNCATE mine"), "pool_changed is not for table mine")
	var set, made, refused error
	require.ErrorIs(t, d.write(ctx, func(tx *ent.Client) error {
		set = exec(tx, "SET LOCAL ROLE pg_monitor") // one that has no rights here
		made = exec(tx, "CREATE TEMP TABLE mine (provider_id uuid)")
		refused = exec(tx, "CREATE TRIGGER mine AFTER TRUNCATE ON pg_temp.mine"+
			" FOR EACH STATEMENT EXECUTE FUNCTION public.pool_changed()")
		return errors.ErrUnsupported
	}), errors.ErrUnsupported)
	require.NoError(t, errors.Join(set, made))
	require.ErrorContains(t, refused, "permission denied for function public.pool_changed")
}

// TestPoolAtOnce has processes lease the first keys of providers at once.
func TestPoolAtOnce(t *testing.T) {
	t.Parallel()
	d, ctx := onPostgres(t), t.Context()
	other := d.another(t)
	for range 60 {
		p := d.client.Provider.Create().SetName(uuid.NewString()).SetCreatedAt(noon).SetUpdatedAt(noon).SaveX(ctx)
		begin := make(chan struct{})
		var all sync.WaitGroup
		errs := make([]error, 2)
		for i, is := range []*database{d, other} {
			all.Go(func() {
				<-begin
				_, errs[i] = is.acquireOf(ctx, p.ID, uuid.Nil)
			})
		}
		close(begin)
		all.Wait()
		for _, err := range errs {
			require.ErrorIs(t, err, fault.ErrNoKeyAvailable)
		}
	}
}

// TestMemoryOfMany has several processes lease, record and change keys at once: what each of them remembers in the end,
// if it is said to be true, is what the database has.
func TestMemoryOfMany(t *testing.T) {
	t.Parallel()
	d, ctx := onPostgres(t), t.Context()
	other := d.another(t)
	second, _ := d.elsewhere(ctx)
	pools := []uuid.UUID{d.provider, second}
	for range 2 {
		d.add(ctx, d.provider, func(*ent.APIKeyCreate) {})
		d.add(ctx, second, func(*ent.APIKeyCreate) {})
	}
	keys := d.client.APIKey.Query().IDsX(ctx)
	var all sync.WaitGroup
	errs := make([]error, 4)
	for i, is := range []*database{d, d, other, other} {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 0)) //nolint:gosec // not for secrets
			for range 30 {
				errs[i] = errors.Join(errs[i], is.anything(ctx, random, pools, keys))
			}
		})
	}
	all.Wait()
	require.NoError(t, errors.Join(errs...))
	for _, is := range []*database{d, other} {
		for _, id := range pools { // one of both processes has held it last
			if l, err := is.acquireOf(ctx, id, uuid.Nil); err == nil {
				require.NoError(t, is.end(ctx, l, End{Provider: id, Outcome: Released}, Call{}))
			}
		}
		require.True(t, is.compareMemory(t))
	}
}

// anything does one of the things that change pools.
func (d *database) anything(ctx context.Context, random *rand.Rand, pools, keys []uuid.UUID) error {
	key := keys[random.IntN(len(keys))]
	within := func(body func(tx *ent.Client) error, which Pools, args ...any) error {
		return d.write(ctx, func(tx *ent.Client) error {
			if err := Hold(ctx, tx, d.engine, which, args...); err != nil {
				return err
			}
			return body(tx)
		})
	}
	switch random.IntN(10) {
	case 0:
		return d.write(ctx, func(tx *ent.Client) error {
			return d.CountUse(ctx, tx, key, pool.Amount{Requests: 1, Tokens: 1}, noon)
		})
	case 1:
		return within(func(tx *ent.Client) error {
			return tx.APIKey.UpdateOneID(key).SetWeight(1 + random.IntN(5)).SetPriority(random.IntN(2)).Exec(ctx)
		}, PoolOfKey, key)
	case 2:
		return within(func(tx *ent.Client) error {
			return tx.APIKey.UpdateOneID(key).SetDegraded(true).SetDegradedUntil(noon).SetDegradedAt(noon).Exec(ctx)
		}, PoolOfKey, key)
	case 3:
		return within(func(tx *ent.Client) error {
			return tx.APIKey.Update().SetRequestsToday(0).SetTokensToday(0).SetCostToday(0).Exec(ctx)
		}, AllPools)
	case 4:
		return d.DoAll(ctx, []Call{d.call(uuid.NewString()), d.call(uuid.NewString())})
	}
	provider := pools[random.IntN(len(pools))]
	l, err := d.acquireOf(ctx, provider, uuid.Nil)
	if err != nil {
		if errors.Is(err, fault.ErrNoKeyAvailable) {
			return nil
		}
		return err
	}
	end := End{Provider: provider, Outcome: Released}
	if random.IntN(3) == 0 {
		end.Outcome, end.Failure = Failed, pool.Diagnosis{Class: upstream.RateLimited}
	}
	return d.end(ctx, l, end, Call{})
}
