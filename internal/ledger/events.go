package ledger

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
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
	Consumer, AccessKey   *uuid.UUID             // for whom, and by which access key; nil: nobody
	Status                usageevent.UsageStatus // defaults to reported
	FirstToken            *int64                 // milliseconds until the first token; nil: it was not said
	AttemptGroup          string
	Attempt               int        // from 1; 0: it was not said
	ProviderCost          *money.USD // nil: the provider does not say
	ProviderCostSource    string
	Tags                  string // JSON, as ent/schema's Tags; empty: none
	Fingerprint           int64  // see Print; 0: none
}

// Quarter returns the quarter of an hour in which the event is counted.
func (e *Event) Quarter() Period { return QuarterOf(e.Model, e.Key, e.Price, e.At) }

// Meters returns the tokens by their names.
func (e *Event) Meters() meter.Tokens { return metersOf(e.Tokens) }

// Sums returns the event as the sums of a period that has nothing else.
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
	e.say(&s)
	return s
}

// say adds what the event says beside what it used to its sums.
func (e *Event) say(s *Sums) {
	switch e.Status {
	case usageevent.UsageStatusEstimated:
		s.Estimated = 1
	case usageevent.UsageStatusUnknown:
		s.Unknown = 1
	}
	if e.FirstToken != nil {
		s.FirstToken = *e.FirstToken
		s.FirstTokens.Add(s.FirstToken)
	}
	if e.Attempt > 1 {
		s.Retries, s.RetryCost = 1, s.Cost
	}
	if e.ProviderCost != nil {
		s.ProviderCosts, s.ProviderCost, s.ComparedCost = 1, *e.ProviderCost, s.Cost
	}
}

var insertEvents = bulk.NewSparse(usageevent.Table, slices.Concat([]string{
	usageevent.FieldID, usageevent.FieldRequestID, usageevent.FieldAt, usageevent.FieldModelID,
	usageevent.FieldAPIKeyID, usageevent.FieldPriceID, usageevent.FieldCost, usageevent.FieldCostStatus,
	usageevent.FieldLatencyMs, usageevent.FieldSuccess, usageevent.FieldErrorClass, usageevent.FieldHTTPStatus,
	usageevent.FieldFingerprint,
}, TokenColumns),
	bulk.Sparse{Column: usageevent.FieldConsumerID, Default: (*uuid.UUID)(nil)},
	bulk.Sparse{Column: usageevent.FieldAccessKeyID, Default: (*uuid.UUID)(nil)},
	bulk.Sparse{Column: usageevent.FieldTags, Default: (*string)(nil)},
	bulk.Sparse{Column: usageevent.FieldUsageStatus, Default: string(usageevent.DefaultUsageStatus)},
	bulk.Sparse{Column: usageevent.FieldTtftMs, Default: (*int64)(nil)},
	bulk.Sparse{Column: usageevent.FieldAttemptGroup, Default: usageevent.DefaultAttemptGroup},
	bulk.Sparse{Column: usageevent.FieldAttempt, Default: usageevent.DefaultAttempt},
	bulk.Sparse{Column: usageevent.FieldProviderCost, Default: (*int64)(nil)},
	bulk.Sparse{Column: usageevent.FieldProviderCostSource, Default: usageevent.DefaultProviderCostSource},
)

// InsertEvents writes new events.
func InsertEvents(ctx context.Context, tx bulk.Execer, engine string, events []Event) error {
	rows := make([][]any, len(events))
	for i := range events {
		e := &events[i]
		var fingerprint *int64
		if e.Fingerprint != 0 {
			fingerprint = &e.Fingerprint
		}
		status := usageevent.CostStatusUnpriced
		if e.Cost != nil {
			status = usageevent.CostStatusPriced
		}
		t := &e.Tokens
		rows[i] = []any{
			e.ID, e.RequestID, e.At, e.Model, e.Key, e.Price, (*int64)(e.Cost), string(status), e.Latency, e.Success,
			e.ErrorClass, e.HTTPStatus, fingerprint, t[0], t[1], t[2], t[3], t[4],
			e.Consumer, e.AccessKey, TagsCell(e.Tags), string(cmp.Or(e.Status, usageevent.DefaultUsageStatus)),
			e.FirstToken, e.AttemptGroup, e.Attempt, (*int64)(e.ProviderCost), e.ProviderCostSource,
		}
	}
	return insertEvents.Run(ctx, tx, engine, rows)
}

// TagsCell returns tags as they are stored: nil if there are none.
func TagsCell(tags string) *string {
	if tags == "" {
		return nil
	}
	return &tags
}

