package registry_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// someEvents returns the ids of two events of requests that did not fail: one of several in its row, which is priced
// and not of the second key, and one that is the only one.
func (b *books) someEvents(t *testing.T) (busy, alone string) {
	t.Helper()
	events := b.Client().UsageEvent.Query().AllX(t.Context())
	for _, u := range b.Client().UsageQuarter.Query().AllX(t.Context()) {
		for _, event := range events {
			its := event.ModelID == u.ModelID && event.APIKeyID == u.APIKeyID && event.PriceID == u.PriceID &&
				!event.At.Before(u.PeriodStart) && event.At.Before(u.PeriodEnd)
			if !its || event.InputTokens == 0 || !event.Success {
				continue
			}
			if u.RequestCount > 1 && u.ModelID == b.models[0].ID && u.APIKeyID != b.keys[1].ID {
				busy = event.ID.String()
			} else if u.RequestCount == 1 {
				alone = event.ID.String()
			}
		}
	}
	require.NotEmpty(t, busy)
	require.NotEmpty(t, alone)
	return busy, alone
}

// eventDamage leaves some differences behind.
type eventDamage struct {
	damage
	left int
}

// eventDamages are all kinds of damage to events.
func (b *books) eventDamages(t *testing.T) []eventDamage {
	t.Helper()
	busy, alone := b.someEvents(t)
	update := func(what string, args ...any) func(*testing.T, *books) {
		return func(t *testing.T, b *books) {
			t.Helper()
			b.exec(
				t, fmt.Sprintf("UPDATE usage_events SET %s WHERE id = $%d", what, len(args)+1), append(args, busy)...,
			)
		}
	}
	return []eventDamage{
		{
			damage{
				"latency", update("latency_ms = 6000"), registry.DifferenceWrongSum, "usage_tracking", "latency_ms_sum",
			},
			0,
		},
		{damage{"success", update("success = false"), registry.DifferenceWrongSum, "usage_totals", "error_count"}, 0},
		{
			damage{
				"another key", update("api_key_id = $1", b.keys[1].ID), registry.DifferenceWrongSum, "usage_tracking",
				"request_count",
			},
			0,
		},
		{damage{"deleted", func(t *testing.T, b *books) {
			t.Helper()
			b.exec(t, "DELETE FROM usage_events WHERE id = $1", busy)
		}, registry.DifferenceWrongSum, "usage_tracking", "request_count"}, 0},
		{damage{"twice", func(t *testing.T, b *books) {
			t.Helper()
			const columns = ", at, cost, cost_status, input_tokens, output_tokens, cache_read_tokens," +
				" cache_write_tokens, reasoning_tokens, model_id, api_key_id, price_id"
			b.exec(t, "INSERT INTO usage_events (id, request_id"+columns+") SELECT $1, 'x'"+columns+
				" FROM usage_events WHERE id = $2",
				busy[:18]+"-8000-000000000000", busy)
		}, registry.DifferenceWrongSum, "usage_tracking", "request_count"}, 0},
		{damage{"cost", update("cost = cost + 1"), registry.DifferenceWrongCost, "usage_events", "cost"}, 1},
		{
			damage{
				"cost NULL", update("cost = NULL, cost_status = 'unpriced'"), registry.DifferenceWrongCost,
				"usage_events", "cost",
			},
			1,
		},
		{
			damage{
				"tokens", update("input_tokens = input_tokens + 1"), registry.DifferenceWrongCost, "usage_events",
				"cost",
			},
			1,
		},
		{
			damage{
				"price", update("price_id = (SELECT id FROM prices WHERE model_id = $1)", b.models[1].ID),
				registry.DifferenceWrongEvent, "usage_events", "price_id",
			},
			1,
		},
		{
			damage{
				"no price", update("price_id = $1", b.keys[0].ID), registry.DifferenceWrongEvent, "usage_events",
				"price_id",
			},
			1,
		},
		{
			damage{
				"model", update("model_id = $1", b.models[1].ID), registry.DifferenceWrongEvent, "usage_events",
				"price_id",
			},
			1,
		},
		{
			damage{
				"no model", update("model_id = $1", b.keys[0].ID), registry.DifferenceWrongEvent, "usage_events",
				"model_id",
			},
			1,
		},
		{
			damage{
				"foreign key", update("api_key_id = $1", b.keys[3].ID), registry.DifferenceWrongEvent, "usage_events",
				"api_key_id",
			},
			1,
		},
		{
			damage{
				"no key", update("api_key_id = $1", b.models[0].ID), registry.DifferenceWrongEvent, "usage_events",
				"api_key_id",
			},
			1,
		},
		{damage{"time", update("at = $1", b.clock.Now()), registry.DifferenceWrongEvent, "usage_events", "at"}, 1},
		{damage{"deleted, the only one", func(t *testing.T, b *books) {
			t.Helper()
			b.exec(t, "DELETE FROM usage_events WHERE id = $1", alone)
		}, registry.DifferenceSurplusRow, "usage_quarters", ""}, 1},
	}
}

