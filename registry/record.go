package registry

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
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/internal/batch"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

const (
	maxBatch = 256  // records that are committed together
	maxQueue = 4096 // records that wait; callers beyond them wait before their record does

	// batchPatience is how long a batch may take, for callers without a deadline. It is for servers that
	// do not answer: what waits for locks, or is repeated, is given up before.
	batchPatience = 40 * time.Second
)

// record is a request that is to be recorded. Its defaults are filled in, and it is free of faults that
// can be seen without the database.
type record struct {
	UsageInput
	id    uuid.UUID // of its event
	named bool      // the request id is the caller's: it may have been recorded before
	now   time.Time // of the call
}

func newRecorder(r *Registry) *batch.Queue[record] {
	return batch.New(maxBatch, maxQueue, r.commitRecords)
}

// commitRecords records a batch in one transaction and returns an error, or nil, for each record. A commit
// whose answer was lost is repeated: request ids tell what was recorded.
func (r *Registry) commitRecords(ctx context.Context, records []record) []error {
	ctx, cancel := context.WithTimeout(ctx, batchPatience)
	defer cancel()
	errs, err := r.recordOnce(ctx, records)
	for errors.Is(err, ErrUncertain) && ctx.Err() == nil {
		for i := range records {
			records[i].named = true
		}
		errs, err = r.recordOnce(ctx, records)
	}
	if err == nil {
		return errs
	}
	errs = make([]error, len(records))
	for i := range records {
		errs[i] = err
		if len(records) > 1 && isFault(err) {
			errs[i] = r.commitRecords(ctx, records[i:i+1])[0]
		}
	}
	return errs
}

// recordOnce records in one transaction, or within the registry's, those of the records that may be.
func (r *Registry) recordOnce(ctx context.Context, records []record) (errs []error, err error) {
	err = r.recordTx(ctx, records, func(verdicts []error) error {
		errs = verdicts
		return nil
	})
	return errs, err
}

