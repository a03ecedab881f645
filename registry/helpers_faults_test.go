package registry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// faultChildren are what the tests here run as processes of their own; an error fails the test.
var faultChildren = map[string]func(ctx context.Context, args ...string) error{
	"read-only": faultReadOnly,
	"full":      faultFull,
	"limited":   faultLimited,
	"record":    faultRecord,
	"retry":     faultRetry,
	"hold":      faultHold,
	"move":      moving,
}

// faultError returns an error unless err is want.
func faultError(what string, err, want error) error {
	switch {
	case err == nil:
		return fmt.Errorf("%s: no error", what)
	case !errors.Is(err, want):
		return fmt.Errorf("%s: %w, but no %w", what, err, want)
	}
	return nil
}

// faultFixture creates what requests can be recorded for.
func faultFixture(ctx context.Context, reg *registry.Registry) (m *ent.Model, k *ent.APIKey, err error) {
	p, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: "openai"})
	if err != nil {
		return nil, nil, err
	}
	if m, err = reg.CreateModel(
		ctx, registry.ModelInput{ProviderID: p.ID, ModelID: "gpt-4", Rates: gpt4()},
	); err != nil {
		return nil, nil, err
	}
	k, err = reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: p.ID, APIKey: secret(1)})
	return m, k, err
}

// faultPut records a request, and a setting that stands for it, in one transaction.
func faultPut(ctx context.Context, reg *registry.Registry, modelID, keyID uuid.UUID, id, value string) error {
	return reg.InTx(ctx, func(tx *registry.Registry) error {
		in := registry.UsageInput{
			ModelID: modelID, APIKeyID: keyID, Tokens: meter.Tokens{InputTokens: 3, OutputTokens: 1},
		}
		if err := tx.RecordUsage(ctx, in); err != nil {
			return err
		}
		return tx.SetSetting(ctx, id, value)
	})
}

// faultSum returns how many settings there are, after it has seen that the ledger and the
// counters of the key say the same.
func faultSum(ctx context.Context, reg *registry.Registry) (n int64, err error) {
	all, err := collect(registry.All(ctx, reg.ListSettings, registry.SettingFilter{}))
	if err != nil {
		return 0, err
	}
	n = int64(len(all))
	quarters, err := reg.Client().UsageQuarter.Query().All(ctx)
	if err != nil {
		return 0, err
	}
	days, err := reg.Client().Usage.Query().All(ctx)
	if err != nil {
		return 0, err
	}
	requests, tokens := map[string]int64{}, map[string]int64{}
	for _, u := range quarters {
		requests["quarters"] += u.RequestCount
		tokens["quarters"] += u.InputTokens + u.OutputTokens
	}
	for _, u := range days {
		requests["days"] += u.RequestCount
		tokens["days"] += u.InputTokens + u.OutputTokens
	}
	key, err := reg.Client().APIKey.Query().Only(ctx)
	if err != nil {
		return 0, err
	}
	for what, sum := range map[string]int64{
		"requests by quarters": requests["quarters"], "requests by days": requests["days"],
		"tokens by quarters": tokens["quarters"] / 4, "tokens by days": tokens["days"] / 4,
		"requests of the key": key.UsageCount, "tokens of the key": key.TokenCount / 4,
	} {
		if sum != n {
			return 0, fmt.Errorf("%d settings, but %d %s", n, sum, what)
		}
	}
	return n, nil
}

// faultIntegrity asks SQLite whether the file is sound.
func faultIntegrity(ctx context.Context, reg *registry.Registry) (err error) {
	rows, err := reg.Client().QueryContext(ctx, "PRAGMA integrity_check")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Err(), rows.Close()) }()
	for rows.Next() {
		var says string
		if err := rows.Scan(&says); err != nil {
			return err
		}
		if says != "ok" {
			return errors.New("integrity_check: " + says)
		}
	}
	return nil
}

// faultAnswers opens a database, at a time that stands still as some answers are of this minute, and returns all that
// can be read of it.
func faultAnswers(t *testing.T, path string) (answers string, err error) {
	t.Helper()
	ctx := t.Context()
	reg, err := registry.Open(ctx, path, registry.WithClock(registrytest.NewClock(registrytest.Start).Now))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	var all []any
	var errs []error
	add := func(rows any, err error) {
		all = append(all, rows)
		errs = append(errs, err)
	}
	providers, err := reg.ListProviders(ctx, registry.ProviderFilter{})
	add(providers, err)
	for _, p := range providers {
		for _, read := range []func() (any, error){
			func() (any, error) { return reg.GetModelsByProvider(ctx, p.ID, registry.Page{}) },
			func() (any, error) { return reg.ListAPIKeys(ctx, registry.KeyFilter{ProviderID: p.ID}) },
			func() (any, error) { return reg.ListFamilies(ctx, registry.FamilyFilter{ProviderID: p.ID}) },
			func() (any, error) { return reg.ListSDKVersions(ctx, registry.SDKVersionFilter{ProviderID: p.ID}) },
			func() (any, error) { return reg.GetCostBreakdown(ctx, p.ID) },
		} {
			add(read())
		}
	}
	add(reg.ListModels(ctx, registry.ModelFilter{Order: registry.OrderByInputCost}))
	add(reg.ListSettings(ctx, registry.SettingFilter{}))
	add(reg.GetRecentDiscoveries(ctx, registry.DiscoveryFilter{}))
	for _, p := range providers {
		models, err := reg.GetModelsByProvider(ctx, p.ID, registry.Page{})
		add(nil, err)
		for _, m := range models {
			add(reg.GetUsageStats(ctx, m.ID, time.Unix(0, 0), time.Unix(1<<33, 0)))
			add(reg.PriceAt(ctx, m.ID, registrytest.Start))
		}
	}
	// in lines, for a difference to be shown
	return strings.ReplaceAll(fmt.Sprint(all...), ", ", ",\n"), errors.Join(errs...)
}
