package registry_test

// These tests have processes share a database, and have no source of their own.

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// told adds to sums, in pairs of a sum and a number, unless there is an error.
func told(err error, pairs ...any) error {
	if err != nil {
		return err
	}
	for pair := range slices.Chunk(pairs, 2) {
		switch n := pair[1].(type) {
		case int:
			*pair[0].(*int64) += int64(n)
		case int64:
			*pair[0].(*int64) += n
		}
	}
	return nil
}

func checkShared(t *testing.T, reg *registry.Registry, rows shared, all acked) {
	t.Helper()
	ctx, c := t.Context(), reg.Client()

	// One catalogue.
	snapshot := catalog.Catwalk()
	require.EqualValues(t, snapshot.Models(), all.Models)
	require.EqualValues(t, snapshot.Models(), all.Prices)
	again, err := reg.ImportCatalog(ctx, snapshot, nil)
	require.NoError(t, err)
	require.Equal(t, registry.ImportChanges{Unchanged: snapshot.Models()}, again.Models)
	require.Equal(t, registry.ImportChanges{Unchanged: len(snapshot.Providers)}, again.Providers)
	require.Equal(t, snapshot.Models()+len(rows.Models)+1, c.Model.Query().CountX(ctx))

	// The ledger, in both grains, and the counters.
	for grain, rowsOf := range byGrain(t, reg) {
		var sum acked
		var cost money.USD
		for _, u := range rowsOf {
			sum.Requests += u.RequestCount
			sum.Inputs += u.InputTokens
			if u.ModelID == rows.Priced {
				sum.Priced += u.RequestCount
				continue
			}
			require.EqualValues(t, u.InputTokens, *u.TotalCost)
			cost += *u.TotalCost
		}
		require.Equal(t, acked{Requests: all.Requests, Inputs: all.Inputs, Priced: all.Priced}, sum, grain)
	}
	var uses, tokens int64
	for _, k := range c.APIKey.Query().Where(apikey.IDIn(rows.Keys...)).AllX(ctx) {
		uses += k.UsageCount
		tokens += k.TokenCount
		require.LessOrEqual(t, k.RequestsToday, k.UsageCount)
		require.LessOrEqual(t, k.TokensToday, k.TokenCount)
	}
	require.Equal(t, all.Requests+all.Increments, uses)
	require.Equal(t, all.Inputs+all.Tokens, tokens)

	// The keys: as many as there may be, and of two degradations the one that ends later.
	keys, err := reg.ListAPIKeys(ctx, registry.KeyFilter{ProviderID: rows.Crowd})
	require.NoError(t, err)
	require.Len(t, keys, registry.MaxKeysPerProvider)
	require.EqualValues(t, registry.MaxKeysPerProvider, all.Added)
	require.Positive(t, all.Dup)
	require.Positive(t, all.Refused)
	for i, id := range rows.Worn {
		var longest time.Duration
		for number := range processes * processGoroutines {
			longest = max(longest, wornFor(number, i))
		}
		worn := c.APIKey.GetX(ctx, id)
		require.Equal(t, registrytest.Start.Add(longest), *worn.DegradedUntil)
		require.Equal(t, longest.String(), worn.DegradedReason)
	}

	checkHistory(t, c, rows.Priced, all.Changes)
}

// checkHistory checks that each price of a model ends when the next begins, and that the last one
// is current.
func checkHistory(t *testing.T, c *ent.Client, modelID uuid.UUID, changes int64) {
	t.Helper()
	prices := c.Price.Query().Where(price.ModelID(modelID)).Order(price.ByEffectiveFrom()).AllX(t.Context())
	require.EqualValues(t, changes+1, len(prices))
	for i, p := range prices[:len(prices)-1] {
		require.NotNil(t, p.EffectiveTo)
		require.Equal(t, prices[i+1].EffectiveFrom, *p.EffectiveTo)
		require.True(t, p.EffectiveTo.After(p.EffectiveFrom))
	}
	current := prices[len(prices)-1]
	require.Nil(t, current.EffectiveTo)
	require.Equal(
		t, registry.RatesOf(current)[meter.Input],
		*c.Model.Query().Where(model.ID(modelID)).OnlyX(t.Context()).CostPer1mInput,
	)
}
