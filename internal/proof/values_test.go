package proof_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/dimensionvalue"
	"github.com/jeffersonwarrior/modelscan/internal/proof"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// valued is a registry with usage by values.
type valued struct {
	client *ent.Client
	find   func() []string // the differences
	mend   func() []proof.Difference
	exec   func(statement string)
}

func newValued(t *testing.T) *valued {
	t.Helper()
	ctx, file := t.Context(), filepath.Join(t.TempDir(), "registry.db")
	clock := registrytest.NewClock(start)
	reg, err := registry.Open(ctx, file, registry.WithClock(clock.Now))
	require.NoError(t, err)
	p, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: "openai"})
	require.NoError(t, err)
	m, err := reg.CreateModel(ctx, registry.ModelInput{
		ProviderID: p.ID, ModelID: "m", Rates: money.Rates{meter.Input: money.Dollar},
	})
	require.NoError(t, err)
	k, err := reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: p.ID, APIKey: "sk-0123456789abcdef"})
	require.NoError(t, err)
	for _, in := range []registry.DimensionInput{
		{Name: "feature"}, {Name: "region"}, {Name: "env", DaysOnly: true},
		{Name: "both", Of: []string{"feature", "region"}},
		{Name: "few", Of: []string{"region", "feature"}, MaxValues: 1},
	} {
		_, err := reg.CreateDimension(ctx, in)
		require.NoError(t, err)
	}
	who, err := reg.CreateConsumer(ctx, registry.ConsumerInput{Name: "who"})
	require.NoError(t, err)
	for i := range 8 {
		require.NoError(t, reg.RecordUsage(ctx, registry.UsageInput{
			ModelID: m.ID, APIKeyID: k.ID, ConsumerID: who.ID, At: start.Add(time.Duration(i) * 10 * time.Minute),
			Tags:   registry.Tags{"feature": {fmt.Sprint("f", i%2)}, "region": {fmt.Sprint("r", i%2)}},
			Tokens: meter.Tokens{InputTokens: 5},
		}))
		clock.Advance(10 * time.Minute)
	}
	require.NoError(t, reg.Close())

	db, err := store.OpenSQLite(ctx, store.Config{Path: file, Existing: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	client := ent.NewClient(ent.Driver(db))
	find := func() (kinds []string) {
		var found proof.Differences
		require.NoError(t, proof.NewReader(db, client, false).Each(ctx, func(d *proof.Day) error {
			d.Differences(&found)
			return nil
		}))
		for _, d := range found.List {
			kinds = append(kinds, string(d.Kind)+" "+d.Table+" "+d.Field)
		}
		slices.Sort(kinds)
		return slices.Compact(kinds)
	}
	require.Empty(t, find())
	exec := func(statement string) {
		_, err := db.ExecContext(ctx, statement)
		require.NoError(t, err)
	}
	mend := func() (left []proof.Difference) {
		for range 3 {
			left = nil
			require.NoError(t, proof.NewReader(db, client, false).Each(ctx, func(d *proof.Day) error {
				pieces, rest := d.Mend(100)
				left = append(left, rest...)
				for i := range pieces {
					if err := pieces[i].Write(ctx, client, db.Dialect()); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		return left
	}
	return &valued{client, find, mend, exec}
}

// TestValues damages what was summed by values, and the events that it was summed of.
func TestValues(t *testing.T) {
	t.Parallel()
	d := newValued(t)
	for statement, want := range map[string][]string{
		"DELETE FROM usage_by_value": {"missing row usage_by_value "},
		"DELETE FROM usage_by_value_quarters WHERE period_start =" +
			" (SELECT min(period_start) FROM usage_by_value_quarters)": {
			"missing row usage_by_value_quarters ",
		},
		"UPDATE usage_by_value SET error_count = 1": {
			"wrong digest usage_by_value digest", "wrong sum usage_by_value error_count",
		},
	} {
		d.exec(statement)
		require.Equal(t, want, d.find(), statement)
		require.Empty(t, d.mend(), statement)
		require.Empty(t, d.find(), statement)
	}
	// Without events and quarters nobody knows what a row was, but that the values lack something.
	d.exec("INSERT INTO usage_horizons (part, complete_from) VALUES ('events', '2027-01-01 00:00:00+00:00')")
	d.exec("INSERT INTO usage_horizons (part, complete_from) VALUES ('quarters', '2027-01-01 00:00:00+00:00')")
	require.Empty(t, d.find())
	d.exec("DELETE FROM usage_by_value WHERE rowid = (SELECT max(rowid) FROM usage_by_value)")
	require.Equal(t,
		[]string{"wrong values usage_by_value request_count", "wrong values usage_by_value total_cost"}, d.find())
	require.Len(t, d.mend(), 3, "of its dimension, and of both parts")
	d.exec("DELETE FROM usage_horizons")
	require.Empty(t, d.mend())
	require.Empty(t, d.find())
	// A damaged tag is told, and its quarter proves nothing.
	d.exec("UPDATE usage_events SET tags = '{' WHERE id = (SELECT max(id) FROM usage_events)")
	require.Contains(t, d.find(), "wrong sum usage_events ")
}

// TestCombinations has what two tags have together count under two others: no sum of a dimension is wrong.
func TestCombinations(t *testing.T) {
	t.Parallel()
	d := newValued(t)
	d.exec("INSERT INTO usage_horizons (part, complete_from) VALUES ('events', '2027-01-01 00:00:00+00:00')")
	d.exec("INSERT INTO usage_horizons (part, complete_from) VALUES ('quarters', '2027-01-01 00:00:00+00:00')")
	var ids [3]uuid.UUID
	for i, name := range []string{"f0", "r0", "r1"} {
		v, err := d.client.DimensionValue.Query().Where(dimensionvalue.Name(name)).Only(t.Context())
		require.NoError(t, err)
		ids[i] = v.ID
	}
	is := fmt.Sprintf(`["%s","%s"]`, ids[0], ids[1])
	other := fmt.Sprintf(`["%s","%s"]`, ids[0], ids[2])
	const rename = "UPDATE dimension_values SET name = '%s' WHERE name = '%s'"
	d.exec(fmt.Sprintf(rename, other, is))
	require.Equal(t, []string{"wrong values usage_by_value request_count"}, d.find())
	require.Len(t, d.mend(), 2, "of two regions")
	d.exec(fmt.Sprintf(rename, is, other))
	require.Empty(t, d.find())
	require.Empty(t, d.find())
}
