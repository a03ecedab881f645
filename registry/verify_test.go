package registry_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/ent/usagehorizon"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// books is a registry with a ledger of three days, of which the last one is today.
type books struct {
	*registry.Registry
	clock  *registrytest.Clock
	models []*ent.Model // the last one is another provider's
	keys   []*ent.APIKey
	random *rand.Rand
}

// newBooks returns books that are filled once for each engine.
func newBooks(t *testing.T, e engine) *books {
	t.Helper()
	name := e.filled(t, "books", func(name string) {
		b := &books{clock: registrytest.NewClock(registrytest.Start), random: rand.New(rand.NewPCG(1, 2))}
		b.Registry = mustOpen(t, name, registry.WithClock(b.clock.Now))
		b.fill(t)
		require.NoError(t, b.Close())
		require.True(t, b.clock.Now().Before(booksEnd))
	})
	b := &books{clock: registrytest.NewClock(booksEnd), random: rand.New(rand.NewPCG(3, 4))}
	reg := mustOpen(t, name, registry.WithoutMigration(), registry.WithClock(b.clock.Now))
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	b.Registry = reg
	b.models = b.Client().Model.Query().Order(model.ByID()).AllX(t.Context())
	b.keys = b.Client().APIKey.Query().Order(apikey.ByID()).AllX(t.Context())
	return b
}

// booksEnd is after all that is recorded in new books, and on the same day.
var booksEnd = registrytest.Start.Add(2*24*time.Hour + 6*time.Hour)

// fill records at random: several keys, models and prices, free ones and unknown ones; late, failed, together, alone
// and undone; with a change of price, a day that is reset and a key that is deleted.
func (b *books) fill(t *testing.T) {
	t.Helper()
	p, other := mustProvider(t, b.Registry, "openai"), mustProvider(t, b.Registry, "other")
	// One has prices, one is free, one has no prices, and one has those of input alone.
	for i, rates := range []money.Rates{gpt4(), {meter.Input: 0, meter.Output: 0}, nil, {meter.Input: 1_234_567}} {
		b.models = append(b.models, mustModel(t, b.Registry, p.ID, fmt.Sprint("m", i), rates))
	}
	b.models = append(
		b.models, mustModel(t, b.Registry, other.ID, "m", money.Rates{meter.Input: 777, meter.Output: 10_000_001}),
	)
	for i := range 3 {
		b.keys = append(b.keys, mustKey(t, b.Registry, p.ID, i))
	}
	b.keys = append(b.keys, mustKey(t, b.Registry, other.ID, 9))
	b.record(t, 150)
	_, err := b.UpdateModelPricing(
		t.Context(), b.models[4].ID, registry.PriceInput{Rates: money.Rates{meter.Input: 778, meter.Output: 3}},
	)
	require.NoError(t, err)
	_, err = b.UpdateModelPricing(
		t.Context(), b.models[4].ID, registry.PriceInput{ServiceTier: "unused", Unknown: true},
	)
	require.NoError(t, err)
	require.NoError(t, b.IncrementUsage(t.Context(), b.keys[0].ID, 100, 200))
	b.clock.Advance(24 * time.Hour)
	b.record(t, 150)
	_, err = b.ResetDailyUsage(t.Context())
	require.NoError(t, err)
	require.NoError(t, b.DeleteAPIKey(t.Context(), b.keys[1].ID))
	b.clock.Advance(24 * time.Hour)
	b.record(t, 100)
}

// record records requests of the last hours at random, each some minutes after the one before.
func (b *books) record(t *testing.T, n int) {
	t.Helper()
	for n > 0 {
		require.NoError(t, b.InTx(t.Context(), func(tx *registry.Registry) error {
			for range 1 + b.random.IntN(10) {
				b.clock.Advance(time.Duration(b.random.IntN(100)) * time.Second)
				require.NoError(t, tx.RecordUsage(t.Context(), b.input()))
				n--
			}
			require.Equal(t, errRollback, tx.InTx(t.Context(), func(tx *registry.Registry) error {
				require.NoError(t, tx.RecordUsage(t.Context(), b.input()))
				return errRollback
			}))
			return nil
		}))
		require.NoError(t, b.RecordUsage(t.Context(), b.input()))
		batch := []registry.UsageInput{b.input(), b.input()}
		require.NoError(t, b.RecordUsageBatch(t.Context(), append(batch, batch...)))
	}
}

