package proof

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	entdimension "github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Rows by value are judged as those by key are: their quarters by the events that are folded, and their days by their
// quarters. Beside that, the values of a dimension together have what the keys have, but for the events that are not
// folded yet.

// learnValues reads the dimensions of the values in a day's rows, and how far each model is folded.
func (l *Reader) learnValues(ctx context.Context, client *ent.Client, d *Day) error {
	d.folded = map[uuid.UUID]uuid.UUID{}
	if len(d.book.All) == 0 {
		return nil
	}
	values := map[uuid.UUID]bool{}
	for p := range d.rows {
		if p.ByValue {
			values[p.Key] = true
		}
	}
	composites := map[uuid.UUID]bool{}
	for _, of := range d.book.All {
		composites[of.ID] = of.Kind == entdimension.KindComposite
	}
	err := bulk.ScanIn(ctx, client, "SELECT id, dimension_id, name FROM dimension_values WHERE id IN %s",
		bulk.Unknown(values, l.pairs), func(scan func(...any) error) error {
			var id, of uuid.UUID
			var name string
			err := scan(&id, &of, &name)
			l.values[id], l.pairs[id] = of, nil
			if composites[of] {
				l.pairs[id] = idsOf(name)
			}
			return err
		})
	if err != nil {
		return err
	}
	const marks = "SELECT m.id, " + ledger.FoldedTo + " FROM " + ledger.ModelsFolded
	return bulk.Scan(ctx, client, marks, nil, func(scan func(...any) error) error {
		var id, to uuid.UUID
		err := scan(&id, &to)
		d.folded[id] = to
		return err
	})
}

// idsOf returns the values that a composite's value combines, or nil: the name is another one's, or damaged.
func idsOf(name string) (ids []uuid.UUID) {
	texts, err := dimension.TextsOf(name)
	if err != nil {
		return nil
	}
	for _, text := range texts {
		id, err := uuid.Parse(text)
		if err != nil {
			return nil
		}
		ids = append(ids, id)
	}
	return ids
}

// addValues adds an event to the quarters of its values, or to the tail.
func (l *Reader) addValues(d *Day, e *ledger.Event) error {
	values, err := d.book.Of(e, nil)
	if err != nil {
		return err
	}
	quarter := e.Quarter()
	if !e.IsFolded(d.folded[e.Model]) {
		quarter.Key = uuid.Nil
		return merge(d.tail, quarter, e)
	}
	for _, v := range values {
		l.values[v.Value] = v.ID
		if err := merge(d.recorded, v.Periods(quarter)[0], e); err != nil {
			return err
		}
	}
	return nil
}

// readLate adds to the tail what was recorded late, for a time before the events' horizon, and is not folded yet. Prune
// folds it before it removes it. Of the events before the horizon, those of the tail are all there.
func (l *Reader) readLate(ctx context.Context, client *ent.Client, d *Day) error {
	until := utc.Min(d.Start.Add(utc.Day), d.Events)
	if len(d.book.All) == 0 || !d.Start.Before(until) {
		return nil
	}
	return ledger.ReadTail(ctx, client, l.db.Dialect(), ledger.Query{}, ledger.FirstEventID(d.Start),
		ledger.FirstEventID(until), func(e ledger.Event, err error) error {
			if err != nil { // it cannot be read
				return nil //nolint:nilerr // the values do not add up then
			}
			e.At = utc.Of(e.At)
			quarter := e.Quarter()
			quarter.Key = uuid.Nil
			return merge(d.tail, quarter, &e)
		})
}

// isDaily reports whether a value's dimension has days alone.
func (d *Day) isDaily(p ledger.Period) bool {
	for _, of := range d.book.All {
		if of.ID == d.values[p.Key] {
			return of.DaysOnly
		}
	}
	return false
}

// balance is a model's usage in a period, by keys and by the values of a dimension; at all prices together, because
// Reprice cannot tell whose requests had a price once the events are gone.
type balance struct {
	keys, values ledger.Sums
	unknown      bool
}

type balanceOf struct {
	ledger.Period

	dimension *dimension.Dimension
}

// unbalanced returns the periods in which the values of a dimension do not add up to what the keys have, and whether
// one of the dimensions is that of consumers.
func (d *Day) unbalanced(verdicts map[ledger.Period]verdict) (wrong []Difference, consumers bool) {
	all := map[balanceOf]*balance{}
	on := func(p ledger.Period, of *dimension.Dimension) *balance {
		p.Key, p.Price, p.ByValue = uuid.Nil, uuid.Nil, false
		at := balanceOf{p, of}
		if all[at] == nil {
			all[at] = new(balance)
		}
		return all[at]
	}
	for p, v := range verdicts {
		for _, of := range d.book.All {
			if p.IsTotal() || p.ByValue && d.values[p.Key] != of.ID || !d.counts(of, p) {
				continue
			}
			b := on(p, of)
			to := &b.keys
			if p.ByValue {
				to = &b.values
			}
			b.unknown = b.unknown || !v.known || v.contested || to.Merge(v.want) != nil
		}
	}
	for p, s := range d.tail {
		for _, of := range d.book.All {
			for _, q := range []ledger.Period{p, p.Day()} {
				if d.counts(of, q) {
					b := on(q, of)
					b.unknown = b.unknown || b.values.Merge(*s) != nil
				}
			}
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(all), compareBalances) {
		b := all[at]
		if b.unknown || b.keys.Amounts() == b.values.Amounts() && b.keys.Cost == b.values.Cost {
			continue
		}
		consumers = consumers || at.dimension.ID == dimension.ConsumerID
		field, want, have := usage.FieldRequestCount, strconv.FormatInt(b.keys.Requests, 10),
			strconv.FormatInt(b.values.Requests, 10)
		if b.keys.Cost != b.values.Cost {
			field, want, have = usage.FieldTotalCost, dollars(&b.keys.Cost), dollars(&b.values.Cost)
		}
		wrong = append(wrong, Difference{
			Kind: WrongValues, Table: ledger.Tables[at.Under(at.dimension.ID).Table()].Name, Model: at.Model,
			Start: at.Start, Field: field, Want: want, Have: fmt.Sprintf("%s in dimension %q", have, at.dimension.Name),
		})
	}
	return wrong, consumers
}

func compareBalances(a, b balanceOf) int {
	return cmp.Or(ledger.ComparePeriods(a.Period, b.Period), cmp.Compare(a.dimension.Name, b.dimension.Name))
}

// counts reports whether a dimension counts the whole of a period, and has periods of its grain.
func (d *Day) counts(of *dimension.Dimension, p ledger.Period) bool {
	ahead := of.Retired == nil || !of.Retired.Before(p.End())
	return ahead && !p.Start.Before(of.Since) && (p.Grain == ledger.DayGrain || !of.DaysOnly) &&
		(p.Grain == ledger.DayGrain || !p.Start.Before(d.Quarters))
}
