package registry_test

import (
	"fmt"
	"slices"
	"strings"
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

func TestCreateFamily(t *testing.T) { eachEngine(t, testCreateFamily) }

func testCreateFamily(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	p, other := mustProvider(t, reg, "openai"), mustProvider(t, reg, "other")

	family, err := reg.CreateFamily(
		t.Context(), registry.FamilyInput{ProviderID: p.ID, Name: "gpt-4", Description: "d"},
	)
	require.NoError(t, err)
	require.Equal(t, "gpt-4", family.Name)
	_, err = reg.CreateFamily(t.Context(), registry.FamilyInput{ProviderID: p.ID, Name: "gpt-4"})
	require.ErrorIs(t, err, registry.ErrConflict)
	_, err = reg.CreateFamily(t.Context(), registry.FamilyInput{ProviderID: other.ID, Name: "gpt-4"})
	require.NoError(t, err, "unique in its provider only")
	_, err = reg.CreateFamily(t.Context(), registry.FamilyInput{ProviderID: uuid.New(), Name: "x"})
	require.ErrorIs(t, err, registry.ErrForeignKey)
	require.ErrorIs(t, err, registry.ErrNotFound, "it is the provider that is missing")
	for name, text := range badTexts {
		_, err = reg.CreateFamily(t.Context(), registry.FamilyInput{ProviderID: p.ID, Name: text})
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
	}

	_, err = reg.CreateFamily(t.Context(), registry.FamilyInput{ProviderID: p.ID, Name: "a"})
	require.NoError(t, err)
	all, err := reg.ListFamilies(t.Context(), registry.FamilyFilter{ProviderID: p.ID})
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, "a", all[0].Name)
}

func TestCreateModel(t *testing.T) { eachEngine(t, testCreateModel) }

func testCreateModel(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	p, other := mustProvider(t, reg, "openai"), mustProvider(t, reg, "other")
	family, err := reg.CreateFamily(t.Context(), registry.FamilyInput{ProviderID: p.ID, Name: "gpt-4"})
	require.NoError(t, err)
	foreign, err := reg.CreateFamily(t.Context(), registry.FamilyInput{ProviderID: other.ID, Name: "gpt-4"})
	require.NoError(t, err)

	t.Run("OK", func(t *testing.T) {
		m, err := reg.CreateModel(t.Context(), registry.ModelInput{
			ProviderID: p.ID, FamilyID: family.ID, ModelID: "gpt-4", Name: "GPT-4", Description: "d",
			Rates: gpt4(), PriceSource: "list", ContextWindow: 8192, MaxOutputTokens: 4096,
			SupportsImages: true, SupportsAudio: true, SupportsTools: true,
			SupportsStructuredOutput: true, CanReason: true, CanStream: true,
		})
		require.NoError(t, err)
		got, err := reg.FindModel(t.Context(), p.ID, "gpt-4")
		require.NoError(t, err)
		require.Equal(t, m.String(), got.String())
		require.Equal(t, 30*money.Dollar, *got.CostPer1mInput)
		require.Equal(t, 60*money.Dollar, *got.CostPer1mOutput)
		require.Equal(t, family.ID, *got.FamilyID)
		require.True(t, got.SupportsImages && got.SupportsAudio && got.SupportsTools &&
			got.SupportsStructuredOutput && got.CanReason && got.CanStream)
		price, err := reg.PriceAt(t.Context(), m.ID, registrytest.Start)
		require.NoError(t, err)
		require.Equal(t, gpt4(), registry.RatesOf(price))
		require.Equal(t, "list", price.Source)
	})
	t.Run("without a price", func(t *testing.T) {
		m := mustModel(t, reg, p.ID, "unpriced", nil)
		require.Equal(t, "unpriced", m.Name)
		require.Nil(t, m.CostPer1mInput)
		price, err := reg.PriceAt(t.Context(), m.ID, registrytest.Start)
		require.NoError(t, err)
		require.Empty(t, registry.RatesOf(price))
	})
	t.Run("free is not unknown", func(t *testing.T) {
		m := mustModel(t, reg, p.ID, "free", money.Rates{meter.Input: 0, meter.Output: 0})
		require.NotNil(t, m.CostPer1mInput)
		require.Zero(t, *m.CostPer1mInput)
	})
	t.Run("ErrConflict", func(t *testing.T) {
		_, err := reg.CreateModel(t.Context(), registry.ModelInput{ProviderID: p.ID, ModelID: "gpt-4"})
		require.ErrorIs(t, err, registry.ErrConflict)
		mustModel(t, reg, other.ID, "gpt-4", nil)
	})
	t.Run("ErrForeignKey", func(t *testing.T) {
		_, err := reg.CreateModel(t.Context(), registry.ModelInput{ProviderID: uuid.New(), ModelID: "x"})
		require.ErrorIs(t, err, registry.ErrForeignKey)
		_, err = reg.CreateModel(t.Context(), registry.ModelInput{ProviderID: p.ID, FamilyID: uuid.New(), ModelID: "x"})
		require.ErrorIs(t, err, registry.ErrForeignKey)
	})
	t.Run("ErrInvalidData", func(t *testing.T) {
		inputs := map[string]registry.ModelInput{
			"family of another provider": {FamilyID: foreign.ID, ModelID: "x"},
			"negative rate":              {ModelID: "x", Rates: money.Rates{meter.Input: -1}},
			"overflowing rate":           {ModelID: "x", Rates: money.Rates{meter.Output: money.Max}},
			"unknown meter":              {ModelID: "x", Rates: money.Rates{"tokens": 1}},
			"negative context":           {ModelID: "x", ContextWindow: -1},
			"overflowing context":        {ModelID: "x", ContextWindow: 1 << 62},
			"negative output":            {ModelID: "x", MaxOutputTokens: -1},
			"overflowing output":         {ModelID: "x", MaxOutputTokens: 1 << 62},
			"bad source":                 {ModelID: "x", PriceSource: "\x00"},
			"bad description":            {ModelID: "x", Description: strings.Repeat("x", 5000)},
		}
		for name, text := range badTexts {
			inputs["model_id "+name] = registry.ModelInput{ModelID: text}
			if name == "NUL" || name == "over-long" || name == "invalid UTF-8" { // the others are texts for people
				inputs["name "+name] = registry.ModelInput{ModelID: "x", Name: text}
			}
		}
		for name, in := range inputs {
			in.ProviderID = p.ID
			_, err := reg.CreateModel(t.Context(), in)
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
		}
		_, err := reg.FindModel(t.Context(), p.ID, "x")
		require.ErrorIs(t, err, registry.ErrNotFound, "nothing was created")
	})
}

