package registry_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// thing is a provider with what it may have.
type thing struct {
	provider *ent.Provider
	family   *ent.ModelFamily
	model    *ent.Model
	key      *ent.APIKey
	setting  string

	org, team *ent.Consumer  // the team is below the organisation
	access    *ent.AccessKey // the team's
}

// auditTest is an operation, and what its entries say: an action and an entity each.
type auditTest struct {
	call func(thing) error
	want []string
	of   func(thing) string // entity_id of the first entry
}

func ofProvider(th thing) string { return th.provider.ID.String() }

func ofModel(th thing) string { return th.model.ID.String() }

func ofKey(th thing) string { return th.key.ID.String() }

// auditedProviders are operations on providers.
func auditedProviders(t *testing.T, reg *registry.Registry) map[string]auditTest {
	t.Helper()
	ctx := t.Context()
	return map[string]auditTest{
		"CreateProvider": {call: func(thing) error {
			_, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: "new"})
			return err
		}, want: []string{"create provider"}},
		"UpdateProvider": {call: func(th thing) error {
			_, err := reg.UpdateProvider(ctx, th.provider.ID, registry.ProviderUpdate{Description: ptr("new")})
			return err
		}, want: []string{"update provider"}, of: ofProvider},
		"UpdateProvider to the same": {call: func(th thing) error {
			_, err := reg.UpdateProvider(ctx, th.provider.ID, registry.ProviderUpdate{BaseURL: &th.provider.BaseURL})
			return err
		}},
		"DeleteProvider": {
			call: func(th thing) error {
				return reg.DeleteProvider(ctx, th.provider.ID)
			},
			want: []string{"delete provider", "delete model", "delete api_key"},
			of:   ofProvider,
		},
		"PurgeProvider": {
			call: func(th thing) error {
				return reg.PurgeProvider(ctx, th.provider.ID)
			},
			want: []string{"purge provider", "purge family", "purge model", "purge price", "purge api_key"},
			of:   ofProvider,
		},
	}
}

// auditedModels are operations on families, models and prices.
func auditedModels(t *testing.T, reg *registry.Registry) map[string]auditTest {
	t.Helper()
	ctx := t.Context()
	return map[string]auditTest{
		"CreateFamily": {call: func(th thing) error {
			_, err := reg.CreateFamily(ctx, registry.FamilyInput{ProviderID: th.provider.ID, Name: "new"})
			return err
		}, want: []string{"create family"}},
		"CreateModel": {call: func(th thing) error {
			_, err := reg.CreateModel(
				ctx, registry.ModelInput{ProviderID: th.provider.ID, ModelID: "new", Rates: gpt4()},
			)
			return err
		}, want: []string{"create model", "create price"}},
		"CreateModels": {call: func(th thing) error {
			_, err := reg.CreateModels(
				ctx,
				[]registry.ModelInput{
					{ProviderID: th.provider.ID, ModelID: "1"}, {ProviderID: th.provider.ID, ModelID: "2"},
				},
			)
			return err
		}, want: []string{"create model", "create price", "create model", "create price"}},
		"CreateModels of none": {call: func(thing) error {
			_, err := reg.CreateModels(ctx, nil)
			return err
		}},
		"UpdateModel": {call: func(th thing) error {
			_, err := reg.UpdateModel(
				ctx, th.model.ID, registry.ModelUpdate{CanReason: ptr(true), FamilyID: ptr(uuid.Nil)},
			)
			return err
		}, want: []string{"update model"}, of: ofModel},
		"UpdateModel to the same": {call: func(th thing) error {
			_, err := reg.UpdateModel(ctx, th.model.ID, registry.ModelUpdate{Name: &th.model.Name})
			return err
		}},
		"DeprecateModel": {call: func(th thing) error {
			return reg.DeprecateModel(ctx, th.model.ID, time.Time{})
		}, want: []string{"update model"}, of: ofModel},
		"DeleteModel": {call: func(th thing) error {
			return reg.DeleteModel(ctx, th.model.ID)
		}, want: []string{"delete model"}, of: ofModel},
		"PurgeModel": {call: func(th thing) error {
			return reg.PurgeModel(ctx, th.model.ID)
		}, want: []string{"purge model", "purge price"}, of: ofModel},
		"UpdateModelPricing": {call: func(th thing) error {
			_, err := reg.UpdateModelPricing(ctx, th.model.ID, registry.PriceInput{Rates: money.Rates{meter.Input: 1}})
			return err
		}, want: []string{"update price"}, of: ofModel},
		"UpdateModelPricing of a tier": {call: func(th thing) error {
			_, err := reg.UpdateModelPricing(ctx, th.model.ID, registry.PriceInput{ServiceTier: "batch", Rates: gpt4()})
			return err
		}, want: []string{"create price"}, of: ofModel},
		"UpdateModelPricing from elsewhere": {call: func(th thing) error {
			_, err := reg.UpdateModelPricing(ctx, th.model.ID, registry.PriceInput{Rates: gpt4(), Source: "elsewhere"})
			return err
		}, want: []string{"update price"}, of: ofModel},
		"UpdateModelPricing to the same": {call: func(th thing) error {
			_, err := reg.UpdateModelPricing(ctx, th.model.ID, registry.PriceInput{Rates: gpt4()})
			return err
		}},
	}
}

