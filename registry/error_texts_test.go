package registry_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestErrorTexts reads errors as a caller does: each is one line, names the thing by the caller's words, and names no inner
// package.
func TestErrorTexts(t *testing.T) { eachEngine(t, testErrorTexts) }

func testErrorTexts(t *testing.T, e engine) {
	reg, _ := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "openai")
	m, k := mustModel(t, reg, p.ID, "gpt-4", gpt4()), mustKey(t, reg, p.ID, 1)
	keyless := mustProvider(t, reg, "local")
	unknown := uuid.MustParse("01900000-0000-7000-8000-000000000001")
	acquire := func(providerID uuid.UUID) error {
		_, err := reg.AcquireKey(ctx, registry.AcquireInput{ProviderID: providerID, TTL: time.Minute})
		return err
	}
	of := func(_ any, err error) error { return err }
	record(t, reg, m, k, 1, 1)
	for text, err := range map[string]error{
		`create provider "openai": already exists`: of(reg.CreateProvider(ctx, registry.ProviderInput{Name: "openai"})),
		`create model "gpt-4": already exists`:     of(reg.CreateModel(ctx, registry.ModelInput{ProviderID: p.ID, ModelID: "gpt-4"})),
		"add API key to provider " + p.ID.String() + ": already exists": of(reg.AddAPIKey(ctx, registry.KeyInput{
			ProviderID: p.ID, APIKey: secret(1),
		})),
		`find provider "nope": not found`: of(reg.FindProvider(ctx, "nope")),
		`get setting "nope": not found`:   of(reg.GetSetting(ctx, "nope")),
		"record usage: foreign key violation: no model is given: its id is zero: not found": reg.RecordUsage(ctx,
			registry.UsageInput{APIKeyID: k.ID}),
		"acquire key: no API key available: no provider is given: ProviderID is zero":                        acquire(uuid.Nil),
		"acquire key: no API key available: there is no provider " + unknown.String() + ", or it is deleted": acquire(unknown),
		"acquire key: no API key available: provider " + keyless.ID.String() + " has no keys: AddAPIKey adds one": acquire(
			keyless.ID),
		"get least used key: no API key available: there is no provider " + unknown.String() + ", or it is deleted": of(
			reg.GetLeastUsedKey(ctx, unknown)),
		"purge API key " + k.ID.String() + ": foreign key violation: usage or other rows refer to it, or a row that it refers" +
			" to is gone": reg.PurgeAPIKey(ctx, k.ID),
	} {
		require.EqualError(t, err, text)
	}
	err := of(reg.RevealAPIKey(ctx, k.ID))
	require.ErrorIs(t, err, registry.ErrNoSecret)
	require.ErrorContains(t, err, "WithKeyring")

	require.NoError(t, reg.Close())
	require.EqualError(t, of(reg.FindProvider(ctx, "openai")), `find provider "openai": registry closed`)
	require.EqualError(t, reg.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID}), "record usage: registry closed")
}

// TestKeyringTexts says what is missing where a variable of the environment is not set.
func TestKeyringTexts(t *testing.T) {
	t.Parallel()
	_, err := registry.ParseKeyring("")
	require.ErrorIs(t, err, registry.ErrInvalidData)
	require.ErrorContains(t, err, "there is no key in it")
	_, err = registry.NewKeyring("a", map[string][]byte{"b": []byte(strings.Repeat("ab", 16))})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	require.NotContains(t, err.Error(), "seal:")
}

// TestMisspelledParameter: the server does not know a parameter of the URL.
func TestMisspelledParameter(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, "", nil)
	with := "?"
	if strings.Contains(url, "?") {
		with = "&"
	}
	_, err := registry.Open(t.Context(), url+with+"sslmod=disable")
	require.ErrorIs(t, err, registry.ErrInvalidData)
	require.ErrorContains(t, err, "sslmod")
	require.NotContains(t, err.Error(), "\n")
}