// TestRepairLedgerEvents damages events. What they amount to is what was recorded; but one whose cost is not
// its tokens at the rates of its price is left, and so is what was the sum of it and others. A run takes a part of
// the damages, by chance.
func TestRepairLedgerEvents(t *testing.T) { eachEngine(t, testRepairLedgerEvents) }

func testRepairLedgerEvents(t *testing.T, e engine) {
	t.Parallel()
	b := newBooks(t, e)
	all := b.eventDamages(t)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, x := range all[:sample.Of(len(all))] {
		require.Equal(t, errRollback, b.InTx(t.Context(), func(tx *registry.Registry) error {
			b := &books{Registry: tx, clock: b.clock, models: b.models, keys: b.keys}
			x.do(t, b)
			damaged := b.rows(t)
			found := b.verify(t)
			require.True(t, x.in(found), "%s: %+v", x.name, found)
			repaired, err := b.RepairLedger(t.Context())
			require.NoError(t, err, x.name)
			require.Len(t, repaired.Unrepaired, x.left, x.name)
			require.Equal(t, repaired.Unrepaired, b.verify(t), x.name)
			if x.left > 0 {
				require.Equal(t, damaged, b.rows(t), "%s: nothing is made up", x.name)
				b.exec(t, "UPDATE usage_tracking SET total_cost = total_cost + 1 WHERE id = "+busiest("usage_tracking"))
				repaired, err = b.RepairLedger(t.Context())
				require.NoError(t, err)
				require.Len(t, repaired.Unrepaired, x.left, "%s: what it does not touch is mended", x.name)
				require.Equal(t, damaged, b.rows(t), x.name)
			}
			return errRollback
		}))
	}
	require.Empty(t, b.verify(t))
}

// TestVerifyLedgerCosts changes the rates of a price, which never happens: what was recorded at it is not what
// it costs. The sums of many requests are told from their costs rounded one by one.
func TestVerifyLedgerCosts(t *testing.T) { eachEngine(t, testVerifyLedgerCosts) }

func testVerifyLedgerCosts(t *testing.T, e engine) {
	t.Parallel()
	b := newBooks(t, e)
	b.closed(t)
	b.exec(t, `UPDATE prices SET cost_per_1m_input = 31000000000 WHERE model_id = $1`, b.models[0].ID)
	found := b.verify(t)
	kinds := map[string]int{}
	for _, d := range found {
		require.Equal(t, registry.DifferenceWrongCost, d.Kind)
		require.Equal(t, b.models[0].ID, d.ModelID)
		kinds[d.Table]++
	}
	require.Positive(t, kinds["usage_events"])
	require.Positive(t, kinds["usage_tracking"])
	before := b.rows(t)
	repaired, err := b.RepairLedger(t.Context())
	require.NoError(t, err)
	require.Equal(t, registry.RepairResult{Unrepaired: found}, repaired)
	require.Equal(t, before, b.rows(t))
}