func TestCreateModels(t *testing.T) { eachEngine(t, testCreateModels) }

func testCreateModels(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	p := mustProvider(t, reg, "openai")
	inputs := make([]registry.ModelInput, 1234) // more than one INSERT carries
	for i := range inputs {
		inputs[i] = registry.ModelInput{ProviderID: p.ID, ModelID: fmt.Sprintf("m%04d", i), Rates: gpt4()}
	}

	t.Run("all or none", func(t *testing.T) {
		twice := append(slices.Clone(inputs), inputs[0])
		_, err := reg.CreateModels(t.Context(), twice)
		require.ErrorIs(t, err, registry.ErrConflict)
		twice[7].ModelID, twice[9].ContextWindow = "", -1
		_, err = reg.CreateModels(t.Context(), twice)
		require.ErrorIs(t, err, registry.ErrInvalidData)
		require.ErrorContains(t, err, "model 7: model_id")
		require.ErrorContains(t, err, "model 9: context_window")
		all, err := reg.GetModelsByProvider(t.Context(), p.ID, registry.Page{})
		require.NoError(t, err)
		require.Empty(t, all)
	})
	t.Run("OK", func(t *testing.T) {
		models, err := reg.CreateModels(t.Context(), inputs)
		require.NoError(t, err)
		require.Len(t, models, len(inputs))
		for i, m := range models {
			require.Equal(t, inputs[i].ModelID, m.ModelID, "in the order of the inputs")
		}
		all, err := collect(registry.All(t.Context(), reg.ListModels, registry.ModelFilter{ProviderID: p.ID}))
		require.NoError(t, err)
		require.Len(t, all, len(inputs))
		prices, err := reg.Client().Price.Query().Count(t.Context())
		require.NoError(t, err)
		require.Equal(t, len(inputs), prices)
	})
	t.Run("none", func(t *testing.T) {
		models, err := reg.CreateModels(t.Context(), nil)
		require.NoError(t, err)
		require.Empty(t, models)
	})
}

func TestListModels(t *testing.T) { eachEngine(t, testListModels) }

