package registry_test

// These tests write texts in every way there is, and have no source of their own.

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// marshaler is a value that says for itself what it is in JSON.
type marshaler string

func (m marshaler) MarshalJSON() ([]byte, error) { return []byte(m), nil }

// TestJSON stores JSON that is valid, and no other.
func TestJSON(t *testing.T) { eachEngine(t, testJSON) }

func testJSON(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	log, err := reg.CreateDiscoveryLog(t.Context(), registry.DiscoveryInput{Identifier: "x"})
	require.NoError(t, err)
	for name, text := range map[string]string{
		"invalid UTF-8": "\"\xff\"", "an invalid key": "{\"\xff\": 1}", "a surrogate": "\"\xed\xa0\x80\"",
		"NUL": "\"\x00\"", "half": "\"\xe2\x82\"",
	} {
		for _, data := range []any{
			json.RawMessage(text), []byte(text), marshaler(text), map[string]any{"x": json.RawMessage(text)},
		} {
			_, err := reg.UpdateDiscoveryResult(t.Context(), log.ID, data, discoverylog.StatusSuccess)
			require.ErrorIs(t, err, registry.ErrInvalidData, "%s as %T", name, data)
		}
	}
	for name, text := range map[string]string{
		"escapes": `"\u0000\ud800"`, "people's": `"` + peoplesTexts["a flag of tag characters"] + "\u200c\ufffe" + `"`,
		"deep": strings.Repeat("[", 9000) +
			strings.Repeat("]", 9000), "the same key": `{"a":1,"a":2}`, "a large number": "1e999999",
	} {
		log, err := reg.UpdateDiscoveryResult(t.Context(), log.ID, json.RawMessage(text), discoverylog.StatusSuccess)
		require.NoError(t, err, name)
		require.Equal(t, text, string(log.DiscoveredData), name)
	}
}

// TestShortAPIKeys adds keys of servers of one's own, of which at most half is stored.
func TestShortAPIKeys(t *testing.T) { eachEngine(t, testShortAPIKeys) }

func testShortAPIKeys(t *testing.T, e engine) {
	t.Parallel()
	reg := e.new(t, registry.WithKeyring(ring(t, "a")))
	p := mustProvider(t, reg, "local")
	for key, prefix := range map[string]string{
		"x": "", "xy": "x", "sk-1234": "sk-", "token-abc123": "token-", "fifteen-letters": "fifteen",
		"sixteen-letters-": "sixteen-", strings.Repeat("x", 4096): "xxxxxxxx",
	} {
		k, err := reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: key})
		require.NoError(t, err, key)
		require.Equal(t, prefix, k.KeyPrefix)
		found, err := reg.FindAPIKey(t.Context(), p.ID, key)
		require.NoError(t, err)
		require.Equal(t, k.ID, found.ID)
		requireReveals(t, reg, k.ID, key)
		_, err = reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: key})
		require.ErrorIs(t, err, registry.ErrConflict)
	}
	one, err := reg.FindAPIKey(t.Context(), p.ID, "x")
	require.NoError(t, err)
	next, err := reg.RotateAPIKey(t.Context(), one.ID, registry.KeyRotationInput{APIKey: "z"})
	require.NoError(t, err, "it is not keyless")
	requireReveals(t, reg, next.ID, "z")
	_, err = reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, Keyless: true})
	require.NoError(t, err)
	_, err = reg.FindAPIKey(t.Context(), p.ID, strings.Repeat("x", 4097))
	require.ErrorIs(t, err, registry.ErrInvalidData)
}

// TestInjection puts SQL into every text there is: it is stored as it is, or refused.
func TestInjection(t *testing.T) { eachEngine(t, testInjection) }

func testInjection(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	p := mustProvider(t, reg, "openai")
	for _, text := range []string{`'; DROP TABLE providers; --`, `" OR 1=1 --`, "`id`", `\'; SELECT 1`, "%_", "💥"} {
		require.NoError(t, reg.SetSetting(t.Context(), text, text))
		value, err := reg.GetSetting(t.Context(), text)
		require.NoError(t, err)
		require.Equal(t, text, value)
		m, err := reg.CreateModel(
			t.Context(), registry.ModelInput{ProviderID: p.ID, ModelID: text, Name: text, Description: text},
		)
		require.NoError(t, err)
		found, err := reg.FindModel(t.Context(), p.ID, text)
		require.NoError(t, err)
		require.Equal(t, m.ID, found.ID)
		list, err := reg.ListModels(t.Context(), registry.ModelFilter{Search: text})
		require.NoError(t, err)
		require.Len(t, list, 1)
		_, err = reg.CreateProvider(t.Context(), registry.ProviderInput{Name: text})
		require.ErrorIs(t, err, registry.ErrInvalidData)
	}
	_, err := reg.GetProvider(t.Context(), p.ID)
	require.NoError(t, err)
}
