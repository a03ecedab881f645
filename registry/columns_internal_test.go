package registry

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
)

// why is the reason for which a struct has no field for columns.
type why map[string]string

const (
	own      = "the registry sets it by itself"
	fixed    = "it never changes"
	pricing  = "UpdateModelPricing changes it"
	counted  = "requests are counted in it"
	judged   = "the pool sets it as requests end"
	keyed    = "it is made of the API key"
	unlisted = "nobody has asked for lists by it"
	result   = "UpdateDiscoveryResult sets it"
)

var (
	rowsOwn = why{"id created_at updated_at": own}
	hidden  = why{"deleted_at": "Delete and Undelete set it"}
	keysOwn = why{
		"usage_count token_count extra_requests extra_tokens last_used_at": counted,
		"degraded degraded_until degraded_reason degraded_by degraded_at":  judged,
		"failures counted_class counted_at failure_class":                  judged,
		"failed_at succeeded_at pass":                                      judged,
		"key_hash key_prefix sealed data_key_id":                           keyed,
		"expires_at":                                                       "RotateAPIKey sets it",
	}
	quotasOwn = why{
		"minute requests_this_minute tokens_this_minute":             counted,
		"requests_today tokens_today cost_today last_reset observed": counted,
	}
	limits = why{
		"requests_per_minute tokens_per_minute requests_per_day tokens_per_day": unlisted,
		"concurrency cost_per_day": unlisted,
	}
	incidents = why{"cooling_until cooling_reason incidents": judged}
)

