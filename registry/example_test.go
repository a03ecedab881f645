package registry_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// The quick start: a provider, a model, a key, a call, and what it cost.
func Example() {
	ctx := context.Background()
	// It stands in for the real one.
	openAI := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("OpenAI was called with", r.Header.Get("Authorization"))
		fmt.Fprint(w, `{"choices": [], "usage": {"prompt_tokens": 150, "completion_tokens": 80}}`)
	}))
	defer openAI.Close()

	sealing := make([]byte, registry.KeyringKeySize) // API keys are sealed with it: keep it, apart from the database
	rand.Read(sealing)
	keyring, err := registry.NewKeyring("2026", map[string][]byte{"2026": sealing})
	check(err)
	reg, err := registry.Open(ctx, ":memory:", registry.WithKeyring(keyring)) // or a file: "modelscan.db"
	check(err)
	defer reg.Close()

	provider, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: "openai", BaseURL: openAI.URL + "/v1"})
	check(err)
	gpt4, err := reg.CreateModel(ctx, registry.ModelInput{ProviderID: provider.ID, ModelID: "gpt-4", Rates: money.Rates{
		meter.Input: 30 * money.Dollar, meter.Output: 60 * money.Dollar, // per million tokens
	}})
	check(err)
	_, err = reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: provider.ID, APIKey: "sk-example-0123456789"})
	check(err)

	// Lease a key, call the provider with it, and settle what the call used.
	lease, err := reg.AcquireKey(ctx, registry.AcquireInput{
		ProviderID: provider.ID, ModelID: gpt4.ID, EstimatedTokens: 500, TTL: time.Minute,
	})
	check(err)
	secret, err := lease.Reveal(ctx)
	check(err)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, provider.BaseURL+"/chat/completions",
		strings.NewReader(`{"model": "gpt-4", "messages": [{"role": "user", "content": "Say hello."}]}`))
	check(err)
	check(secret.Use(func(key []byte) error {
		request.Header.Set("Authorization", "Bearer "+string(key))
		return nil
	}))
	response, err := http.DefaultClient.Do(request)
	check(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	check(err)
	tokens, err := meter.Extract(meter.OpenAIChat, body)
	check(err)
	check(lease.Settle(ctx, registry.UsageInput{Tokens: tokens}))

	costs, err := reg.GetCostBreakdown(ctx, provider.ID)
	check(err)
	fmt.Println("gpt-4 has cost", costs["gpt-4"], "dollars")
	// Output:
	// OpenAI was called with Bearer sk-example-0123456789
	// gpt-4 has cost 0.0093 dollars
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Several operations in one transaction: all of them, or none.
func ExampleRegistry_InTx() {
	ctx := context.Background()
	reg, err := registry.Open(ctx, ":memory:")
	check(err)
	defer reg.Close()

	err = reg.InTx(ctx, func(tx *registry.Registry) error {
		p, err := tx.CreateProvider(ctx, registry.ProviderInput{Name: "openai"})
		if err != nil {
			return err
		}
		_, err = tx.CreateModel(ctx, registry.ModelInput{ProviderID: p.ID, ModelID: ""})
		return err
	})
	fmt.Println(err)
	_, err = reg.FindProvider(ctx, "openai")
	fmt.Println(errors.Is(err, registry.ErrNotFound))
	// Output:
	// create model: invalid data: model_id is empty
	// true
}

// A real catalogue, and the graph walked in Ent.
func ExampleRegistry_ImportCatalog() {
	ctx := context.Background()
	reg, err := registry.Open(ctx, ":memory:")
	check(err)
	defer reg.Close()

	report, err := reg.ImportCatalog(ctx, catalog.Catwalk(), nil)
	check(err)
	fmt.Println(report.Providers.Created, "providers,", report.Models.Created, "models")

	opus, err := reg.Client().Provider.Query().Where(provider.Name("anthropic")).
		QueryModels().Where(model.ModelID("claude-opus-4-5-20251101")).
		WithFamily().WithPrices().Only(ctx)
	check(err)
	fmt.Println(opus.Name, "of", opus.Edges.Family.Name, "reads its cache at", *opus.Edges.Prices[0].CostPer1mCacheRead)
	// Output:
	// 40 providers, 1506 models
	// Claude Opus 4.5 of claude-opus-4 reads its cache at 0.5
}

// A key that hit its rate limit rests, and comes back by itself.
func ExampleRegistry_GetLeastUsedKey() {
	ctx := context.Background()
	now := time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	reg, err := registry.Open(ctx, ":memory:", registry.WithClock(func() time.Time { return now }))
	check(err)
	defer reg.Close()
	p, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: "openai"})
	check(err)
	key, err := reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: p.ID, APIKey: "sk-example-0123456789"})
	check(err)

	check(reg.DegradeKey(ctx, key.ID, "429 Too Many Requests", time.Minute))
	_, err = reg.GetLeastUsedKey(ctx, p.ID)
	var none *registry.NoKeyError
	if errors.As(err, &none) {
		fmt.Println(none.Keys[0].Prefix, none.Keys[0].Detail, "opens in", none.OpensAt.Sub(now))
	}
	now = now.Add(time.Minute)
	key, err = reg.GetLeastUsedKey(ctx, p.ID)
	fmt.Println(key.KeyPrefix, err)
	// Output:
	// sk-examp 429 Too Many Requests opens in 1m0s
	// sk-examp <nil>
}

