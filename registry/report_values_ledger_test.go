package registry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/consumerday"
	"github.com/jeffersonwarrior/modelscan/ent/usagebyvalue"
	"github.com/jeffersonwarrior/modelscan/ent/usagebyvaluequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagefold"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// filled has requests of several days, all of them folded.
func (a *attribution) filled(t *testing.T) {
	t.Helper()
	who := []*ent.Consumer{nil, a.org, a.team, a.user}
	for i := range 60 {
		tags := registry.Tags{"feature": {fmt.Sprint("f", i%4)}, "env": {"prod"}}
		if i%5 > 0 {
			tags["label"] = []string{"a", "b", "c"}[:1+i%3]
		}
		a.record(t, who[i%len(who)], tags)
		a.clock.Advance(2 * time.Hour)
	}
	for _, m := range a.models {
		require.NoError(t, registry.Fold(t.Context(), a.reg, m.ID))
	}
	requireProven(t, a.reg)
}

// TestRepairValues damages sums by value in each way, and has VerifyLedger find and RepairLedger mend it. Without
// events and quarters below it a row is lost, and the difference is told.
func TestRepairValues(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		t.Helper()
		a := newAttribution(t, e, time.Now().UTC())
		a.filled(t)
		past := a.reg.Past()
		day := past.UsageByValue.Query().Order(usagebyvalue.ByPeriodStart()).FirstX(t.Context())
		quarter := past.UsageByValueQuarter.Query().Order(usagebyvaluequarter.ByPeriodStart()).FirstX(t.Context())
		for what, damage := range map[string]func(){
			"a day is gone":      func() { past.UsageByValue.DeleteOneID(day.ID).ExecX(t.Context()) },
			"a quarter is gone":  func() { past.UsageByValueQuarter.DeleteOneID(quarter.ID).ExecX(t.Context()) },
			"a sum is wrong":     func() { past.UsageByValue.Update().AddRequestCount(1).ExecX(t.Context()) },
			"a quarter is wrong": func() { past.UsageByValueQuarter.Update().AddInputTokens(1).ExecX(t.Context()) },

			"a consumer's days are gone": func() { past.ConsumerDay.Delete().ExecX(t.Context()) },
			"a consumer's cost is wrong": func() { past.ConsumerDay.Update().AddCost(1).ExecX(t.Context()) },
			"a consumer's day begins too late": func() {
				row := past.ConsumerDay.Query().FirstX(t.Context())
				past.ConsumerDay.DeleteOne(row).ExecX(t.Context())
				past.ConsumerDay.Create().SetConsumerID(row.ConsumerID).SetDay(row.Day.Add(time.Hour)).
					SetRequests(row.Requests).ExecX(t.Context())
			},
			"a consumer's day is of a time without usage": func() {
				past.ConsumerDay.Create().SetConsumerID(a.user.ID).SetDay(day.PeriodStart.AddDate(-1, 0, 0)).
					SetRequests(1).ExecX(t.Context())
			},
		} {
			damage()
			report, err := a.reg.VerifyLedger(t.Context())
			require.NoError(t, err, what)
			require.NotEmpty(t, report.Differences, what)
			repaired, err := a.reg.RepairLedger(t.Context())
			require.NoError(t, err, what)
			require.Empty(t, repaired.Unrepaired, what)
			require.Positive(t, repaired.Values, what)
			requireProven(t, a.reg)
			a.check(t)
			day = past.UsageByValue.Query().Order(usagebyvalue.ByPeriodStart()).FirstX(t.Context())
			quarter = past.UsageByValueQuarter.Query().Order(usagebyvaluequarter.ByPeriodStart()).FirstX(t.Context())
		}
		a.pruned(t, 24*time.Hour)
		day = past.UsageByValue.Query().Where(usagebyvalue.PeriodStartGT(day.PeriodStart)).
			Order(usagebyvalue.ByPeriodStart()).FirstX(t.Context()) // a day that the dimensions count as a whole
		days := consumerDays(t, a.reg)
		past.UsageByValue.DeleteOneID(day.ID).ExecX(t.Context())
		repaired, err := a.reg.RepairLedger(t.Context())
		require.NoError(t, err)
		require.NotEmpty(t, repaired.Unrepaired)
		require.Equal(t, registry.DifferenceWrongValues, repaired.Unrepaired[0].Kind)
		require.Equal(t, days, consumerDays(t, a.reg), "the days of consumers may be right")
	})
}

