package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/batch"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

const (
	maxBatch = 256  // calls that are committed together
	maxQueue = 4096 // calls that wait; callers beyond them wait before theirs does

	// batchPatience is how long a batch may take, for callers without a deadline. It is for servers that
	// do not answer: what waits for locks, or is repeated, is given up before.
	batchPatience = 40 * time.Second
)

// record is a request that is to be recorded. Its defaults are filled in, and it is free of faults that
// can be seen without the database.
type record struct {
	UsageInput
	id    uuid.UUID // of its event; zero: there is nothing to record
	named bool      // the request id is the caller's: it may have been recorded before
	now   time.Time // of the call
}

// call is what a caller wants of the next transaction of the ledger and the key pool: to record a request, to acquire a
// key, or to end a lease, which may record a request too.
type call struct {
	record
	acquire *acquisition
	end     *leaseEnd
	actor   string
}

func newQueue(r *Registry) *batch.Queue[call] {
	return batch.New(maxBatch, maxQueue, r.db.TurnTimeout(), r.commitBatch)
}

// commit does a call in one batch with those of others, or within the registry's transaction.
func (r *Registry) commit(ctx context.Context, c call) error {
	if r.inTx {
		return r.commitWhole(ctx, []call{c})
	}
	return r.calls.Do(ctx, c)
}

// maxSyncs is how often a commit is tried that a disk cannot sync. A server is tried until the batch's time is over.
const maxSyncs = 3

