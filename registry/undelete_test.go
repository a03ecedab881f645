package registry_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/ent/sdkversion"
	"github.com/jeffersonwarrior/modelscan/registry"
)

func TestUndelete(t *testing.T) { eachEngine(t, testUndelete) }

func testUndelete(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "openai")
	m, before := mustModel(t, reg, p.ID, "gpt-4", gpt4()), mustModel(t, reg, p.ID, "gpt-3", gpt4())
	k, other := mustKey(t, reg, p.ID, 1), mustKey(t, reg, p.ID, 2)
	record(t, reg, m, k, 1, 1)
	require.NoError(t, reg.DeleteModel(ctx, before.ID))
	keyBefore := mustKey(t, reg, p.ID, 3)
	require.NoError(t, reg.DeleteAPIKey(ctx, keyBefore.ID))
	clock.Advance(time.Hour)

	t.Run("OK_provider", func(t *testing.T) {
		was := must(reg.GetProvider(ctx, p.ID)).String()
		require.NoError(t, reg.DeleteProvider(ctx, p.ID))
		require.NotNil(t, must(reg.GetModel(ctx, m.ID)).DeletedAt)
		require.NotNil(t, must(reg.GetAPIKey(ctx, k.ID)).DeletedAt)
		require.Len(t, must(reg.ListProviders(ctx, registry.ProviderFilter{Deleted: true})), 1)
		require.Len(t, must(reg.ListModels(ctx, registry.ModelFilter{Deleted: true})), 2)
		require.Len(t, must(reg.ListAPIKeys(ctx, registry.KeyFilter{Deleted: true})), 3)
		live, err := reg.As("alice").UndeleteProvider(ctx, p.ID)
		require.NoError(t, err)
		live.UpdatedAt = p.UpdatedAt
		require.Equal(t, was, live.String())
		require.Nil(t, must(reg.GetModel(ctx, m.ID)).DeletedAt)
		require.NotNil(t, must(reg.GetModel(ctx, before.ID)).DeletedAt, "it was deleted before")
		require.Nil(t, must(reg.GetAPIKey(ctx, k.ID)).DeletedAt)
		require.NotNil(t, must(reg.GetAPIKey(ctx, keyBefore.ID)).DeletedAt, "it was deleted before")
		entries := must(reg.ListAudit(ctx, registry.AuditFilter{Action: registry.ActionUndelete, Actor: "alice"}))
		require.Len(t, entries, 4, "the provider, a model and two keys")
		record(t, reg, m, k, 1, 1)
		again := must(reg.UndeleteProvider(ctx, p.ID))
		require.Equal(t, must(reg.GetProvider(ctx, p.ID)).String(), again.String(), "a live one stays as it is")
	})
	t.Run("OK_model", func(t *testing.T) {
		live := must(reg.UndeleteModel(ctx, before.ID))
		require.Nil(t, live.DeletedAt)
		require.Equal(t, before.ID, must(reg.FindModel(ctx, p.ID, "gpt-3")).ID)
		filter := registry.AuditFilter{Action: registry.ActionUndelete, EntityID: before.ID.String()}
		require.Len(t, must(reg.ListAudit(ctx, filter)), 1)
	})
	t.Run("OK_key", func(t *testing.T) {
		require.NoError(t, reg.DegradeKey(ctx, other.ID, "429", time.Hour))
		require.NoError(t, reg.DeleteAPIKey(ctx, other.ID))
		live := must(reg.UndeleteAPIKey(ctx, other.ID))
		require.Nil(t, live.DeletedAt)
		require.True(t, live.Degraded, "as it was")
		require.Equal(t, other.ID, must(reg.FindAPIKey(ctx, p.ID, secret(2))).ID)
		clock.Advance(2 * time.Hour)
		require.False(t, must(reg.GetAPIKey(ctx, other.ID)).Degraded, "as it is now")
	})
	t.Run("OK_all_in_one_instant", func(t *testing.T) {
		twice := mustProvider(t, reg, "twice")
		var models, keys []uuid.UUID
		for range 2 {
			m, k := mustModel(t, reg, twice.ID, "m", nil), mustKey(t, reg, twice.ID, 1)
			models, keys = append(models, m.ID), append(keys, k.ID)
			if len(models) == 1 {
				require.NoError(t, reg.DeleteModel(ctx, m.ID))
				require.NoError(t, reg.DeleteAPIKey(ctx, k.ID))
			}
		}
		require.NoError(t, reg.DeleteProvider(ctx, twice.ID))
		must(reg.UndeleteProvider(ctx, twice.ID))
		for i := range 2 { // the last of each name
			require.Equal(t, i == 1, must(reg.GetModel(ctx, models[i])).DeletedAt == nil)
			require.Equal(t, i == 1, must(reg.GetAPIKey(ctx, keys[i])).DeletedAt == nil)
		}
	})
	t.Run("ErrConflict", func(t *testing.T) {
		require.NoError(t, reg.DeleteModel(ctx, m.ID))
		require.NoError(t, reg.DeleteAPIKey(ctx, k.ID))
		mustModel(t, reg, p.ID, "gpt-4", nil)
		mustKey(t, reg, p.ID, 1)
		_, err := reg.UndeleteModel(ctx, m.ID)
		require.ErrorIs(t, err, registry.ErrConflict)
		require.ErrorContains(t, err, `is called "gpt-4" now: delete that one first`)
		_, err = reg.UndeleteAPIKey(ctx, k.ID)
		require.ErrorIs(t, err, registry.ErrConflict)
		require.NoError(t, reg.DeleteProvider(ctx, p.ID))
		mustProvider(t, reg, "openai")
		_, err = reg.UndeleteProvider(ctx, p.ID)
		require.ErrorIs(t, err, registry.ErrConflict)
		require.ErrorContains(t, err, `is called "openai" now: rename that one first`)
		require.NotNil(t, must(reg.GetProvider(ctx, p.ID)).DeletedAt)
	})
	t.Run("ErrForeignKey_of_a_deleted_provider", func(t *testing.T) {
		_, err := reg.UndeleteModel(ctx, m.ID)
		require.ErrorIs(t, err, registry.ErrForeignKey)
		require.ErrorContains(t, err, "undelete the provider first")
		_, err = reg.UndeleteAPIKey(ctx, k.ID)
		require.ErrorIs(t, err, registry.ErrForeignKey)
	})
}

