package registry

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// TestPartitionsUndone: what a transaction has made, and found there when it recorded again, is not remembered when it
// is undone.
func TestPartitionsUndone(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	reg, err := Open(ctx, pgtest.Database(t, "", nil))
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	p, err := reg.CreateProvider(ctx, ProviderInput{Name: "p"})
	require.NoError(t, err)
	m, err := reg.CreateModel(ctx, ModelInput{ProviderID: p.ID, ModelID: "m", Rates: money.Rates{"input": 1}})
	require.NoError(t, err)
	k, err := reg.AddAPIKey(ctx, KeyInput{ProviderID: p.ID, APIKey: "sk-test-000000000001"})
	require.NoError(t, err)
	undone := errors.New("undone")
	require.ErrorIs(t, reg.InTx(ctx, func(tx *Registry) error {
		for range 2 {
			require.NoError(t, tx.RecordUsage(ctx, UsageInput{ModelID: m.ID, APIKeyID: k.ID}))
		}
		return undone
	}), undone)
	require.False(t, reg.commits.HasPartition(utc.StartOfDay(reg.now())))
	require.NoError(t, reg.RecordUsage(ctx, UsageInput{ModelID: m.ID, APIKeyID: k.ID}))
}

// TestMemoryWrong puts a row into the memory of the last batch that the database lacks. No usage gets lost.
func TestMemoryWrong(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	reg, err := Open(t.Context(), ":memory:", WithClock(func() time.Time { return now }))
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	p, err := reg.CreateProvider(t.Context(), ProviderInput{Name: "p"})
	require.NoError(t, err)
	m, err := reg.CreateModel(t.Context(), ModelInput{ProviderID: p.ID, ModelID: "m", Rates: money.Rates{}})
	require.NoError(t, err)
	k, err := reg.AddAPIKey(t.Context(), KeyInput{ProviderID: p.ID, APIKey: "sk-test-000000000001"})
	require.NoError(t, err)
	in := UsageInput{ModelID: m.ID, APIKeyID: k.ID}
	require.NoError(t, reg.RecordUsage(t.Context(), in))
	now = now.Add(utc.Quarter)
	for p := range maps.Clone(reg.commits.Last().Periods) {
		if p.Grain == ledger.QuarterGrain {
			p.Start = p.Start.Add(utc.Quarter)
			reg.commits.Last().Periods[p] = ledger.Sums{Requests: 7}
		}
	}
	require.NoError(t, reg.RecordUsage(t.Context(), in))
	rows, err := reg.Client().UsageQuarter.Query().Where(usagequarter.PeriodStart(now)).All(t.Context())
	require.NoError(t, err)
	require.Len(t, rows, 1)
	require.EqualValues(t, 1, rows[0].RequestCount)
	report, err := reg.VerifyLedger(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Differences)
}
