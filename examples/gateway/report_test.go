package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestReportsOfADeletedModel prints the reports after a model that was used today was deleted.
func TestReportsOfADeletedModel(t *testing.T) {
	t.Parallel()
	ctx, reg := t.Context(), registrytest.New(t, registry.WithClock(time.Now))
	p, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: "openai", BaseURL: "https://api.openai.com/v1"})
	require.NoError(t, err)
	m, err := reg.CreateModel(ctx, registry.ModelInput{
		ProviderID: p.ID, ModelID: "gone-1", Rates: money.Rates{meter.Input: money.Dollar},
	})
	require.NoError(t, err)
	k, err := reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: p.ID, APIKey: "sk-example-0123456789"})
	require.NoError(t, err)
	require.NoError(t, reg.RecordUsage(ctx, registry.UsageInput{
		ModelID: m.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: 5},
	}))
	require.NoError(t, reg.DeleteModel(ctx, m.ID))

	var out bytes.Buffer
	require.NoError(t, printCosts(ctx, reg, &out))
	require.Contains(t, out.String(), "gone-1")
}
