package registry_test

import (
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestQuotaGroups changes quota groups and who is in them.
func TestQuotaGroups(t *testing.T) { eachEngine(t, testQuotaGroups) }

func testQuotaGroups(t *testing.T, e engine) {
	t.Parallel()
	p := e.newPoolTest(t, make([]registry.KeyInput, 2))
	ctx := t.Context()
	one, err := p.CreateQuotaGroup(
		ctx, registry.QuotaGroupInput{ProviderID: p.provider.ID, Name: "one", Limits: registry.Limits{Concurrency: 2}},
	)
	require.NoError(t, err)
	two, err := p.CreateQuotaGroup(
		ctx, registry.QuotaGroupInput{ProviderID: p.provider.ID, Name: "two", Limits: registry.Limits{Concurrency: 1}},
	)
	require.NoError(t, err)
	for _, k := range p.keys {
		_, err := p.UpdateAPIKey(ctx, k.ID, registry.KeyUpdate{QuotaGroupID: &one.ID})
		require.NoError(t, err)
	}
	lease := p.acquire(t, 1)
	require.NotEqual(t, lease.KeyID, p.acquire(t, 1).KeyID)
	require.Equal(t, registry.KeyBusy, p.refused(t, p.want(1)).Keys[0].Reason)
	// What is under way stays where it began.
	_, err = p.UpdateAPIKey(ctx, lease.KeyID, registry.KeyUpdate{QuotaGroupID: &two.ID})
	require.NoError(t, err)
	requireCounted := func(first, second int64) {
		t.Helper()
		require.Equal(
			t, []int64{first, second},
			[]int64{p.counted(t, 1)[registry.LimitConcurrency], p.counted(t, 0)[registry.LimitConcurrency]},
		)
	}
	require.Equal(t, p.keys[0].ID, lease.KeyID)
	requireCounted(2, 0)
	groups, err := p.ListQuotaGroups(ctx, registry.QuotaGroupFilter{ProviderID: p.provider.ID})
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two"}, []string{groups[0].Name, groups[1].Name})
	require.NoError(t, lease.Settle(ctx, used(1)))
	requireCounted(1, 0)

	changed, err := p.UpdateQuotaGroup(
		ctx, two.ID, registry.QuotaGroupUpdate{Name: ptr("2"), Limits: &registry.Limits{RequestsPerDay: 1}},
	)
	require.NoError(t, err)
	require.Equal(t, "2", changed.Name)
	require.EqualValues(t, []int64{1, 0}, []int64{changed.RequestsPerDay, changed.Concurrency})
	require.ErrorIs(t, p.DeleteQuotaGroup(ctx, two.ID), registry.ErrForeignKey)
	_, err = p.UpdateAPIKey(ctx, lease.KeyID, registry.KeyUpdate{QuotaGroupID: &uuid.Nil})
	require.NoError(t, err)
	require.NoError(t, p.DeleteQuotaGroup(ctx, two.ID))
	require.ErrorIs(t, p.DeleteQuotaGroup(ctx, two.ID), registry.ErrNotFound)
	_, err = p.UpdateQuotaGroup(ctx, two.ID, registry.QuotaGroupUpdate{})
	require.ErrorIs(t, err, registry.ErrNotFound)

	other := mustProvider(t, p.Registry, "other")
	foreign, err := p.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: other.ID, Name: "one"})
	require.NoError(t, err)
	_, err = p.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: other.ID, Name: "one"})
	require.ErrorIs(t, err, registry.ErrConflict)
	_, err = p.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: uuid.New(), Name: "one"})
	require.ErrorIs(t, err, registry.ErrForeignKey)
	_, err = p.UpdateAPIKey(ctx, p.keys[0].ID, registry.KeyUpdate{QuotaGroupID: &foreign.ID})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	_, err = p.UpdateAPIKey(ctx, p.keys[0].ID, registry.KeyUpdate{QuotaGroupID: ptr(uuid.New())})
	require.ErrorIs(t, err, registry.ErrForeignKey)
	for name := range badTexts {
		_, err := p.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: other.ID, Name: badTexts[name]})
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
		_, err = p.UpdateQuotaGroup(ctx, foreign.ID, registry.QuotaGroupUpdate{Name: ptr(badTexts[name])})
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
	}
}

// TestPoolInput gives keys what no key may have, by the API and past it.
func TestPoolInput(t *testing.T) { eachEngine(t, testPoolInput) }

