package registry_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// mixed are recounts with a model without a price, several keys, dimensions, and a budget for each user. Prices that
// lack a rate price other requests by key than by value.
type mixed struct {
	*recounts

	keys  []*ent.APIKey
	each  *ent.Budget
	first time.Time
}

func newMixed(t *testing.T, e engine) *mixed {
	t.Helper()
	m := &mixed{recounts: newRecounts(t, e)}
	m.first = m.clock.Now()
	m.model = mustModel(t, m.reg, m.provider.ID, "mixed", nil)
	m.keys = []*ent.APIKey{m.key, mustKey(t, m.reg, m.provider.ID, 2), mustKey(t, m.reg, m.provider.ID, 3)}
	for _, in := range []registry.DimensionInput{
		{Name: "feature"}, {Name: "label", Multi: true}, {Name: "env", DaysOnly: true},
	} {
		require.NoError(t, second(m.reg.CreateDimension(t.Context(), in)))
	}
	m.each = m.budget(t, registry.BudgetInput{
		Name: "each", Ceilings: registry.Ceilings{Cost: 1000 * money.Dollar}, Each: true, EachKind: "user",
		Window: registry.Window{Per: entbudget.PerTotal},
	})
	return m
}

// request records a request of a key for a consumer; nil: for nobody.
func (m *mixed) request(t *testing.T, key int, who *ent.Consumer, in registry.UsageInput) {
	t.Helper()
	in.ModelID, in.APIKeyID = m.model.ID, m.keys[key].ID
	if who != nil {
		in.ConsumerID = who.ID
	}
	require.NoError(t, m.reg.RecordUsage(t.Context(), in))
}

// age lets some days pass, and folds what was recorded. Two days later its events are gone, and three days later its
// quarters of an hour.
func (m *mixed) age(t *testing.T, days int) {
	t.Helper()
	m.clock.Advance(time.Duration(days) * 24 * time.Hour)
	require.NoError(t, registry.Fold(t.Context(), m.reg, m.model.ID))
	require.NoError(t, second(m.reg.Prune(t.Context(), registry.PruneInput{
		Events: 24 * time.Hour, Quarters: 48 * time.Hour, Budget: time.Minute,
	})))
}

// price sets a price, in nano-dollars a token.
func (m *mixed) price(rates map[string]int64, from time.Time) error {
	in := registry.PriceInput{Rates: money.Rates{}, EffectiveFrom: from}
	for name, nanos := range rates {
		in.Rates[name] = money.USD(nanos) * 1_000_000
	}
	return second(m.reg.UpdateModelPricing(context.Background(), m.model.ID, in))
}

func (m *mixed) reprice() error {
	return second(m.reg.Reprice(context.Background(), registry.RepriceInput{ModelID: m.model.ID}))
}

// unbalanced returns what is wrong with the ledger but for counters of budgets, which are set in the end.
func (m *mixed) unbalanced(t *testing.T) (wrong []registry.Difference) {
	t.Helper()
	for _, d := range verified(t, m.reg).Differences {
		if d.Kind != registry.DifferenceWrongBudgetCounter {
			wrong = append(wrong, d)
		}
	}
	return wrong
}

// spentBy returns the cost and the requests without one of each user, which the budget has counted.
func (m *mixed) spentBy(t *testing.T, why ...any) map[string][2]int64 {
	t.Helper()
	require.Empty(t, verified(t, m.reg).Differences, why...)
	rows, err := m.reg.UsageReport(t.Context(), registry.ReportInput{
		Start: m.first, End: m.clock.Now().Add(time.Hour), By: []registry.Dimension{registry.ByConsumer},
	})
	require.NoError(t, err)
	spent := map[string][2]int64{}
	for _, row := range rows {
		spent[row.Consumer] = [2]int64{int64(row.TotalCost), row.UnpricedRequests}
	}
	for _, user := range []*ent.Consumer{m.user, m.rival} {
		var counted [2]int64
		for _, w := range m.reg.Client().Budget.GetX(t.Context(), m.each.ID).QueryWindows().AllX(t.Context()) {
			if w.SubjectID == user.ID {
				counted = [2]int64{int64(w.Cost), w.UnpricedRequests}
			}
		}
		require.Equal(t, spent[user.Name], counted, why...)
	}
	return spent
}

var (
	short = registry.UsageInput{Tokens: meter.Tokens{InputTokens: 100}}
	whole = registry.UsageInput{Tokens: meter.Tokens{InputTokens: 100, OutputTokens: 10}}

	inputAlone = map[string]int64{meter.Input: 1}
	allRates   = map[string]int64{meter.Input: 1, meter.Output: 5}
)