// TestUndeleteRefuses has what cannot come back.
func TestUndeleteRefuses(t *testing.T) { eachEngine(t, testUndeleteRefuses) }

func testUndeleteRefuses(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	t.Run("ErrInvalidData_of_too_many_keys", func(t *testing.T) {
		full := mustProvider(t, reg, "full")
		first := mustKey(t, reg, full.ID, 0)
		require.NoError(t, reg.DeleteAPIKey(ctx, first.ID))
		for n := range registry.MaxKeysPerProvider {
			mustKey(t, reg, full.ID, 1+n)
		}
		_, err := reg.UndeleteAPIKey(ctx, first.ID)
		require.ErrorIs(t, err, registry.ErrInvalidData)
		require.ErrorContains(t, err, "the provider has 100 keys already")
		require.NotNil(t, must(reg.GetAPIKey(ctx, first.ID)).DeletedAt)

		expiring := must(reg.FindAPIKey(ctx, full.ID, secret(1)))
		must(reg.RotateAPIKey(ctx, expiring.ID, registry.KeyRotationInput{APIKey: secret(1000), Overlap: time.Hour}))
		require.NoError(t, reg.DeleteAPIKey(ctx, expiring.ID))
		must(reg.UndeleteAPIKey(ctx, expiring.ID)) // it does not count among them
	})
	t.Run("ErrNotFound", func(t *testing.T) {
		for name, undelete := range map[string]func() error{
			"provider": func() error { return openSecond(reg.UndeleteProvider(ctx, uuid.New())) },
			"model":    func() error { return openSecond(reg.UndeleteModel(ctx, uuid.New())) },
			"key":      func() error { return openSecond(reg.UndeleteAPIKey(ctx, uuid.New())) },
			"get key":  func() error { return openSecond(reg.GetAPIKey(ctx, uuid.New())) },
		} {
			require.ErrorIs(t, undelete(), registry.ErrNotFound, name)
		}
		_, err := reg.FindProvider(ctx, "nobody")
		require.EqualError(t, err, `find provider "nobody": not found`)
	})
}

func TestFamilies(t *testing.T) { eachEngine(t, testFamilies) }