func testListModels(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	p, other := mustProvider(t, reg, "openai"), mustProvider(t, reg, "other")
	family, err := reg.CreateFamily(t.Context(), registry.FamilyInput{ProviderID: p.ID, Name: "f"})
	require.NoError(t, err)
	rates := func(in, out money.USD) money.Rates { return money.Rates{meter.Input: in, meter.Output: out} }
	models, err := reg.CreateModels(t.Context(), []registry.ModelInput{
		{ProviderID: p.ID, ModelID: "a", Rates: rates(5, 1), ContextWindow: 100, SupportsTools: true},
		{ProviderID: p.ID, ModelID: "b", Name: "Big Été", ContextWindow: 300, CanReason: true, FamilyID: family.ID},
		{
			ProviderID: p.ID, ModelID: "c", Rates: rates(3, 9), ContextWindow: 200, SupportsTools: true,
			SupportsImages: true,
		},
		{
			ProviderID: other.ID, ModelID: "d", Rates: rates(4, 5), CanStream: true, SupportsAudio: true,
			SupportsStructuredOutput: true,
		},
		{ProviderID: p.ID, ModelID: "old", Rates: rates(1, 1)},
		{ProviderID: p.ID, ModelID: "deleted", Rates: rates(1, 1)},
	})
	require.NoError(t, err)
	require.NoError(t, reg.DeprecateModel(t.Context(), models[4].ID, time.Time{}))
	require.NoError(t, reg.DeleteModel(t.Context(), models[5].ID))

	for name, test := range map[string]struct {
		filter registry.ModelFilter
		want   string
	}{
		"all":                 {registry.ModelFilter{}, "a b c d"},
		"with deprecated":     {registry.ModelFilter{WithDeprecated: true}, "a b c d old"},
		"by provider":         {registry.ModelFilter{ProviderID: other.ID}, "d"},
		"by family":           {registry.ModelFilter{FamilyID: family.ID}, "b"},
		"search id":           {registry.ModelFilter{Search: "C"}, "c"},
		"search name":         {registry.ModelFilter{Search: "big"}, "b"},
		"search beyond ASCII": {registry.ModelFilter{Search: "Été"}, "b"},
		"a wildcard is text":  {registry.ModelFilter{Search: "%"}, ""},
		"tools":               {registry.ModelFilter{SupportsTools: true}, "a c"},
		"tools and images":    {registry.ModelFilter{SupportsTools: true, SupportsImages: true}, "c"},
		"audio":               {registry.ModelFilter{SupportsAudio: true}, "d"},
		"structured":          {registry.ModelFilter{SupportsStructuredOutput: true}, "d"},
		"reason":              {registry.ModelFilter{CanReason: true}, "b"},
		"stream":              {registry.ModelFilter{CanStream: true}, "d"},
		"context":             {registry.ModelFilter{MinContextWindow: 200}, "b c"},
		"cheap input":         {registry.ModelFilter{MaxInputCost: ptr(money.USD(4))}, "c d"},
		"cheap output":        {registry.ModelFilter{MaxOutputCost: ptr(money.USD(5))}, "a d"},
		"input order":         {registry.ModelFilter{Order: registry.OrderByInputCost}, "c d a b"},
		"output order":        {registry.ModelFilter{Order: registry.OrderByOutputCost}, "a d c b"},
		"context order":       {registry.ModelFilter{Order: registry.OrderByContextWindow}, "b c a d"},
		"first page":          {registry.ModelFilter{Limit: 2}, "a b"},
		"second page":         {registry.ModelFilter{Limit: 2, After: models[1].ID}, "c d"},
		"deleted":             {registry.ModelFilter{Deleted: true}, "deleted"},
	} {
		got, err := reg.ListModels(t.Context(), test.filter)
		require.NoError(t, err, name)
		require.Equal(t, test.want, strings.Join(modelIDs(got), " "), name)
	}
	for name, filter := range map[string]registry.ModelFilter{
		"limit": {Limit: registry.MaxLimit + 1}, "negative limit": {Limit: -1},
		"order": {Order: 9}, "context": {MinContextWindow: -1}, "search": {Search: "\x00"},
	} {
		_, err := reg.ListModels(t.Context(), filter)
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
	}
}

func modelIDs(models []*ent.Model) []string {
	ids := make([]string, len(models))
	for i, m := range models {
		ids[i] = m.ModelID
	}
	return ids
}

func TestUpdateModel(t *testing.T) { eachEngine(t, testUpdateModel) }

