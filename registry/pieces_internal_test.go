package registry

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/proof"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// piecesLedger is a ledger of more requests than a piece of an operation takes.
type piecesLedger struct {
	*Registry
	other *Registry // of another process, as it were
	model *ent.Model
	key   *ent.APIKey
	now   time.Time
}

const (
	testedPiece    = 400
	piecesRequests = 3*testedPiece + testedPiece/2
)

// newPiecesLedger records requests: most of them in one quarter of an hour, which alone is more than a piece.
func newPiecesLedger(t *testing.T, reg, other *Registry, rates money.Rates) *piecesLedger {
	t.Helper()
	l := &piecesLedger{Registry: reg, other: other, now: reg.now()}
	reg.pieceRows = testedPiece
	p, err := reg.CreateProvider(t.Context(), ProviderInput{Name: "p"})
	require.NoError(t, err)
	l.model, err = reg.CreateModel(t.Context(), ModelInput{ProviderID: p.ID, ModelID: "m", Rates: rates})
	require.NoError(t, err)
	l.key, err = reg.AddAPIKey(t.Context(), KeyInput{ProviderID: p.ID, APIKey: "sk-test-000000000001"})
	require.NoError(t, err)
	inputs := make([]UsageInput, piecesRequests)
	for i := range inputs {
		inputs[i] = l.input(l.now.Add(-time.Duration(i) * time.Millisecond))
		if i%3 == 0 {
			inputs[i].At = l.now.Add(-24*time.Hour - time.Duration(i)*10*time.Second) // none today but in that quarter
		}
	}
	for some := range slices.Chunk(inputs, MaxUsageBatch) {
		require.NoError(t, reg.RecordUsageBatch(t.Context(), some))
	}
	return l
}

func (l *piecesLedger) input(at time.Time) UsageInput {
	return UsageInput{
		ModelID: l.model.ID, APIKeyID: l.key.ID, At: at, Latency: time.Duration(at.UnixMilli()%900) * time.Millisecond,
		Tokens: meter.Tokens{InputTokens: 100 + at.Unix()%7},
	}
}

// interrupt makes the operations of the ledger's registry record with the other one between two pieces, find the ledger
// without differences, and end after some pieces. It returns the number of pauses.
func (l *piecesLedger) interrupt(t *testing.T, after int) *int {
	t.Helper()
	n := new(int)
	l.between = func(ctx context.Context) error {
		within, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		*n++
		if err := l.other.RecordUsage(within, l.input(l.now.Add(-time.Duration(24+*n)*time.Hour))); err != nil {
			return err
		}
		report, err := l.other.VerifyLedger(within)
		if err == nil && len(report.Differences) > 0 {
			err = errors.New("the ledger has differences")
		}
		if *n == after {
			err = errInterrupted
		}
		return err
	}
	return n
}

var errInterrupted = errors.New("interrupted")

// usage returns the periods without their ids, and what the audit trail says of repricing.
func (l *piecesLedger) usage(t *testing.T) (periods []string, repriced RepriceResult) {
	t.Helper()
	ctx, c := t.Context(), l.Client()
	add := func(row any) {
		text, err := json.Marshal(row)
		require.NoError(t, err)
		_, rest, _ := strings.Cut(string(text), ",") // the id
		periods = append(periods, rest)
	}
	for _, u := range c.UsageQuarter.Query().AllX(ctx) {
		add(u)
	}
	for _, u := range c.Usage.Query().AllX(ctx) {
		add(u)
	}
	for _, u := range c.UsageTotal.Query().AllX(ctx) {
		add(u)
	}
	slices.Sort(periods)
	entries, err := l.ListAudit(ctx, AuditFilter{Action: ActionReprice, Limit: MaxLimit})
	require.NoError(t, err)
	for _, e := range entries {
		var piece RepriceResult
		require.NoError(t, json.Unmarshal(e.After, &piece))
		require.NoError(t, repriced.add(piece))
	}
	report, err := l.VerifyLedger(ctx)
	require.NoError(t, err)
	require.Empty(t, report.Differences)
	return periods, repriced
}

