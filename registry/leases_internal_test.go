package registry

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// TestReleaseUnclaimed: a caller who did not wait for the answer has no lease.
func TestReleaseUnclaimed(t *testing.T) {
	onEach(t, func(t *testing.T, open func(t *testing.T) (reg, other *Registry)) {
		t.Helper()
		reg, _ := open(t)
		ctx := t.Context()
		p, err := reg.CreateProvider(ctx, ProviderInput{Name: "p"})
		require.NoError(t, err)
		_, err = reg.AddAPIKey(ctx, KeyInput{ProviderID: p.ID, APIKey: "sk-test-0123456789"})
		require.NoError(t, err)
		l, err := reg.AcquireKey(ctx, AcquireInput{ProviderID: p.ID, TTL: time.Hour})
		require.NoError(t, err)
		reg.releaseUnclaimed(ctx, p.ID, uuid.New())
		_, err = reg.GetLease(ctx, l.ID)
		require.NoError(t, err)
		reg.releaseUnclaimed(ctx, p.ID, l.ID)
		_, err = reg.GetLease(ctx, l.ID)
		require.ErrorIs(t, err, ErrNotFound)
	})
}
