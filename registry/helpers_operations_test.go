package registry_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

type operation = func(context.Context, *registry.Registry) error

// operated is what the operations are called on.
type operated struct {
	provider, doomed, purged *ent.Provider
	models, keys, groups     []uuid.UUID
	acquire                  registry.AcquireInput
	lease                    *registry.Lease
	log                      *ent.DiscoveryLog
}

// openOperations returns every operation of a registry by its name. All of them succeed in any
// order, and those that write change something.
func openOperations(t *testing.T, reg *registry.Registry) map[string]operation {
	t.Helper()
	ctx := t.Context()
	o := operated{
		provider: mustProvider(t, reg, "kept"), doomed: mustProvider(t, reg, "doomed"),
		purged: mustProvider(t, reg, "purged"),
	}
	for i := range 4 {
		o.models = append(o.models, mustModel(t, reg, o.provider.ID, fmt.Sprint("m", i), gpt4()).ID)
	}
	for i := range 6 {
		o.keys = append(o.keys, mustKey(t, reg, o.provider.ID, i).ID)
	}
	require.NoError(t, reg.IncrementUsage(ctx, o.keys[0], 1, 1))
	_, err := reg.Past().APIKey.UpdateOneID(o.keys[0]).AddTokenCount(1).Save(ctx) // for RepairLedger
	require.NoError(t, err)
	require.NoError(t, reg.DegradeKey(ctx, o.keys[1], "429", time.Hour))
	require.NoError(t, reg.SetSetting(ctx, "kept", "old"))
	require.NoError(t, reg.SetSetting(ctx, "doomed", "old"))
	o.log, err = reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "openai"})
	require.NoError(t, err)
	_, err = reg.CreateSDKVersion(ctx, registry.SDKVersionInput{ProviderID: o.provider.ID, Version: "1"})
	require.NoError(t, err)
	o.acquire = registry.AcquireInput{ProviderID: o.provider.ID, ModelID: o.models[0], TTL: time.Hour}
	o.lease, err = reg.AcquireKey(ctx, o.acquire)
	require.NoError(t, err)
	for i := range 2 {
		group, err := reg.CreateQuotaGroup(
			ctx, registry.QuotaGroupInput{ProviderID: o.provider.ID, Name: fmt.Sprint("group ", i)},
		)
		require.NoError(t, err)
		o.groups = append(o.groups, group.ID)
	}
	all := map[string]operation{}
	for _, some := range []map[string]operation{o.reads(), o.additions(), o.changes(), o.removals()} {
		maps.Copy(all, some)
	}
	return withDimensions(t, reg, withBudgets(t, reg, o, withConsumers(t, reg, withEntities(t, reg, o.groups[0], all))))
}

