package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestNoPlaintextKey searches for a key, its hex and its base64 in all files of a database in
// use, in the rows, and in the errors of all calls that it is given to.
func TestNoPlaintextKey(t *testing.T) {
	t.Parallel()
	t.Run("hashed", func(t *testing.T) { testNoPlaintextKey(t) })
	t.Run("sealed", func(t *testing.T) { testNoPlaintextKey(t, registry.WithKeyring(ring(t, "a"))) })
}

func testNoPlaintextKey(t *testing.T, options ...registry.Option) {
	t.Parallel()
	const canary = "sk-canary-9f8e7d6c5b4a39281706"
	dir := t.TempDir()
	reg, err := registry.Open(t.Context(), filepath.Join(dir, "canary.db"), options...)
	require.NoError(t, err)
	p := mustProvider(t, reg, "openai")
	in := registry.KeyInput{ProviderID: p.ID, APIKey: canary}
	key, err := reg.AddAPIKey(t.Context(), in)
	require.NoError(t, err)
	require.NoError(t, reg.DegradeKey(t.Context(), key.ID, "429", 1e9))

	texts := []string{fmt.Sprintf("%v %+v %#v", key, key, key), dump(t, reg)}
	note := func(err error) {
		require.Error(t, err)
		for err != nil {
			texts = append(texts, fmt.Sprintf("%v %+v %#v", err, err, err))
			err = errors.Unwrap(err)
		}
	}
	_, err = reg.AddAPIKey(t.Context(), in)
	note(err)
	for _, bad := range []string{canary + "\n", canary + "é"} {
		_, err = reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: bad})
		note(err)
		_, err = reg.FindAPIKey(t.Context(), p.ID, bad)
		note(err)
	}
	_, err = reg.FindAPIKey(t.Context(), key.ID, canary)
	note(err)
	_, err = reg.GetLeastUsedKey(t.Context(), p.ID)
	note(err)

	if len(options) > 0 {
		requireReveals(t, reg, key.ID, canary)
		got, err := reg.RevealAPIKey(t.Context(), key.ID)
		require.NoError(t, err)
		texts = append(texts, fmt.Sprintf("%v %+v %#v", got, got, got))
		_, err = reg.RotateKeyring(t.Context(), registry.KeyringRotation{DataKey: true})
		require.NoError(t, err)
		_, err = reg.RotateAPIKey(t.Context(), key.ID, registry.KeyRotation{APIKey: canary})
		note(err)
		row, err := reg.Client().APIKey.Get(t.Context(), key.ID)
		require.NoError(t, err)
		require.NoError(t, reg.Client().APIKey.UpdateOne(row).SetSealed(row.Sealed[:50]).Exec(t.Context()))
		_, err = reg.RevealAPIKey(t.Context(), key.ID)
		note(err)
		require.NoError(t, reg.Client().APIKey.UpdateOne(row).SetSealed(row.Sealed).Exec(t.Context()))
		texts = append(texts, dump(t, reg))
	}

	found := func() (where []string) {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		haystacks := map[string][]byte{}
		for _, e := range entries {
			content, err := os.ReadFile(filepath.Join(dir, e.Name()))
			require.NoError(t, err)
			haystacks[e.Name()] = content
		}
		for i, text := range texts {
			haystacks[fmt.Sprint("text ", i)] = []byte(text)
		}
		for name, content := range haystacks {
			for _, form := range forms(canary) {
				if bytes.Contains(content, []byte(form)) {
					where = append(where, name)
				}
			}
		}
		return where
	}
	require.Empty(t, found())
	// The search is able to find: a setting holds what it is given.
	require.NoError(t, reg.SetSetting(t.Context(), "leak", canary))
	require.NotEmpty(t, found())
	require.NoError(t, reg.Close())
}
