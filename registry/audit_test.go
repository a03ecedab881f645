package registry_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/auditentry"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// trail returns all entries, in the order in which they were made.
func trail(tb testing.TB, reg *registry.Registry) []*ent.AuditEntry {
	tb.Helper()
	all, err := reg.Client().AuditEntry.Query().Order(auditentry.ByID()).All(tb.Context())
	require.NoError(tb, err)
	return all
}

// audited returns the entries that a call adds, as they are to be read, and as words.
func audited(tb testing.TB, reg *registry.Registry, call func()) (entries []*ent.AuditEntry, words []string) {
	tb.Helper()
	before := len(trail(tb, reg))
	call()
	entries = trail(tb, reg)[before:]
	for _, e := range entries {
		words = append(words, e.Action+" "+e.Entity)
	}
	return entries, words
}

// rows returns all rows that the audit trail is about, in JSON, by id.
func rows(tb testing.TB, reg *registry.Registry) map[string]string {
	tb.Helper()
	ctx, c := tb.Context(), reg.Client()
	byID := map[string]string{}
	add := func(rows any, err error) {
		require.NoError(tb, err)
		text, err := json.Marshal(rows)
		require.NoError(tb, err)
		var all []json.RawMessage
		require.NoError(tb, json.Unmarshal(text, &all))
		for _, row := range all {
			id, fields := fieldsOf(tb, row)
			delete(fields, "edges")
			text, err := json.Marshal(fields)
			require.NoError(tb, err)
			byID[id] = string(text)
		}
	}
	add(c.Provider.Query().All(ctx))
	add(c.ModelFamily.Query().All(ctx))
	add(c.Model.Query().All(ctx))
	add(c.Price.Query().All(ctx))
	add(c.APIKey.Query().All(ctx))
	add(c.Setting.Query().All(ctx))
	return byID
}

// fieldsOf returns the id and the fields of a row in JSON.
func fieldsOf(tb testing.TB, row json.RawMessage) (id string, fields map[string]any) {
	tb.Helper()
	require.NoError(tb, json.Unmarshal(row, &fields))
	return fields["id"].(string), fields
}

// follow checks that entries lead from rows to other rows: that before is the row as it was, and
// after as it became. A changed price leads to the price that it ends, and to the model, too.
func follow(tb testing.TB, name string, from map[string]string, entries []*ent.AuditEntry, to map[string]string) {
	tb.Helper()
	from = maps.Clone(from)
	for _, e := range entries {
		if e.Action == registry.ActionReset {
			continue
		}
		var before, after string
		if e.Before != nil {
			before, _ = fieldsOf(tb, e.Before)
			require.JSONEq(tb, from[before], string(e.Before), name)
		}
		if e.After != nil {
			after, _ = fieldsOf(tb, e.After)
		}
		if before == "" {
			require.NotContains(tb, from, after, name)
		}
		delete(from, before)
		if e.Entity == registry.EntityPrice && e.Action == registry.ActionUpdate && before != after {
			from[e.EntityID] = to[e.EntityID]
			require.Contains(tb, to[before], "effective_to", name)
			from[before] = to[before]
		}
		if after != "" {
			from[after] = string(e.After)
		}
	}
	// What is not audited.
	for _, all := range []map[string]string{from, to} {
		for id, row := range all {
			_, fields := fieldsOf(tb, json.RawMessage(row))
			for _, counter := range []string{
				"updated_at", "usage_count", "token_count", "extra_requests", "extra_tokens", "requests_today",
				"tokens_today",
				"last_reset", "last_used_at", "minute", "requests_this_minute", "tokens_this_minute", "cost_today_usd",
			} {
				delete(fields, counter)
			}
			all[id] = fmt.Sprint(fields)
		}
	}
	require.Equal(tb, from, to, name)
}