// reads are the operations that change nothing.
func (o operated) reads() map[string]operation {
	return map[string]operation{
		"ExplainKeys": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ExplainKeys(ctx, o.acquire))
		},
		"FindAPIKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.FindAPIKey(ctx, o.provider.ID, secret(0)))
		},
		"FindModel": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.FindModel(ctx, o.provider.ID, "m0"))
		},
		"FindProvider": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.FindProvider(ctx, "kept"))
		},
		"GetCostBreakdown": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetCostBreakdown(ctx, o.provider.ID))
		},
		"GetLease": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetLease(ctx, o.lease.ID))
		},
		"GetLeastUsedKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetLeastUsedKey(ctx, o.provider.ID))
		},
		"GetModel": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetModel(ctx, o.models[0]))
		},
		"GetModelsByProvider": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetModelsByProvider(ctx, o.provider.ID, registry.Page{}))
		},
		"GetProvider": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetProvider(ctx, o.provider.ID))
		},
		"GetRecentDiscoveries": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetRecentDiscoveries(ctx, registry.DiscoveryFilter{}))
		},
		"GetSetting": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetSetting(ctx, "kept"))
		},
		"GetUsageStats": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(
				reg.GetUsageStats(ctx, o.models[0], registrytest.Start, registrytest.Start.Add(time.Hour)),
			)
		},
		"LatestSDKVersion": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.LatestSDKVersion(ctx, o.provider.ID))
		},
		"ListAPIKeys": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListAPIKeys(ctx, registry.KeyFilter{ProviderID: o.provider.ID}))
		},
		"ListAudit": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListAudit(ctx, registry.AuditFilter{}))
		},
		"ListFamilies": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListFamilies(ctx, registry.FamilyFilter{ProviderID: o.provider.ID}))
		},
		"ListModels": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListModels(ctx, registry.ModelFilter{}))
		},
		"ListProviders": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListProviders(ctx, registry.ProviderFilter{}))
		},
		"ListQuotaGroups": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListQuotaGroups(ctx, registry.QuotaGroupFilter{ProviderID: o.provider.ID}))
		},
		"ListSDKVersions": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListSDKVersions(ctx, registry.SDKVersionFilter{ProviderID: o.provider.ID}))
		},
		"ListSettings": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListSettings(ctx, registry.SettingFilter{}))
		},
		"ListUsageEvents": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListUsageEvents(ctx, registry.EventFilter{}))
		},
		"PoolHealth": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.PoolHealth(ctx))
		},
		"PriceAt": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.PriceAt(ctx, o.models[0], registrytest.Start))
		},
		"PriceHistory": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.PriceHistory(ctx, registry.PriceFilter{ModelID: o.models[0]}))
		},
		"RevealAPIKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.RevealAPIKey(ctx, o.keys[0]))
		},
		"UnpricedUsage": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UnpricedUsage(ctx))
		},
		"UsageReport": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(
				reg.UsageReport(
					ctx, registry.ReportInput{Start: registrytest.Start, End: registrytest.Start.Add(time.Hour)},
				),
			)
		},
		"VerifyLedger": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.VerifyLedger(ctx))
		},
	}
}

// additions are the operations that make rows, or count in some.
func (o operated) additions() map[string]operation {
	return map[string]operation{
		"AcquireKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.AcquireKey(ctx, o.acquire))
		},
		"AddAPIKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: o.provider.ID, APIKey: secret(99)}))
		},
		"CreateDiscoveryLog": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(
				reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "new", ProviderID: o.provider.ID}),
			)
		},
		"CreateFamily": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.CreateFamily(ctx, registry.FamilyInput{ProviderID: o.provider.ID, Name: "new"}))
		},
		"CreateModel": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.CreateModel(ctx, registry.ModelInput{ProviderID: o.provider.ID, ModelID: "new"}))
		},
		"CreateModels": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.CreateModels(ctx, []registry.ModelInput{
				{ProviderID: o.provider.ID, ModelID: "new 1"}, {ProviderID: o.provider.ID, ModelID: "new 2"},
			}))
		},
		"CreateProvider": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.CreateProvider(ctx, registry.ProviderInput{Name: "new"}))
		},
		"CreateQuotaGroup": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(
				reg.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: o.provider.ID, Name: "new"}),
			)
		},
		"CreateSDKVersion": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(
				reg.CreateSDKVersion(ctx, registry.SDKVersionInput{ProviderID: o.provider.ID, Version: "2"}),
			)
		},
		"ImportCatalog": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ImportCatalog(ctx, catalog.Snapshot{Source: "test", Providers: []catalog.Provider{
				{
					Name: "imported", AuthMethod: "bearer",
					Models: []catalog.Model{{ModelID: "m", Rates: gpt4(), Family: "f"}},
				},
			}}, nil))
		},
		"InTx": func(ctx context.Context, reg *registry.Registry) error {
			return reg.InTx(ctx, func(tx *registry.Registry) error { return tx.SetSetting(ctx, "in tx", "x") })
		},
		"IncrementUsage": func(ctx context.Context, reg *registry.Registry) error {
			return reg.IncrementUsage(ctx, o.keys[0], 10, 10)
		},
		"RecordUsage": func(ctx context.Context, reg *registry.Registry) error {
			return reg.RecordUsage(ctx, registry.UsageInput{
				ModelID: o.models[0], APIKeyID: o.keys[0], Tokens: meter.Tokens{InputTokens: 1},
			})
		},
		"RecordUsageBatch": func(ctx context.Context, reg *registry.Registry) error {
			return reg.RecordUsageBatch(ctx, []registry.UsageInput{{ModelID: o.models[0], APIKeyID: o.keys[0]}})
		},
		"SetSetting": func(ctx context.Context, reg *registry.Registry) error {
			return reg.SetSetting(ctx, "kept", "new")
		},
	}
}

