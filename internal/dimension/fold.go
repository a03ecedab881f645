package dimension

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	entdimension "github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/ent/usagefold"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Tail is what a fold adds up.
type Tail struct {
	Model uuid.UUID
	Now   time.Time
	Limit int // events
}

// longest is how far back a fold stays behind the oldest open lease, whose request will have happened when the lease
// began. What is recorded later than that is added up by its own transaction.
const longest = 2 * time.Minute

var keepFold = bulk.NewInsert(usagefold.Table, []string{
	usagefold.FieldID, usagefold.FieldModelID, usagefold.FieldFoldedTo,
}, " ON CONFLICT (model_id) DO UPDATE SET folded_to = excluded.folded_to")

// Fold adds the first events of a tail to the periods of their values, and moves the mark behind them, in one
// transaction. It reports whether there are more. A damaged event is passed over: VerifyLedger tells.
func (b *Book) Fold(ctx context.Context, tx *ent.Client, engine string, m *Memory, tail Tail) (more bool, err error) {
	if len(b.All) == 0 {
		return false, nil
	}
	if engine == dialect.Postgres {
		if err := ledger.LockModels(ctx, tx, []uuid.UUID{tail.Model}); err != nil {
			return false, err
		}
	}
	after, until, err := b.bounds(ctx, tx, tail)
	if err != nil {
		return false, err
	}
	to := ledger.FirstEventID(until)
	if !less(after, to) {
		return false, nil
	}
	var events []ledger.Event
	read, last := 0, to
	err = ledger.ReadEvents(ctx, tx, tail.Model, after, to, tail.Limit, func(e ledger.Event, err error) error {
		if read++; e.ID != uuid.Nil {
			last = e.ID
		}
		if err == nil {
			e.At = utc.Of(e.At)
			events = append(events, e)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	if more = read == tail.Limit; !more {
		last = to
	}
	if err := b.Learn(ctx, tx, m, events); err != nil {
		return false, err
	}
	sums := map[ledger.Period]ledger.Sums{}
	for i := range events {
		if err := b.AddTo(sums, &events[i]); err != nil && !errors.Is(err, fault.ErrCorrupt) {
			return false, err
		}
	}
	if err := ledger.AddTo(ctx, tx, tx, engine, sums, map[ledger.Period]ledger.Sums{}); err != nil {
		return false, err
	}
	return more, keepFold.Run(ctx, tx, engine, [][]any{{usagefold.DefaultID(), tail.Model, last}})
}

// Overtaken adds the events from an instant on that folds have passed to the periods of a new dimension's values. Few
// are so young. The caller keeps folds and changes of dimensions away.
func Overtaken(ctx context.Context, tx *ent.Client, engine string, id uuid.UUID, since time.Time) error {
	b, err := Read(ctx, tx)
	if err != nil {
		return err
	}
	b.All = slices.DeleteFunc(b.All, func(d *Dimension) bool { // a composite needs its parts
		return d.ID != id && d.Kind == entdimension.KindComposite
	})
	var passed []ledger.Event
	models := map[uuid.UUID]uuid.UUID{}
	err = ledger.ReadEvents(ctx, tx, uuid.Nil, ledger.FirstEventID(since), ledger.FirstEventID(utc.End), maxOvertaken,
		func(e ledger.Event, err error) error {
			if err == nil {
				e.At = utc.Of(e.At)
				passed, models[e.Model] = append(passed, e), uuid.Nil
			}
			return nil
		})
	switch {
	case err != nil || len(passed) == 0:
		return err
	case len(passed) == maxOvertaken:
		return fmt.Errorf("%w: %d requests are younger than the dimension: is a clock wrong?", fault.ErrInvalidData,
			maxOvertaken)
	}
	if engine == dialect.Postgres {
		if err := ledger.LockModels(ctx, tx, slices.Collect(maps.Keys(models))); err != nil {
			return err
		}
	}
	for model := range models {
		if models[model], err = FoldedTo(ctx, tx, model); err != nil {
			return err
		}
	}
	if err := b.Learn(ctx, tx, nil, passed); err != nil {
		return err
	}
	sums := map[ledger.Period]ledger.Sums{}
	for i := range passed {
		e := &passed[i]
		if !e.IsFolded(models[e.Model]) {
			continue
		}
		if err := b.addTo(sums, e, id); err != nil && !errors.Is(err, fault.ErrCorrupt) {
			return err
		}
	}
	return ledger.AddTo(ctx, tx, tx, engine, sums, map[ledger.Period]ledger.Sums{})
}

// maxOvertaken bounds how many events Overtaken reads.
const maxOvertaken = 1_000_000

// bounds returns the last event of a model that is folded, and the instant up to which the others can be.
func (b *Book) bounds(ctx context.Context, tx *ent.Client, tail Tail) (after uuid.UUID, until time.Time, err error) {
	after, err = FoldedTo(ctx, tx, tail.Model)
	until = tail.Now
	if err == nil {
		err = bulk.Scan(ctx, tx, "SELECT acquired_at FROM key_leases WHERE model_id = $1 ORDER BY acquired_at LIMIT 1",
			[]any{tail.Model}, func(scan func(...any) error) error {
				var oldest time.Time
				err := scan(&oldest)
				until = utc.Max(utc.Min(until, oldest), tail.Now.Add(-longest))
				return err
			})
	}
	first := b.All[0].Since
	for _, d := range b.All {
		first = utc.Min(first, d.Since)
	}
	if since := ledger.FirstEventID(first); less(after, since) { // what was before counts in no dimension
		after = since
	}
	return after, until, err
}
