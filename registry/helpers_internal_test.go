package registry

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/poolstate"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// onEach runs a test on a database of each kind that two registries have opened.
func onEach(t *testing.T, test func(t *testing.T, open func(t *testing.T) (reg, other *Registry))) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: thousands of rows")
	}
	t.Parallel()
	now := time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	ring, err := NewKeyring("a", map[string][]byte{"a": slices.Repeat([]byte{'a', 'b'}, KeyringKeySize/2)})
	require.NoError(t, err)
	for engine, name := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { t.Helper(); return filepath.Join(t.TempDir(), "registry.db") },
		"postgres": func(t *testing.T) string { t.Helper(); return pgtest.Database(t, "", nil) },
	} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			test(t, func(t *testing.T) (reg, other *Registry) {
				t.Helper()
				database := name(t)
				all := make([]*Registry, 2)
				for i := range all {
					var err error
					all[i], err = Open(
						t.Context(), database, WithClock(func() time.Time { return now }), WithKeyring(ring),
					)
					require.NoError(t, err)
					t.Cleanup(func() { require.NoError(t, all[i].Close()) })
				}
				return all[0], all[1]
			})
		})
	}
}

// remembering are registries on one PostgreSQL database, as of many processes, with a provider.
type remembering struct {
	*Registry
	name     string
	other    *Registry
	provider *ent.Provider
	model    *ent.Model
	group    *ent.QuotaGroup
	key      *ent.APIKey // in the group
	keys     int         // that were added
}

func newRemembering(t *testing.T) *remembering {
	t.Helper()
	ctx, name := t.Context(), pgtest.Database(t, "", nil)
	open := func() *Registry {
		reg, err := Open(ctx, name)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, reg.Close()) })
		return reg
	}
	r := &remembering{Registry: open(), other: open(), name: name}
	var err error
	r.provider, err = r.CreateProvider(ctx, ProviderInput{Name: "p"})
	require.NoError(t, err)
	in := ModelInput{ProviderID: r.provider.ID, ModelID: "m", Rates: money.Rates{meter.Input: money.Dollar}}
	r.model, err = r.CreateModel(ctx, in)
	require.NoError(t, err)
	r.group, err = r.CreateQuotaGroup(ctx, QuotaGroupInput{ProviderID: r.provider.ID, Name: "g"})
	require.NoError(t, err)
	r.key = r.add(t, r.group.ID)
	return r
}

func (r *remembering) add(t *testing.T, group uuid.UUID) *ent.APIKey {
	t.Helper()
	r.keys++
	in := KeyInput{ProviderID: r.provider.ID, APIKey: fmt.Sprintf("sk-test-%012d", r.keys), QuotaGroupID: group}
	key, err := r.AddAPIKey(t.Context(), in)
	require.NoError(t, err)
	return key
}

// elsewhere adds a key of another provider.
func (r *remembering) elsewhere(t *testing.T) *ent.APIKey {
	t.Helper()
	p, err := r.CreateProvider(t.Context(), ProviderInput{Name: "elsewhere"})
	require.NoError(t, err)
	key, err := r.AddAPIKey(t.Context(), KeyInput{ProviderID: p.ID, APIKey: "sk-test-elsewhere"})
	require.NoError(t, err)
	return key
}

// lease leases a key, after which the pool is remembered.
func (r *remembering) lease(t *testing.T) *Lease {
	t.Helper()
	lease, err := r.AcquireKey(
		t.Context(), AcquireInput{ProviderID: r.provider.ID, ModelID: r.model.ID, TTL: time.Hour},
	)
	require.NoError(t, err)
	require.True(t, r.remembers(t))
	return lease
}

// remembers reports whether the process may still use its memory of the pool.
func (r *remembering) remembers(t *testing.T) bool {
	t.Helper()
	s, err := r.client.PoolState.Query().Where(poolstate.ProviderID(r.provider.ID)).Only(t.Context())
	require.NoError(t, err)
	require.NotNil(t, r.commits.Last())
	return s.State != nil && *s.State == r.commits.Last().States[r.provider.ID]
}

func (r *remembering) exec(ctx context.Context, query string, args ...any) error {
	_, err := r.client.ExecContext(ctx, query, args...)
	return err
}

// compareMemory reports whether there was something to compare.
func compareMemory(t *testing.T, reg *Registry, now time.Time) int {
	t.Helper()
	last := lastKnown(t, reg)
	if last == nil {
		return 0
	}
	keys, pools := slices.Collect(maps.Keys(last.Keys)), slices.Collect(maps.Keys(last.Pools))
	s, err := reg.commits.Look(t.Context(), reg.fresh, now, keys, pools)
	require.NoError(t, err)
	for id, k := range last.Keys {
		require.Equal(t, keyText(s.Keys[id], now), keyText(k, now))
	}
	for id, g := range last.Groups {
		require.Equal(t, quotaText(s.Groups[id].Quota, now), quotaText(g.Quota, now))
	}
	for id, p := range last.Pools {
		require.Len(t, p.Keys, len(s.Pools[id].Keys))
		require.Equal(t, providerText(s.Pools[id]), providerText(p))
	}
	return 1
}

// lastKnown is what the next batch goes by, nil if that is nothing.
func lastKnown(t *testing.T, reg *Registry) *commit.Snapshot {
	t.Helper()
	if reg.db.Dialect() == dialect.SQLite {
		return reg.commits.Last()
	}
	last := reg.commits.Last()
	for _, s := range reg.client.PoolState.Query().AllX(t.Context()) {
		if last != nil && value(s.State) != last.States[s.ProviderID] {
			last.Forget(s.ProviderID)
		}
	}
	if last == nil || len(last.Keys) == 0 {
		return nil
	}
	return last
}

func asSet[T any](rows map[uuid.UUID]T) map[uuid.UUID]bool {
	set := map[uuid.UUID]bool{}
	for id := range rows {
		set[id] = true
	}
	return set
}