// AcquireKey leases a key within its limits. The error says of each key why it is not available.
func ExampleRegistry_AcquireKey() {
	ctx := context.Background()
	now := time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	reg, err := registry.Open(ctx, ":memory:", registry.WithClock(func() time.Time { return now }))
	check(err)
	defer reg.Close()
	p, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: "openai"})
	check(err)
	m, err := reg.CreateModel(
		ctx,
		registry.ModelInput{
			ProviderID: p.ID, ModelID: "gpt-4",
			Rates: money.Rates{meter.Input: 30 * money.Dollar, meter.Output: 60 * money.Dollar},
		},
	)
	check(err)
	_, err = reg.AddAPIKey(ctx, registry.KeyInput{
		ProviderID: p.ID, APIKey: "sk-example-0123456789", Limits: registry.Limits{
			RequestsPerMinute: 10, TokensPerMinute: 5000,
		},
	})
	check(err)

	want := registry.AcquireInput{ProviderID: p.ID, ModelID: m.ID, EstimatedTokens: 3000, TTL: time.Minute}
	lease, err := reg.AcquireKey(ctx, want)
	check(err)
	_, err = reg.AcquireKey(ctx, want) // there would be 6,000 tokens in this minute
	var none *registry.NoKeyError
	if errors.As(err, &none) {
		fmt.Println(none.Keys[0].Reason, none.Keys[0].Detail, "opens in", none.OpensAt.Sub(now))
	}

	// The first request took less than was reserved for it.
	check(lease.Settle(ctx, registry.UsageInput{Tokens: meter.Tokens{InputTokens: 1200, OutputTokens: 300}}))
	lease, err = reg.AcquireKey(ctx, want)
	check(err)
	// The provider turned it down.
	made, err := lease.Fail(ctx, registry.Failure{Status: 429, Header: http.Header{"Retry-After": {"20"}}})
	check(err)
	fmt.Println(made.Class, "until", made.Until.Format(time.TimeOnly))
	verdicts, err := reg.ExplainKeys(ctx, want)
	check(err)
	fmt.Println(verdicts[0].Reason, verdicts[0].Detail, "until", verdicts[0].Until.Format(time.TimeOnly))
	for _, limit := range verdicts[0].Limits {
		fmt.Println(limit.Name, limit.Used, "of", limit.Limit)
	}
	// Output:
	// limited tokens_per_minute opens in 1m0s
	// rate_limited until 12:00:20
	// degraded rate_limited: 429 until 12:00:20
	// requests_per_minute 2 of 10
	// tokens_per_minute 1500 of 5000
}