// thing is a provider with what it may have.
type thing struct {
	provider *ent.Provider
	family   *ent.ModelFamily
	model    *ent.Model
	key      *ent.APIKey
	setting  string
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

// TestAudit shows what each operation leaves in the audit trail: that it changed what, and that
// before and after are the rows as the database had and has them.
func TestAudit(t *testing.T) { eachEngine(t, testAudit) }

func testAudit(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	reg = reg.As("alice")
	for _, tests := range []map[string]auditTest{
		auditedProviders(t, reg), auditedModels(t, reg), auditedKeys(t, reg), auditedSettings(t, reg),
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
		require.Equal(t, e.Action == registry.ActionPurge || words[0] == "delete setting", e.After == nil, name)
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
	clearAllOf(
		t, reg, "usage_quarters", "usage_tracking", "usage_total_quarters", "usage_totals", "providers", "settings",
	)
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

// clearAllOf deletes all rows of tables.
func clearAllOf(tb testing.TB, reg *registry.Registry, tables ...string) {
	tb.Helper()
	for _, table := range tables {
		_, err := reg.Client().ExecContext(tb.Context(), "DELETE FROM "+table)
		require.NoError(tb, err)
	}
}

// TestAuditOfNothing shows that what is undone or fails leaves no entry.
func TestAuditOfNothing(t *testing.T) { eachEngine(t, testAuditOfNothing) }

func testAuditOfNothing(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "p")
	m := mustModel(t, reg, p.ID, "m", gpt4())
	k := mustKey(t, reg, p.ID, 0)
	record(t, reg, m, k, 1, 1)
	for name, call := range map[string]func(*registry.Registry) error{
		"create": func(r *registry.Registry) error {
			_, err := r.CreateProvider(ctx, registry.ProviderInput{Name: "p"})
			return err
		},
		"update": func(r *registry.Registry) error {
			_, err := r.UpdateProvider(ctx, m.ID, registry.ProviderUpdate{})
			return err
		},
		"delete provider": func(r *registry.Registry) error { return r.DeleteProvider(ctx, m.ID) },
		"purge provider":  func(r *registry.Registry) error { return r.PurgeProvider(ctx, p.ID) },
		"purge model":     func(r *registry.Registry) error { return r.PurgeModel(ctx, m.ID) },
		"purge key":       func(r *registry.Registry) error { return r.PurgeAPIKey(ctx, k.ID) },
		"purge no model":  func(r *registry.Registry) error { return r.PurgeModel(ctx, p.ID) },
		"purge no key":    func(r *registry.Registry) error { return r.PurgeAPIKey(ctx, p.ID) },
		"deprecate":       func(r *registry.Registry) error { return r.DeprecateModel(ctx, p.ID, time.Time{}) },
		"degrade":         func(r *registry.Registry) error { return r.DegradeKey(ctx, p.ID, "", 1) },
		"restore":         func(r *registry.Registry) error { return r.RestoreKey(ctx, p.ID) },
		"key": func(r *registry.Registry) error {
			_, err := r.AddAPIKey(ctx, registry.KeyInput{ProviderID: p.ID, APIKey: secret(0)})
			return err
		},
		"setting": func(r *registry.Registry) error { return r.DeleteSetting(ctx, "k") },
		"price": func(r *registry.Registry) error {
			_, err := r.UpdateModelPricing(ctx, p.ID, registry.PriceInput{Unknown: true})
			return err
		},
		"models": func(r *registry.Registry) error {
			_, err := r.CreateModels(
				ctx, []registry.ModelInput{{ProviderID: p.ID, ModelID: "new"}, {ProviderID: p.ID, ModelID: "m"}},
			)
			return err
		},
		"rollback": func(r *registry.Registry) error {
			return r.InTx(ctx, func(tx *registry.Registry) error {
				require.NoError(t, tx.SetSetting(ctx, "k", "v"))
				require.NoError(t, tx.DeleteProvider(ctx, p.ID))
				require.NotEmpty(t, trail(t, tx))
				return errRollback
			})
		},
	} {
		before := dump(t, reg)
		require.Error(t, call(reg), name)
		require.Equal(t, before, dump(t, reg), name)
		_, words := audited(t, reg, func() { // within a transaction that goes on
			require.NoError(t, reg.InTx(ctx, func(tx *registry.Registry) error {
				require.Error(t, call(tx), name)
				return tx.SetSetting(ctx, name, "")
			}))
		})
		require.Equal(t, []string{"create setting"}, words, name)
	}
}

// TestAs names actors, in and around transactions.
func TestAs(t *testing.T) { eachEngine(t, testAs) }

func testAs(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	longest := strings.Repeat("é", 128)
	entries, _ := audited(t, reg, func() {
		set := func(r *registry.Registry, key string) { require.NoError(t, r.SetSetting(ctx, key, "")) }
		alice := reg.As("alice")
		set(reg, "nobody")
		set(alice, "alice")
		set(alice.As("bob"), "bob")
		set(alice, "alice, still")
		set(alice.As(""), "nobody again")
		set(reg.As(longest), "longest")
		require.NoError(t, alice.InTx(ctx, func(tx *registry.Registry) error {
			set(tx, "alice, in a transaction")
			set(tx.As("bob"), "bob, in alice's")
			require.NoError(t, tx.As("carol").InTx(ctx, func(tx *registry.Registry) error {
				set(tx, "carol, in a transaction within")
				return nil
			}))
			set(tx, "alice, after it")
			require.ErrorIs(t, tx.As("bob").Close(), registry.ErrInvalidData)
			return nil
		}))
	})
	var actors []string
	for _, e := range entries {
		actors = append(actors, e.Actor)
	}
	require.Equal(t, []string{"", "alice", "bob", "alice", "", longest, "alice", "bob", "carol", "alice"}, actors)

	p := mustProvider(t, reg, "p")
	m := mustModel(t, reg, p.ID, "m", nil)
	k := mustKey(t, reg, p.ID, 0)
	for name, bad := range badTexts {
		if bad == "" {
			continue
		}
		before := dump(t, reg)
		as := reg.As(bad)
		for what, call := range map[string]func() error{
			"provider": func() error {
				_, err := as.CreateProvider(ctx, registry.ProviderInput{Name: "x"})
				return err
			},
			"model": func() error { return as.DeleteModel(ctx, m.ID) },
			"price": func() error {
				_, err := as.UpdateModelPricing(ctx, m.ID, registry.PriceInput{Rates: gpt4()})
				return err
			},
			"key":     func() error { return as.PurgeAPIKey(ctx, k.ID) },
			"setting": func() error { return as.SetSetting(ctx, "x", "y") },
			"import":  func() error { _, err := as.ImportCatalog(ctx, smallCatalog("src", 1), nil); return err },
			"InTx": func() error {
				return as.InTx(ctx, func(tx *registry.Registry) error { return tx.DeleteProvider(ctx, p.ID) })
			},
		} {
			err := call()
			require.ErrorIs(t, err, registry.ErrInvalidData, "%s %s", name, what)
			require.ErrorContains(t, err, ": actor ", name)
		}
		require.Equal(t, before, dump(t, reg), name)
		_, err := as.ListProviders(ctx, registry.ProviderFilter{})
		require.NoError(t, err, "what is not audited goes on")
		record(t, as, m, k, 0, 0)
		clearAllOf(t, reg, "usage_quarters", "usage_tracking", "usage_total_quarters", "usage_totals")
	}

	// One is closed with the other.
	require.NoError(t, reg.As("alice").Close())
	require.ErrorIs(t, reg.SetSetting(ctx, "k", "v"), registry.ErrClosed)
}

// smallCatalog is a catalogue of models of two families.
func smallCatalog(source string, models int) catalog.Snapshot {
	p := catalog.Provider{Name: "imported", DisplayName: "Imported"}
	for i := range models {
		p.Models = append(p.Models, catalog.Model{
			ModelID: fmt.Sprint("m", i), Family: fmt.Sprint("f", i%2), ContextWindow: 1000, Rates: gpt4(),
		})
	}
	return catalog.Snapshot{Source: source, Providers: []catalog.Provider{p}}
}

// fillAudit changes settings, many at an instant.
func fillAudit(t *testing.T, reg *registry.Registry, clock *registrytest.Clock) {
	t.Helper()
	ctx := t.Context()
	for batch, n := range []int{1, 150, 200, 1, 99} { // each batch at one instant
		require.NoError(t, reg.InTx(ctx, func(tx *registry.Registry) error {
			for i := range n {
				actor := []string{"", "alice", "bob"}[i%3]
				if err := tx.As(actor).SetSetting(ctx, fmt.Sprint("k", i%40), fmt.Sprint(batch, "-", i)); err != nil {
					return err
				}
			}
			return nil
		}))
		clock.Advance(time.Microsecond)
	}
	clock.Advance(-time.Hour) // a clock that went back: the order is that of the times
	require.NoError(t, reg.DeleteSetting(ctx, "k0"))
}

// auditPages reads everything that a filter selects, in pages of a limit.
func auditPages(t *testing.T, reg *registry.Registry, filter registry.AuditFilter, limit int) (got []uuid.UUID) {
	t.Helper()
	filter.Limit = limit
	for {
		page, err := reg.ListAudit(t.Context(), filter)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), cmp.Or(limit, registry.DefaultLimit))
		if len(page) == 0 {
			return got
		}
		for _, e := range page {
			got = append(got, e.ID)
		}
		filter.After = got[len(got)-1]
	}
}