// input returns a request at random.
func (b *books) input() registry.UsageInput {
	random := b.random
	in := registry.UsageInput{
		ModelID: b.models[4].ID, APIKeyID: b.keys[3].ID, RequestID: fmt.Sprint(random.Uint64()),
		Tokens: meter.Tokens{
			InputTokens: random.Int64N(10_000), CacheReadTokens: random.Int64N(2) * random.Int64N(100),
		},
		Latency: time.Duration(random.IntN(5000)) * time.Millisecond, Failed: random.IntN(10) == 0,
		At: b.clock.Now().Add(-time.Duration(random.IntN(3600)) * time.Second),
	}
	if random.IntN(4) > 0 {
		in.ModelID, in.APIKeyID = b.models[random.IntN(4)].ID, b.keys[random.IntN(3)].ID
	}
	if random.IntN(2) == 0 {
		in.OutputTokens, in.CacheWriteTokens = random.Int64N(1000), random.Int64N(10)
		in.ReasoningTokens = random.Int64N(1000)
	}
	if random.IntN(10) == 0 { // late
		in.At = in.At.Add(-time.Duration(random.IntN(48*3600)) * time.Second)
	}
	return in
}

// verify returns what VerifyLedger finds.
func (b *books) verify(t *testing.T) []registry.Difference {
	t.Helper()
	return verified(t, b.Registry).Differences
}

func verified(t *testing.T, reg *registry.Registry) registry.LedgerReport {
	t.Helper()
	report, err := reg.VerifyLedger(t.Context())
	require.NoError(t, err)
	require.Zero(t, report.Unlisted)
	return report
}

// exec runs a statement that damages the ledger.
func (b *books) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	result, err := b.Client().ExecContext(t.Context(), statement, args...)
	require.NoError(t, err, statement)
	n, err := result.RowsAffected()
	require.NoError(t, err)
	require.EqualValues(t, 1, n, "%s %v", statement, args)
}

// prune removes a part of the ledger before an instant, and says so.
func (b *books) prune(t *testing.T, part string, from time.Time) {
	t.Helper()
	ctx, c := t.Context(), b.Past()
	_, err := c.UsageHorizon.Delete().Where(usagehorizon.ID(part)).Exec(ctx)
	require.NoError(t, err)
	require.NoError(t, c.UsageHorizon.Create().SetID(part).SetCompleteFrom(from).Exec(ctx))
	if part == "events" {
		_, err = c.UsageEvent.Delete().Where(usageevent.AtLT(from)).Exec(ctx)
		require.NoError(t, err)
		return
	}
	_, err = c.UsageQuarter.Delete().Where(usagequarter.PeriodStartLT(from)).Exec(ctx)
	require.NoError(t, err)
	_, err = c.UsageTotalQuarter.Delete().Where(usagetotalquarter.PeriodStartLT(from)).Exec(ctx)
	require.NoError(t, err)
}