// ModelsFolded are the models m, and FoldedTo is the last event of one that the sums by value have: see usage_folds.
// They have what happened before the model was created, too: a model's id begins with its time, as an event's does.
const (
	ModelsFolded = "models AS m LEFT JOIN usage_folds AS f ON f.model_id = m.id"
	FoldedTo     = "COALESCE(f.folded_to, m.id)"
)

// IsFolded reports whether the sums by value have the event, given the last one that they have.
func (e *Event) IsFolded(to uuid.UUID) bool { return bytes.Compare(e.ID[:], to[:]) <= 0 }

var (
	eventColumns = "SELECT e.id, e.at, e.model_id, e.api_key_id, e.price_id, e.cost, e.latency_ms, e.success," +
		" e.usage_status, e.ttft_ms, e.attempt, e.provider_cost, e.consumer_id," +
		" COALESCE(e.tags, ''), e." + strings.Join(TokenColumns, ", e.") + " FROM "
	readEventsSQL     = eventColumns + usageevent.Table + " AS e WHERE e.id > $1 AND e.id < $2"
	readEventsOfAll   = readEventsSQL + " ORDER BY e.id LIMIT $3"
	readEventsOfModel = readEventsSQL + " AND e.model_id = $3 ORDER BY e.id LIMIT $4"
)

// ReadEvents calls each for up to limit events between two ids, in their order: of one model, or of all models if model
// is zero. It reads the columns that are summed. An event that cannot be read comes with its error.
func ReadEvents(
	ctx context.Context, tx bulk.Querier, model, after, before uuid.UUID, limit int, each func(Event, error) error,
) error {
	query, args := readEventsOfAll, []any{after, before, limit}
	if model != uuid.Nil {
		query, args = readEventsOfModel, []any{after, before, model, limit}
	}
	return scanEvents(ctx, tx, query, args, each)
}

// Tail returns the FROM and WHERE of a query for the events e that are not folded, with their models m. More are
// further conditions on e, such as " AND e.id < $1".
func Tail(engine, more string) string {
	of := " WHERE e.model_id = m.id AND e.id > " + FoldedTo + more
	if engine == dialect.Postgres {
		// It takes a third of all events for the tail, and would read all of them. OFFSET has it read a model at a
		// time, by the index.
		return ModelsFolded + " CROSS JOIN LATERAL (SELECT * FROM " + usageevent.Table + " AS e" + of +
			" OFFSET 0) AS e WHERE true"
	}
	return ModelsFolded + " CROSS JOIN " + usageevent.Table + " AS e" + of // the left side is read first: the models
}

// ReadTail calls each for the events between two ids that are not folded, of the models that a query selects.
func ReadTail(
	ctx context.Context, tx bulk.Querier, engine string, q Query, from, before uuid.UUID,
	each func(Event, error) error,
) error {
	query, args := eventColumns+Tail(engine, " AND e.id >= $1 AND e.id < $2"), []any{from, before}
	for _, c := range q.models() {
		args = append(args, c.id)
		query += fmt.Sprintf(" AND %s $%d", c.column, len(args))
	}
	return scanEvents(ctx, tx, query, args, each)
}

func scanEvents(
	ctx context.Context, tx bulk.Querier, query string, args []any, each func(Event, error) error,
) error {
	return bulk.Scan(ctx, tx, query, args, func(scan func(...any) error) error {
		var e Event
		t := &e.Tokens
		err := scan(
			&e.ID, &e.At, &e.Model, &e.Key, &e.Price, &e.Cost, &e.Latency, &e.Success, &e.Status, &e.FirstToken,
			&e.Attempt, &e.ProviderCost, &e.Consumer, &e.Tags, &t[0], &t[1], &t[2], &t[3], &t[4],
		)
		return each(e, err)
	})
}

// EventTime returns the time in an event's id.
func EventTime(id uuid.UUID) time.Time {
	bits := binary.BigEndian.Uint64(id[:])
	return time.UnixMicro(int64(bits>>16)*1000 + int64(bits&0xfff)).UTC() //nolint:gosec // 48 bits
}

// NewEventID returns a UUIDv7 for a request at an instant. Its first 48 bits are the milliseconds, the 12 bits after
// its version are the microseconds within them, so that ids are in the order of time. The rest is random.
func NewEventID(at time.Time) uuid.UUID {
	id := FirstEventID(at)
	binary.BigEndian.PutUint64(id[8:], rand.Uint64()>>2|1<<63) //nolint:gosec // it is no secret
	return id
}