func testUpdateModel(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p, other := mustProvider(t, reg, "openai"), mustProvider(t, reg, "other")
	family, err := reg.CreateFamily(t.Context(), registry.FamilyInput{ProviderID: p.ID, Name: "f"})
	require.NoError(t, err)
	foreign, err := reg.CreateFamily(t.Context(), registry.FamilyInput{ProviderID: other.ID, Name: "f"})
	require.NoError(t, err)
	m := mustModel(t, reg, p.ID, "gpt-4", gpt4())
	clock.Advance(time.Hour)

	t.Run("OK", func(t *testing.T) {
		up, err := reg.UpdateModel(t.Context(), m.ID, registry.ModelUpdate{
			FamilyID: &family.ID, Name: ptr("n"), Description: ptr("d"), ContextWindow: ptr(int64(1)),
			MaxOutputTokens: ptr(int64(2)), SupportsImages: ptr(true), SupportsAudio: ptr(true),
			SupportsTools: ptr(true), SupportsStructuredOutput: ptr(true), CanReason: ptr(true), CanStream: ptr(true),
		})
		require.NoError(t, err)
		require.Equal(t, family.ID, *up.FamilyID)
		require.Equal(
			t, []any{"n", "d", int64(1), int64(2)},
			[]any{up.Name, up.Description, up.ContextWindow, up.MaxOutputTokens},
		)
		require.True(t, up.SupportsImages && up.SupportsAudio && up.SupportsTools &&
			up.SupportsStructuredOutput && up.CanReason && up.CanStream)
		require.Equal(t, clock.Now(), up.UpdatedAt)
		require.Equal(t, 30*money.Dollar, *up.CostPer1mInput, "prices are another matter")

		up, err = reg.UpdateModel(
			t.Context(), m.ID, registry.ModelUpdate{FamilyID: ptr(uuid.Nil), CanReason: ptr(false)},
		)
		require.NoError(t, err)
		require.Nil(t, up.FamilyID)
		require.False(t, up.CanReason)
		require.Equal(t, "n", up.Name, "what is nil stays")
	})
	t.Run("Err", func(t *testing.T) {
		_, err := reg.UpdateModel(t.Context(), m.ID, registry.ModelUpdate{FamilyID: &foreign.ID})
		require.ErrorIs(t, err, registry.ErrInvalidData)
		_, err = reg.UpdateModel(t.Context(), m.ID, registry.ModelUpdate{FamilyID: ptr(uuid.New())})
		require.ErrorIs(t, err, registry.ErrForeignKey)
		_, err = reg.UpdateModel(t.Context(), m.ID, registry.ModelUpdate{ContextWindow: ptr(int64(-1))})
		require.ErrorIs(t, err, registry.ErrInvalidData)
		_, err = reg.UpdateModel(t.Context(), uuid.New(), registry.ModelUpdate{})
		require.ErrorIs(t, err, registry.ErrNotFound)
	})
}

func TestDeprecateAndDeleteModel(t *testing.T) { eachEngine(t, testDeprecateAndDeleteModel) }

func testDeprecateAndDeleteModel(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "openai")
	m := mustModel(t, reg, p.ID, "gpt-4", gpt4())

	require.NoError(t, reg.DeprecateModel(t.Context(), m.ID, time.Time{}))
	got, err := reg.GetModel(t.Context(), m.ID)
	require.NoError(t, err)
	require.True(t, got.Deprecated)
	require.Equal(t, clock.Now(), *got.DeprecatedAt)
	got, err = reg.UpdateModel(t.Context(), m.ID, registry.ModelUpdate{Deprecated: ptr(false)})
	require.NoError(t, err)
	require.False(t, got.Deprecated)
	require.Nil(t, got.DeprecatedAt)
	got, err = reg.UpdateModel(t.Context(), m.ID, registry.ModelUpdate{Deprecated: ptr(true)})
	require.NoError(t, err)
	require.Equal(t, clock.Now(), *got.DeprecatedAt)
	require.ErrorIs(
		t, reg.DeprecateModel(t.Context(), m.ID, time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)), registry.ErrInvalidData,
	)
	sunset := time.Date(2027, 1, 1, 2, 0, 0, 0, time.FixedZone("CET", 3600))
	require.NoError(t, reg.DeprecateModel(t.Context(), m.ID, sunset))
	got, err = reg.GetModel(t.Context(), m.ID)
	require.NoError(t, err)
	require.Equal(t, sunset.UTC(), *got.DeprecatedAt)
	require.ErrorIs(t, reg.DeprecateModel(t.Context(), uuid.New(), sunset), registry.ErrNotFound)

	require.NoError(t, reg.DeleteModel(t.Context(), m.ID))
	require.ErrorIs(t, reg.DeleteModel(t.Context(), m.ID), registry.ErrNotFound)
	require.ErrorIs(t, reg.DeprecateModel(t.Context(), m.ID, sunset), registry.ErrNotFound)
	_, err = reg.UpdateModelPricing(t.Context(), m.ID, registry.PriceInput{Unknown: true})
	require.ErrorIs(t, err, registry.ErrNotFound)
	_, err = reg.FindModel(t.Context(), p.ID, "gpt-4")
	require.ErrorIs(t, err, registry.ErrNotFound)
	mustModel(t, reg, p.ID, "gpt-4", nil) // the name is free
}