// TestRepriceMixed has requests with and without output, which a price without a rate of output prices by key alone, or
// by consumer alone. A price with all rates costs the same on every way.
func TestRepriceMixed(t *testing.T) { eachEngine(t, testRepriceMixed) }

func testRepriceMixed(t *testing.T, e engine) {
	t.Parallel()
	type sums = map[string][2]int64
	for name, test := range map[string]struct {
		record        func(m *mixed)
		partly, fully sums
	}{
		"one key, two consumers": {
			func(m *mixed) {
				m.request(t, 0, m.user, short)
				m.request(t, 0, m.rival, whole)
			},
			sums{"user": {0, 1}, "rival": {0, 1}}, sums{"user": {100, 0}, "rival": {150, 0}},
		},
		"two keys, one consumer": {
			func(m *mixed) {
				m.request(t, 0, m.user, short)
				m.request(t, 1, m.user, whole)
			},
			sums{"user": {100, 1}}, sums{"user": {250, 0}},
		},
		"two keys, two consumers": {
			func(m *mixed) {
				m.request(t, 0, m.user, short)
				m.request(t, 0, m.rival, short)
				m.request(t, 1, m.rival, whole)
			},
			sums{"user": {100, 0}, "rival": {100, 1}}, sums{"user": {100, 0}, "rival": {250, 0}},
		},
	} {
		for _, days := range []int{2, 3} {
			t.Run(fmt.Sprintf("%s, %d days", name, days), func(t *testing.T) {
				t.Parallel()
				m := newMixed(t, e)
				test.record(m)
				m.age(t, days)
				require.NoError(t, m.price(inputAlone, m.first))
				require.Equal(t, test.partly, m.spentBy(t))
				dry, err := m.reg.Reprice(t.Context(), registry.RepriceInput{ModelID: m.model.ID, DryRun: true})
				require.NoError(t, err)
				require.Zero(t, dry.Requests)
				require.NoError(t, m.reprice())
				require.Equal(t, test.partly, m.spentBy(t))
				repaired, err := m.reg.RepairLedger(t.Context())
				require.NoError(t, err)
				require.Empty(t, repaired.Unrepaired)
				require.NoError(t, m.price(allRates, m.first))
				require.NoError(t, m.reprice())
				require.Equal(t, test.fully, m.spentBy(t))
			})
		}
	}
}

// TestRepriceKnown: requests of a consumer that no price without a rate of output can price together follow their keys,
// also if they had a cost.
func TestRepriceKnown(t *testing.T) { eachEngine(t, testRepriceKnown) }

func testRepriceKnown(t *testing.T, e engine) {
	t.Parallel()
	for _, days := range []int{2, 3} {
		m := newMixed(t, e)
		require.NoError(t, m.price(allRates, m.first))
		m.request(t, 0, m.user, short)
		m.request(t, 1, m.user, whole)
		m.age(t, days)
		require.Equal(t, map[string][2]int64{"user": {250, 0}}, m.spentBy(t))
		require.NoError(t, m.price(map[string]int64{meter.Input: 3}, m.first))
		require.NoError(t, m.reprice())
		require.Equal(t, map[string][2]int64{"user": {450, 0}}, m.spentBy(t), days)
	}
}

// TestRepriceDays: a dimension that has days alone adds up after each piece, also if a price begins within the day, and
// if nobody calls again.
func TestRepriceDays(t *testing.T) { eachEngine(t, testRepriceDays) }

func testRepriceDays(t *testing.T, e engine) {
	t.Parallel()
	m := newMixed(t, e)
	for i := range 24 {
		m.request(t, i%3, m.user, registry.UsageInput{
			Tokens: meter.Tokens{InputTokens: 100, OutputTokens: int64(i%3) / 2}, // by the third key
			Tags:   registry.Tags{"env": {fmt.Sprint(i % 2)}},
		})
		m.clock.Advance(time.Hour)
	}
	m.age(t, 1)
	stop := errors.New("interrupted")
	registry.InPieces(m.reg, 5, func(context.Context) error {
		require.Empty(t, m.unbalanced(t))
		return stop
	})
	noon := m.first.Add(12 * time.Hour)
	require.ErrorIs(t, m.price(inputAlone, noon), stop)
	require.Empty(t, m.unbalanced(t))
	registry.InPieces(m.reg, 5, func(context.Context) error {
		require.Empty(t, m.unbalanced(t))
		return nil
	})
	require.NoError(t, m.price(inputAlone, noon))
	require.Equal(t, map[string][2]int64{"user": {800, 16}}, m.spentBy(t))
	require.NoError(t, m.price(map[string]int64{meter.Input: 2}, m.first))
	require.NoError(t, m.reprice())
	require.Equal(t, map[string][2]int64{"user": {2400, 8}}, m.spentBy(t))
	require.NoError(t, m.price(map[string]int64{meter.Input: 7, meter.Output: 1}, noon))
	require.NoError(t, m.reprice())
	require.Equal(t, map[string][2]int64{"user": {800*2 + 1200*7 + 4, 4}}, m.spentBy(t))
}

