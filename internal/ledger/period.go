// Package ledger has the periods of usage: how they are named, added up, read and written; and the ids and partitions
// of events. A period is read, changed in memory and written as a whole, because histograms cannot be added in SQL and
// a digest covers all columns. Keep others from changing it meanwhile: see LockModels.
package ledger

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Grain is the length of a period. Each grain has its own tables, and is part of the digests of their rows.
type Grain string

// The grains.
const (
	QuarterGrain Grain = "quarter" // of an hour
	DayGrain     Grain = "day"     // of UTC
)

// Period names a row of usage_quarters or usage_tracking; or, without key and price, one of their totals; or, by value,
// a row of usage_by_value or its quarters. Without a model it names a row of consumer_days: see ConsumerDay.
type Period struct {
	Model, Key, Price uuid.UUID // by value, Key is the value of a dimension
	Grain             Grain
	Start             time.Time
	ByValue           bool
}

// QuarterOf returns the quarter of an hour in which a request is counted.
func QuarterOf(model, key, price uuid.UUID, at time.Time) Period {
	return Period{Model: model, Key: key, Price: price, Grain: QuarterGrain, Start: at.Truncate(utc.Quarter)}
}

// Under returns the period of a value in which the usage of this one is counted.
func (p Period) Under(value uuid.UUID) Period {
	p.Key, p.ByValue = value, true
	return p
}

// IsTotal reports whether the period sums up all keys and prices of a model.
func (p Period) IsTotal() bool { return p.Key == uuid.Nil }

// Table returns the index of the period's table among Tables.
func (p Period) Table() (i int) {
	if p.Grain == DayGrain {
		i++
	}
	switch {
	case p.IsTotal():
		i += 2
	case p.ByValue:
		i += 4
	}
	return i
}

// Total returns the model's period that includes this one.
func (p Period) Total() Period { return Period{Model: p.Model, Grain: p.Grain, Start: p.Start} }

// End returns the first instant after the period.
func (p Period) End() time.Time {
	if p.Grain == DayGrain {
		return p.Start.Add(utc.Day)
	}
	return p.Start.Add(utc.Quarter)
}

// ComparePeriods orders periods.
func ComparePeriods(a, b Period) int {
	return cmp.Or(bytes.Compare(a.Model[:], b.Model[:]), bytes.Compare(a.Key[:], b.Key[:]),
		bytes.Compare(a.Price[:], b.Price[:]), cmp.Compare(b.Grain, a.Grain), a.Start.Compare(b.Start))
}

// Sorted returns the periods in the order in which they are written.
func Sorted(all map[Period]Sums) []Period {
	sorted := slices.AppendSeq(make([]Period, 0, len(all)), maps.Keys(all))
	slices.SortFunc(sorted, ComparePeriods)
	return sorted
}

// Horizons says from when on the parts of the ledger are complete. Earlier rows are being removed.
type Horizons struct{ Events, Quarters time.Time }

// The parts that have a horizon.
const (
	EventsPart   = "events"
	QuartersPart = "quarters"
)

// Equal compares horizons.
func (h Horizons) Equal(o Horizons) bool {
	return h.Events.Equal(o.Events) && h.Quarters.Equal(o.Quarters)
}

// CompleteFrom returns the instant from which on a table has all of its periods, or from if that is later.
func (h Horizons) CompleteFrom(t *Table, from time.Time) time.Time {
	if t.Grain == QuarterGrain {
		return utc.Max(h.Quarters, from)
	}
	return from
}

// ConsumerDay returns the day of a consumer, at all models and prices. It is for AddTo and RecountDays alone, and in
// none of Tables.
func ConsumerDay(consumer uuid.UUID, day time.Time) Period {
	return Period{Key: consumer, Grain: DayGrain, Start: day, ByValue: true}
}

// Place names a row by its table's unique columns: the price implies the model.
func (p Period) Place() Period {
	if !p.IsTotal() {
		p.Model = uuid.Nil
	}
	return p
}

// Day returns the UTC day of a quarter.
func (p Period) Day() Period {
	p.Grain, p.Start = DayGrain, utc.StartOfDay(p.Start)
	return p
}

// Widen rounds the bound of a range to a quarter of an hour, or to a day where no quarters are left.
func (h Horizons) Widen(t time.Time, round func(time.Time, time.Duration) time.Time) time.Time {
	if t.Before(h.Quarters) {
		return round(t, utc.Day)
	}
	return round(t, utc.Quarter)
}
