package registry_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestRecordAfterOthers records one request after another, which on SQLite builds on what the one before left, while
// something else changes that in between.
func TestRecordAfterOthers(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]func(t *testing.T, th recordAfter){
		"nothing": func(*testing.T, recordAfter) {},
		"another connection records": func(t *testing.T, th recordAfter) {
			t.Helper()
			record(t, th.other, th.m, th.k, 1, 0)
		},
		"a batch": func(t *testing.T, th recordAfter) {
			t.Helper()
			require.NoError(
				t, th.reg.RecordUsageBatch(t.Context(), []registry.UsageInput{{ModelID: th.m.ID, APIKeyID: th.k.ID}}),
			)
		},
		"a transaction": func(t *testing.T, th recordAfter) {
			t.Helper()
			require.NoError(t, th.reg.InTx(t.Context(), func(tx *registry.Registry) error {
				record(t, tx, th.m, th.k, 1, 0)
				return nil
			}))
		},
		"a batch that fails": func(t *testing.T, th recordAfter) {
			t.Helper()
			err := th.reg.RecordUsageBatch(t.Context(), []registry.UsageInput{
				{ModelID: th.m.ID, APIKeyID: th.k.ID}, {ModelID: th.m.ID, APIKeyID: uuid.Must(uuid.NewV7())},
			})
			require.ErrorIs(t, err, registry.ErrForeignKey)
		},
		"another price": func(t *testing.T, th recordAfter) {
			t.Helper()
			_, err := th.reg.UpdateModelPricing(t.Context(), th.m.ID, registry.PriceInput{
				Rates: money.Rates{meter.Input: money.USD(th.clock.Now().Unix()), meter.Output: money.Dollar},
			})
			require.NoError(t, err)
		},
		"a corrected price": func(t *testing.T, th recordAfter) {
			t.Helper()
			_, err := th.reg.UpdateModelPricing(t.Context(), th.m.ID, registry.PriceInput{
				Rates: money.Rates{
					meter.Input: money.Dollar, meter.Output: money.Dollar,
				}, EffectiveFrom: registrytest.Start,
			})
			require.NoError(t, err)
			_, err = th.reg.Reprice(t.Context(), registry.RepriceInput{ModelID: th.m.ID})
			require.NoError(t, err)
		},
		"the past": func(t *testing.T, th recordAfter) {
			t.Helper()
			require.NoError(t, th.reg.RecordUsage(t.Context(), registry.UsageInput{
				ModelID: th.m.ID, APIKeyID: th.k.ID, Tokens: meter.Tokens{InputTokens: 1},
				At: registrytest.Start.Add(-time.Minute),
			}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "after.db")
			clock := registrytest.NewClock(registrytest.Start.Add(-time.Hour))
			open := func() *registry.Registry {
				reg, err := registry.Open(t.Context(), path, registry.WithClock(clock.Now))
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, reg.Close()) })
				return reg
			}
			th := recordAfter{reg: open(), other: open(), clock: clock}
			p := mustProvider(t, th.reg, "openai")
			rates := money.Rates{meter.Input: 2 * money.Dollar, meter.Output: money.Dollar}
			th.m, th.k = mustModel(t, th.reg, p.ID, "m", rates), mustKey(t, th.reg, p.ID, 1)
			clock.Advance(time.Hour) // the past has another price
			_, err := th.reg.UpdateModelPricing(t.Context(), th.m.ID, registry.PriceInput{Rates: gpt4()})
			require.NoError(t, err)

			for range 3 {
				record(t, th.reg, th.m, th.k, 100, 20)
				clock.Advance(time.Second)
				between(t, th)
				clock.Advance(time.Second)
			}
			record(t, th.reg, th.m, th.k, 100, 20)
			require.Empty(t, verified(t, th.reg).Differences)
			events, err := th.reg.Client().UsageEvent.Query().All(t.Context())
			require.NoError(t, err)
			require.GreaterOrEqual(t, len(events), 4)
			require.EqualValues(t, len(events), th.requests(t))
			for _, event := range events {
				price, err := th.reg.PriceAt(t.Context(), th.m.ID, event.At)
				require.NoError(t, err)
				require.Equal(t, price.ID, event.PriceID, "of %s", event.At)
			}
		})
	}
}

type recordAfter struct {
	reg, other *registry.Registry
	clock      *registrytest.Clock
	m          *ent.Model
	k          *ent.APIKey
}

// requests is the sum of the days.
func (th recordAfter) requests(t *testing.T) (n int64) {
	t.Helper()
	rows, err := th.reg.Client().Usage.Query().All(t.Context())
	require.NoError(t, err)
	for _, row := range rows {
		n += row.RequestCount
	}
	return n
}
