package commit

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// TestModelName: what is asked for is read, and not remembered.
func TestModelName(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx := t.Context()
		_, err := d.acquire(ctx) // the name is remembered
		require.NoError(t, err)
		name, err := d.ModelName(ctx, d.client, d.model, d.provider)
		require.NoError(t, err)
		require.Equal(t, "m", name)
		name, err = d.ModelName(ctx, d.client, uuid.Nil, d.provider)
		require.NoError(t, err)
		require.Empty(t, name)
		_, err = d.ModelName(ctx, d.client, d.model, uuid.New())
		require.ErrorIs(t, err, fault.ErrInvalidData)
		require.ErrorContains(t, err, `"m", is another provider's`)
		d.client.Price.Delete().ExecX(ctx)
		d.client.Model.DeleteOneID(d.model).ExecX(ctx)
		_, err = d.ModelName(ctx, d.client, d.model, d.provider)
		require.ErrorIs(t, err, fault.ErrForeignKey)
	})
}