// recordWhole records all of the records in one transaction, or none.
func (r *Registry) recordWhole(ctx context.Context, records []record) error {
	return r.recordTx(ctx, records, func(verdicts []error) error {
		for i, err := range verdicts {
			if err != nil && len(records) > 1 {
				err = fmt.Errorf("request %d: %w", i, err)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// recordTx records in a transaction, which judge may undo. When an event has no partition, because another process
// dropped it since it was last seen, it does so again.
func (r *Registry) recordTx(ctx context.Context, records []record, judge func(verdicts []error) error) error {
	for {
		var b *basis
		err := r.write(ctx, "record usage", func(tx *ent.Client) (err error) {
			within := ctx
			if r.db.Dialect() == dialect.SQLite {
				// Nothing keeps the statements waiting, and the driver runs one that can be cancelled in a goroutine of its own.
				within = context.WithoutCancel(ctx)
			}
			if b, err = r.memory.recall(within, r.db, tx); err != nil {
				return err
			}
			verdicts, err := r.recordAll(within, tx, b, records)
			if err != nil {
				return err
			}
			return judge(verdicts)
		})
		if err == nil {
			r.memory.keep(b)
		}
		if !store.IsNoPartition(err) {
			return err
		}
		r.partitions.forget()
	}
}

// isFault tells whether an error can be the fault of one record of a batch, such as a sum that does
// not fit, so that the others are better off without it.
func isFault(err error) bool {
	return errors.Is(err, ErrInvalidData) || errors.Is(err, ErrForeignKey) || errors.Is(err, ErrConflict)
}

// recordAll records those of the records that may be, and says of the others why not. A request that was
// recorded before is one that may be, and is left out.
func (r *Registry) recordAll(ctx context.Context, tx *ent.Client, b *basis, records []record) ([]error, error) {
	if r.db.Dialect() == dialect.Postgres {
		if err := r.prepareEvents(ctx, tx, records); err != nil {
			return nil, err
		}
	}
	if err := r.readBasis(ctx, tx, b, records); err != nil {
		return nil, err
	}
	errs, e := make([]error, len(records)), entries{periods: map[period]sums{}, uses: map[use]useSum{}}
	for i, rec := range records {
		if errs[i] = b.add(rec, &e); errors.Is(errs[i], errOverflow) && len(records) > 1 {
			return nil, errs[i] // of sums, which each record alone does not have
		}
	}
	if err := r.readPeriods(ctx, tx, b, slices.SortedFunc(maps.Keys(e.periods), comparePeriods)); err != nil {
		return nil, err
	}
	for p, added := range e.periods {
		s := b.periods[p] // zero: it is new
		if err := s.merge(added); err != nil {
			return nil, err
		}
		e.periods[p], b.periods[p] = s, s
	}
	return errs, r.writeEntries(ctx, tx, e)
}

// writeEntries writes what a batch adds to the ledger. A single record's statements go to the server as one: its caller
// waits for one round trip rather than four. Those of larger batches would make too many different ones to prepare.
func (r *Registry) writeEntries(ctx context.Context, tx *ent.Client, e entries) error {
	var to execer = tx
	var one together
	if len(e.events) == 1 && r.db.Dialect() == dialect.Postgres {
		to = &one
	}
	if err := insertEvents(ctx, to, e.events); err != nil {
		return err
	}
	if err := writePeriods(ctx, to, e.periods); err != nil {
		return err
	}
	if err := r.countUses(ctx, to, e.uses); err != nil {
		return err
	}
	return one.flush(ctx, tx)
}

// requestLock is the number of the advisory lock for request ids ("MSrq").
const requestLock = 0x4d537271

// midnight is how far two machines' clocks may be apart.
const midnight = time.Minute

// prepareEvents makes the partitions for events. Only a partition keeps its request ids unique, and only the
// lock of the key keeps the same request from being recorded twice at once in two of them. A repetition
// that was given another key could slip through: therefore whoever records a named request of another
// day than today does so alone.
func (r *Registry) prepareEvents(ctx context.Context, tx *ent.Client, records []record) error {
	now := records[0].now
	days := eventDays(records)
	today := startOfDay(now)
	if slices.ContainsFunc(days, today.Equal) {
		days = append(days, today.Add(day))
	}
	if err := r.partitions.ensure(ctx, tx, days); err != nil {
		return err
	}
	named, alone := false, !startOfDay(now.Add(-midnight)).Equal(startOfDay(now.Add(midnight)))
	for _, rec := range records {
		named = named || rec.named
		alone = alone || rec.named && !startOfDay(rec.At).Equal(today)
	}
	switch {
	case !named:
		return nil
	case alone:
		_, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", requestLock)
		return err
	}
	_, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock_shared($1)", requestLock)
	return err
}

// entries are what records add to the ledger.
type entries struct {
	events  []event
	periods map[period]sums
	uses    map[use]useSum
}

// add adds a record to the entries, or returns why it cannot be recorded.
func (b basis) add(rec record, e *entries) error {
	of, ok := b.models[rec.ModelID]
	if !ok {
		return missing("model", rec.ModelID)
	}
	owner, ok := b.keys[rec.APIKeyID]
	if !ok {
		return missing("API key", rec.APIKeyID)
	}
	if of != owner {
		return fmt.Errorf("%w: the key belongs to another provider than the model", ErrInvalidData)
	}
	if b.recorded[rec.RequestID] {
		return nil
	}
	p := bestPrice(b.prices[rec.ModelID], rec.At, rec.ServiceTier, rec.TotalInput())
	if p == nil {
		return missing("price of model", rec.ModelID)
	}
	cost, err := costOf(rec.Tokens, p.Rates)
	if err != nil {
		return err
	}
	at := rec.At
	if at.After(rec.now) { // a clock that is ahead must not begin the key's next day too early
		at = rec.now
	}
	added := event{rec, p.ID, cost}
	if err := e.addToPeriods(added); err != nil {
		return err
	}
	counted := use{rec.APIKeyID, startOfDay(at)}
	c := e.uses[counted]
	c.add(rec.Total(), at, rec.now)
	e.uses[counted] = c
	e.events = append(e.events, added)
	b.recorded[rec.RequestID] = true
	return nil
}

// addToPeriods adds an event to the four periods that it is counted in.
func (e *entries) addToPeriods(added event) error {
	one := added.sums()
	quarterly := period{added.ModelID, added.APIKeyID, added.price, usage.GrainQuarter, added.At.Truncate(quarter)}
	daily := quarterly
	daily.grain, daily.start = usage.GrainDay, added.At.Truncate(day)
	for _, p := range []period{quarterly, daily, quarterly.total(), daily.total()} {
		s := e.periods[p]
		if err := s.merge(one); err != nil {
			return err
		}
		e.periods[p] = s
	}
	return nil
}

// sums are the event as the sums of a period with nothing else.
func (e event) sums() sums {
	s := sums{
		requests: 1, errors: count(e.Failed), unpriced: count(e.cost == nil),
		tokens: inColumns(e.Tokens), cost: value(e.cost), latency: e.Latency.Milliseconds(),
	}
	s.histogram.Add(s.latency)
	return s
}

// use is a UTC day in which a key was used.
type use struct {
	key uuid.UUID
	day time.Time
}

type useSum struct {
	requests, tokens int64
	extra            bool // they are not in the ledger
	last, now        time.Time
}

func (s *useSum) add(tokens int64, at, now time.Time) {
	s.requests++
	s.tokens += tokens
	if at.After(s.last) {
		s.last = at
	}
	if now.After(s.now) {
		s.now = now
	}
}

// bestPrice returns the price that applies to a request: of its service tier, or of the standard tier
// if that has none; and in there the one for the largest context that the request reaches.
func bestPrice(prices []*ent.Price, at time.Time, tier string, totalInput int64) (best *ent.Price) {
	for _, p := range prices {
		switch {
		case p.MinContextTokens > totalInput, p.EffectiveFrom.After(at),
			p.EffectiveTo != nil && !p.EffectiveTo.After(at), p.ServiceTier != tier && p.ServiceTier != StandardTier:
		case best == nil,
			p.ServiceTier == best.ServiceTier && p.MinContextTokens > best.MinContextTokens,
			p.ServiceTier == tier && best.ServiceTier != tier:
			best = p
		}
	}
	return best
}