// shown are the structs that show an entity, and the columns that they lack, with the reasons.
var shown = []struct {
	row     ent.Mutation
	shown   any
	without []why
}{
	{row: draft.Provider.Create().Mutation(), shown: ProviderInput{}, without: []why{rowsOwn, hidden, incidents}},
	{row: draft.Provider.Update().Mutation(), shown: ProviderUpdate{}, without: []why{rowsOwn, hidden, incidents}},
	{row: draft.ModelFamily.Create().Mutation(), shown: FamilyInput{}, without: []why{rowsOwn}},
	{
		row: draft.ModelFamily.Update().Mutation(), shown: FamilyUpdate{},
		without: []why{rowsOwn, {"provider_id": fixed}},
	},
	{
		row: draft.ModelFamily.Create().Mutation(), shown: FamilyFilter{},
		without: []why{rowsOwn, {"name description": unlisted}},
	},
	{
		row: draft.Model.Create().Mutation(), shown: ModelInput{},
		without: []why{rowsOwn, hidden, {
			"cost_per_1m_input cost_per_1m_output": "Rates has it",
			"deprecated deprecated_at":             "DeprecateModel sets it",
		}},
	},
	{
		row: draft.Model.Update().Mutation(), shown: ModelUpdate{},
		without: []why{rowsOwn, hidden, {
			"provider_id model_id": fixed, "cost_per_1m_input cost_per_1m_output": pricing,
			"deprecated_at": "Deprecated sets it",
		}},
	},
	{
		row: draft.Model.Create().Mutation(), shown: ModelFilter{},
		without: []why{rowsOwn, hidden, {
			"model_id name":                        "Search has it",
			"cost_per_1m_input cost_per_1m_output": "MaxInputCost and MaxOutputCost have it",
			"context_window":                       "MinContextWindow has it", "deprecated": "WithDeprecated has it",
			"description max_output_tokens deprecated_at": unlisted,
		}},
	},
	{
		row: draft.Price.Create().Mutation(), shown: PriceInput{},
		without: []why{{
			"id recorded_at superseded_at effective_to": own, "model_id": "UpdateModelPricing is told it",
			"cost_per_1m_input cost_per_1m_output cost_per_1m_cache_read cost_per_1m_cache_write": "Rates has it",
			"cost_per_1m_reasoning": "Rates has it",
		}},
	},
	{
		row: draft.APIKey.Create().Mutation(), shown: KeyInput{},
		without: []why{rowsOwn, hidden, keysOwn, quotasOwn, {"disabled": "UpdateAPIKey sets it"}},
	},
	{
		row: draft.APIKey.Update().Mutation(), shown: KeyUpdate{},
		without: []why{rowsOwn, hidden, keysOwn, quotasOwn, {"provider_id": fixed}},
	},
	{row: draft.QuotaGroup.Create().Mutation(), shown: QuotaGroupInput{}, without: []why{rowsOwn, quotasOwn}},
	{
		row: draft.QuotaGroup.Update().Mutation(), shown: QuotaGroupUpdate{},
		without: []why{rowsOwn, quotasOwn, {"provider_id": fixed}},
	},
	{
		row: draft.QuotaGroup.Create().Mutation(), shown: QuotaGroupFilter{},
		without: []why{rowsOwn, quotasOwn, limits, {"name": unlisted}},
	},
	{
		row: draft.Consumer.Create().Mutation(), shown: ConsumerInput{},
		without: []why{rowsOwn, hidden, {"path": own, "disabled": "UpdateConsumer sets it"}},
	},
	{
		row: draft.Consumer.Update().Mutation(), shown: ConsumerUpdate{},
		without: []why{rowsOwn, hidden, {"parent_id path": "MoveConsumer sets it"}},
	},
	{
		row: draft.Consumer.Create().Mutation(), shown: ConsumerFilter{},
		without: []why{rowsOwn, hidden, {
			"path": "Subtree has it", "external_id": "FindConsumer is told it", "name disabled permissions": unlisted,
		}},
	},
	{
		row: draft.AccessKey.Create().Mutation(), shown: AccessKeyInput{},
		without: []why{rowsOwn, hidden, {
			"key_hash key_prefix": "it is made of the secret", "disabled": "UpdateAccessKey sets it",
			"replaces_id": "RotateAccessKey sets it",
		}},
	},
	{
		row: draft.AccessKey.Update().Mutation(), shown: AccessKeyUpdate{},
		without: []why{rowsOwn, hidden, {"consumer_id key_hash key_prefix replaces_id": fixed}},
	},
	{
		row: draft.AccessKey.Create().Mutation(), shown: AccessKeyFilter{},
		without: []why{rowsOwn, hidden, {
			"key_hash key_prefix label expires_at disabled replaces_id": unlisted,
		}},
	},
	{
		row: draft.Budget.Create().Mutation(), shown: BudgetInput{}, without: []why{rowsOwn, {"counts_from": counted}},
	},
	{
		row: draft.Budget.Update().Mutation(), shown: BudgetUpdate{},
		without: []why{rowsOwn, {
			"counts_from": counted, "consumer_id provider_id models each each_kind": fixed,
			"per zone anchor_day anchor_hour": fixed,
		}},
	},
	{
		row: draft.Budget.Create().Mutation(), shown: BudgetFilter{},
		without: []why{rowsOwn, {
			"name provider_id models each each_kind per zone anchor_day anchor_hour counts_from": unlisted,
			"cost tokens requests concurrency mode on_unpriced thresholds":                       unlisted,
		}},
	},
	{
		row: draft.BudgetGrant.Create().Mutation(), shown: GrantInput{},
		without: []why{{
			"id created_at": own, "windows_from windows_until": "From and Windows say it",
			"revoked_at": "RevokeGrant sets it",
		}},
	},
	{
		row: draft.BudgetGrant.Create().Mutation(), shown: GrantFilter{},
		without: []why{{
			"id created_at windows_from windows_until revoked_at cost tokens requests reason": unlisted,
		}},
	},
	{
		row: draft.BudgetCrossing.Create().Mutation(), shown: CrossingFilter{},
		without: []why{{
			"id window_start kind metric percent spent ceiling at": unlisted, "acknowledged_at": "Acknowledged has it",
		}},
	},
	{
		row: draft.Dimension.Create().Mutation(), shown: DimensionInput{},
		without: []why{rowsOwn, {
			"since open_from": own, "kind parts": "Multi and Of say it", "grain": "DaysOnly says it",
			"retired_at": "RetireDimension sets it",
		}},
	},
	{
		row: draft.Dimension.Update().Mutation(), shown: DimensionUpdate{},
		without: []why{rowsOwn, {
			"name kind parts grain since": fixed, "open_from": own, "retired_at": "RetireDimension sets it",
		}},
	},
	{
		row: draft.Dimension.Create().Mutation(), shown: DimensionFilter{},
		without: []why{rowsOwn, {
			"name kind parts max_values grain since open_from": unlisted, "retired_at": "Retired has it",
		}},
	},
	{row: draft.SDKVersion.Create().Mutation(), shown: SDKVersionInput{}, without: []why{{"id": own}}},
	{
		row: draft.SDKVersion.Update().Mutation(), shown: SDKVersionUpdate{},
		without: []why{{"id": own, "provider_id version generated_at": fixed}},
	},
	{
		row: draft.SDKVersion.Create().Mutation(), shown: SDKVersionFilter{},
		without: []why{{"id version sdk_path generated_at test_results code_hash": unlisted}},
	},
	{
		row: draft.DiscoveryLog.Create().Mutation(), shown: DiscoveryInput{},
		without: []why{{
			"id started_at": own, "status attempt_count discovered_data error_message completed_at": result,
		}},
	},
	{
		row: draft.DiscoveryLog.Create().Mutation(), shown: DiscoveryFilter{},
		without: []why{{
			"id attempt_count discovered_data error_message":     unlisted,
			"source llm_model cache_hit started_at completed_at": unlisted,
		}},
	},
	{
		row: draft.AuditEntry.Create().Mutation(), shown: AuditFilter{},
		without: []why{{"at": "Start and End have it", "id before after automatic": unlisted}},
	},
}