func testFamilies(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "openai")
	var families []*ent.ModelFamily
	for i := range 2 {
		in := registry.FamilyInput{ProviderID: p.ID, Name: fmt.Sprint("f", i)}
		families = append(families, must(reg.CreateFamily(ctx, in)))
	}
	m := must(reg.CreateModel(ctx, registry.ModelInput{ProviderID: p.ID, FamilyID: families[0].ID, ModelID: "gpt-4"}))
	clock.Advance(time.Minute)

	t.Run("OK_rename", func(t *testing.T) {
		up := must(reg.UpdateFamily(ctx, families[0].ID, registry.FamilyUpdate{Name: ptr("gpt")}))
		require.Equal(t, "gpt", up.Name)
		require.Equal(t, clock.Now(), up.UpdatedAt)
		require.Equal(t, families[0].ID, must(reg.FindFamily(ctx, p.ID, "gpt")).ID)
		require.Equal(t, "gpt", must(reg.GetFamily(ctx, families[0].ID)).Name)
		require.Equal(t, families[0].ID, *must(reg.GetModel(ctx, m.ID)).FamilyID)
		filter := registry.AuditFilter{Entity: registry.EntityFamily, Action: registry.ActionUpdate}
		require.Len(t, must(reg.ListAudit(ctx, filter)), 1)
	})
	t.Run("Err", func(t *testing.T) {
		_, err := reg.UpdateFamily(ctx, families[0].ID, registry.FamilyUpdate{Name: ptr("f1")})
		require.ErrorIs(t, err, registry.ErrConflict)
		_, err = reg.UpdateFamily(ctx, families[0].ID, registry.FamilyUpdate{Name: ptr("")})
		require.ErrorIs(t, err, registry.ErrInvalidData)
		_, err = reg.UpdateFamily(ctx, uuid.New(), registry.FamilyUpdate{})
		require.ErrorIs(t, err, registry.ErrNotFound)
		_, err = reg.FindFamily(ctx, p.ID, "f9")
		require.ErrorIs(t, err, registry.ErrNotFound)
		require.ErrorContains(t, err, `find family "f9" of provider `+p.ID.String())
		require.ErrorIs(t, reg.DeleteFamily(ctx, uuid.New()), registry.ErrNotFound)
	})
	t.Run("OK_delete", func(t *testing.T) {
		require.NoError(t, reg.DeleteFamily(ctx, families[0].ID))
		require.Nil(t, must(reg.GetModel(ctx, m.ID)).FamilyID)
		_, err := reg.GetFamily(ctx, families[0].ID)
		require.ErrorIs(t, err, registry.ErrNotFound)
		entries := must(reg.ListAudit(ctx, registry.AuditFilter{
			Entity: registry.EntityModel, Action: registry.ActionUpdate, EntityID: m.ID.String(),
		}))
		require.Len(t, entries, 1)
		require.Contains(t, string(entries[0].Before), families[0].ID.String(), "which models had it")
	})
	t.Run("ErrNotFound_of_a_deleted_provider", func(t *testing.T) {
		group := must(reg.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: p.ID, Name: "g"}))
		sdk := must(reg.CreateSDKVersion(ctx, registry.SDKVersionInput{ProviderID: p.ID, Version: "1"}))
		require.NoError(t, reg.DeleteProvider(ctx, p.ID))
		for name, err := range map[string]error{
			"find family":   openSecond(reg.FindFamily(ctx, p.ID, "f1")),
			"update family": openSecond(reg.UpdateFamily(ctx, families[1].ID, registry.FamilyUpdate{})),
			"delete family": reg.DeleteFamily(ctx, families[1].ID),
			"find group":    openSecond(reg.FindQuotaGroup(ctx, p.ID, "g")),
			"update group":  openSecond(reg.UpdateQuotaGroup(ctx, group.ID, registry.QuotaGroupUpdate{})),
			"delete group":  reg.DeleteQuotaGroup(ctx, group.ID),
			"find SDK":      openSecond(reg.FindSDKVersion(ctx, p.ID, "1")),
			"update SDK": openSecond(
				reg.UpdateSDKVersion(ctx, sdk.ID, registry.SDKVersionUpdate{TestResults: ptr("x")}),
			),
			"delete SDK": reg.DeleteSDKVersion(ctx, sdk.ID),
		} {
			require.ErrorIs(t, err, registry.ErrNotFound, name)
		}
		require.Empty(t, must(reg.ListQuotaGroups(ctx, registry.QuotaGroupFilter{ProviderID: p.ID})))
		require.Equal(t, "f1", must(reg.GetFamily(ctx, families[1].ID)).Name, "by their ids they can be read")
		require.Equal(t, "g", must(reg.GetQuotaGroup(ctx, group.ID)).Name)
		require.Equal(t, "1", must(reg.GetSDKVersion(ctx, sdk.ID)).Version)
	})
}

func TestUpdateSDKVersion(t *testing.T) { eachEngine(t, testUpdateSDKVersion) }

