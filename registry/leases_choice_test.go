package registry_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// served leases n keys, settles each, and returns how often each key was handed out.
func (p *poolTest) served(t *testing.T, n int, change func(*registry.AcquireInput)) []int {
	t.Helper()
	counts := make([]int, len(p.keys))
	for range n {
		in := p.want(1)
		if change != nil {
			change(&in)
		}
		next := -1
		for i, v := range func() []registry.KeyVerdict {
			verdicts, err := p.ExplainKeys(t.Context(), in)
			require.NoError(t, err)
			return verdicts
		}() {
			if v.Next {
				next = i
			}
		}
		lease, err := p.AcquireKey(t.Context(), in)
		require.NoError(t, err)
		require.Equal(t, p.keys[next].ID, lease.KeyID, "as ExplainKeys said")
		require.NoError(t, lease.Settle(t.Context(), used(1)))
		counts[next]++
	}
	return counts
}

// TestLeaseChoice shows which key is handed out.
func TestLeaseChoice(t *testing.T) { eachEngine(t, testLeaseChoice) }

func testLeaseChoice(t *testing.T, e engine) {
	t.Run("equal", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 3))
		require.Equal(t, []int{10, 10, 10}, p.served(t, 30, nil))
	})
	t.Run("weights", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Weight: 1}, {Weight: 2}, {Weight: 3}})
		counts := p.served(t, 60, nil)
		for i, want := range []int{10, 20, 30} {
			require.InDelta(t, want, counts[i], 1, counts)
		}
	})
	t.Run("priority", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(
			t,
			[]registry.KeyInput{
				{}, {Priority: 5, Limits: registry.Limits{RequestsPerDay: 4}}, {Priority: 5}, {Priority: -1},
			},
		)
		require.Equal(t, []int{0, 4, 6, 0}, p.served(t, 10, nil))
		require.Equal(
			t, []int{5, 0, 0, 0},
			p.served(t, 5, func(in *registry.AcquireInput) { in.Exclude = []uuid.UUID{p.keys[2].ID} }),
		)
	})
	t.Run("new", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 2))
		p.served(t, 100, nil)
		key, err := p.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.provider.ID, APIKey: secret(9)})
		require.NoError(t, err)
		p.keys = append(p.keys, key)
		counts := p.served(t, 30, nil)
		for _, n := range counts {
			require.InDelta(t, 10, n, 1, counts)
		}
	})
	t.Run("back", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 2))
		require.NoError(t, p.DegradeKey(t.Context(), p.keys[0].ID, "", time.Minute))
		require.Equal(t, []int{0, 50}, p.served(t, 50, nil))
		p.clock.Advance(time.Minute)
		counts := p.served(t, 20, nil)
		require.InDelta(t, 10, counts[0], 1, "it does not make up for what it missed")
	})
	t.Run("least used among new ones", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 2))
		record(t, p.Registry, p.model, p.keys[0], 1, 1)
		require.Equal(t, p.keys[1].ID, p.acquire(t, 1).KeyID)
	})
}

// TestLeaseChoiceOf shows what else the choice depends on: models, strategies and whether keys are usable.
func TestLeaseChoiceOf(t *testing.T) { eachEngine(t, testLeaseChoiceOf) }

func testLeaseChoiceOf(t *testing.T, e engine) {
	t.Run("models", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{
			{AllowedModels: []string{"gpt-5"}}, {DeniedModels: []string{"gpt-4"}},
			{AllowedModels: []string{"gpt-*"}, DeniedModels: []string{"gpt-4*"}}, {AllowedModels: []string{"gpt-*"}},
		})
		require.Equal(t, []int{0, 0, 0, 5}, p.served(t, 5, nil))
		for i, v := range p.explain(t, 1)[:3] {
			require.Equal(t, registry.KeyDenied, v.Reason, i)
		}
		five := mustModel(t, p.Registry, p.provider.ID, "gpt-5", gpt4())
		for _, n := range p.served(t, 8, func(in *registry.AcquireInput) { in.ModelID = five.ID }) {
			require.InDelta(t, 2, n, 1)
		}
		for i := range p.keys {
			_, err := p.UpdateAPIKey(
				t.Context(), p.keys[i].ID, registry.KeyUpdate{AllowedModels: &[]string{}, DeniedModels: &[]string{"*"}},
			)
			require.NoError(t, err)
		}
		in := p.want(1)
		in.Wait = true
		require.Equal(t, registry.KeyDenied, p.refused(t, in).Keys[3].Reason)
	})
	t.Run("round robin", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Weight: 100}, {}, {}}, registry.WithKeyStrategy(registry.RoundRobin))
		require.Equal(t, []int{4, 4, 4}, p.served(t, 12, nil))
	})
	t.Run("most headroom", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{
			{Limits: registry.Limits{RequestsPerDay: 10}}, {Limits: registry.Limits{RequestsPerDay: 40}},
		}, registry.WithKeyStrategy(registry.MostHeadroom))
		require.Equal(t, []int{8, 32}, p.served(t, 40, nil))
	})
	t.Run("not usable", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 3))
		_, err := p.UpdateAPIKey(t.Context(), p.keys[0].ID, registry.KeyUpdate{Disabled: ptr(true)})
		require.NoError(t, err)
		_, err = p.UpdateAPIKey(t.Context(), p.keys[1].ID, registry.KeyUpdate{Disabled: ptr(true)})
		require.NoError(t, err)
		_, err = p.UpdateAPIKey(t.Context(), p.keys[1].ID, registry.KeyUpdate{Disabled: ptr(false)})
		require.NoError(t, err)
		entries, err := p.ListAudit(t.Context(), registry.AuditFilter{Entity: registry.EntityAPIKey, Limit: 3})
		require.NoError(t, err)
		require.Equal(
			t, []string{"enable", "disable", "disable"},
			[]string{entries[0].Action, entries[1].Action, entries[2].Action},
		)
		_, err = p.RotateAPIKey(t.Context(), p.keys[1].ID, registry.KeyRotationInput{APIKey: secret(50)})
		require.NoError(t, err)
		require.NoError(t, p.DeleteAPIKey(t.Context(), p.keys[2].ID))
		in := p.want(1)
		in.Exclude = []uuid.UUID{p.acquire(t, 1).KeyID}
		why := p.refused(t, in)
		require.Equal(t, []registry.KeyReason{registry.KeyDisabled, registry.KeyExpired, registry.KeyExcluded},
			[]registry.KeyReason{why.Keys[0].Reason, why.Keys[1].Reason, why.Keys[2].Reason})
		in.ProviderID, in.ModelID = uuid.New(), uuid.Nil
		require.Empty(t, p.refused(t, in).Keys)
	})
}