// TestColumns names what is missing when an entity has got a column: each is in every struct that shows the entity, or
// here, with the reason.
func TestColumns(t *testing.T) {
	t.Parallel()
	for _, c := range shown {
		of := reflect.TypeOf(c.shown)
		t.Run(of.Name(), func(t *testing.T) {
			t.Parallel()
			without := map[string]string{}
			for _, reasons := range c.without {
				for names, reason := range reasons {
					for _, name := range strings.Fields(names) {
						without[name] = reason
					}
				}
			}
			has := fieldsOf(of)
			for _, column := range entities[c.row.Type()].fields {
				name := strings.ReplaceAll(column.Name, "_", "")
				if without[column.Name] == "" {
					require.True(t, slices.Contains(has, name),
						"%s.%s: add a field for it to %s, or say here why it is left out",
						c.row.Type(), column.Name, of.Name())
				}
				if of.Name() != "AuditFilter" || name != "after" { // the column, and the place in a list
					require.False(t, without[column.Name] != "" && slices.Contains(has, name),
						"%s has a field for %s: it is no exception any more", of.Name(), column.Name)
				}
				delete(without, column.Name)
			}
			require.Empty(t, slices.Sorted(maps.Keys(without)), "exceptions that are no columns")
			if !strings.HasSuffix(of.Name(), "Filter") {
				requireFilled(t, c.row, c.shown)
			}
		})
	}
}

// fieldsOf returns the fields of a struct, and those of its limits, ceilings and window, as [entity] names them.
func fieldsOf(of reflect.Type) (names []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		switch f.Type {
		case reflect.TypeFor[*Limits]():
			names = append(names, fieldsOf(reflect.TypeFor[Limits]())...)
		case reflect.TypeFor[Limits](), reflect.TypeFor[Ceilings](), reflect.TypeFor[Window]():
			names = append(names, fieldsOf(f.Type)...)
		}
		names = append(names, strings.ToLower(f.Name))
	}
	return names
}

// requireFilled requires that every field for a column reaches it.
func requireFilled(t *testing.T, m ent.Mutation, in any) {
	t.Helper()
	full := reflect.New(reflect.TypeOf(in)).Elem()
	say(full)
	fill(m, full.Interface())
	has := fieldsOf(full.Type())
	for _, column := range entities[m.Type()].fields {
		if _, set := m.Field(column.Name); slices.Contains(has, strings.ReplaceAll(column.Name, "_", "")) {
			require.True(t, set, column.Name)
		}
	}
}

// say puts something into every field of a struct.
func say(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		say(v.Elem())
	case reflect.Struct:
		if _, ok := v.Interface().(time.Time); ok {
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
			return
		}
		for i := range v.NumField() {
			say(v.Field(i))
		}
	case reflect.Array:
		say(v.Index(0))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8:
		v.SetUint(1)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	}
}

func TestFaultsOf(t *testing.T) {
	t.Parallel()
	f := faultsOf(draft.Provider.Create().SetName("Open AI").SetBaseURL("ftp://x").SetAuthMethod("magic").
		SetDescription("\x00").SetDeletedAt(time.Unix(-1, 0)).Mutation())
	require.Equal(t, []string{
		"name is not a slug such as openai or z.ai",
		"base_url is not an absolute http or https URL",
		"auth_method is not one of bearer, header, query, oauth, aws_sigv4, none",
		"description has a NUL character, which PostgreSQL cannot store",
		"deleted_at is not between 1970 and 9999",
	}, []string(f))
	require.Empty(t, faultsOf(draft.Provider.Create().SetName("openai").Mutation()))
	require.Empty(t, faultsOf(draft.Provider.Update().Mutation()), "what is not set is not judged")
	require.Equal(t, []string{"cost_per_day is not between 0 and 9000000000000000000"},
		[]string(faultsOf(draft.APIKey.Update().SetCostPerDay(-1).Mutation())))
}

func TestCopyFields(t *testing.T) {
	t.Parallel()
	no, window, name := false, int64(0), "new"
	in := ModelInput{ModelID: "a", Name: "old", SupportsImages: true, ContextWindow: 8}
	copyFields(&in, ModelUpdate{Name: &name, SupportsImages: &no, ContextWindow: &window})
	require.Equal(t, ModelInput{ModelID: "a", Name: "new"}, in, "what is pointed to counts, zero too")
	copyFields(&in, ModelInput{CanReason: true})
	require.Equal(t, ModelInput{ModelID: "a", Name: "new", CanReason: true}, in, "zero says nothing")
	var up ModelUpdate
	copyFields(&up, in)
	require.Equal(t, "new", *up.Name)
	require.True(t, *up.CanReason)
	require.Nil(t, up.SupportsImages)
	*up.Name = "other"
	require.Equal(t, "new", in.Name, "a copy")
}

func TestDiffers(t *testing.T) {
	t.Parallel()
	row, no, name := &ent.Model{Name: "a", CanStream: true}, false, "a"
	require.False(t, differs(row, &ModelUpdate{}))
	require.False(t, differs(row, &ModelUpdate{Name: &name, CanReason: &no, FamilyID: &uuid.Nil}))
	require.True(t, differs(row, &ModelUpdate{CanStream: &no}))
	require.True(t, differs(row, &ModelUpdate{FamilyID: &uuid.Max}))
	row.FamilyID = &uuid.Max
	require.True(t, differs(row, &ModelUpdate{FamilyID: &uuid.Nil}))
}
