package proof

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/google/uuid"

	entdimension "github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
)

// partOf names a value of a composite's part in a period.
type partOf struct {
	ledger.Period // the value is its Key

	composite, part *dimension.Dimension
}

// combination is what a value of a part has by itself, and in all combinations with others.
type combination struct {
	alone, combined ledger.Sums
	unknown         bool
}

// uncombined returns the periods in which a composite's values with one value of a part do not add up to what this
// value has by itself. What costs depend on is left out: without events Reprice prices each row by itself.
func (d *Day) uncombined(verdicts map[ledger.Period]verdict) (wrong []Difference) {
	all, full := map[partOf]*combination{}, map[partOf]bool{}
	add := func(at partOf, v verdict, to func(c *combination) *ledger.Sums) {
		at.Price = uuid.Nil
		c := all[at]
		if c == nil {
			c = new(combination)
			all[at] = c
		}
		c.unknown = c.unknown || !v.known || v.contested || to(c).Merge(v.want) != nil
	}
	for p, v := range verdicts {
		if !p.ByValue {
			continue
		}
		of := d.values[p.Key]
		for _, c := range d.book.All {
			if c.Kind != entdimension.KindComposite || !d.counts(c, p) {
				continue
			}
			ids, known := d.pairs[p.Key]
			if c.ID == of && (!known || len(ids) != len(c.Parts)) { // there was no room for some combinations
				full[whole(p, c)] = true
				continue
			}
			for i, name := range c.Parts {
				part := d.book.Named(name)
				at := partOf{p, c, part}
				switch {
				case part == nil || !d.counts(part, p):
				case of == c.ID:
					at.Key = ids[i]
					add(at, v, func(c *combination) *ledger.Sums { return &c.combined })
				case of == part.ID:
					add(at, v, func(c *combination) *ledger.Sums { return &c.alone })
				}
			}
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(all), compareParts) {
		c := all[at]
		if c.unknown || full[whole(at.Period, at.composite)] || used(&c.alone) == used(&c.combined) {
			continue
		}
		wrong = append(wrong, Difference{
			Kind: WrongValues, Table: ledger.Tables[at.Table()].Name, Model: at.Model, Value: at.Key, Start: at.Start,
			Field: usage.FieldRequestCount, Want: strconv.FormatInt(c.alone.Requests, 10),
			Have: fmt.Sprintf("%d in dimension %q", c.combined.Requests, at.composite.Name),
		})
	}
	return wrong
}

// whole names a composite in a period.
func whole(p ledger.Period, composite *dimension.Dimension) partOf {
	p.Key, p.Price = uuid.Nil, uuid.Nil
	return partOf{Period: p, composite: composite}
}

// used returns the amounts that do not depend on prices.
func used(s *ledger.Sums) (all [13]int64) {
	n := copy(all[:], []int64{
		s.Requests, s.Errors, s.Latency, s.Estimated, s.Unknown, s.Retries, s.ProviderCosts, s.FirstToken,
	})
	copy(all[n:], s.Tokens[:])
	return all
}

func compareParts(a, b partOf) int {
	return cmp.Or(ledger.ComparePeriods(a.Period, b.Period), cmp.Compare(a.composite.Name, b.composite.Name),
		cmp.Compare(a.part.Name, b.part.Name))
}
