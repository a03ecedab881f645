package proof

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Day is a UTC day of the ledger as it stands.
type Day struct {
	ledger.Horizons
	Start    time.Time
	rows     map[ledger.Period]*row         // of all tables
	recorded map[ledger.Period]*ledger.Sums // quarters, and days of values that have no quarters, by the day's events
	tail     map[ledger.Period]*ledger.Sums // quarters, by the events that are not folded yet; Key is zero
	book     *dimension.Book
	values   map[uuid.UUID]uuid.UUID         // dimensions by value
	pairs    map[uuid.UUID][]uuid.UUID       // by value: what it combines, if its dimension is a composite
	folded   map[uuid.UUID]uuid.UUID         // by model: its last event that is folded
	days     map[ledger.Period]ledger.DayRow // of consumers
	doubtful map[time.Time]bool              // quarters of events that cannot be right
	dubious  bool                            // all quarters are doubtful
	Found    []Difference                    // in events, and in rows without a valid place
	prices   map[uuid.UUID]*ent.Price

	NumEvents, NumQuarters, NumDays int64
}

func (d *Day) empty() bool {
	return len(d.rows)+len(d.days) == 0 && d.NumEvents == 0 && len(d.Found) == 0
}

// row is a row of one of ledger.Tables as it stands.
type row struct {
	ledger.Sums
	id         uuid.UUID
	end        time.Time
	average    float64
	total      *int64 // total_cost
	encoded    ledger.Encoded
	digest     *int64
	unreadable error // why it cannot be read; its place is known all the same
	lost       bool  // not even its sums can be read
}

// load reads a day through a client, in the client's state.
func (l *Reader) load(ctx context.Context, client *ent.Client, start time.Time) (*Day, error) {
	h, err := ledger.ReadHorizons(ctx, client)
	if err != nil {
		return nil, err
	}
	d := &Day{
		Horizons: h, Start: start, rows: map[ledger.Period]*row{}, recorded: map[ledger.Period]*ledger.Sums{},
		doubtful: map[time.Time]bool{}, prices: l.prices, tail: map[ledger.Period]*ledger.Sums{}, values: l.values,
		pairs: l.pairs,
	}
	if d.book, err = dimension.Read(ctx, client); err != nil {
		return nil, err
	}
	for _, t := range ledger.Tables {
		if err := d.readRows(ctx, client, t, h.CompleteFrom(t, start)); err != nil {
			return nil, err
		}
	}
	if d.days, err = ledger.ReadDays(ctx, client, start); err != nil {
		return nil, err
	}
	prices := map[uuid.UUID]bool{}
	for p := range d.rows {
		if !p.IsTotal() {
			prices[p.Price] = true
		}
	}
	if err := l.learnPrices(ctx, client, prices); err != nil {
		return nil, err
	}
	if err := l.learnValues(ctx, client, d); err != nil {
		return nil, err
	}
	if err := l.readLate(ctx, client, d); err != nil {
		return nil, err
	}
	return d, l.readEvents(ctx, client, d)
}

// rowsSQL reads a table's rows that begin in a range.
func rowsSQL(t *ledger.Table) string {
	place := "t.model_id, "
	switch {
	case t.ByValue:
		place += "t.value_id, t.price_id, "
	case !t.Totals:
		place += "t.api_key_id, t.price_id, "
	}
	// SQLite reads the left side of a CROSS JOIN first.
	return "SELECT t.id, " + place + "t.period_start, t.period_end, t.average_latency_ms, t.digest, t." +
		strings.Join(ledger.SumColumns, ", t.") + " FROM models AS m CROSS JOIN " + t.Name +
		" AS t WHERE t.model_id = m.id AND t.period_start >= $1 AND t.period_start < $2"
}

// loose is a cell that scans any value.
type loose[T any] struct {
	value sql.Null[T]
	err   error // why it is not a T
}

// Scan implements sql.Scanner.
func (c *loose[T]) Scan(cell any) error {
	c.err = c.value.Scan(cell)
	return nil
}

func (d *Day) readRows(ctx context.Context, client *ent.Client, t *ledger.Table, from time.Time) error {
	return bulk.Scan(ctx, client, rowsSQL(t), []any{from, d.Start.Add(utc.Day)}, func(scan func(...any) error) error {
		p, row := ledger.Period{Grain: t.Grain, ByValue: t.ByValue}, new(row)
		place := []any{&row.id, &p.Model}
		if !t.Totals {
			place = append(place, &p.Key, &p.Price)
		}
		var end loose[time.Time]
		var average loose[float64]
		var digest loose[int64]
		cells := ledger.NewCells(append(place, &p.Start, &end, &average, &digest)...)
		row.unreadable = scan(cells.Addresses...)
		if row.unreadable == nil {
			row.Sums, row.unreadable = cells.Read()
		}
		row.lost = row.unreadable != nil
		row.unreadable = cmp.Or(row.unreadable, end.err, average.err, digest.err)
		p.Start, row.end, row.average = utc.Of(p.Start), utc.Of(end.value.V), average.value.V
		row.total, row.encoded = cells.Total, cells.Encoded
		if digest.value.Valid {
			row.digest = &digest.value.V
		}
		if p.Start.Before(from) { // not even the start could be read
			d.Found = append(d.Found, Difference{
				Kind: UnreadableRow, Table: t.Name, Model: p.Model, Start: d.Start, Have: row.unreadable.Error(),
			})
			return nil
		}
		d.rows[p] = row
		switch {
		case t.Totals, t.ByValue:
		case t.Grain == ledger.DayGrain:
			d.NumDays++
		default:
			d.NumQuarters++
		}
		return nil
	})
}

