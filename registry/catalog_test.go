package registry_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

func TestImportCatwalk(t *testing.T) { eachEngine(t, testImportCatwalk) }

func testImportCatwalk(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	snapshot := catalog.Catwalk()

	var done []int
	report, err := reg.ImportCatalog(t.Context(), snapshot, func(n, total int) {
		require.Equal(t, 1506, total)
		done = append(done, n)
	})
	require.NoError(t, err)
	require.Equal(t, registry.ImportChanges{Created: 40}, report.Providers)
	require.Equal(t, registry.ImportChanges{Created: 1506}, report.Models)
	require.Equal(t, registry.ImportChanges{Created: 1506}, report.Prices)
	require.NotZero(t, report.Families.Created)
	require.Equal(t, snapshot.Notes, report.Notes)
	require.Len(t, done, 41)
	require.IsIncreasing(t, done)
	require.Equal(t, 1506, done[40])

	for _, p := range snapshot.Providers {
		provider, err := reg.FindProvider(t.Context(), p.Name)
		require.NoError(t, err)
		require.Equal(t, p.BaseURL, provider.BaseURL)
		models, err := reg.GetModelsByProvider(t.Context(), provider.ID, registry.Page{Limit: registry.MaxLimit})
		require.NoError(t, err)
		require.Len(t, models, len(p.Models))
	}
	before := dump(t, reg)
	clock.Advance(time.Hour)
	again, err := reg.ImportCatalog(t.Context(), snapshot, nil)
	require.NoError(t, err)
	require.Equal(t, before, dump(t, reg), "the second time changes nothing, not even a time")
	require.Equal(t, registry.ImportResult{
		Source:    catalog.CatwalkSource,
		Providers: registry.ImportChanges{Unchanged: 40},
		Families:  registry.ImportChanges{Unchanged: report.Families.Created},
		Models:    registry.ImportChanges{Unchanged: 1506},
		Prices:    registry.ImportChanges{Unchanged: 1506},
		Notes:     snapshot.Notes,
	}, again)
}

// snapshot returns a small catalogue.
func snapshot() catalog.Snapshot {
	yes := true
	return catalog.Snapshot{Source: "test", Providers: []catalog.Provider{{
		Name: "p", DisplayName: "P", BaseURL: "https://p.example", AuthMethod: "header",
		Models: []catalog.Model{
			{ModelID: "a", Name: "A", Family: "f", Rates: gpt4(), ContextWindow: 10, SupportsTools: &yes},
			{ModelID: "b", Family: "f"},
			{ModelID: "c", Rates: money.Rates{meter.Input: 1}},
		},
	}}}
}

func TestImportCatalog(t *testing.T) { eachEngine(t, testImportCatalog) }

func testImportCatalog(t *testing.T, e engine) {
	t.Parallel()

	t.Run("updates what differs", func(t *testing.T) {
		t.Parallel()
		reg, clock := e.setup(t)
		s := snapshot()
		_, err := reg.ImportCatalog(t.Context(), s, nil)
		require.NoError(t, err)
		p, err := reg.FindProvider(t.Context(), "p")
		require.NoError(t, err)
		a, err := reg.FindModel(t.Context(), p.ID, "a")
		require.NoError(t, err)
		require.True(t, a.SupportsTools)
		require.NotNil(t, a.FamilyID)

		clock.Advance(time.Hour)
		s.Providers[0].BaseURL = "https://new.example"
		m := s.Providers[0].Models
		no := false
		m[0].Rates, m[0].SupportsTools, m[0].ContextWindow, m[0].Family = money.Rates{meter.Input: 7}, &no, 20, "g"
		m[1].Rates = money.Rates{meter.Input: 8} // its price becomes known
		m[2].Rates = nil                         // the catalogue does not know any more: the price stays
		report, err := reg.ImportCatalog(t.Context(), s, nil)
		require.NoError(t, err)
		require.Equal(t, registry.ImportChanges{Updated: 1}, report.Providers)
		require.Equal(t, registry.ImportChanges{Created: 1, Unchanged: 1}, report.Families)
		require.Equal(t, registry.ImportChanges{Updated: 1, Unchanged: 2}, report.Models)
		require.Equal(t, registry.ImportChanges{Updated: 2, Unchanged: 1}, report.Prices)

		got, err := reg.GetModel(t.Context(), a.ID)
		require.NoError(t, err)
		require.False(t, got.SupportsTools)
		require.EqualValues(t, 20, got.ContextWindow)
		require.EqualValues(t, 7, *got.CostPer1mInput)
		require.Nil(t, got.CostPer1mOutput)
		require.NotEqual(t, *a.FamilyID, *got.FamilyID)
		old, err := reg.PriceAt(t.Context(), a.ID, clock.Now().Add(-time.Minute))
		require.NoError(t, err)
		require.Equal(t, gpt4(), registry.RatesOf(old), "the history stays")
		c, err := reg.FindModel(t.Context(), p.ID, "c")
		require.NoError(t, err)
		require.EqualValues(t, 1, *c.CostPer1mInput)
	})
}

