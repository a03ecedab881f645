package registry_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestPoolHealth shows a pool whose keys are in many states.
func TestPoolHealth(t *testing.T) { eachEngine(t, testPoolHealth) }

func testPoolHealth(t *testing.T, e engine) {
	t.Parallel()
	p := e.newPoolTest(
		t, []registry.KeyInput{{}, {}, {Limits: registry.Limits{Concurrency: 1}, Priority: 1}, {}},
		registry.WithKeyring(ring(t, "a")),
	)
	ctx := t.Context()
	empty := mustProvider(t, p.Registry, "empty")
	p.acquire(t, 1)
	_, err := p.UpdateAPIKey(ctx, p.keys[0].ID, registry.KeyUpdate{Disabled: ptr(true)})
	require.NoError(t, err)
	p.fail(t, 1, denied)
	health := func() registry.ProviderHealth {
		all, err := p.PoolHealth(ctx)
		require.NoError(t, err)
		require.Len(t, all, 2)
		require.Equal(
			t, registry.ProviderHealth{ProviderID: empty.ID, Name: "empty", Unusable: map[registry.KeyReason]int{}},
			all[0],
		)
		require.False(t, all[0].Alert())
		return all[1]
	}
	h := health()
	require.Equal(t, registry.ProviderHealth{
		ProviderID: p.provider.ID, Name: "pool", Keys: 4, Usable: 1, InFlight: 1, Probation: 1,
		Unusable: map[registry.KeyReason]int{registry.KeyDisabled: 1, registry.KeyDegraded: 1, registry.KeyBusy: 1},
	}, h)
	require.False(t, h.Alert())
	require.NoError(t, p.DegradeKey(ctx, p.keys[3].ID, "", time.Second))
	require.Equal(t, p.clock.Now().Add(time.Second), health().OpensAt)
	for i := range p.keys {
		_, err = p.UpdateAPIKey(ctx, p.keys[i].ID, registry.KeyUpdate{Disabled: ptr(true)})
		require.NoError(t, err)
	}
	require.True(t, health().Alert(), "no key opens by itself")
	_, err = p.UpdateAPIKey(ctx, p.keys[3].ID, registry.KeyUpdate{Disabled: ptr(false)})
	require.NoError(t, err)
	require.False(t, health().Alert())
	_, err = p.Client().ExecContext(
		ctx, "UPDATE api_keys SET sealed = (SELECT sealed FROM api_keys WHERE id = $1) WHERE id = $2", p.keys[0].ID,
		p.keys[3].ID,
	)
	require.NoError(t, err)
	h = health()
	require.Equal(
		t, []registry.UnreadableKey{{ID: p.keys[3].ID, Label: p.keys[3].Label, Prefix: "sk-test-"}}, h.Unreadable,
	)
	require.True(t, h.Alert())
}