// commitBatch does a batch in one transaction and returns an error, or nil, for each call. A commit
// of which nobody knows whether it happened is repeated: ids of requests and leases tell what was done.
func (r *Registry) commitBatch(ctx context.Context, calls []call) []error {
	ctx, cancel := context.WithTimeout(ctx, batchPatience)
	defer cancel()
	errs, err := r.commitOnce(ctx, calls)
	uncertain := false
	for n := 1; errors.Is(err, ErrUncertain) && ctx.Err() == nil && (n < maxSyncs || r.db.Dialect() != dialect.SQLite); n++ {
		uncertain = true
		for i := range calls {
			calls[i].repeated()
		}
		errs, err = r.commitOnce(ctx, calls)
	}
	if err == nil {
		return errs
	}
	if uncertain && !isFault(err) && !errors.Is(err, ErrUncertain) { // of the first attempt nobody knows yet
		err = fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	if errors.Is(err, ErrForeignKey) {
		r.names.forget()
	}
	errs = make([]error, len(calls))
	for i := range calls {
		errs[i] = err
		if len(calls) > 1 && isFault(err) {
			errs[i] = r.commitBatch(ctx, calls[i:i+1])[0]
		}
	}
	return errs
}

// repeated notes that the call may have been done already.
func (c *call) repeated() {
	c.named = true
	switch {
	case c.acquire != nil:
		c.acquire.repeated = true
	case c.end != nil:
		c.end.repeated = true
	}
}

// commitOnce does those of the calls that can be done, in one transaction or within the registry's.
func (r *Registry) commitOnce(ctx context.Context, calls []call) (errs []error, err error) {
	err = r.commitTx(ctx, calls, func(verdicts []error) error {
		errs = verdicts
		return nil
	})
	return errs, err
}

// commitWhole does all of the calls in one transaction, or none.
func (r *Registry) commitWhole(ctx context.Context, calls []call) error {
	return r.commitTx(ctx, calls, func(verdicts []error) error {
		for i, err := range verdicts {
			if err != nil && len(calls) > 1 {
				err = fmt.Errorf("request %d: %w", i, err)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// commitTx does calls in a transaction, which judge may undo. It does so again, with nothing remembered, when an event
// has no partition, because another process dropped it since it was last seen; when a row is gone that was remembered;
// and when another process has recorded a request meanwhile, which the next attempt then finds.
func (r *Registry) commitTx(ctx context.Context, calls []call, judge func(verdicts []error) error) error {
	for stale, overtaken, attempts := false, 0, 0; ; {
		var s *snapshot
		err := r.writeOn(ctx, r.db.Batch(), "", func(tx *ent.Client) (err error) {
			if attempts++; attempts%2 == 0 && !r.inTx && r.db.Dialect() == dialect.Postgres {
				if err := r.lockRows(ctx, tx, calls); err != nil {
					return err
				}
			}
			within := ctx
			if r.db.Dialect() == dialect.SQLite {
				// Nothing keeps the statements waiting, and the driver runs one that can be cancelled in a goroutine of
				// its own.
				within = context.WithoutCancel(ctx)
			}
			if s, err = r.memory.recall(within, r.db, tx); err != nil {
				return err
			}
			verdicts, err := r.applyAll(within, tx, s, calls)
			if err != nil {
				return err
			}
			return judge(verdicts)
		})
		if err == nil {
			r.memory.keep(s)
		}
		if errors.Is(err, bulk.ErrStale) && !stale {
			stale = true
			continue
		}
		if overtaken < len(calls) && strings.HasSuffix(store.DuplicateOf(err), ledger.RequestIndex) {
			overtaken++ // each attempt finds at least one request more
			continue
		}
		if !store.IsNoPartition(err) {
			return err
		}
		r.partitions.Forget()
	}
}

// isFault reports whether an error can be the fault of one call of a batch, such as a sum that does
// not fit, so that the others are better off without it.
func isFault(err error) bool {
	return errors.Is(err, ErrInvalidData) || errors.Is(err, ErrForeignKey) || errors.Is(err, ErrConflict)
}

// applyAll does those of the calls that can be done, and says of the others why not. A request that was recorded before
// is one that can be, and is left out.
func (r *Registry) applyAll(ctx context.Context, tx *ent.Client, s *snapshot, calls []call) ([]error, error) {
	if r.db.Dialect() == dialect.Postgres {
		if err := r.prepareEvents(ctx, tx, calls); err != nil {
			return nil, err
		}
	}
	if err := r.readSnapshot(ctx, tx, s, calls); err != nil {
		return nil, err
	}
	errs, e := make([]error, len(calls)), changes{periods: make(map[ledger.Period]ledger.Sums, 2*len(calls)+2)}
	for i := range calls {
		if calls[i].acquire != nil { // what ends gives way to what begins
			continue
		}
		if errs[i] = s.apply(&calls[i], &e); errors.Is(errs[i], fault.ErrOverflow) && len(calls) > 1 {
			return nil, errs[i] // of sums, which each record alone does not have
		}
	}
	for _, id := range e.refused {
		if lease := s.leases[id]; lease != nil {
			e.leases = append(e.leases, lease)
			delete(s.leases, id)
		} else if lease := s.expired[id]; lease != nil {
			e.expired = append(e.expired, lease)
			delete(s.expired, id)
		}
	}
	for i := range calls {
		if calls[i].acquire == nil {
			continue
		}
		var err error
		if errs[i], err = r.acquireOne(ctx, tx, s, &calls[i], &e); err != nil {
			return nil, err
		}
	}
	all := ledger.Sorted(e.periods)
	if err := ledger.Read(ctx, tx, r.db.Dialect(), all, s.periods); err != nil {
		return nil, err
	}
	for _, p := range all {
		total, known := s.periods[p] // zero: it is new
		if err := total.Merge(e.periods[p]); err != nil {
			return nil, err
		}
		s.periods[p] = total
		if known {
			e.changed = append(e.changed, p)
		} else {
			e.added = append(e.added, p)
		}
	}
	return errs, r.writeChanges(ctx, tx, s, e)
}

// acquireOne leases a key, or says why there is none. Leases that have expired are looked for once a second, and before
// a caller is turned away.
func (r *Registry) acquireOne(ctx context.Context, tx *ent.Client, s *snapshot, c *call, e *changes) (verdict, err error) {
	p := s.pools[c.acquire.provider]
	if r.expiries.due(p.ID, s.now) {
		if err := r.takeExpired(ctx, tx, s, p); err != nil {
			return nil, err
		}
	}
	for {
		verdict = s.acquire(c, e)
		if s.looked[p.ID] || !errors.Is(verdict, ErrNoKeyAvailable) {
			return verdict, nil
		}
		if err := r.takeExpired(ctx, tx, s, p); err != nil {
			return nil, err
		}
	}
}

// writeChanges writes what a batch changes. A single record's statements go to the server as one: its caller
// waits for one round trip rather than four. Those of larger batches would make too many different ones to prepare.
func (r *Registry) writeChanges(ctx context.Context, tx *ent.Client, s *snapshot, e changes) error {
	var to bulk.Execer = tx
	var one bulk.Together
	if r.db.Dialect() == dialect.Postgres {
		if len(e.events)+len(e.leases) == 1 {
			to = &one
		}
		// In one order, lest two transactions with the same request ids wait for each other.
		slices.SortFunc(e.events, func(a, b event) int { return cmp.Compare(a.RequestID, b.RequestID) })
	}
	if err := insertEvents(ctx, to, e.events); err != nil {
		return err
	}
	if err := ledger.Write(ctx, to, e.added, s.periods); err != nil {
		return err
	}
	if err := ledger.Update(ctx, to, r.db.Dialect(), e.changed, s.periods); err != nil {
		return err
	}
	if err := insertLeases(ctx, to, e.leases); err != nil {
		return err
	}
	if err := insertExpired(ctx, tx, e.expired); err != nil {
		return err
	}
	if err := r.writePool(ctx, tx, to, s); err != nil {
		return err
	}
	if err := one.Flush(ctx, tx); err != nil {
		return err
	}
	for _, a := range e.audits {
		if err := r.As(a.actor).audit(ctx, tx, s.now, a.entries...); err != nil {
			return err
		}
	}
	return nil
}

// requestLock is the number of the advisory lock for request ids ("MSrq").
const requestLock = 0x4d537271

// midnight is how far two machines' clocks may be apart.
const midnight = time.Minute

// prepareEvents makes the partitions for events. Each partition keeps its request ids unique, and nothing keeps the
// same request from being recorded twice at once in two of them. Therefore whoever records a named request of another
// day than today does so alone.
func (r *Registry) prepareEvents(ctx context.Context, tx *ent.Client, calls []call) error {
	days := eventDays(calls)
	if len(days) == 0 {
		return nil
	}
	now := calls[0].now
	today := utc.StartOfDay(now)
	if slices.ContainsFunc(days, today.Equal) {
		days = append(days, today.Add(utc.Day))
	}
	if err := r.partitions.Ensure(ctx, tx, days, r.inTx); err != nil {
		return err
	}
	named, alone := false, !utc.StartOfDay(now.Add(-midnight)).Equal(utc.StartOfDay(now.Add(midnight)))
	for i := range calls {
		if c := &calls[i]; c.records() {
			named = named || c.named
			alone = alone || c.named && !utc.StartOfDay(c.At).Equal(today)
		}
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

// records tells that there is a request to be recorded.
func (r *record) records() bool { return r.id != uuid.Nil }

// changes are what the calls of a batch add to the ledger and the pool.
type changes struct {
	events  []event
	periods map[ledger.Period]ledger.Sums // what is added to them
	added   []ledger.Period               // those that are new, in their order
	changed []ledger.Period               // the others
	leases  []*pool.Lease                 // to be inserted
	expired []*pool.Lease                 // likewise, among those that have expired
	refused []uuid.UUID                   // leases whose end was refused
	audits  []actorEntries
}

// actorEntries are entries of the audit trail, by one actor.
type actorEntries struct {
	actor   string
	entries []auditEntry
}

// audit adds what the pool did by itself.
func (e *changes) audit(actor string, events []pool.Event) {
	if len(events) == 0 {
		return
	}
	entries := make([]auditEntry, len(events))
	for i, event := range events {
		entries[i] = auditPool(event)
	}
	e.audits = append(e.audits, actorEntries{actor, entries})
}

// record adds a request to the changes, or returns why it cannot be recorded. Of a lease that ends, it counts in the
// lease's stead.
func (s *snapshot) record(rec *record, lease *pool.Lease, e *changes) error {
	of, ok := s.models[rec.ModelID]
	if !ok {
		return fault.Missing("model", rec.ModelID)
	}
	k, ok := s.keys[rec.APIKeyID]
	if !ok {
		return fault.Missing("API key", rec.APIKeyID)
	}
	if of.provider != k.Provider {
		return fmt.Errorf("%w: the key belongs to another provider than the model", ErrInvalidData)
	}
	if s.recorded[rec.RequestID] {
		return nil
	}
	p := bestPrice(s.prices[rec.ModelID], rec.At, rec.ServiceTier, rec.TotalInput())
	if p == nil {
		return fault.Missing("price of model", rec.ModelID)
	}
	cost, err := costOf(rec.Tokens, RatesOf(p))
	if err != nil {
		return err
	}
	at := rec.At
	if at.After(rec.now) { // a clock that is ahead must not begin the key's next day too early
		at = rec.now
	}
	if k.Uses >= fault.MaxAmount || k.Tokens > fault.MaxAmount-rec.Total() {
		return fault.ErrOverflow
	}
	added := event{*rec, p.ID, cost}
	if err := e.addToPeriods(added); err != nil {
		return err
	}
	took := pool.Amount{Requests: 1, Tokens: rec.Total(), Cost: value(cost)}
	k.AddUse(took, at)
	if lease != nil {
		s.release(lease, took)
	} else {
		k.Use(at, s.now, took)
	}
	e.events = append(e.events, added)
	s.recorded[rec.RequestID] = true
	return nil
}

// addToPeriods adds an event to the four periods that it is counted in.
func (e *changes) addToPeriods(added event) error {
	one := added.sums()
	quarterly := ledger.QuarterOf(added.ModelID, added.APIKeyID, added.price, added.At)
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

// sums are the event as the sums of a period with nothing else.
func (e event) sums() ledger.Sums {
	s := ledger.Sums{
		Requests: 1, Errors: count(e.Failed), Unpriced: count(e.cost == nil),
		Tokens: ledger.InColumns(e.Tokens), Cost: value(e.cost), Latency: e.Latency.Milliseconds(),
	}
	s.Histogram.Add(s.Latency)
	return s
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
