package main

import (
	"bytes"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestRun runs the demo twice on one database. The second run goes on with what the first one
// left.
func TestRun(t *testing.T) {
	t.Parallel()
	cfg := config{
		db: filepath.Join(t.TempDir(), "gateway.db"), calls: 160, clients: 16, timeout: time.Second, trial: 20,
		faults: faults{
			limited: 20, rest: time.Second, broken: 50, lost: 100, cut: 20, revoked: "deepseek 2", spent: "openai 3",
			spentFor: time.Second,
		},
	}
	var served, failed, refused int
	for n := range 2 {
		var out bytes.Buffer
		done, calls, err := run(t.Context(), cfg, &out)
		require.NoError(t, err)
		require.Zero(t, done.crowded)
		for status, answers := range done.answers {
			if status == http.StatusOK {
				served += answers
			} else {
				failed += answers
			}
		}
		for name, calls := range calls.refused {
			require.Equal(t, trialUser, name)
			refused += calls
		}
		text := out.String()
		for _, part := range []string{
			"Catalogue: catwalk", "Answered 160 calls", "The first refusal: 429 Too Many Requests, Retry-After: ",
			"0 of 20 requests left, 1 asked", "What dan may still spend",
			"cheapest first", "Key health", "auth: 401 invalid_api_key",
			"Key events of this run",
			"Cost by team and feature", "Cost by customer",
			"Cost by model", "provider → family → model", "deepseek-v4-flash", cfg.db,
		} {
			require.Contains(t, text, part)
		}
		for _, team := range teams {
			for _, feature := range features {
				require.Regexp(t, fmt.Sprintf(`│ %s +│ %s +│ +\d+ │`, team.name, feature), text)
			}
		}
		require.Regexp(t, `deepseek: \d of 4 keys usable, 1 on probation, 0 requests in flight`, text)
		require.GreaterOrEqual(t, calls.refused[trialUser], cfg.calls/4-int(cfg.trial))
		if n == 0 {
			require.Contains(t, text, "│ trial  │ dan │ threshold 80 %")
			require.Contains(t, text, "│ models    │    1506 │       0 │         0 │")
		} else {
			require.Contains(t, text, "│ models    │       0 │       0 │      1506 │")
		}
	}
	require.Equal(t, 2*cfg.calls, served+refused, "the provider works once for each call that is let in")
	require.NotZero(t, failed)
	requireRecorded(t, cfg.db, served, failed)
}

// requireRecorded requires that a database has counted so many requests, and that no lease is open.
func requireRecorded(t *testing.T, db string, served, failed int) {
	t.Helper()
	ctx := t.Context()
	reg, err := registry.Open(ctx, db)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	rows, err := reg.Client().Usage.Query().All(ctx)
	require.NoError(t, err)
	var good, bad int
	for _, row := range rows {
		good += int(row.RequestCount - row.ErrorCount)
		bad += int(row.ErrorCount)
		require.Zero(t, row.UnpricedCount)
	}
	require.Equal(t, []int{served, failed}, []int{good, bad}, "each request is recorded once, as it went")

	require.Zero(t, reg.Client().KeyLease.Query().CountX(ctx))
	crossings, err := reg.ListBudgetCrossings(ctx, registry.CrossingFilter{})
	require.NoError(t, err)
	require.Empty(t, crossings, "those printed are noted as seen")
	report, err := reg.VerifyLedger(ctx)
	require.NoError(t, err)
	require.Empty(t, report.Differences)
}
