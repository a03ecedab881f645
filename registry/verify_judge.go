package registry

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
	"github.com/jeffersonwarrior/modelscan/money"
)

// What a row must be is proven by what is below it: events are below quarters, quarters below days, and both
// below the totals of their model. Where nothing is below it any more, its digest is what there is.

// verdict is what a row must be.
type verdict struct {
	want  sums // without requests: there must be no row
	known bool // want is what it must be
	// contested says that the row contradicts what is below it although its digest is right: nobody can tell
	// which of them is damaged.
	contested bool
}

// pile is the sum of the rows below one.
type pile struct {
	must, are sums // what they must amount to, and what they do
	unknown   bool // what one of them must be is not known
}

func (b *pile) add(v verdict, row *ledgerRow) {
	b.unknown = b.unknown || !v.known || v.contested || b.must.merge(v.want) != nil
	if row != nil && row.unreadable == nil {
		b.unknown = b.unknown || b.are.merge(row.sums) != nil
	}
}

// backed tells whether there are the events of all that a period says.
func (d *ledgerDay) backed(p period) bool {
	if p.start.Before(d.events) || p.start.Before(d.quarters) || d.dubious {
		return false
	}
	for at := range d.doubtful {
		if !at.Before(p.start) && at.Before(p.end()) {
			return false
		}
	}
	return true
}