// TestImportCatalogBesides has rows that no catalogue made.
func TestImportCatalogBesides(t *testing.T) { eachEngine(t, testImportCatalogBesides) }

func testImportCatalogBesides(t *testing.T, e engine) {
	t.Parallel()
	t.Run("leaves alone what people did", func(t *testing.T) {
		t.Parallel()
		reg, _ := e.setup(t)
		s := snapshot()
		s.Providers = append(
			s.Providers, catalog.Provider{Name: "q", AuthMethod: "bearer", Models: []catalog.Model{{ModelID: "x"}}},
		)
		_, err := reg.ImportCatalog(t.Context(), s, nil)
		require.NoError(t, err)
		p, err := reg.FindProvider(t.Context(), "p")
		require.NoError(t, err)
		q, err := reg.FindProvider(t.Context(), "q")
		require.NoError(t, err)
		require.NoError(t, reg.DeleteProvider(t.Context(), q.ID))
		a, err := reg.FindModel(t.Context(), p.ID, "a")
		require.NoError(t, err)
		_, err = reg.UpdateModelPricing(t.Context(), a.ID, registry.PriceInput{Rates: money.Rates{meter.Input: 5}})
		require.NoError(t, err)
		_, err = reg.UpdateModel(
			t.Context(), a.ID, registry.ModelUpdate{Description: ptr("mine"), CanReason: ptr(true)},
		)
		require.NoError(t, err)
		b, err := reg.FindModel(t.Context(), p.ID, "b")
		require.NoError(t, err)
		require.NoError(t, reg.DeleteModel(t.Context(), b.ID))
		mine := mustModel(t, reg, p.ID, "mine", nil)

		report, err := reg.ImportCatalog(t.Context(), s, nil)
		require.NoError(t, err)
		require.Equal(t, registry.ImportChanges{Unchanged: 1, Skipped: 1}, report.Providers)
		require.Equal(t, registry.ImportChanges{Unchanged: 2, Skipped: 2}, report.Models)
		require.Equal(t, registry.ImportChanges{Unchanged: 1, Skipped: 1}, report.Prices)
		a, err = reg.GetModel(t.Context(), a.ID)
		require.NoError(t, err)
		require.EqualValues(t, 5, *a.CostPer1mInput)
		require.Equal(t, "mine", a.Description)
		require.True(t, a.CanReason)
		_, err = reg.GetModel(t.Context(), mine.ID)
		require.NoError(t, err)
		_, err = reg.FindModel(t.Context(), p.ID, "b")
		require.ErrorIs(t, err, registry.ErrNotFound)
	})
	t.Run("a model without any price", func(t *testing.T) {
		t.Parallel()
		reg, clock := e.setup(t)
		p, err := reg.CreateProvider(t.Context(), registry.ProviderInput{Name: "p"})
		require.NoError(t, err)
		// Through the client, past the rules.
		m, err := reg.Past().Model.Create().SetProviderID(p.ID).SetModelID("a").
			SetCreatedAt(clock.Now()).SetUpdatedAt(clock.Now()).Save(t.Context())
		require.NoError(t, err)
		k := mustKey(t, reg, p.ID, 1)
		err = reg.RecordUsage(t.Context(), registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID})
		require.ErrorIs(t, err, registry.ErrForeignKey)
		require.ErrorContains(t, err, "price of model")
		_, err = reg.ImportCatalog(t.Context(), snapshot(), nil)
		require.NoError(t, err)
		require.NoError(t, reg.RecordUsage(t.Context(), registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID}))
	})
}