// page is how many events are read at once.
const page = 4096

// readEvents reads the events of a day from their horizon on.
func (l *Reader) readEvents(ctx context.Context, client *ent.Client, d *Day) error {
	from, end := utc.Max(d.Start, d.Events), d.Start.Add(utc.Day)
	if !from.Before(end) {
		return nil
	}
	events, errs := make([]ledger.Event, 0, page), make([]error, 0, page)
	for after := ledger.FirstEventID(from); ; { // no event has this id
		events, errs = events[:0], errs[:0]
		err := ledger.ReadEvents(ctx, client, uuid.Nil, after, ledger.FirstEventID(end), page,
			func(e ledger.Event, err error) error {
				events, errs = append(events, e), append(errs, err)
				return nil
			})
		if err != nil {
			return err
		}
		if err := l.learn(ctx, client, events); err != nil {
			return err
		}
		if err := d.book.Learn(ctx, client, nil, events); err != nil {
			return err
		}
		before := after
		for i := range events {
			l.addEvent(d, &events[i], errs[i])
			if id := events[i].ID; id != uuid.Nil {
				after = id
			}
		}
		if len(events) < page || after == before {
			return nil
		}
	}
}

// learn reads the prices, models and keys of events, as far as they are unknown.
func (l *Reader) learn(ctx context.Context, client *ent.Client, events []ledger.Event) error {
	prices, models, keys := map[uuid.UUID]bool{}, map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	for i := range events {
		prices[events[i].Price] = true
		models[events[i].Model] = true
		keys[events[i].Key] = true
	}
	if err := l.learnPrices(ctx, client, prices); err != nil {
		return err
	}
	for _, table := range []struct {
		name string
		ids  map[uuid.UUID]bool
		to   map[uuid.UUID]uuid.UUID
	}{{model.Table, models, l.models}, {apikey.Table, keys, l.keys}} {
		query := "SELECT id, provider_id FROM " + table.name + " WHERE id IN %s"
		unknown := bulk.Unknown(table.ids, table.to)
		err := bulk.ScanIn(ctx, client, query, unknown, func(scan func(...any) error) error {
			var id, provider uuid.UUID
			err := scan(&id, &provider)
			table.to[id] = provider
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Reader) learnPrices(ctx context.Context, client *ent.Client, ids map[uuid.UUID]bool) error {
	const query = "SELECT p.id, p.model_id, " + ledger.RateColumns + " FROM prices AS p WHERE p.id IN %s"
	return bulk.ScanIn(ctx, client, query, bulk.Unknown(ids, l.prices), func(scan func(...any) error) error {
		p := new(ent.Price)
		if err := scan(append([]any{&p.ID, &p.ModelID}, ledger.RateCells(p)...)...); err != nil {
			return err
		}
		l.prices[p.ID] = p
		return nil
	})
}

// addEvent adds an event to its quarter. An event that cannot be right makes its quarter doubtful.
func (l *Reader) addEvent(d *Day, e *ledger.Event, unreadable error) {
	d.NumEvents++
	if e.ID == uuid.Nil {
		d.dubious = true
	}
	wrong := l.judgeEvent(e, unreadable)
	if wrong == nil {
		e.At = utc.Of(e.At)
		err := errors.Join(merge(d.recorded, e.Quarter(), e), l.addValues(d, e))
		if err == nil {
			return
		}
		wrong = &Difference{Kind: WrongSum, Have: err.Error()}
	}
	for _, at := range []time.Time{ledger.EventTime(e.ID), e.At} {
		d.doubtful[utc.Of(at).Truncate(utc.Quarter)] = true
	}
	wrong.Table, wrong.Event, wrong.Model, wrong.Key, wrong.Price = usageevent.Table, e.ID, e.Model, e.Key, e.Price
	wrong.Start = ledger.EventTime(e.ID).Truncate(utc.Quarter)
	d.Found = append(d.Found, *wrong)
}

func merge(to map[ledger.Period]*ledger.Sums, p ledger.Period, e *ledger.Event) error {
	s := to[p]
	if s == nil {
		s = new(ledger.Sums)
		to[p] = s
	}
	return s.Merge(e.Sums())
}

// judgeEvent returns what is wrong with an event, nil for nothing.
func (l *Reader) judgeEvent(e *ledger.Event, unreadable error) *Difference {
	price := l.prices[e.Price]
	switch {
	case unreadable != nil:
		return &Difference{Kind: UnreadableRow, Have: unreadable.Error()}
	case !e.At.Equal(ledger.EventTime(e.ID)):
		return &Difference{
			Kind: WrongEvent, Field: usageevent.FieldAt, Want: stamp(ledger.EventTime(e.ID)), Have: stamp(e.At),
		}
	case l.models[e.Model] == uuid.Nil:
		return &Difference{Kind: WrongEvent, Field: usageevent.FieldModelID, Have: e.Model.String()}
	case l.keys[e.Key] != l.models[e.Model]:
		return &Difference{Kind: WrongEvent, Field: usageevent.FieldAPIKeyID, Have: e.Key.String()}
	case price == nil || price.ModelID != e.Model:
		return &Difference{Kind: WrongEvent, Field: usageevent.FieldPriceID, Have: e.Price.String()}
	}
	cost, err := e.CostAt(price)
	switch {
	case err != nil:
		return &Difference{Kind: WrongCost, Field: usageevent.FieldCost, Want: err.Error(), Have: dollars(e.Cost)}
	case !sameCost(cost, e.Cost):
		return &Difference{Kind: WrongCost, Field: usageevent.FieldCost, Want: dollars(cost), Have: dollars(e.Cost)}
	}
	return nil
}