func testPoolInput(t *testing.T, e engine) {
	t.Parallel()
	p := e.newPoolTest(t, make([]registry.KeyInput, 1))
	ctx := t.Context()
	for name, in := range map[string]registry.KeyInput{
		"requests per minute": {Limits: registry.Limits{RequestsPerMinute: -1}},
		"tokens per minute":   {Limits: registry.Limits{TokensPerMinute: -1}},
		"requests per day":    {Limits: registry.Limits{RequestsPerDay: -1}},
		"tokens per day":      {Limits: registry.Limits{TokensPerDay: -9e18}},
		"concurrency":         {Limits: registry.Limits{Concurrency: 9_000_000_000_000_000_001}},
		"cost per day":        {Limits: registry.Limits{CostPerDay: -1}},
		"weight":              {Weight: -1},
		"weight above":        {Weight: 1001},
		"priority":            {Priority: 1001},
		"priority below":      {Priority: -1001},
		"models":              {AllowedModels: make([]string, 1001)},
		"model":               {AllowedModels: []string{"a\x00"}},
		"denied model":        {DeniedModels: []string{""}},
	} {
		in.ProviderID, in.APIKey = p.provider.ID, secret(100)
		_, err := p.AddAPIKey(ctx, in)
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
		require.NotContains(t, err.Error(), secret(100)[8:])
		up := registry.KeyUpdate{
			Limits: &in.Limits, Priority: &in.Priority, AllowedModels: &in.AllowedModels,
			DeniedModels: &in.DeniedModels,
		}
		if in.Weight != 0 {
			up.Weight = &in.Weight
		}
		_, err = p.UpdateAPIKey(ctx, p.keys[0].ID, up)
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
		if in.Limits != (registry.Limits{}) {
			_, err = p.CreateQuotaGroup(
				ctx, registry.QuotaGroupInput{ProviderID: p.provider.ID, Name: "g", Limits: in.Limits},
			)
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
		}
	}
	_, err := p.UpdateAPIKey(ctx, p.keys[0].ID, registry.KeyUpdate{Weight: ptr(0)})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	_, err = p.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: p.provider.ID, Name: "g"})
	require.NoError(t, err)
	lease := p.acquire(t, 1)
	for _, set := range []string{
		"api_keys SET requests_per_minute = -1", "api_keys SET cost_per_day = -1",
		"api_keys SET tokens_today = 9000000000000000001",
		"api_keys SET weight = 0", "api_keys SET priority = 1001", "api_keys SET pass = -1",
		"api_keys SET failures = -1", "api_keys SET failure_class = 'auth'",
		"api_keys SET degraded_by = 'auth'", "quota_groups SET concurrency = -1", "quota_groups SET cost_today = -1",
		"quota_groups SET name = ''",
		"key_leases SET reserved_tokens = -1", "key_leases SET pass = -1", "key_leases SET expires_at = acquired_at",
		"providers SET incidents = -1", "providers SET cooling_reason = 'server'",
	} {
		_, err := p.Client().ExecContext(ctx, "UPDATE "+set)
		require.ErrorContains(t, err, "constraint", set)
	}
	require.NoError(t, lease.Release(ctx))
}

// TestGroupAtOnce records usage of two keys of a group at once, and leases them.
func TestGroupAtOnce(t *testing.T) { eachEngineAtOnce(t, testGroupAtOnce) }

func testGroupAtOnce(t *testing.T, e engine) {
	t.Parallel()
	p := e.newPoolTest(t, make([]registry.KeyInput, 4))
	g, err := p.CreateQuotaGroup(
		t.Context(),
		registry.QuotaGroupInput{
			ProviderID: p.provider.ID, Name: "g", Limits: registry.Limits{RequestsPerMinute: 1_000_000},
		},
	)
	require.NoError(t, err)
	for _, k := range p.keys {
		_, err := p.UpdateAPIKey(t.Context(), k.ID, registry.KeyUpdate{QuotaGroupID: &g.ID})
		require.NoError(t, err)
	}
	// IncrementUsage is a transaction of its own, so that they meet.
	var all sync.WaitGroup
	const rounds = 25
	for i, k := range p.keys {
		all.Go(func() {
			for range rounds {
				if i%2 == 0 {
					if err := p.IncrementUsage(t.Context(), k.ID, 1, 1); err != nil {
						t.Error(err)
					}
					continue
				}
				lease, err := p.AcquireKey(t.Context(), p.want(5))
				if err == nil {
					err = lease.Settle(t.Context(), used(2))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	groups, err := p.ListQuotaGroups(t.Context(), registry.QuotaGroupFilter{ProviderID: p.provider.ID})
	require.NoError(t, err)
	require.EqualValues(t, []int64{4 * rounds, 8 * rounds}, []int64{groups[0].RequestsToday, groups[0].TokensToday})
}