// TestListAudit pages through entries, many of which are of the same time, and filters them.
func TestListAudit(t *testing.T) { eachEngine(t, testListAudit) }

func testListAudit(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	require.Empty(t, must(reg.ListAudit(ctx, registry.AuditFilter{})))
	start := clock.Now()
	fillAudit(t, reg, clock)
	all := trail(t, reg)
	require.Len(t, all, 452)
	slices.SortFunc(all, func(a, b *ent.AuditEntry) int {
		if c := b.At.Compare(a.At); c != 0 {
			return c
		}
		return strings.Compare(b.ID.String(), a.ID.String())
	})
	require.Equal(t, registry.ActionDelete, all[451].Action)

	matching := func(keep func(*ent.AuditEntry) bool) (ids []uuid.UUID) {
		for _, e := range all {
			if keep(e) {
				ids = append(ids, e.ID)
			}
		}
		return ids
	}
	zone := time.FixedZone("", 3600)
	second := start.Add(time.Microsecond)
	for name, test := range map[string]struct {
		filter registry.AuditFilter
		keep   func(*ent.AuditEntry) bool
		count  int
	}{
		"all": {filter: registry.AuditFilter{}, keep: func(*ent.AuditEntry) bool { return true }, count: 452},
		"actor": {
			filter: registry.AuditFilter{Actor: "bob"}, keep: func(e *ent.AuditEntry) bool { return e.Actor == "bob" },
			count: 149,
		},
		"action": {
			filter: registry.AuditFilter{Action: registry.ActionCreate},
			keep:   func(e *ent.AuditEntry) bool { return e.Action == "create" }, count: 40,
		},
		"entity": {
			filter: registry.AuditFilter{Entity: registry.EntitySetting},
			keep:   func(*ent.AuditEntry) bool { return true }, count: 452,
		},
		"another entity": {
			filter: registry.AuditFilter{Entity: registry.EntityFamily},
			keep:   func(*ent.AuditEntry) bool { return false }, count: 0,
		},
		"one setting": {
			filter: registry.AuditFilter{Entity: registry.EntitySetting, EntityID: "k7"},
			keep:   func(e *ent.AuditEntry) bool { return e.EntityID == "k7" }, count: 12,
		},
		"from": {
			filter: registry.AuditFilter{Start: second.In(zone)},
			keep:   func(e *ent.AuditEntry) bool { return !e.At.Before(second) }, count: 450,
		},
		"until": {
			filter: registry.AuditFilter{End: second.In(zone)},
			keep:   func(e *ent.AuditEntry) bool { return e.At.Before(second) }, count: 2,
		},
		"one instant": {
			filter: registry.AuditFilter{Start: second, End: second.Add(time.Microsecond)},
			keep:   func(e *ent.AuditEntry) bool { return e.At.Equal(second) }, count: 150,
		},
		"everything": {
			filter: registry.AuditFilter{
				Actor: "alice", Action: registry.ActionUpdate, Entity: registry.EntitySetting, EntityID: "k4",
				Start: start.Add(-time.Hour), End: start.Add(time.Hour),
			},
			keep: func(e *ent.AuditEntry) bool {
				return e.Actor == "alice" && e.EntityID == "k4" && e.Action == "update"
			},
			count: -1,
		},
		"far times": {
			filter: registry.AuditFilter{
				Start: time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC), End: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC),
			},
			keep: func(*ent.AuditEntry) bool { return true }, count: 452,
		},
	} {
		want := matching(test.keep)
		if test.count >= 0 {
			require.Len(t, want, test.count, name)
		}
		require.True(t, len(want) > 0 || test.count == 0, name)
		for _, limit := range []int{0, 1, 7, 150, registry.MaxLimit} {
			if limit == 1 && len(want) > 200 {
				continue
			}
			got := auditPages(t, reg, test.filter, limit)
			require.Equal(t, want, got, "%s, %d a page", name, limit)
		}
	}
	require.Len(t, must(reg.ListAudit(ctx, registry.AuditFilter{})), registry.DefaultLimit)
}

