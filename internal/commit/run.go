package commit

import (
	"context"
	"errors"
	"slices"
	"time"

	"entgo.io/ent/dialect"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// run does those of the calls that can be done, and says of the others why not. A request that was recorded before is
// one that can be, and is left out.
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
	b.periods = make(map[ledger.Period]ledger.Sums, 2*len(calls)+2)
	for i := range calls {
		if calls[i].Acquire != nil { // what ends gives way to what begins
			continue
		}
		if verdicts[i] = b.apply(&calls[i]); errors.Is(verdicts[i], fault.ErrOverflow) && len(calls) > 1 {
			return nil, verdicts[i] // of sums, which each record alone does not have
		}
	}
	for _, id := range b.refused {
		if lease := b.leases[id]; lease != nil {
			b.opened = append(b.opened, lease)
			delete(b.leases, id)
		} else if lease := b.expired[id]; lease != nil {
			b.overdue = append(b.overdue, lease)
			delete(b.expired, id)
		}
	}
	for i := range calls {
		if calls[i].Acquire == nil {
			continue
		}
		var err error
		if verdicts[i], err = b.acquireOrExpire(ctx, &calls[i]); err != nil {
			return nil, err
		}
	}
	return verdicts, b.write(ctx)
}

// acquireOrExpire leases a key, or says why there is none. Leases that have expired are looked for once a second, and
// before a caller is turned away; in a caller's transaction always, because it may be undone.
func (b *batch) acquireOrExpire(ctx context.Context, c *Call) (verdict, err error) {
	p := b.Pools[c.Acquire.Provider]
	if b.inTx || b.expiries.due(p.ID, b.now) {
		if err := b.takeExpired(ctx, p); err != nil {
			return nil, err
		}
	}
	for {
		verdict = b.acquire(c)
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

// midnight is how far two machines' clocks may be apart.
const midnight = time.Minute

// prepareEvents makes the partitions for events. Each partition keeps its request ids unique, and nothing keeps the
// same request from being recorded twice at once in two of them. Therefore whoever records a named request of another
// day than today does so alone.
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
	switch {
	case !named:
		return nil
	case alone:
		_, err := b.tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", requestLock)
		return err
	}
	_, err := b.tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock_shared($1)", requestLock)
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
