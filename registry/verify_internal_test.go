package registry

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// TestLedgerPlans shows that SQLite reads by indexes alone what is verified.
func TestLedgerPlans(t *testing.T) {
	t.Parallel()
	reg, err := Open(t.Context(), ":memory:")
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		query recorded
		want  string
	}{
		{recorded{ledgerRowsSQL(ledger.Tables[0]), []any{at, at}},
			"SEARCH t USING INDEX usagequarter_model_id_period_start (model_id=? AND period_start>? AND period_start<?)"},
		{recorded{ledgerRowsSQL(ledger.Tables[3]), []any{at, at}},
			"SEARCH t USING PRIMARY KEY (model_id=? AND period_start>? AND period_start<?)"},
		{recorded{firstPeriodsSQL(ledger.Tables[1]), []any{at}},
			"SEARCH t USING COVERING INDEX usage_model_id_period_start (model_id=? AND period_start>?)"},
		{recorded{firstPeriodsSQL(ledger.Tables[2]), []any{at}},
			"SEARCH t USING PRIMARY KEY (model_id=? AND period_start>?)"},
		{recorded{ledgerEventsSQL, []any{ledger.FirstEventID(at), ledger.FirstEventID(at)}}, "SEARCH usage_events USING PRIMARY KEY (id>? AND id<?)"},
		{recorded{keyCountersSQL(""), nil}, "SEARCH u USING INDEX usage_api_key_id_period_start (api_key_id=?) LEFT-JOIN"},
	} {
		plan := explain(t, reg, test.query)
		require.Contains(t, plan, test.want)
		for _, line := range plan {
			require.False(t, strings.HasPrefix(line, "SCAN t") || strings.HasPrefix(line, "SCAN u"), line)
			require.NotContains(t, line, "TEMP B-TREE")
		}
	}
}

// TestLedgerPartitionGone takes the partition of a day away from under the snapshot that is to verify it, after its
// horizon was moved: the day is read again.
func TestLedgerPartitionGone(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	reg, err := Open(ctx, pgtest.Database(t, "", nil))
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	p, err := reg.CreateProvider(ctx, ProviderInput{Name: "openai"})
	require.NoError(t, err)
	m, err := reg.CreateModel(ctx, ModelInput{ProviderID: p.ID, ModelID: "m", Rates: money.Rates{"input": 1}})
	require.NoError(t, err)
	k, err := reg.AddAPIKey(ctx, KeyInput{ProviderID: p.ID, APIKey: "sk-0123456789abcdef"})
	require.NoError(t, err)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 3 {
		require.NoError(t, reg.RecordUsage(ctx, UsageInput{ModelID: m.ID, APIKeyID: k.ID, At: start.Add(time.Duration(i) * time.Second)}))
	}
	l, loads := newLedgerReader(reg), 0
	d, err := settled(ctx, reg.fresh, func() (*ledgerDay, error) {
		loads++
		s, err := reg.db.Snapshot(ctx)
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Close()) }()
		if loads > 1 {
			return l.load(ctx, ent.NewClient(ent.Driver(s)), start)
		}
		require.NoError(t, reg.client.UsageHorizon.Create().SetID(ledger.EventsPart).SetCompleteFrom(start.Add(utc.Day)).Exec(ctx))
		_, err = reg.client.ExecContext(ctx, "DROP TABLE usage_events_"+start.Format("20060102"))
		require.NoError(t, err)
		d, err := l.load(ctx, ent.NewClient(ent.Driver(s)), start)
		require.NoError(t, err)
		require.Equal(t, utc.Beginning, d.Events)
		require.NotEmpty(t, d.faulty(), "its events are missing")
		return d, nil
	})
	require.NoError(t, err)
	require.Equal(t, 2, loads)
	require.Empty(t, d.faulty())
}