// TestListAuditRefuses has filters that are no good, and one in a transaction.
func TestListAuditRefuses(t *testing.T) { eachEngine(t, testListAuditRefuses) }

func testListAuditRefuses(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx, start := t.Context(), clock.Now()
	for name, bad := range map[string]registry.AuditFilter{
		"limit":            {Limit: -1},
		"large limit":      {Limit: registry.MaxLimit + 1},
		"empty range":      {Start: start, End: start},
		"same microsecond": {Start: start, End: start.Add(999)},
		"wrong order":      {Start: start, End: start.Add(-1)},
		"actor":            {Actor: "a\x00"},
		"action":           {Action: "a\xff"},
		"entity":           {Entity: strings.Repeat("x", 65)},
		"entity id":        {EntityID: "a\nb"},
	} {
		_, err := reg.ListAudit(ctx, bad)
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
	}
	_, err := reg.ListAudit(ctx, registry.AuditFilter{After: uuid.New()})
	require.ErrorIs(t, err, registry.ErrNotFound)
	require.ErrorIs(t, reg.InTx(ctx, func(tx *registry.Registry) error {
		require.NoError(t, tx.SetSetting(ctx, "in", "tx"))
		page := must(tx.ListAudit(ctx, registry.AuditFilter{Entity: registry.EntitySetting, EntityID: "in"}))
		require.Len(t, page, 1, "a transaction sees its own")
		return errRollback
	}), errRollback)
}

