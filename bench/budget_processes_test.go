package bench_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// budgetKinds are what the processes lease keys for: nobody; the users of an organisation without a budget; those of
// one with a budget for all.
var budgetKinds = []string{"nobody", "free", "budget"}

// BenchmarkBudgetProcesses has four processes of 64 goroutines lease the 100 keys of one provider of a PostgreSQL
// database, and settle the leases at once: for nobody, for 1,000 users of an organisation without a budget, and for
// those of one with a budget that all share. They take turns of a phase each, -benchtime says how many.
//
//	go test -run '^$' -bench BudgetProcesses -benchtime 3x -count 6 -phase 3s
func BenchmarkBudgetProcesses(b *testing.B) {
	d := newLeaseDatabase(b, "postgres", 100)
	d.setTriggers(b, "ENABLE")
	users, row := d.twoOrganisations(b)
	children := make([]*leaser, leaseProcesses)
	for i := range children {
		children[i] = startLeaser(b, d, users)
	}
	settled := map[string]int{}
	sums := inTurns(b, budgetKinds, func(kind string, lasts time.Duration) float64 {
		made, perSecond := d.phase(b, children, kind, lasts)
		settled[kind] += made
		return perSecond
	})
	for _, c := range children {
		c.stop(b)
	}
	d.requireAtRest(b, settled["nobody"]+settled["free"]+settled["budget"])
	d.requireCounted(b, row, settled["budget"])
	for _, kind := range budgetKinds {
		b.ReportMetric(sums[kind]/float64(b.N), kind+"-settled/s")
	}
	b.ReportMetric(sums["budget"]/sums["nobody"], "budget/nobody")
	b.ReportMetric(sums["budget"]/sums["free"], "budget/free")
	b.ReportMetric(0, "ns/op")
}

// twoOrganisations makes an organisation without a budget, and one with a budget. It returns the users of both by the
// kinds of requests for them, and the budget.
func (d leaseDatabase) twoOrganisations(b *testing.B) (users map[string][]uuid.UUID, row uuid.UUID) {
	b.Helper()
	reg, err := registry.Open(b.Context(), d.name)
	require.NoError(b, err)
	users = map[string][]uuid.UUID{"nobody": nil}
	_, users["free"] = makeTree(b, reg, "free")
	org, bound := makeTree(b, reg, "bound")
	users["budget"] = bound
	made, err := reg.CreateBudget(b.Context(), registry.BudgetInput{
		ConsumerID: org, Name: "all", Ceilings: plenty, Window: registry.Window{Per: budget.PerTotal},
	})
	require.NoError(b, err)
	require.NoError(b, reg.Close())
	return users, made.ID
}

// requireCounted requires that a budget has counted so many requests.
func (d leaseDatabase) requireCounted(b *testing.B, row uuid.UUID, requests int) {
	b.Helper()
	reg, err := registry.Open(b.Context(), d.name)
	require.NoError(b, err)
	found, err := reg.GetBudget(b.Context(), row)
	require.NoError(b, err)
	windows, err := found.QueryWindows().All(b.Context())
	require.NoError(b, err)
	require.Len(b, windows, 1)
	require.Equal(b, int64(requests), windows[0].Requests)
	require.NoError(b, reg.Close())
}
