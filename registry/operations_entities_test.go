package registry_test

// These operations are a part of those in operations_test.go.

import (
	"context"
	"maps"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// withEntities adds operations of docs/entities.md to those of openOperations, with rows of their own.
func withEntities(
	t *testing.T, reg *registry.Registry, group uuid.UUID, operations map[string]operation,
) map[string]operation {
	t.Helper()
	ctx := t.Context()
	p, deleted := mustProvider(t, reg, "entities"), mustProvider(t, reg, "undeleted")
	m, gone := mustModel(t, reg, p.ID, "kept", gpt4()), mustModel(t, reg, p.ID, "undeleted", gpt4())
	key, goneKey := mustKey(t, reg, p.ID, 700), mustKey(t, reg, p.ID, 701)
	require.NoError(t, reg.DeleteProvider(ctx, deleted.ID))
	require.NoError(t, reg.DeleteModel(ctx, gone.ID))
	require.NoError(t, reg.DeleteAPIKey(ctx, goneKey.ID))
	price := must(reg.PriceHistory(ctx, registry.PriceFilter{ModelID: m.ID}))[0]
	var families, sdks, logs []uuid.UUID
	for _, name := range []string{"kept", "doomed"} {
		families = append(families, must(reg.CreateFamily(ctx, registry.FamilyInput{ProviderID: p.ID, Name: name})).ID)
		sdks = append(
			sdks, must(reg.CreateSDKVersion(ctx, registry.SDKVersionInput{ProviderID: p.ID, Version: name})).ID,
		)
		logs = append(logs, must(reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: name})).ID)
	}
	maps.Copy(operations, map[string]operation{
		"GetAPIKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetAPIKey(ctx, key.ID))
		},
		"GetPrice": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetPrice(ctx, price.ID))
		},
		"GetFamily": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetFamily(ctx, families[0]))
		},
		"FindFamily": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.FindFamily(ctx, p.ID, "kept"))
		},
		"UpdateFamily": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UpdateFamily(ctx, families[0], registry.FamilyUpdate{Description: ptr("new")}))
		},
		"DeleteFamily": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DeleteFamily(ctx, families[1])
		},
		"GetQuotaGroup": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetQuotaGroup(ctx, group))
		},
		"FindQuotaGroup": func(ctx context.Context, reg *registry.Registry) error {
			kept, err := reg.FindProvider(ctx, "kept")
			if err != nil {
				return err
			}
			return openSecond(reg.FindQuotaGroup(ctx, kept.ID, "group 0"))
		},
		"GetSDKVersion": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetSDKVersion(ctx, sdks[0]))
		},
		"FindSDKVersion": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.FindSDKVersion(ctx, p.ID, "kept"))
		},
		"UpdateSDKVersion": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UpdateSDKVersion(ctx, sdks[0], registry.SDKVersionUpdate{TestResults: ptr("ok")}))
		},
		"DeleteSDKVersion": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DeleteSDKVersion(ctx, sdks[1])
		},
		"GetDiscoveryLog": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetDiscoveryLog(ctx, logs[0]))
		},
		"DeleteDiscoveryLog": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DeleteDiscoveryLog(ctx, logs[1])
		},
		"UndeleteProvider": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UndeleteProvider(ctx, deleted.ID))
		},
		"UndeleteModel": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UndeleteModel(ctx, gone.ID))
		},
		"UndeleteAPIKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UndeleteAPIKey(ctx, goneKey.ID))
		},
	})
	return operations
}
