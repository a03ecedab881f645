package registry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

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
