package proof

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/money"
)

// The rows below a row prove what it must be: events are below quarters, quarters below days, and both below the totals
// of their model. If the rows below have been removed, its digest alone is left to judge it by.

// verdict is what a row must be.
type verdict struct {
	want  ledger.Sums // without requests: there must be no row
	known bool        // want is what it must be
	// contested: the row contradicts the rows below it although its digest is right. Nobody can tell which of them is
	// damaged.
	contested bool
}

// pile is the sum of the rows below one.
type pile struct {
	must, are ledger.Sums // what they must add up to, and what they do
	unknown   bool        // nobody knows what one of them must be
}

func (b *pile) add(v verdict, row *row) {
	b.unknown = b.unknown || !v.known || v.contested || b.must.Merge(v.want) != nil
	if row != nil && row.unreadable == nil {
		b.unknown = b.unknown || b.are.Merge(row.Sums) != nil
	}
}

// backed reports whether the events of the whole period are there, and right.
func (d *Day) backed(p ledger.Period) bool {
	if p.Start.Before(d.Events) || p.Start.Before(d.Quarters) || d.dubious {
		return false
	}
	for at := range d.doubtful {
		if !at.Before(p.Start) && at.Before(p.End()) {
			return false
		}
	}
	return true
}

// judge calls each for every row that is or must be there, in order, and returns what all must be.
func (d *Day) judge(each func(ledger.Period, verdict)) map[ledger.Period]verdict {
	verdicts, piles := map[ledger.Period]verdict{}, map[ledger.Period]*pile{}
	on := func(p ledger.Period) *pile {
		if piles[p] == nil {
			piles[p] = new(pile)
		}
		return piles[p]
	}
	for p, s := range d.recorded {
		if d.backed(p) {
			on(p).must = *s
		}
	}
	for level := range 3 { // quarters, days, totals
		at := func(p ledger.Period) bool { return levels[p.Table()] == level }
		for p := range d.rows {
			if at(p) {
				on(p)
			}
		}
		for p, below := range maps.Clone(piles) {
			if !at(p) {
				continue
			}
			complete := []bool{d.backed(p), d.hasQuarters(), true}[level]
			if p.ByValue && d.isDaily(p) {
				complete = d.backed(p)
			}
			v := d.settle(p, below, complete)
			verdicts[p] = v
			if level < 2 && !p.ByValue {
				on(p.Total()).add(v, d.rows[p])
			}
			if level == 0 && d.hasQuarters() {
				on(p.Day()).add(v, d.rows[p])
			}
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(verdicts), ledger.ComparePeriods) {
		each(p, verdicts[p])
	}
	return verdicts
}

// levels are those of ledger.Tables: each row is judged by the rows of the levels below.
var levels = [len(ledger.Tables)]int{0, 1, 2, 2, 0, 1}

// hasQuarters reports whether the day has all of its quarters.
func (d *Day) hasQuarters() bool { return !d.Start.Before(d.Quarters) }

// settle returns what a row must be, given the rows below it. Complete says that all of these are there.
func (d *Day) settle(p ledger.Period, below *pile, complete bool) verdict {
	row, backed := d.rows[p], d.backed(p)
	sound := row != nil && row.unreadable == nil && row.digestFault(p, backed) == nil
	switch {
	case complete && !below.unknown:
		v := verdict{want: below.must, known: true}
		v.contested = sound && !row.Same(&v.want) && (v.want.Requests == 0 || !backed && !row.Same(&below.are))
		return v
	case sound:
		return verdict{want: row.Sums, known: true}
	}
	return verdict{}
}

var amountColumns = slices.Concat([]string{
	usage.FieldRequestCount, usage.FieldErrorCount, usage.FieldUnpricedCount, usage.FieldLatencyMsSum,
}, ledger.TokenColumns, ledger.SaidColumns)

// against returns the columns in which a readable row differs from what it must be.
func (row *row) against(p ledger.Period, want ledger.Sums) (wrong []Difference) {
	note := func(field, want, have string) {
		wrong = append(wrong, Difference{Kind: WrongSum, Field: field, Want: want, Have: have})
	}
	must, have := want.Amounts(), row.Amounts()
	for i, column := range amountColumns {
		if must[i] != have[i] {
			note(column, strconv.FormatInt(must[i], 10), strconv.FormatInt(have[i], 10))
		}
	}
	cost, total := want.KnownCost(), (*money.USD)(row.total)
	if !sameCost(cost, total) {
		note(usage.FieldTotalCost, dollars(cost), dollars(total))
	}
	encoded := want.Encode()
	histogram := func(field string, must, have []byte) {
		if !bytes.Equal(must, have) {
			note(field, fmt.Sprintf("%.64x", must), fmt.Sprintf("%.64x", have))
		}
	}
	if want.Full() || row.Full() {
		histogram(usage.FieldLatencyHistogram, encoded.Histogram, row.encoded.Histogram)
	}
	histogram(usage.FieldTtftHistogram, encoded.FirstTokens, row.encoded.FirstTokens)
	if !row.end.Equal(p.End()) {
		note(usage.FieldPeriodEnd, stamp(p.End()), stamp(row.end))
	}
	if average := want.AverageLatency(); cmp.Compare(average, row.average) != 0 {
		note(usage.FieldAverageLatencyMs, fmt.Sprint(average), fmt.Sprint(row.average))
	}
	return wrong
}

// digestFault returns what is wrong with a row's digest, or nil. A row whose events are there must have one.
func (row *row) digestFault(p ledger.Period, backed bool) *Difference {
	if row.digest == nil && row.encoded.Histogram == nil && !backed {
		return nil // older than digests
	}
	want, have := ledger.DigestOf(p, &row.Sums, row.encoded), "NULL"
	if row.digest != nil {
		if *row.digest == want {
			return nil
		}
		have = strconv.FormatInt(*row.digest, 10)
	}
	return &Difference{Kind: WrongDigest, Field: usage.FieldDigest, Want: strconv.FormatInt(want, 10), Have: have}
}

// compare returns the differences between a row and what it must be: mendable by writing the row anew, or left.
func (d *Day) compare(p ledger.Period, v verdict) (mendable, left []Difference) {
	row, must := d.rows[p], v.want
	wrong := d.differences(p, row, v)
	mends := len(wrong)
	if !v.known || v.contested {
		mends = 0
	}
	if !v.known && row != nil {
		must = row.Sums
	}
	if !p.IsTotal() && !p.ByValue && !d.backed(p) && must.Requests > 0 {
		if want, ok := d.plausible(p, must); !ok {
			cost := dollars(must.KnownCost())
			wrong = append(wrong, Difference{Kind: WrongCost, Field: usage.FieldTotalCost, Want: want, Have: cost})
		}
	}
	for i := range wrong {
		x := &wrong[i]
		x.Table = ledger.Tables[p.Table()].Name
		x.Model, x.Price, x.Start = p.Model, p.Price, p.Start
		if x.Key = p.Key; p.ByValue {
			x.Key, x.Value = uuid.Nil, p.Key
		}
	}
	return wrong[:mends], wrong[mends:]
}

// Differences adds all that is wrong with the day.
func (d *Day) Differences(to *Differences) {
	to.Add(d.Found...)
	verdicts := d.judge(func(p ledger.Period, v verdict) {
		mendable, left := d.compare(p, v)
		to.Add(mendable...)
		to.Add(left...)
	})
	unbalanced, _ := d.unbalanced(verdicts)
	to.Add(unbalanced...)
	to.Add(d.uncombined(verdicts)...)
	_, wrong := d.wrongDays(verdicts)
	to.Add(wrong...)
}

func (d *Day) differences(p ledger.Period, row *row, v verdict) (wrong []Difference) {
	must := v.want
	switch {
	case row == nil && v.known && must.Requests > 0:
		return []Difference{{Kind: MissingRow, Want: fmt.Sprintf("%d requests", must.Requests)}}
	case row == nil:
		return nil
	case row.unreadable != nil:
		return []Difference{{Kind: UnreadableRow, Have: row.unreadable.Error()}}
	case v.known && must.Requests == 0:
		return []Difference{{Kind: SurplusRow, Have: fmt.Sprintf("%d requests", row.Requests)}}
	case !v.known:
		must = row.Sums
	}
	wrong = row.against(p, must)
	if fault := row.digestFault(p, d.backed(p)); fault != nil {
		wrong = append(wrong, *fault)
	}
	return wrong
}

// plausible reports whether the cost of a period is within half a nano-dollar for each request of its tokens at the
// rates of its price. It also returns that cost.
func (d *Day) plausible(p ledger.Period, s ledger.Sums) (want string, ok bool) {
	price := d.prices[p.Price]
	// Unknown usage has no tokens, and needs no rates.
	if s.Unpriced > s.Unknown || s.Unpriced == s.Requests && s.Tokens == [len(s.Tokens)]int64{} {
		return "", true
	}
	if price == nil || price.ModelID != p.Model {
		return "no price of the model", false
	}
	cost, err := s.Meters().Cost(ledger.RatesOf(price))
	if err != nil {
		return err.Error(), false
	}
	// The cost of the tokens together is rounded too.
	off := max(cost-s.Cost, s.Cost-cost)
	return dollars(&cost), int64(off) <= s.Requests/2+s.Requests%2
}

// faulty returns the models that have rows with differences.
func (d *Day) faulty() map[uuid.UUID]bool {
	models := map[uuid.UUID]bool{}
	verdicts := d.judge(func(p ledger.Period, v verdict) {
		if mendable, left := d.compare(p, v); len(mendable)+len(left) > 0 {
			models[p.Model] = true
		}
	})
	if days, _ := d.wrongDays(verdicts); len(days) > 0 {
		for p := range verdicts {
			if days[ledger.ConsumerDay(p.Key, d.Start)] {
				models[p.Model] = true
			}
		}
	}
	return models
}

// stamp formats a time for differences.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// sameCost compares costs that may be unknown.
func sameCost(a, b *money.USD) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// dollars formats an amount for differences.
func dollars(usd *money.USD) string {
	if usd == nil {
		return "NULL"
	}
	return usd.String()
}

// Kind says what is wrong at a place in the ledger.
type Kind string

// The kinds of differences.
const (
	MissingRow      Kind = "missing row"
	SurplusRow      Kind = "surplus row"
	WrongSum        Kind = "wrong sum"
	WrongCost       Kind = "wrong cost"
	WrongDigest     Kind = "wrong digest"
	WrongEvent      Kind = "wrong event"
	WrongKeyCounter Kind = "wrong key counter"
	WrongValues     Kind = "wrong values"
	UnreadableRow   Kind = "unreadable row"

	WrongBudgetCounter Kind = "wrong budget counter"
	WrongPath          Kind = "wrong path"
)

// Difference is a place where the ledger is wrong. Fields that do not apply are zero.
type Difference struct {
	Kind              Kind
	Table             string
	Event             uuid.UUID
	Model, Key, Price uuid.UUID
	Value             uuid.UUID // of a dimension
	Budget, Subject   uuid.UUID
	Start             time.Time // of the period
	Field             string    // the column; empty: the row
	Want, Have        string
}

// MaxDifferences is how many differences are listed.
const MaxDifferences = 10_000

// Differences is a list of bounded length.
type Differences struct {
	List []Difference
	More int64 // beyond the listed ones
}

// Add lists differences, as far as there is room.
func (d *Differences) Add(all ...Difference) {
	n := min(len(all), MaxDifferences-len(d.List))
	d.List = append(d.List, all[:n]...)
	d.More += int64(len(all) - n)
}