// changes are the operations that change rows.
func (o operated) changes() map[string]operation {
	return map[string]operation{
		"DegradeKey": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DegradeKey(ctx, o.keys[2], "500", time.Hour)
		},
		"DeprecateModel": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DeprecateModel(ctx, o.models[2], time.Time{})
		},
		"ObserveHeaders": func(ctx context.Context, reg *registry.Registry) error {
			return reg.ObserveHeaders(ctx, o.keys[0], http.Header{"Retry-After": {"1"}})
		},
		"RepairLedger": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.RepairLedger(ctx)) // of the counters of a key
		},
		"Reprice": func(ctx context.Context, reg *registry.Registry) error {
			_, err := reg.UpdateModelPricing(
				ctx, o.models[0],
				registry.PriceInput{Rates: money.Rates{meter.Input: 3}, EffectiveFrom: time.Unix(0, 0)},
			)
			if err == nil {
				_, err = reg.Reprice(ctx, registry.RepriceInput{ModelID: o.models[0]})
			}
			return err
		},
		"ResetDailyUsage": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ResetDailyUsage(ctx))
		},
		"RestoreKey": func(ctx context.Context, reg *registry.Registry) error {
			return reg.RestoreKey(ctx, o.keys[1])
		},
		"RotateAPIKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.RotateAPIKey(ctx, o.keys[5], registry.KeyRotationInput{APIKey: secret(500)}))
		},
		"RotateKeyring": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.RotateKeyring(ctx, registry.KeyringRotationInput{DataKey: true}))
		},
		"UpdateAPIKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UpdateAPIKey(ctx, o.keys[5], registry.KeyUpdate{Label: ptr("new")}))
		},
		"UpdateDiscoveryResult": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UpdateDiscoveryResult(ctx, o.log.ID, "found", discoverylog.StatusSuccess))
		},
		"UpdateModel": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UpdateModel(ctx, o.models[0], registry.ModelUpdate{Name: ptr("new")}))
		},
		"UpdateModelPricing": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(
				reg.UpdateModelPricing(ctx, o.models[0], registry.PriceInput{Rates: money.Rates{meter.Input: 1}}),
			)
		},
		"UpdateProvider": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UpdateProvider(ctx, o.provider.ID, registry.ProviderUpdate{DisplayName: ptr("New")}))
		},
		"UpdateQuotaGroup": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(
				reg.UpdateQuotaGroup(
					ctx, o.groups[0], registry.QuotaGroupUpdate{Limits: &registry.Limits{Concurrency: 1}},
				),
			)
		},
	}
}

// removals are the operations that take rows away.
func (o operated) removals() map[string]operation {
	return map[string]operation{
		"DeleteAPIKey": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DeleteAPIKey(ctx, o.keys[3])
		},
		"DeleteModel": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DeleteModel(ctx, o.models[1])
		},
		"DeleteProvider": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DeleteProvider(ctx, o.doomed.ID)
		},
		"DeleteQuotaGroup": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DeleteQuotaGroup(ctx, o.groups[1])
		},
		"DeleteSetting": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DeleteSetting(ctx, "doomed")
		},
		"Prune": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.Prune(ctx, registry.PruneInput{}))
		},
		"PurgeAPIKey": func(ctx context.Context, reg *registry.Registry) error {
			return reg.PurgeAPIKey(ctx, o.keys[4])
		},
		"PurgeModel": func(ctx context.Context, reg *registry.Registry) error {
			return reg.PurgeModel(ctx, o.models[3])
		},
		"PurgeProvider": func(ctx context.Context, reg *registry.Registry) error {
			return reg.PurgeProvider(ctx, o.purged.ID)
		},
	}
}

// openSecond returns the error of an operation, or what is wrong with the rows it returned.
func openSecond[T any](returned T, err error) error {
	if err != nil {
		return err
	}
	return rowsUntied(reflect.ValueOf(returned))
}

// openReads tells the operations that change nothing.
func openReads(name string) bool {
	for _, prefix := range []string{
		"Authenticate", "Explain", "Find", "Get", "Latest", "List", "Pool", "Price", "Reveal", "Unpriced",
		"UsageReport", "Verify",
	} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
