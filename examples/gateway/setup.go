package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// routes are the models that the gateway offers, by provider.
var routes = map[string][]string{
	"openai":   {"gpt-5.4", "gpt-5-mini"},
	"deepseek": {"deepseek-v4-pro", "deepseek-v4-flash"},
	"xai":      {"grok-4.5"},
}

// providerNames are those of the routes, in order.
func providerNames() []string { return slices.Sorted(maps.Keys(routes)) }

const (
	keysPerProvider = 4
	sharedAccount   = "xai team"
)

// Limits of each key, and of the account that two of them share. What the provider allows at once must not be exceeded;
// the others are generous.
var (
	keyLimits     = registry.Limits{Concurrency: keyAtOnce, RequestsPerMinute: 6000, TokensPerMinute: 10_000_000}
	accountLimits = registry.Limits{Concurrency: 6, RequestsPerMinute: 10_000}
)

// demoKey is a key that the registry keeps and the provider knows.
type demoKey struct {
	provider, label, secret string
	account                 string // that it shares with others; empty: none
	weight                  int
}

func demoKeys() (keys []demoKey) {
	for _, name := range providerNames() {
		for n := range keysPerProvider {
			key := demoKey{
				provider: name, label: fmt.Sprintf("%s %d", name, n+1), weight: 1,
				secret: fmt.Sprintf("sk-%s-demo-%012d", name, n+1),
			}
			if n == 0 {
				key.weight = 2
			}
			if name == "xai" && n >= 2 {
				key.account = sharedAccount
			}
			keys = append(keys, key)
		}
	}
	return keys
}

// loadKeyring reads the key that API keys are sealed with, and makes one at the first run. A service would keep it away
// from the database.
func loadKeyring(path string) (registry.Keyring, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		key := make([]byte, registry.KeyringKeySize)
		if _, err := rand.Read(key); err != nil {
			return nil, err
		}
		text = []byte("demo = " + base64.StdEncoding.EncodeToString(key) + "\n")
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return registry.ParseKeyring(string(text))
}

// setUp looks up the models to offer, adds the keys that are missing, and brings those of an earlier run up to date.
func (g *gateway) setUp(ctx context.Context, keys []demoKey) error {
	providers := map[string]uuid.UUID{}
	for name, models := range routes {
		provider, err := g.reg.FindProvider(ctx, name)
		if err != nil {
			return err
		}
		providers[name] = provider.ID
		for _, modelID := range models {
			model, err := g.reg.FindModel(ctx, provider.ID, modelID)
			if err != nil {
				return fmt.Errorf("%s/%s: %w", name, modelID, err)
			}
			g.routes[name+"/"+modelID] = model
		}
	}
	for _, key := range keys {
		account, err := g.setUpAccount(ctx, providers[key.provider], key.account)
		if err != nil {
			return err
		}
		if err := g.setUpKey(ctx, providers[key.provider], account, key); err != nil {
			return err
		}
	}
	return nil
}

// setUpAccount returns the quota group with this name and creates a missing one. It returns a
// zero id for an empty name.
func (g *gateway) setUpAccount(ctx context.Context, providerID uuid.UUID, name string) (uuid.UUID, error) {
	if name == "" {
		return uuid.Nil, nil
	}
	group, err := g.reg.FindQuotaGroup(ctx, providerID, name)
	if err == nil {
		return group.ID, nil
	}
	if !errors.Is(err, registry.ErrNotFound) {
		return uuid.Nil, err
	}
	group, err = g.reg.CreateQuotaGroup(ctx, registry.QuotaGroupInput{
		ProviderID: providerID, Name: name, Limits: accountLimits,
	})
	if err != nil {
		return uuid.Nil, err
	}
	return group.ID, nil
}

func (g *gateway) setUpKey(ctx context.Context, providerID, account uuid.UUID, key demoKey) error {
	old, err := g.reg.FindAPIKey(ctx, providerID, key.secret)
	if errors.Is(err, registry.ErrNotFound) {
		_, err = g.reg.AddAPIKey(ctx, registry.KeyInput{
			ProviderID: providerID, APIKey: key.secret, Label: key.label, Limits: keyLimits, Weight: key.weight,
			QuotaGroupID: account,
		})
		return err
	}
	if err != nil {
		return err
	}
	// An earlier demo had no limits, and one before that did not seal.
	up := registry.KeyUpdate{Limits: &keyLimits, Weight: &key.weight, QuotaGroupID: &account}
	if old.DataKeyID == nil {
		up.APIKey = &key.secret
	}
	_, err = g.reg.UpdateAPIKey(ctx, old.ID, up)
	return err
}
