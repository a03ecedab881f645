package commit

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// run does the calls that can be done, and returns for each of the others why not. A request that was recorded before
// is skipped, without an error.
func (b *batch) run(ctx context.Context, calls []Call) ([]error, error) {
	if b.engine == dialect.Postgres {
		if err := b.prepareEvents(ctx, calls); err != nil {
			return nil, err
		}
	}
	if err := b.read(ctx, calls); err != nil {
		return nil, err
	}
	verdicts := make([]error, len(calls))
	b.events = make([]ledger.Event, 0, len(calls))
	b.periods = make(map[ledger.Period]ledger.Sums, 2*len(calls)+2)
	for i := range calls {
		if calls[i].asks() { // leases end before others begin
			continue
		}
		if verdicts[i] = b.apply(&calls[i]); errors.Is(verdicts[i], fault.ErrOverflow) && len(calls) > 1 {
			return nil, verdicts[i] // the sums do not fit; each request alone may
		}
	}
	for _, id := range b.refused {
		if lease := b.leases[id]; lease != nil {
			b.opened = append(b.opened, lease)
			b.holdAgain(lease)
		} else if lease := b.expired[id]; lease != nil {
			b.overdue = append(b.overdue, lease)
			delete(b.expired, id)
		}
	}
	for i := range calls {
		var err error
		switch c := &calls[i]; {
		case c.Acquire != nil:
			verdicts[i], err = b.acquireOrExpire(ctx, c)
		case c.Renew != nil:
			verdicts[i], err = b.orExpire(ctx, c.Renew.Provider, func() error { return b.renew(c) })
		}
		if err != nil {
			return nil, err
		}
	}
	return verdicts, b.write(ctx)
}

// write writes what the batch changes. On PostgreSQL the statements go to the server as one, so that callers wait for
// one round trip.
func (b *batch) write(ctx context.Context) error {
	if err := b.attribute(ctx); err != nil {
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
	if err := ledger.AddTo(ctx, b.tx, to, b.engine, b.periods, b.stored); err != nil {
		return err
	}
	if err := insertLease.Run(ctx, to, b.engine, leaseRows(b.opened)); err != nil {
		return err
	}
	if err := writeRenewed.Run(ctx, to, b.engine, renewedRows(b.renewed)); err != nil {
		return err
	}
	if err := insertExpired.Run(ctx, b.tx, b.engine, expiredRows(b.overdue)); err != nil {
		return err
	}
	if err := b.writePools(ctx, b.tx, to, b.engine); err != nil {
		return err
	}
	if err := b.addSpent(ctx, &one); err != nil {
		return err
	}
	if err := one.Flush(ctx, b.tx); err != nil {
		return err
	}
	if err := b.noteSpent(ctx); err != nil {
		return err
	}
	for _, d := range b.did {
		if err := b.Audit(ctx, b.tx, b.now, d.actor, d.events); err != nil {
			return err
		}
	}
	return nil
}

// attribute adds the values that requests are the first ones of. Requests that a fold has passed are added to the
// periods of their values.
func (b *batch) attribute(ctx context.Context) error {
	said := len(b.late) > 0
	for i := range b.events {
		said = said || b.events[i].Tags != "" || b.events[i].Consumer != nil
	}
	if !said {
		return nil
	}
	if err := b.openBook(ctx); err != nil || len(b.book.All) == 0 {
		return err
	}
	if err := b.book.Intern(ctx, b.tx, b.engine, b.remembering(), b.events); err != nil {
		return err
	}
	for i := range b.late {
		if err := b.book.AddTo(b.periods, &b.late[i]); err != nil {
			return err
		}
	}
	return nil
}

// acquireOrExpire leases a key, or returns why no key is available. It searches for expired leases in three cases: once
// a second, before it refuses a caller, and always in a caller's transaction, because a rollback would undo the search.
func (b *batch) acquireOrExpire(ctx context.Context, c *Call) (verdict, err error) {
	p := b.pools[c.Acquire.Provider]
	if b.inTx || b.expiries.due(p.ID, b.now) {
		if err := b.takeExpired(ctx, p); err != nil {
			return nil, err
		}
	}
	return b.orExpire(ctx, p.ID, func() error { return b.acquire(c) })
}

// orExpire asks for a key or for more of one, again after it has searched for expired leases, and returns why that is
// refused.
func (b *batch) orExpire(ctx context.Context, provider uuid.UUID, ask func() error) (verdict, err error) {
	p := b.pools[provider]
	for {
		verdict = ask()
		if b.looked[p.ID] || !errors.Is(verdict, fault.ErrNoKeyAvailable) {
			return verdict, nil
		}
		if err := b.takeExpired(ctx, p); err != nil {
			return nil, err
		}
	}
}

// requestLock is the number of the advisory lock for request ids ("MSrq").
const requestLock = 0x4d537271

// midnight is how far apart the clocks of two machines may be.
const midnight = time.Minute

// prepareEvents makes the partitions for events and takes the lock for request ids. A partition keeps its own request
// ids unique, but two partitions could record one request at the same time. Therefore a named request of another day
// than today is recorded alone. That holds for a lease of yesterday too: a lease ends once, but another lease, or
// RecordUsage, may have the same request id today.
func (b *batch) prepareEvents(ctx context.Context, calls []Call) error {
	days := eventDays(calls)
	if len(days) == 0 {
		return nil
	}
	now := calls[0].Now
	today := utc.StartOfDay(now)
	if slices.ContainsFunc(days, today.Equal) {
		days = append(days, today.Add(utc.Day))
	}
	if err := b.partitions.Ensure(ctx, b.tx, days, b.inTx); err != nil {
		return err
	}
	named, alone := false, !utc.StartOfDay(now.Add(-midnight)).Equal(utc.StartOfDay(now.Add(midnight)))
	for i := range calls {
		if c := &calls[i]; c.records() {
			named = named || c.Request.Named
			alone = alone || c.Request.Named && !utc.StartOfDay(c.Request.At).Equal(today)
		}
	}
	if !named {
		return nil
	}
	lock := "SELECT pg_advisory_xact_lock_shared($1)"
	if alone {
		lock = "SELECT pg_advisory_xact_lock($1)"
	}
	_, err := b.tx.ExecContext(ctx, lock, requestLock)
	return err
}

// eventDays are the UTC days of events, ascending.
func eventDays(calls []Call) (days []time.Time) {
	for i := range calls {
		if calls[i].records() {
			days = append(days, utc.StartOfDay(calls[i].Request.At))
		}
	}
	slices.SortFunc(days, time.Time.Compare)
	return slices.CompactFunc(days, time.Time.Equal)
}
