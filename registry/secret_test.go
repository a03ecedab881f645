package registry_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"testing"
	"text/template"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// forms are how a canary could be found.
func forms(canary string) []string {
	return []string{
		canary, hex.EncodeToString([]byte(canary)), fmt.Sprintf("%X", canary), fmt.Sprintf("%d", []byte(canary)),
		base64.RawStdEncoding.EncodeToString([]byte(canary)), base64.RawURLEncoding.EncodeToString([]byte(canary)),
	}
}

// TestSecretDoesNotShow prints a secret, and structs that it is in, in all ways.
func TestSecretDoesNotShow(t *testing.T) {
	t.Parallel()
	const canary = "sk-canary-9f8e7d6c5b4a39281706"
	type inner struct{ hidden registry.Secret }
	type embedded struct{ registry.Secret }
	type outer struct {
		Public  registry.Secret
		private registry.Secret
		Pointer *registry.Secret
		Nested  inner
		embedded
		List []registry.Secret
		Map  map[string]registry.Secret
		Any  any
	}
	s := registry.NewSecret(canary)
	values := map[string]any{
		"value": s, "pointer": &s, "embedded": embedded{s}, "hidden": inner{s}, "list": []registry.Secret{s},
		"outer": outer{s, s, &s, inner{s}, embedded{s}, []registry.Secret{s}, map[string]registry.Secret{"k": s}, s},
	}
	type leak struct{ Key string }
	routes := map[string]func(v any) string{
		"Sprint": func(v any) string { return fmt.Sprint(v) },
		"Sprintf": func(v any) string {
			return fmt.Sprintf("%v %+v %#v %s %q %x %X %d %T %p", v, v, v, v, v, v, v, v, v, v)
		},
		"Errorf": func(v any) string { return fmt.Errorf("failed with %v: %w", v, errors.New("no")).Error() },
		"log": func(v any) string {
			var b bytes.Buffer
			log.New(&b, "", 0).Printf("%v", v)
			return b.String()
		},
		"slog text": func(v any) string {
			var b bytes.Buffer
			slog.New(slog.NewTextHandler(&b, nil)).Info("call", "key", v)
			return b.String()
		},
		"slog JSON": func(v any) string {
			var b bytes.Buffer
			slog.New(slog.NewJSONHandler(&b, nil)).Info("call", "key", v)
			return b.String()
		},
		"JSON": func(v any) string { b, err := json.Marshal(v); return fmt.Sprint(string(b), err) },
		"XML":  func(v any) string { b, err := xml.Marshal(v); return fmt.Sprint(string(b), err) },
		"gob": func(v any) string {
			var b bytes.Buffer
			err := gob.NewEncoder(&b).Encode(v)
			return fmt.Sprint(b.String(), err)
		},
		"template": func(v any) string {
			var b bytes.Buffer
			err := template.Must(template.New("").Parse("{{.}}")).Execute(&b, v)
			return fmt.Sprint(b.String(), err)
		},
		"panic": func(v any) (text string) {
			defer func() { text = fmt.Sprint(recover()) }()
			panic(v)
		},
	}
	for how, route := range routes {
		require.Contains(t, route(leak{canary}), canary, "%s is able to show something", how)
		for what, v := range values {
			text := route(v)
			for _, form := range forms(canary) {
				require.NotContains(t, text, form, "%s of %s", how, what)
			}
		}
	}
	require.Equal(t, "[redacted]", fmt.Sprint(s))
	encoded, err := json.Marshal(outer{Public: s}.Public)
	require.NoError(t, err)
	require.Equal(t, `"[redacted]"`, string(encoded))
}

func TestSecret(t *testing.T) {
	t.Parallel()
	s := registry.NewSecret("one")
	var kept []byte
	require.ErrorIs(t, s.Use(func(key []byte) error {
		require.Equal(t, "one", string(key))
		kept = key
		return errRollback
	}), errRollback)
	require.Equal(t, []byte{0, 0, 0}, kept, "the copy is cleared")
	require.True(t, s.Equal(registry.NewSecret("one")))
	require.False(t, s.Equal(registry.NewSecret("two")))
	require.False(t, s.Equal(registry.Secret{}))
	require.True(t, registry.Secret{}.Equal(registry.NewSecret("")))
	require.True(t, registry.Secret{}.IsZero())
	require.False(t, s.IsZero())

	reg, _ := onSQLite.setup(t)
	for _, argument := range []any{s, &s} {
		_, err := reg.Client().ExecContext(
			t.Context(), "INSERT INTO settings (key, value, updated_at) VALUES ('k', $1, 'now')", argument,
		)
		require.ErrorContains(t, err, "must not be stored")
	}
}
