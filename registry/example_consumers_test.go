package registry_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// openShop opens a registry with a model and a key, at noon on 15 July 2026.
func openShop(ctx context.Context) (*registry.Registry, *ent.Model) {
	now := time.Date(2026, time.July, 15, 12, 0, 0, 0, time.UTC)
	reg, err := registry.Open(ctx, ":memory:", registry.WithClock(func() time.Time { return now }))
	check(err)
	p, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: "openai"})
	check(err)
	m, err := reg.CreateModel(ctx, registry.ModelInput{
		ProviderID: p.ID, ModelID: "gpt-4",
		Rates: money.Rates{meter.Input: 30 * money.Dollar, meter.Output: 60 * money.Dollar},
	})
	check(err)
	_, err = reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: p.ID, APIKey: "sk-example-0123456789"})
	check(err)
	return reg, m
}

// Who may spend what: a user of a team that has a budget shows an access key, and asks for more than is left.
func Example_consumers() {
	ctx := context.Background()
	reg, gpt4 := openShop(ctx) // a registry with a model and an API key
	defer func() { check(reg.Close()) }()

	team, err := reg.EnsureConsumer(ctx, registry.ConsumerInput{Name: "search", ExternalID: "team-7"})
	check(err)
	ada, err := reg.EnsureConsumer(ctx, registry.ConsumerInput{Name: "Ada", ExternalID: "user-9", ParentID: team.ID})
	check(err)
	_, err = reg.CreateBudget(ctx, registry.BudgetInput{
		ConsumerID: team.ID, Name: "a day", Ceilings: registry.Ceilings{Tokens: 10_000},
		Window: registry.Window{Per: budget.PerDay, Zone: "Europe/Berlin"},
	})
	check(err)
	_, secret, err := reg.CreateAccessKey(ctx, registry.AccessKeyInput{ConsumerID: ada.ID, Label: "laptop"})
	check(err) // give Ada the secret: it is not stored

	var presented string // her request has it: Authorization: Bearer msk-...
	check(secret.Use(func(key []byte) error { presented = string(key); return nil }))
	caller, err := reg.Authenticate(ctx, presented)
	check(err) // ErrForbidden: answer 401
	for range 2 {
		lease, err := reg.AcquireKey(ctx, registry.AcquireInput{
			ProviderID: gpt4.ProviderID, ModelID: gpt4.ID, EstimatedTokens: 6000, TTL: time.Minute,
			ConsumerID: caller.ConsumerID, AccessKeyID: caller.AccessKeyID,
		})
		var over *registry.BudgetError
		if errors.As(err, &over) { // answer 429, with a Retry-After
			fmt.Println(over.Closed[0], "- opens at", over.OpensAt.Format(time.RFC3339))
			continue
		}
		check(err)
		fmt.Println("call the provider with", lease.KeyPrefix, "and settle the lease")
	}
	// Output:
	// call the provider with sk-examp and settle the lease
	// "a day": 4000 of 10000 tokens left, 6000 asked - opens at 2026-07-15T22:00:00Z
}

// Budgets without a pool of keys: a keyless key stands in for the provider's, which the caller keeps elsewhere.
func Example_keyless() {
	ctx := context.Background()
	reg, err := registry.Open(ctx, ":memory:")
	check(err)
	defer func() { check(reg.Close()) }()

	p, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: "openai"})
	check(err)
	m, err := reg.CreateModel(ctx, registry.ModelInput{ProviderID: p.ID, ModelID: "gpt-4"})
	check(err)
	_, err = reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: p.ID, Keyless: true}) // once
	check(err)
	ada, err := reg.EnsureConsumer(ctx, registry.ConsumerInput{Name: "Ada", ExternalID: "user-9"})
	check(err)
	_, err = reg.CreateBudget(ctx, registry.BudgetInput{
		ConsumerID: ada.ID, Name: "a month", Ceilings: registry.Ceilings{Requests: 2},
	})
	check(err)
	for range 3 {
		lease, err := reg.AcquireKey(ctx, registry.AcquireInput{
			ProviderID: p.ID, ModelID: m.ID, ConsumerID: ada.ID, TTL: time.Minute,
		})
		if errors.Is(err, registry.ErrBudget) {
			fmt.Println("refused")
			continue
		}
		check(err)
		// ... call the provider with your own key; if that fails, settle with Failed: true ...
		check(lease.Settle(ctx, registry.UsageInput{Tokens: meter.Tokens{InputTokens: 1000, OutputTokens: 200}}))
		fmt.Println("served")
	}
	// Output:
	// served
	// served
	// refused
}
