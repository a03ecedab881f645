package registry_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestReportNames shows that rows of reports carry names, also of what is deleted.
func TestReportNames(t *testing.T) { eachEngine(t, testReportNames) }

func testReportNames(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	type of struct{ provider, family, model, key uuid.UUID }
	want := map[of]registry.ReportNames{}
	var gone of
	for i, provider := range []string{"a", "b"} {
		p := mustProvider(t, reg, provider)
		family, err := reg.CreateFamily(ctx, registry.FamilyInput{ProviderID: p.ID, Name: "family of " + provider})
		require.NoError(t, err)
		k, err := reg.AddAPIKey(
			ctx, registry.KeyInput{ProviderID: p.ID, APIKey: secret(i), Label: "key of " + provider},
		)
		require.NoError(t, err)
		bare := mustModel(t, reg, p.ID, "bare", gpt4())
		m, err := reg.CreateModel(ctx, registry.ModelInput{
			ProviderID: p.ID, FamilyID: family.ID, ModelID: "m", Rates: gpt4(),
		})
		require.NoError(t, err)
		record(t, reg, m, k, 1, 1)
		record(t, reg, bare, k, 1, 1)
		gone = of{p.ID, family.ID, m.ID, k.ID}
		want[gone] = registry.ReportNames{
			Provider: provider, Family: family.Name, Model: "m", KeyLabel: k.Label, KeyPrefix: k.KeyPrefix,
		}
		want[of{p.ID, uuid.Nil, bare.ID, k.ID}] = registry.ReportNames{
			Provider: provider, Model: "bare", KeyLabel: k.Label, KeyPrefix: k.KeyPrefix,
		}
	}
	require.NoError(t, reg.DeleteAPIKey(ctx, gone.key))
	require.NoError(t, reg.DeleteModel(ctx, gone.model))
	mustModel(t, reg, gone.provider, "m", nil) // which has the name now
	require.NoError(t, reg.DeleteProvider(ctx, gone.provider))

	in := registry.ReportInput{
		Start: clock.Now().Truncate(24 * time.Hour), End: clock.Now().
			Add(time.Hour), Step: registry.StepHour, FillGaps: true,
		By: []registry.Dimension{registry.ByKey, registry.ByModel, registry.ByFamily, registry.ByProvider},
	}
	rows, err := reg.UsageReport(ctx, in)
	require.NoError(t, err)
	require.Greater(t, len(rows), len(want))
	seen := map[of]bool{}
	for _, row := range rows {
		id := of{row.ProviderID, row.FamilyID, row.ModelID, row.APIKeyID}
		require.Contains(t, want, id)
		require.Equal(t, want[id], row.ReportNames)
		seen[id] = true
	}
	require.Len(t, seen, len(want))

	in.By = []registry.Dimension{registry.ByModel}
	rows, err = reg.UsageReport(ctx, in)
	require.NoError(t, err)
	for _, row := range rows {
		require.Empty(t, row.Provider, "names go with ids")
		require.Contains(t, []string{"m", "bare"}, row.Model)
	}
	in.By = nil
	rows, err = reg.UsageReport(ctx, in)
	require.NoError(t, err)
	require.Zero(t, rows[0].ReportNames)
}

// TestDifferenceNames shows that differences of the ledger carry names, also of what is deleted.
func TestDifferenceNames(t *testing.T) { eachEngine(t, testDifferenceNames) }

func testDifferenceNames(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "p")
	m := mustModel(t, reg, p.ID, "m", gpt4())
	k, err := reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: p.ID, APIKey: secret(1), Label: "label"})
	require.NoError(t, err)
	record(t, reg, m, k, 1, 1)
	require.NoError(t, reg.DeleteAPIKey(ctx, k.ID))
	require.NoError(t, reg.DeleteModel(ctx, m.ID))
	_, err = reg.Client().ExecContext(ctx, "UPDATE usage_events SET cost = cost + 1")
	require.NoError(t, err)
	_, err = reg.Client().ExecContext(ctx, "UPDATE api_keys SET usage_count = 7")
	require.NoError(t, err)
	report := verified(t, reg)
	repaired, err := reg.RepairLedger(ctx)
	require.NoError(t, err)
	for name, found := range map[string][]registry.Difference{
		"verify": report.Differences, "repair": repaired.Unrepaired,
	} {
		require.NotEmpty(t, found, name)
		for _, d := range found {
			model, label, prefix := "", "", ""
			if d.ModelID != uuid.Nil {
				model = "m"
			}
			if d.APIKeyID != uuid.Nil {
				label, prefix = "label", k.KeyPrefix
			}
			require.Equal(
				t, []string{model, label, prefix}, []string{d.Model, d.KeyLabel, d.KeyPrefix}, "%s: %v", name, d,
			)
		}
	}
	require.Contains(t, report.Differences, registry.Difference{
		Kind: registry.DifferenceWrongKeyCounter, Table: "api_keys", APIKeyID: k.ID, Field: "usage_count", Want: "1",
		Have:     "7",
		KeyLabel: "label", KeyPrefix: k.KeyPrefix,
	})
}