// TestRepriceMixedAnything sets prices with some rates for the past at random, and then one with all: the ledger adds
// up after each, and in the end nothing is unpriced but what is unknown.
func TestRepriceMixedAnything(t *testing.T) {
	long(t, "hundreds of random requests")
	eachEngine(t, testRepriceMixedAnything)
}

func testRepriceMixedAnything(t *testing.T, e engine) {
	t.Parallel()
	for range sample.Of(10) {
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 3)) //nolint:gosec // not for secrets
		m := newMixed(t, e)
		unknown := int64(0)
		for range 150 {
			in := m.random(random)
			if in.Usage == registry.UsageUnknown {
				unknown++
			}
			m.request(t, random.IntN(3), []*ent.Consumer{nil, m.user, m.rival, m.team}[random.IntN(4)], in)
			m.clock.Advance(time.Duration(random.IntN(50)) * time.Minute)
		}
		m.age(t, 1)
		if random.IntN(2) == 0 {
			registry.InPieces(m.reg, 1+random.IntN(20), func(context.Context) error {
				require.Empty(t, m.unbalanced(t), seed)
				return nil
			})
		}
		for range 5 {
			rates := map[string]int64{}
			for _, name := range []string{meter.Input, meter.Output, meter.CacheRead} {
				if random.IntN(2) == 0 {
					rates[name] = random.Int64N(9)
				}
			}
			from := m.first
			if random.IntN(2) == 0 {
				from = from.Add(time.Duration(random.Int64N(int64(72 * time.Hour))))
			}
			if len(rates) > 0 {
				require.NoError(t, m.price(rates, from), seed)
				m.spentBy(t, seed)
			}
			if random.IntN(2) == 0 {
				_, err := m.reg.Reprice(t.Context(), registry.RepriceInput{
					ModelID: m.model.ID, Start: from, End: from.Add(time.Duration(1+random.IntN(60)) * time.Hour),
				})
				require.NoError(t, err, seed)
				m.spentBy(t, seed)
			}
		}
		require.NoError(t, m.price(allRates, m.first), seed)
		m.spentBy(t, seed)
		history, err := m.reg.PriceHistory(t.Context(), registry.PriceFilter{ModelID: m.model.ID})
		require.NoError(t, err)
		for _, p := range history { // each stretch of time gets all rates
			if p.SupersededAt == nil && !p.EffectiveFrom.Before(m.first) {
				require.NoError(t, m.price(allRates, p.EffectiveFrom), seed)
			}
		}
		require.NoError(t, m.reprice(), seed)
		left := int64(0)
		for _, of := range m.spentBy(t, seed) {
			left += of[1]
		}
		require.Equal(t, unknown, left, seed)
	}
}

// random returns a request.
func (m *mixed) random(random *rand.Rand) registry.UsageInput {
	in := registry.UsageInput{
		Tokens: meter.Tokens{InputTokens: random.Int64N(1000)}, Latency: time.Second,
		Tags: registry.Tags{
			"feature": {fmt.Sprint("f", random.IntN(3))}, "env": {fmt.Sprint("e", random.IntN(2))},
			"label": []string{"a", fmt.Sprint("b", random.IntN(2))}[random.IntN(2):],
		},
	}
	if random.IntN(3) == 0 {
		in.OutputTokens = random.Int64N(100)
	}
	if random.IntN(3) == 0 {
		in.CacheReadTokens = random.Int64N(5000)
	}
	switch random.IntN(6) {
	case 0:
		in.AttemptGroup, in.Attempt = uuid.NewString(), 2
	case 1:
		in.ProviderCost, in.ProviderCostSource = new(money.USD(random.Int64N(5000))), "bill"
	case 2:
		in.Tokens, in.Usage = meter.Tokens{}, registry.UsageUnknown
	}
	return in
}
