package commit

import (
	"cmp"
	"context"
	"slices"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
)

// changes are what the calls of a batch add to the ledger and the pools.
type changes struct {
	events  []ledger.Event
	late    []ledger.Event                // those of them that a fold has passed
	periods map[ledger.Period]ledger.Sums // what is added to them
	opened  []*pool.Lease                 // to be inserted
	overdue []*pool.Lease                 // to be inserted among the expired ones
	refused []uuid.UUID                   // leases whose end was refused
	did     []did
}

// did is what the pool did by itself when somebody called.
type did struct {
	actor  string
	events []pool.Event
}

// audit adds what the pool did by itself.
func (e *changes) audit(actor string, events []pool.Event) {
	if len(events) > 0 {
		e.did = append(e.did, did{actor, events})
	}
}

// addToPeriods adds an event to the four periods that it is counted in.
func (e *changes) addToPeriods(event *ledger.Event) error {
	one, quarterly := event.Sums(), event.Quarter()
	daily := quarterly.Day()
	for _, p := range []ledger.Period{quarterly, daily, quarterly.Total(), daily.Total()} {
		s := e.periods[p]
		if err := s.Merge(one); err != nil {
			return err
		}
		e.periods[p] = s
	}
	return nil
}

// write writes what the batch changes. On PostgreSQL the statements go to the server as one, so that callers wait for
// one round trip.
func (b *batch) write(ctx context.Context) error {
	if err := b.attribute(ctx); err != nil {
		return err
	}
	added, changed, err := ledger.AddUp(ctx, b.tx, b.engine, b.periods, b.stored)
	if err != nil {
		return err
	}
	var to bulk.Execer = b.tx
	var one bulk.Together
	if b.engine == dialect.Postgres {
		to = &one
		// In one order, so that two transactions with the same request ids do not wait for each other.
		slices.SortFunc(b.events, func(x, y ledger.Event) int { return cmp.Compare(x.RequestID, y.RequestID) })
	}
	if err := ledger.InsertEvents(ctx, to, b.engine, b.events); err != nil {
		return err
	}
	if err := ledger.Write(ctx, to, b.engine, added, b.stored); err != nil {
		return err
	}
	if err := ledger.Add(ctx, to, b.engine, changed, b.stored, b.periods); err != nil {
		return err
	}
	if err := insertLease.Run(ctx, to, b.engine, leaseRows(b.opened)); err != nil {
		return err
	}
	if err := insertExpired.Run(ctx, b.tx, b.engine, expiredRows(b.overdue)); err != nil {
		return err
	}
	if err := b.writePools(ctx, b.tx, to, b.engine); err != nil {
		return err
	}
	if err := one.Flush(ctx, b.tx); err != nil {
		return err
	}
	if err := b.writeSpent(ctx); err != nil {
		return err
	}
	for _, d := range b.did {
		if err := b.Audit(ctx, b.tx, b.now, d.actor, d.events); err != nil {
			return err
		}
	}
	return nil
}
