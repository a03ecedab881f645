package registry_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// thinking are rates of 1,000 nano-dollars for a token of input, 2,000 of output and 3,000 of reasoning.
func thinking() money.Rates {
	return money.Rates{
		meter.Input: money.Dollar, meter.Output: 2 * money.Dollar, meter.Reasoning: 3 * money.Dollar,
	}
}

// eventOf returns the event of a lease.
func eventOf(t *testing.T, reg *registry.Registry, lease uuid.UUID) *ent.UsageEvent {
	t.Helper()
	events, err := reg.ListUsageEvents(t.Context(), registry.EventFilter{RequestID: lease.String()})
	require.NoError(t, err)
	require.Len(t, events, 1)
	return events[0]
}

// TestUnknownUsage settles leases whose usage nobody knows: estimates are recorded, and what they reserved counts.
func TestUnknownUsage(t *testing.T) { eachEngine(t, testUnknownUsage) }

func testUnknownUsage(t *testing.T, e engine) {
	t.Parallel()
	settle := func(t *testing.T, l *registry.Lease) error {
		t.Helper()
		return l.Settle(t.Context(), registry.UsageInput{Usage: registry.UsageUnknown})
	}
	fail := func(t *testing.T, l *registry.Lease) error {
		t.Helper()
		_, err := l.Fail(t.Context(), registry.Failure{Status: 200, Err: errors.New("unexpected EOF")})
		return err
	}
	for name, c := range map[string]struct {
		in      registry.AcquireInput
		end     func(*testing.T, *registry.Lease) error
		another bool                // by another handle
		want    registry.UsageInput // status and tokens
		cost    money.USD           // of the event; 0: unknown
		tokens  int64               // that count today
		spent   money.USD           // today
	}{
		"settled": {
			in: registry.AcquireInput{EstimatedTokens: 100, EstimatedOutputTokens: 40}, end: settle,
			want: registry.UsageInput{
				Usage: registry.UsageEstimated, Tokens: meter.Tokens{InputTokens: 60, ReasoningTokens: 40},
			},
			cost: 180_000, tokens: 100, spent: 180_000,
		},
		"broken off": {
			in: registry.AcquireInput{EstimatedTokens: 100}, end: fail,
			want: registry.UsageInput{Usage: registry.UsageEstimated, Tokens: meter.Tokens{ReasoningTokens: 100}},
			cost: 300_000, tokens: 100, spent: 300_000,
		},
		"more reserved than that": {
			in: registry.AcquireInput{EstimatedTokens: 100, EstimatedCost: money.Dollar}, end: settle,
			want: registry.UsageInput{Usage: registry.UsageEstimated, Tokens: meter.Tokens{ReasoningTokens: 100}},
			cost: 300_000, tokens: 100, spent: money.Dollar,
		},
		"a cost alone": {
			in: registry.AcquireInput{EstimatedCost: money.Dollar}, end: settle,
			want: registry.UsageInput{Usage: registry.UsageUnknown}, spent: money.Dollar,
		},
		"nothing": {end: settle, want: registry.UsageInput{Usage: registry.UsageUnknown}},
		"through another handle": {
			in:  registry.AcquireInput{EstimatedTokens: 10, EstimatedOutputTokens: 10},
			end: settle, another: true,
			want: registry.UsageInput{Usage: registry.UsageEstimated, Tokens: meter.Tokens{ReasoningTokens: 10}},
			cost: 30_000, tokens: 10, spent: 30_000,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, _ := e.setup(t)
			p := mustProvider(t, reg, "openai")
			m, k := mustModel(t, reg, p.ID, "m", thinking()), mustKey(t, reg, p.ID, 1)
			c.in.ProviderID, c.in.ModelID, c.in.TTL = p.ID, m.ID, time.Minute
			l, err := reg.AcquireKey(t.Context(), c.in)
			require.NoError(t, err)
			if c.another {
				l, err = reg.GetLease(t.Context(), l.ID)
				require.NoError(t, err)
			}
			require.NoError(t, c.end(t, l))
			event := eventOf(t, reg, l.ID)
			require.Equal(t, c.want.Usage, registry.UsageStatus(event.UsageStatus))
			require.Equal(t, c.want.Tokens, meter.Tokens{
				InputTokens: event.InputTokens, OutputTokens: event.OutputTokens,
				ReasoningTokens: event.ReasoningTokens,
			})
			require.Equal(t, c.cost, money.USD(nanos(event.Cost)))
			require.Equal(t, c.cost == 0, event.Cost == nil)
			k, err = reg.GetAPIKey(t.Context(), k.ID)
			require.NoError(t, err)
			require.Equal(t, []any{int64(1), c.tokens, c.spent}, []any{k.RequestsToday, k.TokensToday, k.CostToday})
			requireLedger(t, reg)
			report, err := reg.VerifyLedger(t.Context())
			require.NoError(t, err)
			require.Empty(t, report.Differences)
		})
	}
}

// TestUnknownUsageElsewhere: unknown usage counts as estimated also where there is no row of the lease, no model, or
// another price for so many tokens.
func TestUnknownUsageElsewhere(t *testing.T) { eachEngine(t, testUnknownUsageElsewhere) }

