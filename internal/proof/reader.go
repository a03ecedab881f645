// Package proof proves the ledger: each quarter of an hour is the sum of its events, each day the sum of its quarters,
// and each total the sum over keys and prices. It reads a UTC day as it stands, judges each row by the rows below it,
// and says what to write so that they agree.
package proof

import (
	"context"
	"errors"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Reader reads the ledger day by day. It remembers prices, models and keys, as far as they never change.
type Reader struct {
	db     store.DB
	client *ent.Client // of the database's primary, or of a transaction
	inTx   bool
	prices map[uuid.UUID]*ent.Price
	models map[uuid.UUID]uuid.UUID   // providers by model
	keys   map[uuid.UUID]uuid.UUID   // providers by key
	values map[uuid.UUID]uuid.UUID   // dimensions by value
	pairs  map[uuid.UUID][]uuid.UUID // by value that was read: what it combines, if its dimension is a composite
}

// NewReader returns a reader through a client of the database's primary, or of a transaction.
func NewReader(db store.DB, client *ent.Client, inTx bool) *Reader {
	return &Reader{
		db: db, client: client, inTx: inTx,
		prices: map[uuid.UUID]*ent.Price{}, models: map[uuid.UUID]uuid.UUID{}, keys: map[uuid.UUID]uuid.UUID{},
		values: map[uuid.UUID]uuid.UUID{}, pairs: map[uuid.UUID][]uuid.UUID{},
	}
}

// Each visits all UTC days of the ledger in their order, each in one state.
func (l *Reader) Each(ctx context.Context, visit func(*Day) error) error {
	start, ok, err := l.next(ctx, time.Time{})
	for ok && err == nil {
		var d *Day
		if d, err = l.Day(ctx, start); err != nil {
			return err
		}
		if err = visit(d); err != nil {
			return err
		}
		if start = start.Add(utc.Day); d.empty() { // else the next day probably has something
			start, ok, err = l.next(ctx, start)
		}
	}
	return err
}

// next returns the first UTC day from an instant on that has rows or events.
func (l *Reader) next(ctx context.Context, from time.Time) (first time.Time, ok bool, err error) {
	h, err := ledger.ReadHorizons(ctx, l.client)
	if err != nil {
		return first, false, err
	}
	note := func(t time.Time) {
		if !ok || t.Before(first) {
			first, ok = t, true
		}
	}
	for _, t := range ledger.Tables {
		err := bulk.Scan(ctx, l.client, firstPeriodsSQL(t), []any{h.CompleteFrom(t, from)},
			func(scan func(...any) error) error {
				var at *time.Time
				if err := scan(&at); err != nil || at == nil {
					return err
				}
				note(*at)
				return nil
			})
		if err != nil {
			return first, false, err
		}
	}
	day, err := ledger.FirstDay(ctx, l.client, from)
	if err != nil {
		return first, false, err
	}
	if day != nil {
		note(*day)
	}
	err = bulk.Scan(ctx, l.client, "SELECT id FROM usage_events WHERE id > $1 ORDER BY id LIMIT 1",
		[]any{ledger.FirstEventID(utc.Max(from, h.Events))},
		func(scan func(...any) error) error {
			var id uuid.UUID
			if err := scan(&id); err != nil {
				return err
			}
			note(ledger.EventTime(id))
			return nil
		})
	return utc.StartOfDay(first), ok, err
}

// firstPeriodsSQL returns the first period of each model from an instant on, NULL for none.
func firstPeriodsSQL(t *ledger.Table) string {
	return "SELECT (SELECT t.period_start FROM " + t.Name + " AS t WHERE t.model_id = m.id AND t.period_start >= $1" +
		" ORDER BY t.period_start LIMIT 1) FROM models AS m"
}

// Day reads a UTC day in one state.
func (l *Reader) Day(ctx context.Context, start time.Time) (*Day, error) {
	if l.inTx {
		return l.lockedDay(ctx, l.client, start)
	}
	return settled(ctx, l.client, func() (d *Day, err error) {
		return d, l.db.Retry(ctx, func() error {
			s, err := l.db.Snapshot(ctx)
			if err != nil {
				return err
			}
			d, err = l.load(ctx, ent.NewClient(ent.Driver(s)), start)
			return errors.Join(err, s.Close())
		})
	})
}

// settled loads a day again until no horizon moved meanwhile. Rows are removed only before a horizon that has moved;
// and on PostgreSQL a snapshot does not keep a partition from being dropped.
func settled(ctx context.Context, client *ent.Client, load func() (*Day, error)) (*Day, error) {
	for {
		d, err := load()
		if err != nil {
			return nil, err
		}
		h, err := ledger.ReadHorizons(ctx, client)
		if err != nil || h.Equal(d.Horizons) {
			return d, err
		}
	}
}

// lockedDay reads a UTC day in the caller's transaction. On PostgreSQL it locks all models, because others may record
// between two statements. If a model that was created meanwhile has differences, it locks that too and reads the day
// again.
func (l *Reader) lockedDay(ctx context.Context, tx *ent.Client, start time.Time) (*Day, error) {
	load := func() (*Day, error) { return l.load(ctx, tx, start) }
	if l.db.Dialect() == dialect.SQLite {
		return settled(ctx, tx, load)
	}
	models, err := tx.Model.Query().IDs(ctx)
	if err != nil {
		return nil, err
	}
	locked := map[uuid.UUID]bool{}
	for {
		if err := ledger.LockModels(ctx, tx, models); err != nil {
			return nil, err
		}
		for _, id := range models {
			locked[id] = true
		}
		d, err := settled(ctx, tx, load)
		if err != nil {
			return nil, err
		}
		if models = bulk.Unknown(d.faulty(), locked); len(models) == 0 {
			return d, nil
		}
	}
}