// Prices change; what was recorded keeps the price it had.
func ExampleRegistry_UpdateModelPricing() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "modelscan")
	check(err)
	defer os.RemoveAll(dir)
	now := time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	reg, err := registry.Open(
		ctx, filepath.Join(dir, "modelscan.db"), registry.WithClock(func() time.Time { return now }),
	)
	check(err)
	defer reg.Close()
	p, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: "openai"})
	check(err)
	m, err := reg.CreateModel(
		ctx,
		registry.ModelInput{ProviderID: p.ID, ModelID: "gpt-4", Rates: money.Rates{meter.Input: 30 * money.Dollar}},
	)
	check(err)

	now = now.AddDate(0, 1, 0)
	_, err = reg.UpdateModelPricing(ctx, m.ID, registry.PriceInput{Rates: money.Rates{meter.Input: 10 * money.Dollar}})
	check(err)
	for _, at := range []time.Time{now.Add(-time.Second), now} {
		price, err := reg.PriceAt(ctx, m.ID, at)
		check(err)
		fmt.Println(at.Format(time.DateTime), registry.RatesOf(price)[meter.Input])
	}
	// Output:
	// 2026-08-15 11:59:59 30
	// 2026-08-15 12:00:00 10
}

// Who changed what: the audit trail, newest first.
func ExampleRegistry_ListAudit() {
	ctx := context.Background()
	reg, err := registry.Open(ctx, ":memory:")
	check(err)
	defer reg.Close()

	check(reg.As("alice").SetSetting(ctx, "region", "eu"))
	check(reg.As("bob").SetSetting(ctx, "region", "us"))

	trail, err := reg.ListAudit(ctx, registry.AuditFilter{Entity: registry.EntitySetting, EntityID: "region"})
	check(err)
	for _, e := range trail {
		fmt.Println(e.Actor, e.Action, e.Entity, e.EntityID)
	}
	// Output:
	// bob update setting region
	// alice create setting region
}

// What was used in June, day by day as Berlin counts them. A request that is recorded again counts once.
func ExampleRegistry_UsageReport() {
	ctx := context.Background()
	now := time.Date(2026, time.June, 30, 12, 0, 0, 0, time.UTC)
	reg, err := registry.Open(ctx, ":memory:", registry.WithClock(func() time.Time { return now }))
	check(err)
	defer reg.Close()
	p, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: "openai", BaseURL: "https://api.openai.com/v1"})
	check(err)
	m, err := reg.CreateModel(
		ctx,
		registry.ModelInput{ProviderID: p.ID, ModelID: "gpt-4", Rates: money.Rates{meter.Input: 30 * money.Dollar}},
	)
	check(err)
	k, err := reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: p.ID, APIKey: "sk-example-0123456789"})
	check(err)
	for _, request := range []struct {
		id string
		at time.Time
	}{
		{"a", time.Date(2026, time.June, 14, 21, 59, 0, 0, time.UTC)},
		{"b", time.Date(2026, time.June, 14, 22, 0, 0, 0, time.UTC)}, // midnight in Berlin
		{"b", time.Date(2026, time.June, 14, 22, 0, 0, 0, time.UTC)},
	} {
		check(reg.RecordUsage(ctx, registry.UsageInput{
			RequestID: request.id, At: request.at, ModelID: m.ID, APIKeyID: k.ID,
			Tokens: meter.Tokens{InputTokens: 1000}, Latency: 25 * time.Millisecond,
		}))
	}

	berlin, err := time.LoadLocation("Europe/Berlin")
	check(err)
	rows, err := reg.UsageReport(ctx, registry.ReportInput{
		Start: time.Date(2026, time.June, 1, 0, 0, 0, 0, berlin), End: now,
		By: []registry.Dimension{registry.ByProvider}, Step: registry.StepDay, Location: berlin,
	})
	check(err)
	for _, row := range rows {
		fmt.Println(
			row.Start.Format(time.DateOnly), row.Provider, row.Requests, "requests", row.TotalCost, "dollars", row.P95,
		)
	}
	// Output:
	// 2026-06-14 openai 1 requests 0.03 dollars 25ms
	// 2026-06-15 openai 1 requests 0.03 dollars 25ms
}