// rows returns the ledger and the counters of keys as text, without the ids of periods.
func (b *books) rows(t *testing.T) string {
	t.Helper()
	var lines []string
	add := func(row any) {
		text, err := json.Marshal(row)
		require.NoError(t, err)
		lines = append(lines, fmt.Sprintf("%T %s", row, text))
	}
	ctx, c := t.Context(), b.Client()
	for _, u := range c.Usage.Query().AllX(ctx) {
		u.ID = uuid.Nil
		add(u)
	}
	for _, u := range c.UsageQuarter.Query().AllX(ctx) {
		u.ID = uuid.Nil
		add(u)
	}
	for _, u := range c.UsageTotal.Query().AllX(ctx) {
		u.ID = uuid.Nil
		add(u)
	}
	for _, u := range c.UsageTotalQuarter.Query().AllX(ctx) {
		u.ID = uuid.Nil
		add(u)
	}
	for _, e := range c.UsageEvent.Query().AllX(ctx) {
		add(e)
	}
	for _, k := range c.APIKey.Query().AllX(ctx) {
		k.UpdatedAt = time.Time{}
		add(k)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestVerifyLedger: what the registry records has no difference, wherever the horizons are, also within a day or
// a quarter of an hour.
func TestVerifyLedger(t *testing.T) { eachEngine(t, testVerifyLedger) }

func testVerifyLedger(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	report := verified(t, reg)
	require.Equal(
		t, registry.LedgerReport{EventsFrom: time.Unix(0, 0).UTC(), QuartersFrom: time.Unix(0, 0).UTC()}, report,
		"of nothing",
	)

	b := newBooks(t, e)
	ctx, c := t.Context(), b.Client()
	count := func() registry.LedgerReport {
		return registry.LedgerReport{
			Events:   int64(c.UsageEvent.Query().CountX(ctx)),
			Quarters: int64(c.UsageQuarter.Query().CountX(ctx)), Days: int64(c.Usage.Query().CountX(ctx)), Keys: 4,
			EventsFrom: time.Unix(0, 0).UTC(), QuartersFrom: time.Unix(0, 0).UTC(),
		}
	}
	require.Equal(t, count(), verified(t, b.Registry))
	now := b.clock.Now()
	for _, horizons := range [][2]time.Time{
		{now.Add(-40*time.Hour - 7*time.Minute), time.Unix(0, 0).UTC()},
		{now.Add(-30 * time.Hour).Truncate(15 * time.Minute), now.Add(-24 * time.Hour).Truncate(24 * time.Hour)},
		{now.Add(-30 * time.Hour).Truncate(15 * time.Minute), now.Add(-25 * time.Hour).Truncate(15 * time.Minute)},
		{now.Truncate(24 * time.Hour), now.Add(-20 * time.Hour).Truncate(15 * time.Minute)},
		{now.Add(time.Minute), now.Add(time.Minute)},
	} {
		b.prune(t, "events", horizons[0])
		b.prune(t, "quarters", horizons[1])
		want := count()
		want.EventsFrom, want.QuartersFrom = horizons[0], horizons[1]
		require.Equal(t, want, verified(t, b.Registry))
		require.Positive(t, want.Days)
		repaired, err := b.RepairLedger(ctx)
		require.NoError(t, err)
		require.Zero(t, repaired)
		// A late request is recorded before the horizons, where it is not looked at; its day is.
		in := b.input()
		in.At = horizons[1].Add(-time.Minute)
		if in.At.Year() > 1970 {
			require.NoError(t, b.RecordUsage(ctx, in))
			require.Empty(t, b.verify(t))
		}
	}
	entries, err := b.ListAudit(ctx, registry.AuditFilter{Action: registry.ActionRepair})
	require.NoError(t, err)
	require.Empty(t, entries)
}

// TestVerifyLedgerInTx sees what the transaction did, and changes of others that it waits for.
func TestVerifyLedgerInTx(t *testing.T) { eachEngine(t, testVerifyLedgerInTx) }

func testVerifyLedgerInTx(t *testing.T, e engine) {
	t.Parallel()
	b := newBooks(t, e)
	require.Equal(t, errRollback, b.InTx(t.Context(), func(tx *registry.Registry) error {
		require.NoError(t, tx.RecordUsage(t.Context(), b.input()))
		require.Empty(t, verified(t, tx).Differences)
		_, err := tx.Client().ExecContext(t.Context(), "UPDATE api_keys SET usage_count = usage_count + 1")
		require.NoError(t, err)
		require.Len(t, verified(t, tx).Differences, 4)
		_, err = tx.Client().ExecContext(t.Context(), "UPDATE usage_totals SET error_count = 0 WHERE error_count > 0")
		require.NoError(t, err)
		require.Greater(t, len(verified(t, tx).Differences), 10)
		repaired, err := tx.RepairLedger(t.Context())
		require.NoError(t, err)
		require.Empty(t, repaired.Unrepaired)
		require.EqualValues(t, 4, repaired.Keys)
		require.Positive(t, repaired.Totals)
		require.Empty(t, verified(t, tx).Differences)
		return errRollback
	}))
	require.Empty(t, b.verify(t))
}

// TestVerifyLedgerListsSome: what is found does not fill the memory.
func TestVerifyLedgerListsSome(t *testing.T) {
	t.Parallel()
	reg, clock := onSQLite.setup(t)
	p := mustProvider(t, reg, "openai")
	m, k := mustModel(t, reg, p.ID, "m", gpt4()), mustKey(t, reg, p.ID, 1)
	var inputs []registry.UsageInput
	for i := range 2000 {
		inputs = append(inputs, registry.UsageInput{
			ModelID: m.ID, APIKeyID: k.ID, At: clock.Now().
					Add(-time.Duration(i) * 15 * time.Minute), Latency: time.Second,
		})
	}
	require.NoError(t, reg.RecordUsageBatch(t.Context(), inputs))
	_, err := reg.Client().ExecContext(t.Context(), "UPDATE usage_quarters SET input_tokens = 1, output_tokens = 1,"+
		" reasoning_tokens = 1, cache_read_tokens = 1, cache_write_tokens = 1")
	require.NoError(t, err)
	report, err := reg.VerifyLedger(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Differences, registry.MaxDifferences)
	require.EqualValues(t, 2000*6-registry.MaxDifferences, report.Unlisted, "five columns and the digest")
}
