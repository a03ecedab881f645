package ledger

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Event is a recorded request, a row of usage_events.
type Event struct {
	ID, Model, Key, Price uuid.UUID
	RequestID             string
	At                    time.Time
	Tokens                [5]int64   // in the order of TokenColumns
	Cost                  *money.USD // nil: not known
	Latency               int64      // milliseconds
	Success               bool
	ErrorClass            string
	HTTPStatus            int
}

// Quarter returns the quarter of an hour in which the event is counted.
func (e *Event) Quarter() Period { return QuarterOf(e.Model, e.Key, e.Price, e.At) }

// Meters returns the tokens by their names.
func (e *Event) Meters() meter.Tokens { return metersOf(e.Tokens) }

// Sums are the event as the sums of a period with nothing else.
func (e *Event) Sums() Sums {
	s := Sums{Requests: 1, Tokens: e.Tokens, Latency: e.Latency}
	if !e.Success {
		s.Errors = 1
	}
	if e.Cost == nil {
		s.Unpriced = 1
	} else {
		s.Cost = *e.Cost
	}
	s.Histogram.Add(e.Latency)
	return s
}

var eventColumns = slices.Concat([]string{
	usageevent.FieldID, usageevent.FieldRequestID, usageevent.FieldAt, usageevent.FieldModelID, usageevent.FieldAPIKeyID,
	usageevent.FieldPriceID, usageevent.FieldCost, usageevent.FieldCostStatus, usageevent.FieldLatencyMs,
	usageevent.FieldSuccess, usageevent.FieldErrorClass, usageevent.FieldHTTPStatus,
}, TokenColumns)

var insertEventsSQL = bulk.Statements(func(n int) string {
	return "INSERT INTO " + usageevent.Table + " (" + strings.Join(eventColumns, ", ") + ") VALUES " +
		bulk.Placeholders(n, slices.Repeat([]string{"$%d"}, len(eventColumns))...)
})

// InsertEvents writes new events.
func InsertEvents(ctx context.Context, tx bulk.Execer, events []Event) error {
	return bulk.Chunks(events, func(some []Event) error {
		args := make([]any, 0, len(some)*len(eventColumns))
		for i := range some {
			e := &some[i]
			var cost any
			status := usageevent.CostStatusUnpriced
			if e.Cost != nil {
				cost, status = int64(*e.Cost), usageevent.CostStatusPriced
			}
			args = append(args, e.ID, e.RequestID, e.At, e.Model, e.Key, e.Price, cost, string(status),
				e.Latency, e.Success, e.ErrorClass, e.HTTPStatus)
			for _, n := range e.Tokens {
				args = append(args, n)
			}
		}
		_, err := tx.ExecContext(ctx, insertEventsSQL(len(some)), args...)
		return err
	})
}

var (
	readEventsSQL = "SELECT id, at, model_id, api_key_id, price_id, cost, latency_ms, success, " +
		strings.Join(TokenColumns, ", ") + " FROM " + usageevent.Table + " WHERE id > $1 AND id < $2"
	readEventsOfAll   = readEventsSQL + " ORDER BY id LIMIT $3"
	readEventsOfModel = readEventsSQL + " AND model_id = $3 ORDER BY id LIMIT $4"
)

// ReadEvents calls each for up to limit events between two ids, in their order: of one model, or of all if it is zero.
// It reads what is summed. An event that cannot be read comes with the error.
func ReadEvents(
	ctx context.Context, tx bulk.Querier, model, after, before uuid.UUID, limit int, each func(Event, error) error,
) error {
	query, args := readEventsOfAll, []any{after, before, limit}
	if model != uuid.Nil {
		query, args = readEventsOfModel, []any{after, before, model, limit}
	}
	return bulk.Scan(ctx, tx, query, args, func(scan func(...any) error) error {
		var e Event
		t := &e.Tokens
		err := scan(&e.ID, &e.At, &e.Model, &e.Key, &e.Price, &e.Cost, &e.Latency, &e.Success, &t[0], &t[1], &t[2], &t[3], &t[4])
		return each(e, err)
	})
}

// EventTime returns the time that an event's id begins with.
func EventTime(id uuid.UUID) time.Time {
	bits := binary.BigEndian.Uint64(id[:])
	return time.UnixMicro(int64(bits>>16)*1000 + int64(bits&0xfff)).UTC() //nolint:gosec // 48 bits
}

// NewEventID returns a UUIDv7 of a request at an instant: its first 48 bits are the milliseconds and the 12 bits
// after its version the microseconds within them, so that ids are in the order of time; the rest is random.
func NewEventID(at time.Time) uuid.UUID {
	id := FirstEventID(at)
	binary.BigEndian.PutUint64(id[8:], rand.Uint64()>>2|1<<63) //nolint:gosec // it is no secret
	return id
}

// FirstEventID returns the least id of a request at an instant, or after it.
func FirstEventID(at time.Time) (id uuid.UUID) {
	micros := at.UnixMicro()
	binary.BigEndian.PutUint64(id[:], uint64(micros/1000)<<16|7<<12|uint64(micros%1000)) //nolint:gosec // from 1970 on
	return id
}