// auditedKeys are operations on keys.
func auditedKeys(t *testing.T, reg *registry.Registry) map[string]auditTest {
	t.Helper()
	ctx := t.Context()
	return map[string]auditTest{
		"AddAPIKey": {call: func(th thing) error {
			_, err := reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: th.provider.ID, APIKey: secret(7)})
			return err
		}, want: []string{"create api_key"}},
		"UpdateAPIKey": {call: func(th thing) error {
			_, err := reg.UpdateAPIKey(ctx, th.key.ID, registry.KeyUpdate{Disabled: ptr(true)})
			return err
		}, want: []string{"disable api_key"}, of: ofKey},
		"UpdateAPIKey to the same": {call: func(th thing) error {
			_, err := reg.UpdateAPIKey(ctx, th.key.ID, registry.KeyUpdate{Label: ptr("")})
			return err
		}},
		"DeleteAPIKey": {call: func(th thing) error {
			return reg.DeleteAPIKey(ctx, th.key.ID)
		}, want: []string{"delete api_key"}, of: ofKey},
		"PurgeAPIKey": {call: func(th thing) error {
			return reg.PurgeAPIKey(ctx, th.key.ID)
		}, want: []string{"purge api_key"}, of: ofKey},
		"DegradeKey, of two the later": {call: func(th thing) error {
			require.NoError(t, reg.DegradeKey(ctx, th.key.ID, "429", time.Hour))
			require.NoError(t, reg.DegradeKey(ctx, th.key.ID, "429", time.Hour))
			return reg.DegradeKey(ctx, th.key.ID, "500", time.Minute)
		}, want: []string{"degrade api_key"}, of: ofKey},
		"RestoreKey": {call: func(th thing) error {
			require.NoError(t, reg.DegradeKey(ctx, th.key.ID, "429", time.Hour))
			return reg.RestoreKey(ctx, th.key.ID)
		}, want: []string{"degrade api_key", "restore api_key"}, of: ofKey},
		"RestoreKey of one that is well": {call: func(th thing) error {
			return reg.RestoreKey(ctx, th.key.ID)
		}},
		"RotateAPIKey": {call: func(th thing) error {
			_, err := reg.RotateAPIKey(
				ctx, th.key.ID, registry.KeyRotationInput{APIKey: secret(77), Overlap: time.Hour},
			)
			return err
		}, want: []string{"rotate api_key", "create api_key"}},
		"ResetDailyUsage": {call: func(th thing) error {
			require.NoError(t, reg.IncrementUsage(ctx, th.key.ID, 1, 1))
			n, err := reg.ResetDailyUsage(ctx)
			require.Equal(t, 1, n)
			return err
		}, want: []string{"reset api_key"}, of: func(thing) string { return "" }},
		"ResetDailyUsage of none": {call: func(thing) error {
			_, err := reg.ResetDailyUsage(ctx)
			return err
		}},
	}
}

// auditedSettings are operations on settings, and those that leave nothing.
func auditedSettings(t *testing.T, reg *registry.Registry) map[string]auditTest {
	t.Helper()
	ctx := t.Context()
	return map[string]auditTest{
		"SetSetting": {call: func(thing) error {
			return reg.SetSetting(ctx, "new", "v")
		}, want: []string{"create setting"}, of: func(thing) string { return "new" }},
		"SetSetting again": {call: func(th thing) error {
			return reg.SetSetting(ctx, th.setting, "other")
		}, want: []string{"update setting"}, of: func(th thing) string { return th.setting }},
		"SetSetting to the same": {call: func(th thing) error {
			return reg.SetSetting(ctx, th.setting, "value")
		}},
		"DeleteSetting": {call: func(th thing) error {
			return reg.DeleteSetting(ctx, th.setting)
		}, want: []string{"delete setting"}, of: func(th thing) string { return th.setting }},
		"what is not audited": {call: func(th thing) error {
			require.NoError(t, reg.IncrementUsage(ctx, th.key.ID, 1, 1))
			record(t, reg, th.model, th.key, 1, 1)
			log, err := reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "x"})
			require.NoError(t, err)
			_, err = reg.UpdateDiscoveryResult(ctx, log.ID, 1, "success")
			require.NoError(t, err)
			_, err = reg.CreateSDKVersion(ctx, registry.SDKVersionInput{ProviderID: th.provider.ID, Version: "1"})
			return err
		}},
	}
}

