package registry_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// service is a keyring as an adapter for a key management service makes it: what it has wrapped stays there, by a
// token.
type service struct {
	mu   sync.Mutex
	kept map[string]kept
}

type kept struct {
	id           string
	dataKey      []byte
	dataKeyOwner registry.KeyringBinding
}

func (*service) CurrentID() string { return "arn:service:key/1" }

func (s *service) Wrap(_ context.Context, id string, dataKey []byte, to registry.KeyringBinding) ([]byte, error) {
	if id != s.CurrentID() {
		return nil, fmt.Errorf("service: %w", registry.ErrKeyring)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	token := rand.Text()
	s.kept[token] = kept{id, bytes.Clone(dataKey), bytes.Clone(to)}
	return []byte(token), nil
}

func (s *service) Unwrap(_ context.Context, id string, wrapped []byte, to registry.KeyringBinding) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.kept[string(wrapped)]
	if !ok || k.id != id || !bytes.Equal(k.dataKeyOwner, to) {
		return nil, fmt.Errorf("service: %w", registry.ErrKeyring)
	}
	return bytes.Clone(k.dataKey), nil
}

func TestKeyringAdapter(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registry.db")
	adapter := &service{kept: map[string]kept{}}
	t.Run("OK", func(t *testing.T) {
		reg := must(registry.Open(t.Context(), path, registry.WithKeyring(adapter)))
		key := mustKey(t, reg, mustProvider(t, reg, "openai").ID, 1)
		require.NoError(t, reg.Close())
		reg = must(registry.Open(t.Context(), path, registry.WithKeyring(adapter)))
		require.NoError(t, must(reg.RevealAPIKey(t.Context(), key.ID)).Use(func(text []byte) error {
			require.Equal(t, secret(1), string(text))
			return nil
		}))
		require.NoError(t, reg.Close())
	})
	t.Run("ErrKeyring", func(t *testing.T) {
		_, err := registry.Open(t.Context(), path, registry.WithKeyring(&service{}))
		require.ErrorIs(t, err, registry.ErrKeyring)
	})
	t.Run("ErrKeyring_of_keys_in_memory", func(t *testing.T) {
		ring := ring(t, "a")
		wrapped := must(ring.Wrap(t.Context(), ring.CurrentID(), make([]byte, 32), []byte("one")))
		_, err := ring.Unwrap(t.Context(), ring.CurrentID(), wrapped, []byte("another"))
		require.ErrorIs(t, err, registry.ErrKeyring)
		_, err = ring.Unwrap(t.Context(), "unknown", wrapped, []byte("one"))
		require.ErrorIs(t, err, registry.ErrKeyring)
		_, err = ring.Wrap(t.Context(), "unknown", wrapped, []byte("one"))
		require.ErrorIs(t, err, registry.ErrKeyring)
	})
}