// TestImportCatalogRefuses has catalogues that are no good, and an import that is canceled.
func TestImportCatalogRefuses(t *testing.T) { eachEngine(t, testImportCatalogRefuses) }

func testImportCatalogRefuses(t *testing.T, e engine) {
	t.Parallel()
	t.Run("ErrInvalidData", func(t *testing.T) {
		t.Parallel()
		reg, _ := e.setup(t)
		for name, change := range map[string]func(*catalog.Snapshot){
			"source":         func(s *catalog.Snapshot) { s.Source = "" },
			"provider":       func(s *catalog.Snapshot) { s.Providers[0].Name = "Not a slug" },
			"url":            func(s *catalog.Snapshot) { s.Providers[0].BaseURL = "$OPENAI_API_ENDPOINT" },
			"auth":           func(s *catalog.Snapshot) { s.Providers[0].AuthMethod = "psychic" },
			"provider twice": func(s *catalog.Snapshot) { s.Providers = append(s.Providers, s.Providers[0]) },
			"model":          func(s *catalog.Snapshot) { s.Providers[0].Models[2].ModelID = "a\x00" },
			"model twice":    func(s *catalog.Snapshot) { s.Providers[0].Models[2].ModelID = "a" },
			"rate": func(s *catalog.Snapshot) {
				s.Providers[0].Models[2].Rates = money.Rates{meter.Input: -1}
			},
			"context": func(s *catalog.Snapshot) { s.Providers[0].Models[2].ContextWindow = -1 },
			"family":  func(s *catalog.Snapshot) { s.Providers[0].Models[2].Family = strings.Repeat("f", 200) },
			"everything": func(s *catalog.Snapshot) {
				for range 100 {
					s.Providers = append(s.Providers, catalog.Provider{Models: []catalog.Model{{}}})
				}
			},
		} {
			s := snapshot()
			change(&s)
			_, err := reg.ImportCatalog(t.Context(), s, nil)
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
			require.Less(t, len(err.Error()), 4000, name)
		}
		all, err := reg.ListProviders(t.Context(), registry.ProviderFilter{})
		require.NoError(t, err)
		require.Empty(t, all)
	})
	t.Run("cancelled half-way", func(t *testing.T) {
		t.Parallel()
		reg, _ := e.setup(t)
		ctx, cancel := context.WithCancel(t.Context())
		first, err := reg.ImportCatalog(ctx, catalog.Catwalk(), func(done, total int) {
			if done > total/2 {
				cancel()
			}
		})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(
			t, first.Models.Created, reg.Client().Model.Query().CountX(t.Context()), "what the report says stays",
		)
		require.Positive(t, first.Models.Created)
		second, err := reg.ImportCatalog(t.Context(), catalog.Catwalk(), nil)
		require.NoError(t, err)
		require.Equal(
			t, registry.ImportChanges{Created: 1506 - first.Models.Created, Unchanged: first.Models.Created},
			second.Models,
		)
		require.Equal(
			t, registry.ImportChanges{Created: 40 - first.Providers.Created, Unchanged: first.Providers.Created},
			second.Providers,
		)
		created, err := reg.ListAudit(
			t.Context(),
			registry.AuditFilter{
				Action: registry.ActionCreate, Entity: registry.EntityProvider, Limit: registry.MaxLimit,
			},
		)
		require.NoError(t, err)
		require.Len(t, created, 40)
	})
}