// TestAuditImport shows that an import leaves an entry for each row it creates or changes.
func TestAuditImport(t *testing.T) { eachEngine(t, testAuditImport) }

func testAuditImport(t *testing.T, e engine) {
	long(t, "the whole catalogue, again and again")
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	reg = reg.As("importer")
	tally := func(call func()) map[string]int {
		n := map[string]int{}
		entries, words := audited(t, reg, call)
		for i, word := range words {
			n[word]++
			require.Equal(t, "importer", entries[i].Actor)
			require.True(t, entries[i].At.Equal(clock.Now()))
		}
		return n
	}
	imports := func(s catalog.Snapshot) (report registry.ImportResult) {
		report, err := reg.ImportCatalog(ctx, s, nil)
		require.NoError(t, err)
		return report
	}
	var report registry.ImportResult
	n := tally(func() { report = imports(catalog.Catwalk()) })
	require.NotZero(t, report.Models.Created)
	require.Equal(t, map[string]int{
		"create provider": report.Providers.Created, "create family": report.Families.Created,
		"create model": report.Models.Created, "create price": report.Prices.Created,
	}, n)
	require.Empty(t, tally(func() { imports(catalog.Catwalk()) }), "the same again")

	s := smallCatalog("src", 3)
	require.Equal(t, map[string]int{"create provider": 1, "create family": 2, "create model": 3, "create price": 3},
		tally(func() { imports(s) }))
	clock.Advance(time.Hour)
	s = smallCatalog("src", 4)
	s.Providers[0].DisplayName = "Other"
	s.Providers[0].Models[0].ContextWindow = 2000
	s.Providers[0].Models[1].Rates = money.Rates{meter.Input: 1}
	before := rows(t, reg)
	entries, words := audited(t, reg, func() { imports(s) })
	require.Equal(t, []string{"update provider", "update model", "update price", "create model", "create price"}, words)
	follow(t, "import", before, entries, rows(t, reg))
}

