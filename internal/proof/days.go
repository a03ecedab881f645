package proof

import (
	"maps"
	"slices"
	"strconv"

	"github.com/jeffersonwarrior/modelscan/ent/consumerday"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
)

// wrongDays returns the days of consumers that differ from the sum of what the consumer's rows by model must be, and
// what is wrong with them. It passes over days of which some row cannot be proven.
func (d *Day) wrongDays(verdicts map[ledger.Period]verdict) (days map[ledger.Period]bool, wrong []Difference) {
	must, unknown := map[ledger.Period]budget.Amount{}, map[ledger.Period]bool{}
	for p, v := range verdicts {
		if !p.ByValue || p.Grain != ledger.DayGrain || d.values[p.Key] != dimension.ConsumerID ||
			p.Key == dimension.UnassignedID || p.Key == dimension.OtherID {
			continue
		}
		day := ledger.ConsumerDay(p.Key, p.Start)
		must[day] = must[day].Plus(v.want.Amount())
		unknown[day] = unknown[day] || !v.known || v.contested
	}
	for day := range d.days {
		must[day] = must[day].Plus(budget.Amount{})
	}
	days = map[ledger.Period]bool{}
	for _, day := range slices.SortedFunc(maps.Keys(must), ledger.ComparePeriods) {
		row, want := d.days[day], must[day]
		if unknown[day] || row.Unreadable == nil && row.Amount == want {
			continue
		}
		days[day] = true
		x := Difference{Kind: WrongSum, Table: consumerday.Table, Subject: day.Key, Start: day.Start}
		if row.Unreadable != nil {
			x.Kind, x.Have = UnreadableRow, row.Unreadable.Error()
			wrong = append(wrong, x)
			continue
		}
		wrong = append(wrong, AmountDifferences(x, want, row.Amount)...)
	}
	return days, wrong
}

// AmountDifferences returns a difference for each number in which an amount is not what it must be.
func AmountDifferences(of Difference, want, have budget.Amount) (all []Difference) {
	must, is := want.Numbers(), have.Numbers()
	for i, field := range ledger.Amounts {
		if must[i] != is[i] {
			of.Field, of.Want, of.Have = field, strconv.FormatInt(must[i], 10), strconv.FormatInt(is[i], 10)
			all = append(all, of)
		}
	}
	return all
}