// FirstEventID returns the least id of a request at or after an instant.
func FirstEventID(at time.Time) (id uuid.UUID) {
	micros := at.UnixMicro()
	binary.BigEndian.PutUint64(id[:], uint64(micros/1000)<<16|7<<12|uint64(micros%1000)) //nolint:gosec // from 1970 on
	return id
}

// On PostgreSQL the events of a UTC day are a partition, so that Prune can drop a day as a whole. The first event of a
// day makes the day's partition and the next day's, so that midnight finds one. If there are many, a new one is of a
// month or a year: the search for a request id looks into all of them and must not become slow. Functions of the
// migrations make and drop them, so that the role needs no right to.

// Partitions remembers which days have a partition. If another process drops one, the next insert fails, and all are
// forgotten.
type Partitions struct{ known sync.Map }

// Has reports whether a day is known to have a partition.
func (p *Partitions) Has(day time.Time) bool {
	_, ok := p.known.Load(day)
	return ok
}

// Forget forgets all partitions, because one was dropped.
func (p *Partitions) Forget() { p.known.Clear() }

// Ensure makes the partitions that days lack, in a transaction on PostgreSQL. Partitions that the transaction made are
// not remembered, because it may be undone. If before is true, it may have made some already, and nothing is
// remembered.
func (p *Partitions) Ensure(ctx context.Context, tx bulk.Querier, days []time.Time, before bool) error {
	unknown := slices.DeleteFunc(slices.Clone(days), p.Has)
	if len(unknown) == 0 {
		return nil
	}
	texts := make([]string, len(unknown))
	for i, day := range unknown {
		texts[i] = day.Format(time.DateOnly)
	}
	var made int64
	err := bulk.Scan(ctx, tx, "SELECT usage_events_make_partitions(CAST(CAST($1 AS text[]) AS date[]))", []any{texts},
		func(scan func(...any) error) error { return scan(&made) })
	if err == nil && made == 0 && !before {
		for _, day := range unknown {
			p.known.Store(day, true)
		}
	}
	return err
}

// RequestIndex ends the name of the index that keeps the request ids of a partition unique.
const RequestIndex = "_request_id"

// Partition is a part of usage_events on PostgreSQL.
type Partition struct {
	oid         int64
	From, To    uuid.UUID // its least id, and the first id beyond it
	Rows, Bytes int64     // set by Count
}

// partitionsBeforeSQL goes by the bounds that the server reports, not by names, and skips a default partition.
const partitionsBeforeSQL = `SELECT oid, from_id, to_id FROM (
	SELECT CAST(oid AS bigint) AS oid, CAST(substring(bounds FROM 'TO \(''([^'']+)''\)') AS uuid) AS to_id,
		COALESCE(CAST(substring(bounds FROM 'FROM \(''([^'']+)''\)') AS uuid),
			'00000000-0000-0000-0000-000000000000') AS from_id
	FROM (
		SELECT c.oid, pg_get_expr(c.relpartbound, c.oid) AS bounds
		FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
		WHERE i.inhparent = CAST('usage_events' AS regclass)
	) AS p
) AS p WHERE from_id < CAST($1 AS uuid) AND to_id IS NOT NULL ORDER BY to_id`

// PartitionsBefore returns the partitions that begin before an instant, oldest first.
func PartitionsBefore(ctx context.Context, client *ent.Client, at time.Time) (parts []Partition, err error) {
	err = bulk.Scan(ctx, client, partitionsBeforeSQL, []any{FirstEventID(at)}, func(scan func(...any) error) error {
		var part Partition
		err := scan(&part.oid, &part.From, &part.To)
		parts = append(parts, part)
		return err
	})
	return parts, err
}

// Count sets Rows and Bytes. It reads by ids and not by the name of the table, which another process may have dropped.
func (part *Partition) Count(ctx context.Context, client *ent.Client) error {
	const query = "SELECT count(*)," +
		" COALESCE((SELECT pg_total_relation_size(c.oid) FROM pg_class AS c WHERE CAST(c.oid AS bigint) = $1), 0)" +
		" FROM usage_events WHERE id >= $2 AND id < $3"
	args := []any{part.oid, part.From, part.To}
	return bulk.Scan(ctx, client, query, args, func(scan func(...any) error) error {
		return scan(&part.Rows, &part.Bytes)
	})
}

// Drop drops the partition, unless somebody else has.
func (part *Partition) Drop(ctx context.Context, tx *ent.Client) (dropped bool, err error) {
	err = bulk.Scan(ctx, tx, "SELECT usage_events_drop_partition($1)", []any{part.oid},
		func(scan func(...any) error) error { return scan(&dropped) })
	return dropped, err
}