// TestAuditHoldsNoSecret searches the rows of the audit trail, as the database has them, for a key
// and its hash.
func TestAuditHoldsNoSecret(t *testing.T) { eachEngine(t, testAuditHoldsNoSecret) }

func testAuditHoldsNoSecret(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "p")
	k := mustKey(t, reg, p.ID, 0)
	must(reg.UpdateAPIKey(ctx, k.ID, registry.KeyUpdate{Label: ptr("label")}))
	require.NoError(t, reg.DegradeKey(ctx, k.ID, "429", time.Hour))
	require.NoError(t, reg.RestoreKey(ctx, k.ID))
	require.NoError(t, reg.DeleteAPIKey(ctx, k.ID))
	require.NoError(t, reg.PurgeAPIKey(ctx, k.ID))
	mustKey(t, reg, p.ID, 0)
	require.NoError(t, reg.DeleteProvider(ctx, p.ID))
	require.NoError(t, reg.PurgeProvider(ctx, p.ID))
	raw := func() string {
		rows, err := reg.Client().QueryContext(ctx, "SELECT * FROM audit_log")
		require.NoError(t, err)
		defer func() { require.NoError(t, rows.Close()) }()
		var b strings.Builder
		for rows.Next() {
			values := make([]any, len(must(rows.Columns())))
			for i := range values {
				values[i] = new(any)
			}
			require.NoError(t, rows.Scan(values...))
			for _, v := range values {
				fmt.Fprintf(&b, "%s\n", *v.(*any))
			}
		}
		require.NoError(t, rows.Err())
		return b.String()
	}
	text := raw()
	require.Contains(t, text, "label", "the rows are searched")
	require.Contains(t, text, k.KeyPrefix)
	for _, form := range []string{
		secret(0), secret(0)[9:], hashOf(secret(0)), strings.ToUpper(hashOf(secret(0))), "hash",
	} {
		require.NotContains(t, text, form)
	}
	require.NoError(t, reg.SetSetting(ctx, "leak", secret(0)))
	require.Contains(t, raw(), secret(0), "a setting is kept as it is")
}

// TestAuditTogether changes the same rows from many goroutines: of each row, every entry begins with
// what another one ended with.
func TestAuditTogether(t *testing.T) { eachEngineAtOnce(t, testAuditTogether) }

func testAuditTogether(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "p")
	k := mustKey(t, reg, p.ID, 0)
	m := mustModel(t, reg, p.ID, "m", nil)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 6 {
				text := fmt.Sprint(worker, "-", i)
				if reg.SetSetting(ctx, "k", text) != nil {
					t.Error("set")
				}
				if _, err := reg.UpdateAPIKey(ctx, k.ID, registry.KeyUpdate{Label: &text}); err != nil {
					t.Error(err)
				}
				if err := reg.IncrementUsage(ctx, k.ID, 1, 1); err != nil {
					t.Error(err)
				}
				if _, err := reg.UpdateModel(ctx, m.ID, registry.ModelUpdate{Description: &text}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for entity, field := range map[string]string{
		registry.EntitySetting: "value", registry.EntityAPIKey: "label", registry.EntityModel: "description",
	} {
		next, first := map[any]any{}, any(nil)
		for _, e := range must(reg.ListAudit(ctx, registry.AuditFilter{Entity: entity, Limit: registry.MaxLimit})) {
			_, is := fieldsOf(t, e.After)
			if e.Before == nil {
				require.Nil(t, first, "two creations of the same %s", entity)
				first = struct{ is any }{is[field]}
				continue
			}
			_, was := fieldsOf(t, e.Before)
			require.NotContains(t, next, was[field], "two changes of the same %s", entity)
			next[was[field]] = is[field]
		}
		require.NotNil(t, first, entity)
		at := first.(struct{ is any }).is
		for n := len(next); n > 0; n-- {
			require.Contains(t, next, at, "the chain of %s breaks", entity)
			at = next[at]
		}
		require.GreaterOrEqual(t, len(next), 47, entity)
	}
	require.EqualValues(t, 48, must(reg.Client().APIKey.Get(ctx, k.ID)).UsageCount)
}
