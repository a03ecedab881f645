package registry

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestUnsealRotated: between the reads of a key and of its data key, another process rotates the keyring twice.
func TestUnsealRotated(t *testing.T) {
	onEach(t, func(t *testing.T, open func(t *testing.T) (reg, other *Registry)) {
		t.Helper()
		reg, other := open(t)
		ctx := t.Context()
		rotate := func() {
			t.Helper()
			done, err := other.RotateKeyring(ctx, KeyringRotationInput{DataKey: true})
			require.NoError(t, err)
			require.Zero(t, done.Left)
		}
		p, err := other.CreateProvider(ctx, ProviderInput{Name: "p"})
		require.NoError(t, err)
		const text = "sk-1234567890"
		key, err := other.AddAPIKey(ctx, KeyInput{ProviderID: p.ID, APIKey: text})
		require.NoError(t, err)
		rotate()
		read, err := reg.GetAPIKey(ctx, key.ID)
		require.NoError(t, err)
		rotate()
		secret, err := reg.reveal(ctx, read)
		require.NoError(t, err)
		require.True(t, secret.Equal(NewSecret(text)))
	})
}
