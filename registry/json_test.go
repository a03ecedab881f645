package registry_test

// These tests show all rows there are in JSON, and have no source of their own.

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"entgo.io/ent/schema/field"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entmigrate "github.com/jeffersonwarrior/modelscan/ent/migrate"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestRowsInJSON shows every row with all its columns, whatever is in them, but secrets. Amounts of money say their
// unit.
func TestRowsInJSON(t *testing.T) {
	t.Parallel()
	rows := map[string]any{
		"api_keys": ent.APIKey{}, "audit_log": ent.AuditEntry{}, "data_keys": ent.DataKey{},
		"discovery_logs": ent.DiscoveryLog{},
		"installations":  ent.Installation{}, "key_leases": ent.KeyLease{}, "models": ent.Model{},
		"model_families": ent.ModelFamily{},
		"prices":         ent.Price{}, "providers": ent.Provider{}, "quota_groups": ent.QuotaGroup{},
		"sdk_versions": ent.SDKVersion{},
		"settings":     ent.Setting{}, "usage_tracking": ent.Usage{}, "usage_events": ent.UsageEvent{},
		"usage_horizons": ent.UsageHorizon{},
		"usage_totals":   ent.UsageTotal{}, "usage_quarters": ent.UsageQuarter{},
		"usage_total_quarters": ent.UsageTotalQuarter{},
		"expired_leases":       ent.ExpiredLease{}, "pool_states": ent.PoolState{},
		"consumers": ent.Consumer{}, "access_keys": ent.AccessKey{}, "policy_version": ent.PolicyVersion{},
		"budgets": ent.Budget{}, "budget_grants": ent.BudgetGrant{}, "budget_windows": ent.BudgetWindow{},
		"budget_crossings": ent.BudgetCrossing{},
		"dimensions":       ent.Dimension{}, "dimension_values": ent.DimensionValue{},
		"usage_by_value": ent.UsageByValue{}, "usage_by_value_quarters": ent.UsageByValueQuarter{},
		"usage_folds": ent.UsageFold{}, "consumer_days": ent.ConsumerDay{},
	}
	for _, table := range entmigrate.Tables {
		require.Contains(t, slices.Collect(maps.Keys(rows)), table.Name, "a new table is to be listed above")
		fields := inJSON(t, rows[table.Name])
		delete(fields, "edges")
		for _, c := range table.Columns {
			name := c.Name
			switch {
			case c == table.PrimaryKey[0]:
				name = "id"
			case c.Name == "key_hash", c.Name == "sealed", c.Name == "wrapped":
				require.NotContains(t, fields, name)
				continue
			case c.Type == field.TypeInt64 && strings.Contains(c.Name, "cost") && !strings.HasSuffix(c.Name, "_count"):
				name += "_usd"
			}
			require.Contains(t, fields, name, table.Name)
			delete(fields, name)
		}
		require.Empty(t, fields, table.Name)
	}
}

// inJSON returns the fields of what is shown in JSON, numbers with their digits.
func inJSON(tb testing.TB, v any) (fields map[string]any) {
	tb.Helper()
	text, err := json.Marshal(v)
	require.NoError(tb, err)
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber()
	require.NoError(tb, decoder.Decode(&fields))
	return fields
}

// TestMoneyInJSON finds dollars wherever money is shown: in rows, the audit trail, reports and limits.
func TestMoneyInJSON(t *testing.T) { eachEngine(t, testMoneyInJSON) }

func testMoneyInJSON(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "openai")
	rates := money.Rates{"input": 37_500_000, "output": 1}
	m := mustModel(t, reg, p.ID, "gpt-4", rates)
	k, err := reg.AddAPIKey(
		ctx,
		registry.KeyInput{ProviderID: p.ID, APIKey: secret(1), Limits: registry.Limits{CostPerDay: money.Dollar / 2}},
	)
	require.NoError(t, err)
	record(t, reg, m, k, 1_000_000, 0)

	require.Equal(t, json.Number("0.0375"), inJSON(t, m)["cost_per_1m_input_usd"])
	require.Equal(
		t, map[string]any{"input": json.Number("0.0375"), "output": json.Number("0.000000001")}, inJSON(t, rates),
	)
	require.Equal(t, json.Number("0.0375"), inJSON(t, reg.Client().UsageEvent.Query().OnlyX(ctx))["cost_usd"])
	report, err := reg.UsageReport(
		ctx, registry.ReportInput{Start: clock.Now().Add(-time.Hour), End: clock.Now().Add(time.Hour)},
	)
	require.NoError(t, err)
	require.Equal(t, json.Number("0.0375"), inJSON(t, report[0])["TotalCostUSD"])
	verdicts, err := reg.ExplainKeys(ctx, registry.AcquireInput{ProviderID: p.ID, TTL: time.Minute})
	require.NoError(t, err)
	limit := inJSON(t, verdicts[0].Limits[0])
	require.Equal(
		t, []any{"cost_per_day", json.Number("0.5"), json.Number("0.0375")},
		[]any{limit["Name"], limit["LimitUSD"], limit["UsedUSD"]},
	)
	require.NotContains(t, limit, "Limit")
	require.NotContains(t, limit, "Used")
	require.Contains(t, inJSON(t, registry.LimitState{Name: registry.LimitConcurrency, Limit: 3}), "Limit")

	entries, err := reg.ListAudit(ctx, registry.AuditFilter{Action: registry.ActionCreate})
	require.NoError(t, err)
	for _, entry := range entries {
		after := inJSON(t, entry.After)
		switch entry.Entity {
		case registry.EntityModel:
			require.Equal(t, json.Number("0.0375"), after["cost_per_1m_input_usd"])
			require.Equal(t, false, after["can_reason"], "what is false is shown")
			require.Nil(t, after["family_id"])
			require.Contains(t, after, "family_id")
		case registry.EntityPrice:
			require.Equal(t, json.Number("0.000000001"), after["cost_per_1m_output_usd"])
			require.Contains(t, after, "cost_per_1m_cache_read_usd")
		case registry.EntityAPIKey:
			require.Equal(t, json.Number("0.5"), after["cost_per_day_usd"])
			require.NotContains(t, after, "key_hash")
		}
	}
	_, err = reg.UpdateModelPricing(
		ctx, m.ID,
		registry.PriceInput{Rates: money.Rates{"input": money.Dollar}, EffectiveFrom: clock.Now().Add(-time.Hour)},
	)
	require.NoError(t, err)
	_, err = reg.Reprice(ctx, registry.RepriceInput{ModelID: m.ID})
	require.NoError(t, err)
	entries, err = reg.ListAudit(ctx, registry.AuditFilter{Action: registry.ActionReprice})
	require.NoError(t, err)
	require.Len(t, entries, 1)
	after := inJSON(t, entries[0].After)
	require.Equal(t, []any{json.Number("0.0375"), json.Number("1")}, []any{after["BeforeUSD"], after["AfterUSD"]})
}
