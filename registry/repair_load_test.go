package registry_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// wound is damage at random.
type wound struct {
	Table, Row, Op int
	N              int64
	Bytes          []byte
}

// What a wound does to a row; the first ones to what it says, so that the digest tells.
var wounds = []string{
	"request_count = request_count + $1", "input_tokens = input_tokens + $1", "output_tokens = output_tokens + $1",
	"cache_read_tokens = cache_read_tokens + $1", "cache_write_tokens = cache_write_tokens + $1",
	"reasoning_tokens = reasoning_tokens + $1", "total_cost = COALESCE(total_cost, 0) + $1",
	"latency_ms_sum = latency_ms_sum + $1",
	"average_latency_ms = average_latency_ms + $1", "latency_histogram = $1",
	"error_count = request_count - error_count",
	"unpriced_count = request_count - unpriced_count", "total_cost = NULL", "latency_histogram = NULL",
	"period_end = '9999-12-31 00:00:00+00:00'",
	"digest = $1", "digest = NULL", "digest = NULL, latency_histogram = NULL", "",
}

const deepWounds = 4 // those at the end of wounds, of more than what a row says

func (w wound) inflict(ctx context.Context, t *testing.T, b *books) {
	t.Helper()
	table := periodTables[w.Table]
	statement, args := "DELETE FROM "+table, []any(nil)
	if op := wounds[w.Op]; op != "" {
		statement = "UPDATE " + table + " SET " + op
		switch {
		case strings.HasPrefix(op, "latency_histogram = $"):
			args = append(args, w.Bytes)
		case strings.Contains(op, "$"):
			args = append(args, w.N)
		}
	}
	c := b.Client()
	n, err := []interface {
		Count(ctx context.Context) (int, error)
	}{c.Usage.Query(), c.UsageQuarter.Query(), c.UsageTotal.Query(), c.UsageTotalQuarter.Query()}[w.Table].Count(ctx)
	require.NoError(t, err)
	_, err = b.Client().ExecContext(ctx, statement+fmt.Sprintf(
		" WHERE id = (SELECT id FROM %s ORDER BY period_start, id LIMIT 1 OFFSET %d)", table, w.Row%n), args...)
	require.NoError(t, err)
}

// drawWound draws a wound of one of periodTables from an index on.
func drawWound(firstTable, ops int) *rapid.Generator[wound] {
	return rapid.Custom(func(t *rapid.T) wound {
		return wound{
			Table: rapid.IntRange(firstTable, len(periodTables)-1).Draw(t, "table"),
			Row:   rapid.IntRange(0, 1000).Draw(t, "row"), Op: rapid.IntRange(0, ops-1).Draw(t, "op"),
			N: rapid.Int64Range(1, 1_000_000).Draw(t, "n"), Bytes: rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"),
		}
	})
}

// TestRepairLedgerWounds: as long as there are events, all that is damaged is as it was before; and one total is that
// was damaged in a day which had its events and quarters removed up to an instant within it.
func TestRepairLedgerWounds(t *testing.T) { eachEngine(t, testRepairLedgerWounds) }

func testRepairLedgerWounds(t *testing.T, e engine) {
	t.Parallel()
	b, ctx := newBooks(t, e), t.Context()
	examples := func(wounds *rapid.Generator[[]wound]) {
		before := b.rows(t)
		check := func(all []wound) {
			for _, w := range all {
				w.inflict(ctx, t, b)
			}
			repaired, err := b.RepairLedger(ctx)
			require.NoError(t, err)
			require.Empty(t, repaired.Unrepaired)
			report, err := b.VerifyLedger(ctx)
			require.NoError(t, err)
			require.Empty(t, report.Differences)
		}
		for range sample.Of(25) { // other ones in each run of the tests
			seed := rand.Int()
			t.Log("seed", seed)
			check(wounds.Example(seed))
			require.Equal(t, before, b.rows(t))
		}
	}
	examples(rapid.SliceOfN(drawWound(0, len(wounds)), 1, 5))
	b.prune(t, "events", b.clock.Now().Add(-2*time.Hour))
	b.prune(t, "quarters", b.clock.Now().Add(-25*time.Hour).Truncate(15*time.Minute))
	examples(rapid.SliceOfN(drawWound(2, len(wounds)-deepWounds), 1, 1))
}