// judge calls each for all rows that there are or must be, in their order.
func (d *ledgerDay) judge(each func(period, verdict)) {
	verdicts, piles := map[period]verdict{}, map[period]*pile{}
	on := func(p period) *pile {
		if piles[p] == nil {
			piles[p] = new(pile)
		}
		return piles[p]
	}
	rows := func(of func(period) bool) {
		for p := range d.rows {
			if of(p) {
				on(p)
			}
		}
	}
	for p, s := range d.recorded {
		if d.backed(p) {
			on(p).must = *s
		}
	}
	rows(func(p period) bool { return !p.isTotal() && p.grain == grainQuarter })
	for p, below := range maps.Clone(piles) {
		v := d.settle(p, below, d.backed(p))
		verdicts[p] = v
		on(p.total()).add(v, d.rows[p])
		if d.hasQuarters() {
			on(period{p.model, p.key, p.price, grainDay, d.start}).add(v, d.rows[p])
		}
	}
	rows(func(p period) bool { return !p.isTotal() && p.grain == grainDay })
	for p, below := range maps.Clone(piles) {
		if p.isTotal() || p.grain == grainQuarter {
			continue
		}
		v := d.settle(p, below, d.hasQuarters())
		verdicts[p] = v
		on(p.total()).add(v, d.rows[p])
	}
	rows(period.isTotal)
	for p, below := range piles {
		if p.isTotal() {
			verdicts[p] = d.settle(p, below, true)
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(verdicts), comparePeriods) {
		each(p, verdicts[p])
	}
}

// hasQuarters tells whether the day has all of its quarters.
func (d *ledgerDay) hasQuarters() bool { return !d.start.Before(d.quarters) }

// settle returns what a row must be, given what is below it, if that is all there.
func (d *ledgerDay) settle(p period, below *pile, complete bool) verdict {
	row, backed := d.rows[p], d.backed(p)
	sound := row != nil && row.unreadable == nil && row.digestFault(p, backed) == nil
	switch {
	case complete && !below.unknown:
		v := verdict{want: below.must, known: true}
		v.contested = sound && !row.same(&v.want) && (v.want.requests == 0 || !backed && !row.same(&below.are))
		return v
	case sound:
		return verdict{want: row.sums, known: true}
	case row != nil && !p.isTotal():
		return d.rest(p, row)
	}
	return verdict{}
}

// rest returns what the total of a model leaves for a damaged row beside the others, if that has the row's
// digest: then it is what was damaged.
func (d *ledgerDay) rest(p period, row *ledgerRow) verdict {
	total := d.rows[p.total()]
	if row.digest == nil || total == nil || total.unreadable != nil {
		return verdict{}
	}
	left := total.sums
	left.histogram = left.histogram.Clone()
	for q, other := range d.rows {
		if q == p || q.isTotal() || q.total() != p.total() {
			continue
		}
		if other.unreadable != nil || !left.subtract(other.sums) {
			return verdict{}
		}
	}
	return verdict{want: left, known: digestOf(p, &left, left.histogram.AppendBinary(nil)) == *row.digest}
}

// subtract takes other sums away, if they are part of these.
func (s *sums) subtract(o sums) bool {
	fits := s.histogram.Subtract(o.histogram) == nil
	take := func(from *int64, n int64) {
		*from -= n
		fits = fits && *from >= 0
	}
	take(&s.requests, o.requests)
	take(&s.errors, o.errors)
	take(&s.unpriced, o.unpriced)
	take(&s.latency, o.latency)
	for i, n := range o.tokens {
		take(&s.tokens[i], n)
	}
	take((*int64)(&s.cost), int64(o.cost))
	return fits
}

// amounts are the columns of sums that are whole numbers, by amountColumns.
func (s *sums) amounts() [9]int64 {
	return [9]int64{
		s.requests, s.errors, s.unpriced, s.latency,
		s.tokens[0], s.tokens[1], s.tokens[2], s.tokens[3], s.tokens[4],
	}
}

var amountColumns = append([]string{
	usage.FieldRequestCount, usage.FieldErrorCount, usage.FieldUnpricedCount, usage.FieldLatencyMsSum,
}, tokenColumns...)

// full tells whether the histogram has all requests: those from before histograms were kept are not in it.
func (s *sums) full() bool { return s.histogram.Count() == s.requests }

// same tells whether two sums are the same, but for histograms that are not full.
func (s *sums) same(o *sums) bool {
	return s.amounts() == o.amounts() && s.cost == o.cost &&
		(!s.full() && !o.full() || bytes.Equal(s.histogram.AppendBinary(nil), o.histogram.AppendBinary(nil)))
}

// against returns the columns in which a row that can be read is not what it must be.
func (row *ledgerRow) against(want sums) (wrong []Difference) {
	note := func(field, want, have string) {
		wrong = append(wrong, Difference{Kind: WrongSum, Field: field, Want: want, Have: have})
	}
	must, have := want.amounts(), row.amounts()
	for i, column := range amountColumns {
		if must[i] != have[i] {
			note(column, strconv.FormatInt(must[i], 10), strconv.FormatInt(have[i], 10))
		}
	}
	cost, total := want.knownCost(), (*money.USD)(row.total)
	if (cost == nil) != (total == nil) || value(cost) != value(total) {
		note(usage.FieldTotalCost, dollars(cost), dollars(total))
	}
	if want.full() || row.full() {
		if must := want.histogram.AppendBinary(nil); !bytes.Equal(must, row.encoded) {
			note(usage.FieldLatencyHistogram, fmt.Sprintf("%.64x", must), fmt.Sprintf("%.64x", row.encoded))
		}
	}
	return wrong
}

// digestFault returns what is wrong with a row's digest, nil for nothing. Where there are events, there is a
// digest.
func (row *ledgerRow) digestFault(p period, backed bool) *Difference {
	if row.digest == nil && row.encoded == nil && !backed {
		return nil // from before there were any
	}
	want, have := digestOf(p, &row.sums, row.encoded), "NULL"
	if row.digest != nil {
		if *row.digest == want {
			return nil
		}
		have = strconv.FormatInt(*row.digest, 10)
	}
	return &Difference{Kind: WrongDigest, Field: usage.FieldDigest, Want: strconv.FormatInt(want, 10), Have: have}
}

// compare returns the differences between a row and what it must be: those that are mended by writing it
// anew, and those that are left.
func (d *ledgerDay) compare(p period, v verdict) (mendable, left []Difference) {
	row := d.rows[p]
	wrong := d.differences(p, row, v)
	for i := range wrong {
		d.place(&wrong[i], p)
	}
	if v.known && !v.contested {
		mendable = wrong
	} else {
		left = wrong
	}
	must := v.want
	if !v.known && row != nil {
		must = row.sums
	}
	if p.isTotal() || d.backed(p) || must.requests == 0 {
		return mendable, left
	}
	if want, ok := d.plausible(p, must); !ok {
		implausible := Difference{Kind: WrongCost, Field: usage.FieldTotalCost, Want: want, Have: dollars(must.knownCost())}
		d.place(&implausible, p)
		left = append(left, implausible)
	}
	return mendable, left
}

// place says in which row a difference is.
func (*ledgerDay) place(x *Difference, p period) {
	x.Table = ledgerTables[p.table()].name
	x.ModelID, x.APIKeyID, x.PriceID, x.PeriodStart = p.model, p.key, p.price, p.start
}

func (d *ledgerDay) differences(p period, row *ledgerRow, v verdict) (wrong []Difference) {
	must := v.want
	switch {
	case row == nil && v.known && must.requests > 0:
		return []Difference{{Kind: MissingRow, Want: fmt.Sprintf("%d requests", must.requests)}}
	case row == nil:
		return nil
	case row.unreadable != nil:
		return []Difference{{Kind: UnreadableRow, Have: row.unreadable.Error()}}
	case v.known && must.requests == 0:
		return []Difference{{Kind: SurplusRow, Have: fmt.Sprintf("%d requests", row.requests)}}
	case !v.known:
		must = row.sums
	}
	wrong = row.against(must)
	if !row.end.Equal(p.end()) {
		wrong = append(wrong, Difference{Kind: WrongSum, Field: usage.FieldPeriodEnd, Want: stamp(p.end()), Have: stamp(row.end)})
	}
	if average := must.averageLatency(); cmp.Compare(average, row.average) != 0 {
		wrong = append(wrong, Difference{
			Kind: WrongSum, Field: usage.FieldAverageLatencyMs, Want: fmt.Sprint(average), Have: fmt.Sprint(row.average),
		})
	}
	if fault := row.digestFault(p, d.backed(p)); fault != nil {
		wrong = append(wrong, *fault)
	}
	return wrong
}

// plausible tells whether the cost of a period's requests is within half a nano-dollar each of their tokens
// at the rates of its price, and if not, what those come to.
func (d *ledgerDay) plausible(p period, s sums) (want string, ok bool) {
	price := d.prices[p.price]
	if s.unpriced > 0 {
		return "", true
	}
	if price == nil || price.ModelID != p.model {
		return "no price of the model", false
	}
	cost, err := s.meters().Cost(RatesOf(price))
	if err != nil {
		return err.Error(), false
	}
	// The cost of the tokens together is rounded too.
	off := max(cost-s.cost, s.cost-cost)
	return dollars(&cost), int64(off) <= s.requests/2+s.requests%2
}

// faulty returns the models that have rows with differences.
func (d *ledgerDay) faulty() (models []uuid.UUID) {
	seen := map[uuid.UUID]bool{}
	d.judge(func(p period, v verdict) {
		mendable, left := d.compare(p, v)
		if len(mendable)+len(left) > 0 && !seen[p.model] {
			seen[p.model] = true
			models = append(models, p.model)
		}
	})
	return models
}

// stamp returns a time as differences have it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// dollars returns an amount as differences have it.
func dollars(usd *money.USD) string {
	if usd == nil {
		return "NULL"
	}
	return usd.String()
}