func ofTeam(th thing) string { return th.team.ID.String() }

func ofAccessKey(th thing) string { return th.access.ID.String() }

// auditedConsumers are operations on consumers.
func auditedConsumers(t *testing.T, reg *registry.Registry) map[string]auditTest {
	t.Helper()
	ctx := t.Context()
	return map[string]auditTest{
		"CreateConsumer": {call: func(th thing) error {
			return second(reg.CreateConsumer(ctx, registry.ConsumerInput{Name: "new", ParentID: th.org.ID}))
		}, want: []string{"create consumer"}},
		"EnsureConsumer": {call: func(th thing) error {
			in := registry.ConsumerInput{Name: "new", ParentID: th.org.ID, ExternalID: "x"}
			must(reg.EnsureConsumer(ctx, in))
			return second(reg.EnsureConsumer(ctx, in))
		}, want: []string{"create consumer"}},
		"UpdateConsumer": {call: func(th thing) error {
			return second(reg.UpdateConsumer(ctx, th.team.ID, registry.ConsumerUpdate{
				Permissions: &[]registry.Permission{{ProviderID: th.provider.ID, Deny: true}},
			}))
		}, want: []string{"update consumer"}, of: ofTeam},
		"UpdateConsumer to the same": {call: func(th thing) error {
			return second(reg.UpdateConsumer(ctx, th.team.ID, registry.ConsumerUpdate{Name: &th.team.Name}))
		}},
		"UpdateConsumer, disabled and enabled": {call: func(th thing) error {
			must(reg.UpdateConsumer(ctx, th.team.ID, registry.ConsumerUpdate{Disabled: ptr(true)}))
			return second(reg.UpdateConsumer(ctx, th.team.ID, registry.ConsumerUpdate{Disabled: ptr(false)}))
		}, want: []string{"disable consumer", "enable consumer"}, of: ofTeam},
		"MoveConsumer": {
			call: func(th thing) error {
				other := must(reg.CreateConsumer(ctx, registry.ConsumerInput{Name: "other", ParentID: th.org.ID}))
				user := mustConsumer(t, reg, "user", th.team.ID)
				defer func() { require.NoError(t, reg.DeleteConsumer(ctx, user.ID)) }()
				return second(reg.MoveConsumer(ctx, th.team.ID, other.ID))
			},
			want: []string{
				"create consumer", "create consumer", "move consumer", "move consumer", "delete consumer",
			},
		},
		"MoveConsumer to where it is": {call: func(th thing) error {
			return second(reg.MoveConsumer(ctx, th.team.ID, th.org.ID))
		}},
		"DeleteConsumer and UndeleteConsumer": {
			call: func(th thing) error {
				require.NoError(t, reg.DeleteConsumer(ctx, th.team.ID))
				return second(reg.UndeleteConsumer(ctx, th.team.ID))
			},
			want: []string{"delete consumer", "delete access_key", "undelete consumer", "undelete access_key"},
			of:   ofTeam,
		},
		"PurgeConsumer": {call: func(th thing) error {
			return reg.PurgeConsumer(ctx, th.team.ID)
		}, want: []string{"purge consumer", "purge access_key"}, of: ofTeam},
	}
}

// auditedAccessKeys are operations on access keys.
func auditedAccessKeys(t *testing.T, reg *registry.Registry) map[string]auditTest {
	t.Helper()
	ctx := t.Context()
	return map[string]auditTest{
		"CreateAccessKey": {call: func(th thing) error {
			_, _, err := reg.CreateAccessKey(ctx, registry.AccessKeyInput{ConsumerID: th.team.ID})
			return err
		}, want: []string{"create access_key"}},
		"UpdateAccessKey": {call: func(th thing) error {
			must(reg.UpdateAccessKey(ctx, th.access.ID, registry.AccessKeyUpdate{Label: ptr("new")}))
			must(reg.UpdateAccessKey(ctx, th.access.ID, registry.AccessKeyUpdate{Disabled: ptr(true)}))
			return second(reg.UpdateAccessKey(ctx, th.access.ID, registry.AccessKeyUpdate{Disabled: ptr(false)}))
		}, want: []string{"update access_key", "disable access_key", "enable access_key"}, of: ofAccessKey},
		"RotateAccessKey": {call: func(th thing) error {
			_, _, err := reg.RotateAccessKey(ctx, th.access.ID, registry.AccessKeyRotation{Overlap: time.Hour})
			return err
		}, want: []string{"rotate access_key", "create access_key"}, of: ofAccessKey},
		"DeleteAccessKey": {call: func(th thing) error {
			return reg.DeleteAccessKey(ctx, th.access.ID)
		}, want: []string{"delete access_key"}, of: ofAccessKey},
	}
}