// TestRepriceInPieces reprices more requests than a piece takes: others write between two pieces and see a ledger that
// is sound; one that is interrupted and called again ends as one that is not.
func TestRepriceInPieces(t *testing.T) {
	onEach(t, func(t *testing.T, open func(t *testing.T) (reg, other *Registry)) {
		t.Helper()
		reg, other := open(t)
		l := newPiecesLedger(t, reg, other, money.Rates{meter.Input: money.Dollar})
		price := func(dollars money.USD) {
			_, err := l.UpdateModelPricing(t.Context(), l.model.ID, PriceInput{
				Rates: money.Rates{meter.Input: dollars * money.Dollar}, EffectiveFrom: l.now.Add(-240 * time.Hour),
			})
			require.NoError(t, err)
		}
		price(3)
		in := RepriceInput{ModelID: l.model.ID}
		dryPauses := l.interrupt(t, 0)
		in.DryRun = true
		dry, err := l.Reprice(t.Context(), in)
		require.NoError(t, err)
		require.EqualValues(t, piecesRequests, dry.Requests)
		require.GreaterOrEqual(t, *dryPauses, 3)

		in.DryRun = false
		n := l.interrupt(t, 2)
		first, err := l.Reprice(t.Context(), in)
		require.ErrorIs(t, err, errInterrupted)
		require.Equal(t, 2, *n)
		require.Positive(t, first.Requests)
		require.Less(t, first.Requests, int64(piecesRequests))
		*n = 2
		l.interrupt(t, 0)
		rest, err := l.Reprice(t.Context(), in)
		require.NoError(t, err)
		require.NoError(t, rest.add(first))
		require.Equal(t, []any{dry.Requests, dry.Before, dry.After}, []any{rest.Requests, rest.Before, rest.After})
		again, err := l.Reprice(t.Context(), in)
		require.NoError(t, err)
		require.Zero(t, again.Requests)
		periods, told := l.usage(t)
		require.Equal(
			t, []any{dry.Requests, dry.Before, dry.After}, []any{told.Requests, told.Before, told.After}, "audited",
		)

		// In one piece: back and forth within a transaction.
		l.between = nil
		price(5)
		l.between = func(context.Context) error { return errors.New("there is no pause within a transaction") }
		undone := errors.New("undone")
		require.ErrorIs(t, l.InTx(t.Context(), func(tx *Registry) error {
			report, err := tx.Reprice(t.Context(), in)
			require.NoError(t, err)
			require.Greater(t, report.Requests, int64(piecesRequests), "with those of the pauses")
			return undone
		}), undone)
		after, _ := l.usage(t)
		require.Equal(t, periods, after)
	})
}

// TestRepairInPieces damages rows of two models, which others change after they have been read and before they are
// mended: nothing is lost, and nothing is counted twice.
func TestRepairInPieces(t *testing.T) {
	onEach(t, func(t *testing.T, open func(t *testing.T) (reg, other *Registry)) {
		t.Helper()
		reg, other := open(t)
		l := newPiecesLedger(t, reg, other, money.Rates{meter.Input: money.Dollar})
		ctx := t.Context()
		of := l.model.ProviderID
		second, err := reg.CreateModel(
			ctx, ModelInput{ProviderID: of, ModelID: "n", Rates: money.Rates{meter.Input: 1}},
		)
		require.NoError(t, err)
		key, err := reg.AddAPIKey(ctx, KeyInput{ProviderID: of, APIKey: "sk-test-000000000002"})
		require.NoError(t, err)
		l.pieceRows = 1
		exec := func(statement string) func() error {
			return func() error {
				_, err := other.Client().ExecContext(ctx, statement)
				return err
			}
		}
		recordAt := func(ages ...time.Duration) error {
			var all []UsageInput
			for i := range 4 * len(ages) {
				in := l.input(l.now.Add(-ages[i/4]))
				in.ModelID = []uuid.UUID{l.model.ID, second.ID}[i%2]
				in.APIKeyID = []uuid.UUID{l.key.ID, key.ID}[i/2%2]
				all = append(all, in)
			}
			return other.RecordUsageBatch(ctx, all)
		}
		record := func() error { return recordAt(0, 24*time.Hour, 25*time.Hour) }
		require.NoError(t, record())
		mend := func() error {
			_, err := other.RepairLedger(ctx)
			return err
		}
		nonsense := map[string]string{"sqlite3": "nonsense", "postgres": "infinity"}[reg.db.Dialect()]
		for _, damage := range []string{
			"UPDATE usage_quarters SET input_tokens = input_tokens + 7",
			"UPDATE usage_tracking SET input_tokens = input_tokens - 1",
			"UPDATE usage_totals SET latency_histogram = NULL", "UPDATE usage_quarters SET period_end = '" + nonsense +
				"'",
			"UPDATE usage_quarters SET model_id = '" + second.ID.String() + "'",
			"DELETE FROM usage_total_quarters", "DELETE FROM usage_tracking",
		} {
			l.betweenRepair(t, damage, record)
			l.betweenRepair(t, damage, mend)
			l.betweenRepair(t, damage, func() error { return errors.Join(record(), mend(), record()) })
		}
		for engine, unreadable := range map[string]string{"sqlite3": "x'ff'", "postgres": "'\\xff'"} {
			if engine == reg.db.Dialect() {
				damage := "UPDATE usage_totals SET latency_histogram = " + unreadable
				l.betweenRepair(t, damage, mend)
				readable := exec("UPDATE usage_totals SET latency_histogram = NULL")
				l.betweenRepair(t, damage, func() error { return errors.Join(readable(), record()) })
			}
		}

		// A row that names another model is of the model of its price: by that, those find it who record.
		misplaced := other.Client().UsageQuarter.Query().Where(usagequarter.ModelID(l.model.ID)).FirstX(ctx)
		midnight := utc.StartOfDay(l.now)
		_, err = other.Client().ExecContext(ctx, "UPDATE usage_quarters"+
			" SET model_id = $1, period_start = $2, period_end = $3"+
			" WHERE id = $4", second.ID, midnight, midnight.Add(utc.Quarter), misplaced.ID)
		require.NoError(t, err)
		d, err := proof.NewReader(l.db, l.fresh, false).Day(ctx, midnight)
		require.NoError(t, err)
		pieces, _ := d.Mend(1)
		require.NotEmpty(t, pieces)
		for _, piece := range pieces {
			require.Equal(t, l.model.ID, piece.Model)
		}
		require.NoError(t, mend())

		// What is before a horizon is not written again.
		require.NoError(t, recordAt(72*time.Hour))
		l.betweenRepair(t, "DELETE FROM usage_quarters", func() error {
			_, err := other.Prune(ctx, PruneInput{Events: utc.Day, Quarters: utc.Day})
			return err
		})
		h, err := ledger.ReadHorizons(ctx, reg.client)
		require.NoError(t, err)
		require.Zero(t, reg.Client().UsageQuarter.Query().Where(usagequarter.PeriodStartLT(h.Quarters)).CountX(ctx))
	})
}