// TestVerifyLedgerUnderLoad verifies and repairs while others record: there is nothing to be found and
// nothing to be done, but for what was planted.
func TestVerifyLedgerUnderLoad(t *testing.T) {
	long(t, "hundreds of requests are recorded meanwhile")
	eachDatabase(t, testVerifyLedgerUnderLoad)
}

func testVerifyLedgerUnderLoad(t *testing.T, reg *registry.Registry) {
	t.Helper()
	p := mustProvider(t, reg, "openai")
	m, k := mustModel(t, reg, p.ID, "m", gpt4()), mustKey(t, reg, p.ID, 1)
	input := func(age time.Duration) registry.UsageInput {
		return registry.UsageInput{
			ModelID: m.ID, APIKeyID: k.ID, At: time.Now().
					Add(-age), Latency: age / 1000, Tokens: meter.Tokens{InputTokens: int64(age / time.Millisecond)},
		}
	}
	require.NoError(t, reg.RecordUsage(t.Context(), input(100*time.Hour)))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	errs := make([]error, 9)
	for i := range 8 {
		all.Go(func() {
			for n := 0; ctx.Err() == nil && errs[i] == nil; n++ {
				errs[i] = reg.RecordUsage(t.Context(), input(time.Duration(n%50)*time.Hour))
			}
		})
	}
	all.Go(func() {
		for n := money.USD(1); ctx.Err() == nil && errs[8] == nil; n++ {
			_, err := reg.UpdateModelPricing(
				t.Context(), m.ID, registry.PriceInput{Rates: money.Rates{meter.Input: n * money.Cent}},
			)
			errs[8] = errors.Join(err, reg.IncrementUsage(t.Context(), k.ID, 1, 1))
		}
	})
	for rounds, events := 0, int64(0); rounds < 8 || events < 300; rounds++ {
		report := verified(t, reg)
		require.Empty(t, report.Differences)
		events = report.Events
		repaired, err := reg.RepairLedger(t.Context())
		require.NoError(t, err)
		require.Zero(t, repaired)
		require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			require.Empty(t, verified(t, tx).Differences)
			return nil
		}))
	}
	old := time.Now().Add(-90 * time.Hour)
	require.NoError(
		t, reg.Past().UsageQuarter.Update().Where(usagequarter.PeriodStartLT(old)).AddErrorCount(1).Exec(t.Context()),
	)
	require.NoError(t, reg.Past().Usage.Update().Where(usage.PeriodStartLT(old)).AddErrorCount(1).Exec(t.Context()))
	require.Len(t, verified(t, reg).Differences, 4, "a quarter and a day, and their digests")
	repaired, err := reg.RepairLedger(t.Context())
	require.NoError(t, err)
	require.Equal(t, registry.RepairResult{Quarters: 1, Days: 1}, repaired)
	for range 5 { // in what others add to, who wait for the transaction that records too
		require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			in := input(0)
			require.NoError(t, tx.RecordUsage(t.Context(), in))
			n, err := tx.Past().UsageTotal.Update().Where(usagetotal.PeriodEndGT(in.At)).AddErrorCount(1).
				Save(t.Context())
			require.Positive(t, n)
			return err
		}))
		repaired, err := reg.RepairLedger(t.Context())
		require.NoError(t, err)
		require.Positive(t, repaired.Totals)
		require.Empty(t, repaired.Unrepaired)
		require.Empty(t, verified(t, reg).Differences, "nothing is lost that was recorded meanwhile")
	}
	report := verified(t, reg)
	stop()
	all.Wait()
	require.NoError(t, errors.Join(errs...))
	t.Logf("%d requests were recorded meanwhile", report.Events)
}
