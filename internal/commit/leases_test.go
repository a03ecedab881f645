package commit

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// TestManyExpired: a caller takes no more leases away that have expired than it takes to give him a key.
func TestManyExpired(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx := t.Context()
		d.client.APIKey.UpdateOneID(d.key).SetConcurrency(5).ExecX(ctx)
		acquire := func() error {
			_, err := d.acquireOf(ctx, d.provider, uuid.Nil)
			return err
		}
		for range 5 {
			require.NoError(t, acquire())
		}
		require.ErrorIs(t, acquire(), fault.ErrNoKeyAvailable)
		d.now = d.now.Add(time.Minute)
		for _, taken := range []int{2, 2, 4, 4, 5} {
			require.NoError(t, acquire())
			require.Equal(t, taken, d.client.ExpiredLease.Query().CountX(ctx))
		}
		require.ErrorIs(t, acquire(), fault.ErrNoKeyAvailable)
		d.now = d.now.Add(time.Minute)
		d.client.APIKey.UpdateOneID(d.key).SetDisabled(true).ExecX(ctx)
		require.ErrorIs(t, acquire(), fault.ErrNoKeyAvailable)
		require.Zero(t, d.client.KeyLease.Query().CountX(ctx), "who is turned away has looked at all of them")
	})
}

// TestExpiredOfDeletedKey: a deleted key keeps the place in the turns that its expired lease had, whether or not the
// key is remembered.
func TestExpiredOfDeletedKey(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx := t.Context()
		_, err := d.acquireOf(ctx, d.provider, uuid.Nil)
		require.NoError(t, err)
		require.Zero(t, d.client.APIKey.GetX(ctx, d.key).Pass, "the lease has it")
		d.client.APIKey.UpdateOneID(d.key).SetDeletedAt(d.now).ExecX(ctx)
		d.memory.last.Store(nil)
		d.now = d.now.Add(time.Minute)
		_, err = d.acquireOf(ctx, d.provider, uuid.Nil)
		require.ErrorIs(t, err, fault.ErrNoKeyAvailable)
		require.Zero(t, d.client.KeyLease.Query().CountX(ctx))
		require.Positive(t, d.client.APIKey.GetX(ctx, d.key).Pass)
	})
}