// betweenRepair damages the ledger and repairs it; in the first pause something else is done.
func (l *piecesLedger) betweenRepair(t *testing.T, damage string, do func() error) {
	t.Helper()
	_, err := l.Client().ExecContext(t.Context(), damage)
	require.NoError(t, err)
	pauses := 0
	l.between = func(context.Context) error {
		if pauses++; pauses == 1 {
			return do()
		}
		return nil
	}
	repaired, err := l.RepairLedger(t.Context())
	require.NoError(t, err, damage)
	require.Positive(t, pauses, damage)
	require.Empty(t, repaired.Unrepaired, damage)
	report, err := l.VerifyLedger(t.Context())
	require.NoError(t, err, damage)
	require.Empty(t, report.Differences, damage)
}

// TestRepairInterrupted: with an error comes what was mended until then, and what was left.
func TestRepairInterrupted(t *testing.T) {
	onEach(t, func(t *testing.T, open func(t *testing.T) (reg, other *Registry)) {
		t.Helper()
		reg, other := open(t)
		l, ctx := newPiecesLedger(t, reg, other, money.Rates{meter.Input: money.Dollar}), t.Context()
		l.pieceRows = 1
		for _, damage := range []string{
			"UPDATE usage_events SET cost = cost + 1 WHERE id = (SELECT id FROM usage_events ORDER BY id LIMIT 1)",
			"UPDATE usage_totals SET request_count = request_count + 1 WHERE period_start =" +
				" (SELECT MAX(period_start) FROM usage_totals)",
			"UPDATE usage_tracking SET request_count = request_count + 1 WHERE period_start =" +
				" (SELECT MAX(period_start) FROM usage_tracking)",
		} {
			_, err := l.Client().ExecContext(ctx, damage)
			require.NoError(t, err)
		}
		l.interrupt(t, 1)
		repaired, err := l.RepairLedger(ctx)
		require.ErrorIs(t, err, errInterrupted)
		require.EqualValues(t, 1, repaired.Days+repaired.Totals)
		require.NotEmpty(t, repaired.Unrepaired)
		require.Equal(t, DifferenceWrongCost, repaired.Unrepaired[0].Kind)
	})
}

// TestBackfillInPieces sets a price for the past of many requests without one, is interrupted, and sets it again.
func TestBackfillInPieces(t *testing.T) {
	onEach(t, func(t *testing.T, open func(t *testing.T) (reg, other *Registry)) {
		t.Helper()
		reg, other := open(t)
		l := newPiecesLedger(t, reg, other, nil)
		in := PriceInput{Rates: money.Rates{meter.Input: 3 * money.Dollar}, EffectiveFrom: l.now.Add(-240 * time.Hour)}
		n := l.interrupt(t, 2)
		_, err := l.UpdateModelPricing(t.Context(), l.model.ID, in)
		require.ErrorIs(t, err, errInterrupted)
		require.ErrorContains(t, err, "call again to price the rest")
		unpriced := func() (requests int64) {
			all, err := l.UnpricedUsage(t.Context())
			require.NoError(t, err)
			for _, u := range all {
				requests += u.Requests
			}
			return requests
		}
		left := unpriced()
		require.Positive(t, left)
		require.Less(t, left, int64(piecesRequests))
		priced, err := l.PriceAt(t.Context(), l.model.ID, l.now)
		require.NoError(t, err)
		require.Equal(t, in.Rates, RatesOf(priced))

		l.interrupt(t, 0)
		again, err := l.UpdateModelPricing(t.Context(), l.model.ID, in)
		require.NoError(t, err)
		require.Equal(t, priced.ID, again.ID)
		require.Zero(t, unpriced())
		_, told := l.usage(t)
		require.EqualValues(t, piecesRequests, told.Priced)
		require.Equal(t, 2, *n)
		require.NotEqual(t, uuid.Nil, again.ID)
	})
}
