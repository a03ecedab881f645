package registry

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// ledgerDay is a UTC day of the ledger as it stands.
type ledgerDay struct {
	ledger.Horizons
	start    time.Time
	rows     map[ledger.Period]*ledgerRow   // of all tables
	recorded map[ledger.Period]*ledger.Sums // quarters, by the events of the day
	doubtful map[time.Time]bool             // quarters of events that cannot be right
	dubious  bool                           // all quarters are doubtful
	found    []Difference                   // of events, and of rows that have no place
	prices   map[uuid.UUID]*ent.Price

	numEvents, numQuarters, numDays int64
}

func (d *ledgerDay) empty() bool { return len(d.rows) == 0 && d.numEvents == 0 && len(d.found) == 0 }

// ledgerRow is a row of one of ledger.Tables as it stands.
type ledgerRow struct {
	ledger.Sums
	id         uuid.UUID
	end        time.Time
	average    float64
	total      *int64 // total_cost
	encoded    []byte // latency_histogram
	digest     *int64
	unreadable error // why it cannot be read; the place of a row is known even so
	lost       bool  // not even its sums can be read
}

// load reads a day in the state that a client sees.
func (l *ledgerReader) load(ctx context.Context, client *ent.Client, start time.Time) (*ledgerDay, error) {
	h, err := ledger.ReadHorizons(ctx, client)
	if err != nil {
		return nil, err
	}
	d := &ledgerDay{
		Horizons: h, start: start, rows: map[ledger.Period]*ledgerRow{}, recorded: map[ledger.Period]*ledger.Sums{},
		doubtful: map[time.Time]bool{}, prices: l.prices,
	}
	for _, t := range ledger.Tables {
		if err := d.readRows(ctx, client, t, h.CompleteFrom(t, start)); err != nil {
			return nil, err
		}
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
	return d, l.readEvents(ctx, client, d)
}

// ledgerRowsSQL reads a table's rows that begin in a range.
func ledgerRowsSQL(t *ledger.Table) string {
	place := "t.model_id, "
	if !t.Totals {
		place += "t.api_key_id, t.price_id, "
	}
	// SQLite reads the left side of a CROSS JOIN first.
	return "SELECT t.id, " + place + "t.period_start, t.period_end, t.average_latency_ms, t.digest, t." + strings.Join(ledger.SumColumns, ", t.") +
		" FROM models AS m CROSS JOIN " + t.Name + " AS t WHERE t.model_id = m.id AND t.period_start >= $1 AND t.period_start < $2"
}

// loose is a cell that can be scanned whatever is in it.
type loose[T any] struct {
	value sql.Null[T]
	err   error // why it is no T
}

// Scan implements sql.Scanner.
func (c *loose[T]) Scan(cell any) error {
	c.err = c.value.Scan(cell)
	return nil
}

func (d *ledgerDay) readRows(ctx context.Context, client *ent.Client, t *ledger.Table, from time.Time) error {
	return bulk.Scan(ctx, client, ledgerRowsSQL(t), []any{from, d.start.Add(utc.Day)}, func(scan func(...any) error) error {
		p, row := ledger.Period{Grain: t.Grain}, new(ledgerRow)
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
		if p.Start.Before(from) { // not even that could be read
			d.found = append(d.found, Difference{
				Kind: UnreadableRow, Table: t.Name, ModelID: p.Model, PeriodStart: d.start, Have: row.unreadable.Error(),
			})
			return nil
		}
		d.rows[p] = row
		switch {
		case t.Totals:
		case t.Grain == ledger.DayGrain:
			d.numDays++
		default:
			d.numQuarters++
		}
		return nil
	})
}

// ledgerEvent is a row of usage_events, as far as it is summed.
type ledgerEvent struct {
	id, model, key, price uuid.UUID
	at                    time.Time
	cost                  *money.USD
	latency               int64
	success               bool
	tokens                [5]int64 // in the order of ledger.TokenColumns
	unreadable            error
}

func (e *ledgerEvent) meters() meter.Tokens {
	s := ledger.Sums{Tokens: e.tokens}
	return s.Meters()
}

// ledgerPage is how many events are read at once.
const ledgerPage = 4096

var ledgerEventsSQL = "SELECT id, at, model_id, api_key_id, price_id, cost, latency_ms, success, " + strings.Join(ledger.TokenColumns, ", ") +
	fmt.Sprintf(" FROM %s WHERE id > $1 AND id < $2 ORDER BY id LIMIT %d", usageevent.Table, ledgerPage)

// readEvents reads the events of a day from their horizon on.
func (l *ledgerReader) readEvents(ctx context.Context, client *ent.Client, d *ledgerDay) error {
	from, end := d.start, d.start.Add(utc.Day)
	if d.Events.After(from) {
		from = d.Events
	}
	if !from.Before(end) {
		return nil
	}
	page := make([]ledgerEvent, 0, ledgerPage)
	for after := ledger.FirstEventID(from); ; { // which is the id of no event
		page = page[:0]
		err := bulk.Scan(ctx, client, ledgerEventsSQL, []any{after, ledger.FirstEventID(end)}, func(scan func(...any) error) error {
			var e ledgerEvent
			t := &e.tokens
			e.unreadable = scan(&e.id, &e.at, &e.model, &e.key, &e.price, &e.cost, &e.latency, &e.success, &t[0], &t[1], &t[2], &t[3], &t[4])
			page = append(page, e)
			return nil
		})
		if err != nil {
			return err
		}
		if err := l.learn(ctx, client, page); err != nil {
			return err
		}
		before := after
		for i := range page {
			l.addEvent(d, &page[i])
			if id := page[i].id; id != uuid.Nil {
				after = id
			}
		}
		if len(page) < ledgerPage || after == before {
			return nil
		}
	}
}

// learn reads what events refer to, if it is not known.
func (l *ledgerReader) learn(ctx context.Context, client *ent.Client, page []ledgerEvent) error {
	prices, models, keys := map[uuid.UUID]bool{}, map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	for i := range page {
		prices[page[i].price] = true
		models[page[i].model] = true
		keys[page[i].key] = true
	}
	if err := l.learnPrices(ctx, client, prices); err != nil {
		return err
	}
	for _, table := range []struct {
		name string
		ids  map[uuid.UUID]bool
		to   map[uuid.UUID]uuid.UUID
	}{{model.Table, models, l.models}, {apikey.Table, keys, l.keys}} {
		err := bulk.Chunks(bulk.Unknown(table.ids, table.to), func(some []uuid.UUID) error {
			found, err := owners(ctx, client, table.name, some)
			for id, provider := range found {
				table.to[id] = provider
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// owners returns the providers of rows by their ids.
func owners(ctx context.Context, client *ent.Client, table string, ids []uuid.UUID) (map[uuid.UUID]uuid.UUID, error) {
	found := make(map[uuid.UUID]uuid.UUID, len(ids))
	list, args := bulk.In(ids)
	err := bulk.Scan(ctx, client, "SELECT id, provider_id FROM "+table+" WHERE id IN "+list, args, func(scan func(...any) error) error {
		var id, provider uuid.UUID
		if err := scan(&id, &provider); err != nil {
			return err
		}
		found[id] = provider
		return nil
	})
	return found, err
}

func (l *ledgerReader) learnPrices(ctx context.Context, client *ent.Client, ids map[uuid.UUID]bool) error {
	return bulk.Chunks(bulk.Unknown(ids, l.prices), func(some []uuid.UUID) error {
		list, args := bulk.In(some)
		return bulk.Scan(ctx, client, "SELECT p.id, p.model_id, "+rateColumns+" FROM prices AS p WHERE p.id IN "+list, args, func(scan func(...any) error) error {
			p := new(ent.Price)
			if err := scan(append([]any{&p.ID, &p.ModelID}, rateCells(p)...)...); err != nil {
				return err
			}
			l.prices[p.ID] = p
			return nil
		})
	})
}

// addEvent adds an event to its quarter. One that cannot be right makes its quarter doubtful.
func (l *ledgerReader) addEvent(d *ledgerDay, e *ledgerEvent) {
	d.numEvents++
	if e.id == uuid.Nil {
		d.dubious = true
	}
	wrong := l.judgeEvent(e)
	if wrong == nil {
		e.at = utc.Of(e.at)
		p := ledger.QuarterOf(e.model, e.key, e.price, e.at)
		s := d.recorded[p]
		if s == nil {
			s = new(ledger.Sums)
			d.recorded[p] = s
		}
		err := s.Merge(e.sums())
		if err == nil {
			return
		}
		wrong = &Difference{Kind: WrongSum, Have: err.Error()}
	}
	for _, at := range []time.Time{ledger.EventTime(e.id), e.at} {
		d.doubtful[utc.Of(at).Truncate(utc.Quarter)] = true
	}
	wrong.Table, wrong.EventID, wrong.ModelID, wrong.APIKeyID, wrong.PriceID = usageevent.Table, e.id, e.model, e.key, e.price
	wrong.PeriodStart = ledger.EventTime(e.id).Truncate(utc.Quarter)
	d.found = append(d.found, *wrong)
}

// judgeEvent returns what is wrong with an event, nil for nothing.
func (l *ledgerReader) judgeEvent(e *ledgerEvent) *Difference {
	price := l.prices[e.price]
	switch {
	case e.unreadable != nil:
		return &Difference{Kind: UnreadableRow, Have: e.unreadable.Error()}
	case !e.at.Equal(ledger.EventTime(e.id)):
		return &Difference{Kind: WrongEvent, Field: usageevent.FieldAt, Want: stamp(ledger.EventTime(e.id)), Have: stamp(e.at)}
	case l.models[e.model] == uuid.Nil:
		return &Difference{Kind: WrongEvent, Field: usageevent.FieldModelID, Have: e.model.String()}
	case l.keys[e.key] != l.models[e.model]:
		return &Difference{Kind: WrongEvent, Field: usageevent.FieldAPIKeyID, Have: e.key.String()}
	case price == nil || price.ModelID != e.model:
		return &Difference{Kind: WrongEvent, Field: usageevent.FieldPriceID, Have: e.price.String()}
	}
	cost, err := costOf(e.meters(), RatesOf(price))
	switch {
	case err != nil:
		return &Difference{Kind: WrongCost, Field: usageevent.FieldCost, Want: err.Error(), Have: dollars(e.cost)}
	case (cost == nil) != (e.cost == nil) || value(cost) != value(e.cost):
		return &Difference{Kind: WrongCost, Field: usageevent.FieldCost, Want: dollars(cost), Have: dollars(e.cost)}
	}
	return nil
}

// sums are the event as the sums of a period with nothing else.
func (e *ledgerEvent) sums() ledger.Sums {
	s := ledger.Sums{
		Requests: 1, Errors: count(!e.success), Unpriced: count(e.cost == nil),
		Tokens: e.tokens, Cost: value(e.cost), Latency: e.latency,
	}
	s.Histogram.Add(s.Latency)
	return s
}