func testUpdateSDKVersion(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "openai")
	sdk := must(reg.CreateSDKVersion(ctx, registry.SDKVersionInput{ProviderID: p.ID, Version: "1", SDKPath: "sdks/1"}))
	failed := sdkversion.CompilationStatusFailed
	in := registry.SDKVersionUpdate{CompilationStatus: &failed, TestResults: ptr("2 failed")}
	up := must(reg.UpdateSDKVersion(ctx, sdk.ID, in))
	require.Equal(t, []any{failed, "2 failed", "sdks/1"}, []any{up.CompilationStatus, up.TestResults, up.SdkPath})
	require.Equal(t, up.String(), must(reg.FindSDKVersion(ctx, p.ID, "1")).String())
	require.Len(t, must(reg.ListSDKVersions(ctx, registry.SDKVersionFilter{CompilationStatus: failed})), 1)
	pending := registry.SDKVersionFilter{CompilationStatus: sdkversion.CompilationStatusPending}
	require.Empty(t, must(reg.ListSDKVersions(ctx, pending)))
	_, err := reg.ListSDKVersions(ctx, registry.SDKVersionFilter{CompilationStatus: "no"})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	in.CompilationStatus = ptr(sdkversion.CompilationStatus("no"))
	_, err = reg.UpdateSDKVersion(ctx, sdk.ID, in)
	require.ErrorIs(t, err, registry.ErrInvalidData)
	_, err = reg.UpdateSDKVersion(ctx, uuid.New(), registry.SDKVersionUpdate{CompilationStatus: &failed})
	require.ErrorIs(t, err, registry.ErrNotFound)
	require.NoError(t, reg.DeleteSDKVersion(ctx, sdk.ID))
	require.ErrorIs(t, reg.DeleteSDKVersion(ctx, sdk.ID), registry.ErrNotFound)
}

func TestDiscoveryResult(t *testing.T) { eachEngine(t, testDiscoveryResult) }

func testDiscoveryResult(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	log := must(reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "openai"}))
	both, err := reg.UpdateDiscoveryResult(ctx, log.ID, registry.DiscoveryResult{
		Data: map[string]int{"models": 7}, Err: errors.New("page 2: timeout"),
	}, discoverylog.StatusFailed)
	require.NoError(t, err)
	require.JSONEq(t, `{"models": 7}`, string(both.DiscoveredData))
	require.Equal(t, "page 2: timeout", both.ErrorMessage)
	require.Equal(t, both.String(), must(reg.GetDiscoveryLog(ctx, log.ID)).String())
	found := registry.DiscoveryResult{Data: []byte(`{}`)}
	one := must(reg.UpdateDiscoveryResult(ctx, log.ID, found, discoverylog.StatusSuccess))
	require.Equal(t, []any{"{}", ""}, []any{string(one.DiscoveredData), one.ErrorMessage})
	pointer := &registry.DiscoveryResult{Data: 1, Err: errors.New("page 3: timeout")}
	one = must(reg.UpdateDiscoveryResult(ctx, log.ID, pointer, discoverylog.StatusFailed))
	require.Equal(t, []any{"1", "page 3: timeout"}, []any{string(one.DiscoveredData), one.ErrorMessage})
	pointer = nil
	one = must(reg.UpdateDiscoveryResult(ctx, log.ID, pointer, discoverylog.StatusSuccess))
	require.Equal(t, []any{"", ""}, []any{string(one.DiscoveredData), one.ErrorMessage})
	for name, bad := range map[string]any{
		"no JSON":    registry.DiscoveryResult{Data: []byte("{")},
		"an error":   registry.DiscoveryResult{Data: errors.New("x")},
		"by pointer": &registry.DiscoveryResult{Data: errors.New("x")},
	} {
		_, err := reg.UpdateDiscoveryResult(ctx, log.ID, bad, discoverylog.StatusSuccess)
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
	}
	other := mustProvider(t, reg, "other")
	must(reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "other", ProviderID: other.ID}))
	require.Len(t, must(reg.GetRecentDiscoveries(ctx, registry.DiscoveryFilter{Identifier: "openai"})), 1)
	require.Len(t, must(reg.GetRecentDiscoveries(ctx, registry.DiscoveryFilter{Status: discoverylog.StatusPending})), 1)
	_, err = reg.GetRecentDiscoveries(ctx, registry.DiscoveryFilter{Status: "no"})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	require.NoError(t, reg.DeleteDiscoveryLog(ctx, log.ID))
	require.ErrorIs(t, reg.DeleteDiscoveryLog(ctx, log.ID), registry.ErrNotFound)
}