// TestAudit shows what each operation leaves in the audit trail: that it changed what, and that
// before and after are the rows as the database had and has them.
func TestAudit(t *testing.T) { eachEngine(t, testAudit) }

func testAudit(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	reg = reg.As("alice")
	for _, tests := range []map[string]auditTest{
		auditedProviders(t, reg), auditedModels(t, reg), auditedKeys(t, reg), auditedSettings(t, reg),
		auditedConsumers(t, reg), auditedAccessKeys(t, reg), auditedBudgets(t, reg), auditedDimensions(t, reg),
	} {
		for name, test := range tests {
			test.run(t, reg, clock, name)
		}
	}
}

// run makes a thing, calls the operation and compares the entries with the rows.
func (test auditTest) run(t *testing.T, reg *registry.Registry, clock *registrytest.Clock, name string) {
	t.Helper()
	ctx := t.Context()
	th := thing{setting: "setting"}
	th.provider = mustProvider(t, reg, "p")
	var err error
	th.family, err = reg.CreateFamily(ctx, registry.FamilyInput{ProviderID: th.provider.ID, Name: "f"})
	require.NoError(t, err)
	th.model, err = reg.CreateModel(
		ctx, registry.ModelInput{ProviderID: th.provider.ID, FamilyID: th.family.ID, ModelID: "m", Rates: gpt4()},
	)
	require.NoError(t, err)
	th.key = mustKey(t, reg, th.provider.ID, 0)
	require.NoError(t, reg.SetSetting(ctx, th.setting, "value"))
	th.org = mustConsumer(t, reg, "org", uuid.Nil)
	th.team = mustConsumer(t, reg, "team", th.org.ID)
	th.access, _ = mustAccessKey(t, reg, th.team.ID)
	clock.Advance(time.Minute)
	before := rows(t, reg)
	entries, words := audited(t, reg, func() { require.NoError(t, test.call(th), name) })
	require.Equal(t, test.want, words, name)
	if test.of != nil {
		require.Equal(t, test.of(th), entries[0].EntityID, name)
	}
	for _, e := range entries {
		require.Equal(t, "alice", e.Actor, name)
		require.True(t, e.At.Equal(clock.Now()), name)
		require.NotContains(t, string(e.Before)+string(e.After), "edges", name)
		gone := e.Action == registry.ActionPurge || words[0] == "delete setting" ||
			e.Action == registry.ActionDelete && e.Entity == registry.EntityBudget
		require.Equal(t, gone, e.After == nil, name)
		if e.Action == registry.ActionReset {
			require.Nil(t, e.Before)
			require.JSONEq(t, `{"keys":1}`, string(e.After))
			continue
		}
		for _, text := range []json.RawMessage{e.Before, e.After} {
			if text == nil {
				continue
			}
			id, fields := fieldsOf(t, text)
			if e.Entity == registry.EntityPrice {
				id = fields["model_id"].(string)
			}
			require.Equal(t, e.EntityID, id, name)
		}
	}
	follow(t, name, before, entries, rows(t, reg))
	clearAllOf(t, reg, "usage_quarters", "usage_tracking", "usage_total_quarters", "usage_totals", "usage_by_value",
		"usage_by_value_quarters", "consumer_days", "providers", "settings")
	require.NoError(t, reg.PurgeConsumer(ctx, th.org.ID))
}

// TestAuditOfARow shows that what an entry has is a key's row, and not what is returned of it.
func TestAuditOfARow(t *testing.T) { eachEngine(t, testAuditOfARow) }

func testAuditOfARow(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	k := mustKey(t, reg, mustProvider(t, reg, "p").ID, 0)
	require.NoError(t, reg.IncrementUsage(ctx, k.ID, 1, 1))
	require.NoError(t, reg.DegradeKey(ctx, k.ID, "429", time.Minute))
	clock.Advance(24 * time.Hour)
	before := rows(t, reg)
	entries, _ := audited(t, reg, func() {
		returned := must(reg.UpdateAPIKey(ctx, k.ID, registry.KeyUpdate{Label: ptr("new")}))
		require.False(t, returned.Degraded)
	})
	require.JSONEq(t, before[k.ID.String()], string(entries[0].Before))
	require.JSONEq(t, rows(t, reg)[k.ID.String()], string(entries[0].After))
	require.Contains(t, string(entries[0].After), `"degraded":true`)
}
