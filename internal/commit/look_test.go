package commit

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/money"
)

// TestWanted: what is asked for is read, and not remembered.
func TestWanted(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx := t.Context()
		_, err := d.acquire(ctx) // the name is remembered
		require.NoError(t, err)
		wanted := func(model, provider uuid.UUID, cost money.USD) (pool.Want, error) {
			pools, err := d.Look(ctx, d.client, d.now, []uuid.UUID{provider})
			require.NoError(t, err)
			return d.Wanted(ctx, d.client, d.now, pools[provider], &Acquire{
				Provider: provider, Model: model, Want: pool.Want{Amount: pool.Amount{Tokens: 7, Cost: cost}},
			})
		}
		want, err := wanted(d.model, d.provider, 0)
		require.NoError(t, err)
		require.Equal(t, pool.Want{Model: "m", Amount: pool.Amount{Tokens: 7}}, want)
		d.client.APIKey.UpdateOneID(d.key).SetCostPerDay(1).ExecX(ctx)
		want, err = wanted(d.model, d.provider, 0)
		require.NoError(t, err)
		require.Equal(t, money.USD(7000), want.Cost, "a limit of cost asks")
		want, err = wanted(d.model, d.provider, 5)
		require.NoError(t, err)
		require.Equal(t, money.USD(5), want.Cost, "it was said")
		want, err = wanted(uuid.Nil, d.provider, 0)
		require.NoError(t, err)
		require.Empty(t, want.Model)
		require.Zero(t, want.Cost)
		_, err = wanted(d.model, uuid.New(), 0)
		require.ErrorIs(t, err, fault.ErrInvalidData)
		require.ErrorContains(t, err, `"m", is another provider's`)
		d.client.Price.Delete().ExecX(ctx)
		d.client.Model.DeleteOneID(d.model).ExecX(ctx)
		_, err = wanted(d.model, d.provider, 0)
		require.ErrorIs(t, err, fault.ErrForeignKey)
	})
}