func consumerDays(t *testing.T, reg *registry.Registry) string {
	t.Helper()
	return fmt.Sprint(reg.Client().ConsumerDay.Query().Order(consumerday.ByID()).AllX(t.Context()))
}

// pruned removes events and quarters that are older than a time.
func (a *attribution) pruned(t *testing.T, kept time.Duration) {
	t.Helper()
	_, err := a.reg.Prune(t.Context(), registry.PruneInput{Events: kept, Quarters: kept, Budget: time.Minute})
	require.NoError(t, err)
}

// TestPruneValues removes events that are in no fold yet: they are added up before they go.
func TestPruneValues(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		t.Helper()
		a := newAttribution(t, e, time.Now().UTC())
		for i := range 30 {
			a.record(t, a.user, registry.Tags{"feature": {fmt.Sprint("f", i%3)}})
			a.clock.Advance(time.Second) // so few and so young that no fold takes them
		}
		var folded int64
		for _, u := range a.reg.Client().UsageByValueQuarter.Query().AllX(t.Context()) {
			folded += u.RequestCount
		}
		require.Less(t, folded, int64(3*30), "some are in the tail")
		a.clock.Advance(72 * time.Hour)
		a.pruned(t, 24*time.Hour)
		require.Zero(t, a.reg.Client().UsageEvent.Query().CountX(t.Context()))
		a.check(t)
		requireProven(t, a.reg)
	})
}

// TestLateValues records late, for a day that was pruned before, to a model that was not folded so far: the ledger adds
// up before the fold and after it.
func TestLateValues(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		t.Helper()
		a := newAttribution(t, e, time.Now().UTC())
		m := mustModel(t, a.reg, a.provider.ID, "unused", money.Rates{meter.Input: 1})
		at := a.clock.Now().Add(26 * time.Hour) // on a day that the dimensions count as a whole
		a.clock.Advance(10 * 24 * time.Hour)
		a.pruned(t, 24*time.Hour)
		in := used(5)
		in.ModelID, in.APIKeyID, in.ConsumerID, in.At = m.ID, a.key.ID, a.user.ID, at
		require.NoError(t, a.reg.RecordUsage(t.Context(), in))
		past, ctx := a.reg.Past(), t.Context()
		require.Eventually(t, func() bool {
			return past.UsageFold.Query().Where(usagefold.ModelID(m.ID)).ExistX(ctx)
		}, time.Minute, time.Millisecond, "a model that is new to the process is folded at once")
		past.UsageFold.Delete().Where(usagefold.ModelID(m.ID)).ExecX(ctx) // as it was before
		past.UsageByValue.Delete().ExecX(ctx)
		past.UsageByValueQuarter.Delete().ExecX(ctx)
		past.ConsumerDay.Delete().ExecX(ctx)
		requireProven(t, a.reg)
		a.pruned(t, 24*time.Hour)
		require.Zero(t, a.reg.Client().UsageEvent.Query().CountX(t.Context()))
		require.Positive(t, a.reg.Client().UsageByValue.Query().CountX(t.Context()))
		requireProven(t, a.reg)
	})
}

// TestRepriceValues prices usage anew where events are kept, where quarters are, and where days are alone.
func TestRepriceValues(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		t.Helper()
		a := newAttribution(t, e, time.Now().UTC())
		a.filled(t)
		begin := a.said[0].at.Add(-time.Hour)
		reprice := func(nanos int64) {
			for _, m := range a.models {
				_, err := a.reg.UpdateModelPricing(t.Context(), m.ID, registry.PriceInput{
					Rates: money.Rates{meter.Input: money.USD(nanos)}, EffectiveFrom: begin,
				})
				require.NoError(t, err)
				_, err = a.reg.Reprice(t.Context(), registry.RepriceInput{ModelID: m.ID})
				require.NoError(t, err)
			}
			requireProven(t, a.reg)
		}
		reprice(2_000_000)
		for i := range a.said {
			a.said[i].cost *= 2
		}
		a.check(t)
		_, err := a.reg.Prune(t.Context(), registry.PruneInput{
			Events: 24 * time.Hour, Quarters: 72 * time.Hour, Budget: time.Minute,
		})
		require.NoError(t, err)
		reprice(3_333_333)
		reprice(1_777_777)
	})
}