func testUnknownUsageElsewhere(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "openai")
	m, k := mustModel(t, reg, p.ID, "m", thinking()), mustKey(t, reg, p.ID, 1)
	acquire := func(in registry.AcquireInput) *registry.Lease {
		in.ProviderID, in.TTL = p.ID, time.Minute
		l, err := reg.AcquireKey(ctx, in)
		require.NoError(t, err)
		return l
	}
	unknown := registry.UsageInput{Usage: registry.UsageUnknown}
	_, err := reg.UpdateModelPricing(ctx, m.ID, registry.PriceInput{
		Rates: money.Rates{meter.Input: 7 * money.Dollar, meter.Output: money.Dollar}, MinContextTokens: 1000,
	})
	require.NoError(t, err)
	large := acquire(registry.AcquireInput{ModelID: m.ID, EstimatedTokens: 1010, EstimatedOutputTokens: 10})
	require.NoError(t, large.Settle(ctx, unknown))
	require.EqualValues(t, 7_000_000+10_000, *eventOf(t, reg, large.ID).Cost)

	expired := acquire(registry.AcquireInput{ModelID: m.ID, EstimatedTokens: 10, EstimatedOutputTokens: 10})
	clock.Advance(2 * time.Minute)
	require.NoError(t, acquire(registry.AcquireInput{}).Release(ctx)) // puts the expired one away
	_, err = reg.GetLease(ctx, expired.ID)
	require.ErrorIs(t, err, registry.ErrNotFound)
	require.NoError(t, expired.Settle(ctx, unknown))
	require.EqualValues(t, 30_000, *eventOf(t, reg, expired.ID).Cost)

	before, err := reg.GetAPIKey(ctx, k.ID)
	require.NoError(t, err)
	ofAny := acquire(registry.AcquireInput{EstimatedTokens: 100, EstimatedCost: 5})
	_, err = ofAny.Fail(ctx, registry.Failure{Err: errors.New("unexpected EOF"), Usage: unknown})
	require.NoError(t, err)
	after, err := reg.GetAPIKey(ctx, k.ID)
	require.NoError(t, err)
	require.Equal(t, []any{int64(100), money.USD(5)},
		[]any{after.TokensToday - before.TokensToday, after.CostToday - before.CostToday})

	for _, in := range []registry.AcquireInput{
		{EstimatedTokens: 1, EstimatedOutputTokens: 2}, {EstimatedOutputTokens: -1}, {Attempt: -1},
		{AttemptGroup: "\x00"},
	} {
		in.ProviderID, in.TTL = p.ID, time.Minute
		_, err := reg.AcquireKey(ctx, in)
		require.ErrorIs(t, err, registry.ErrInvalidData, "%+v", in)
	}
}

// TestLeaseAttempt: what AcquireKey is told of the attempt is recorded through any handle, unless Settle knows better.
func TestLeaseAttempt(t *testing.T) { eachEngine(t, testLeaseAttempt) }

func testLeaseAttempt(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "openai")
	m := mustModel(t, reg, p.ID, "m", gpt4())
	mustKey(t, reg, p.ID, 1)
	for _, c := range []struct {
		another bool
		used    registry.UsageInput
		group   string
		attempt int
	}{
		{group: "g", attempt: 2},
		{another: true, group: "g", attempt: 2},
		{used: registry.UsageInput{AttemptGroup: "h", Attempt: 3}, group: "h", attempt: 3},
	} {
		l, err := reg.AcquireKey(ctx, registry.AcquireInput{
			ProviderID: p.ID, ModelID: m.ID, TTL: time.Minute, AttemptGroup: "g", Attempt: 2,
		})
		require.NoError(t, err)
		if c.another {
			l, err = reg.GetLease(ctx, l.ID)
			require.NoError(t, err)
		}
		require.NoError(t, l.Settle(ctx, c.used))
		event := eventOf(t, reg, l.ID)
		require.Equal(t, []any{c.group, c.attempt}, []any{event.AttemptGroup, event.Attempt})
	}
}

// TestLeaseInstant: the request of a lease happened when that began, wherever it counts, whenever it ends.
func TestLeaseInstant(t *testing.T) { eachEngine(t, testLeaseInstant) }

func testLeaseInstant(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "openai")
	m, k := mustModel(t, reg, p.ID, "m", money.Rates{meter.Input: money.Dollar}), mustKey(t, reg, p.ID, 1)
	clock.Set(time.Date(2026, 11, 1, 23, 59, 0, 0, time.UTC))
	acquire := func() *registry.Lease {
		l, err := reg.AcquireKey(ctx, registry.AcquireInput{ProviderID: p.ID, ModelID: m.ID, TTL: time.Hour})
		require.NoError(t, err)
		return l
	}
	settled, failed, late := acquire(), acquire(), acquire()
	clock.Advance(2 * time.Minute)
	_, err := reg.UpdateModelPricing(ctx, m.ID, registry.PriceInput{Rates: money.Rates{meter.Input: 5 * money.Dollar}})
	require.NoError(t, err)
	used := registry.UsageInput{Tokens: meter.Tokens{InputTokens: 1}}
	require.NoError(t, settled.Settle(ctx, used))
	_, err = failed.Fail(ctx, registry.Failure{Status: 500, Usage: used})
	require.NoError(t, err)
	for _, l := range []*registry.Lease{settled, failed} {
		event := eventOf(t, reg, l.ID)
		require.Equal(t, l.AcquiredAt, event.At)
		require.EqualValues(t, 1000, *event.Cost, "the price of then")
	}
	k, err = reg.GetAPIKey(ctx, k.ID)
	require.NoError(t, err)
	require.Zero(t, k.RequestsToday, "they count yesterday")
	at := clock.Now()
	used.At = at
	require.NoError(t, late.Settle(ctx, used))
	require.Equal(t, at, eventOf(t, reg, late.ID).At, "but for what is said")

	ahead := acquire()
	clock.Advance(-2 * time.Hour)
	require.NoError(t, ahead.Settle(ctx, registry.UsageInput{}))
	require.Equal(t, clock.Now().Add(time.Hour), eventOf(t, reg, ahead.ID).At, "as far ahead as may be")
	requireLedger(t, reg)
}
