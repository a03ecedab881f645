package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/pool"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/batch"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

const (
	maxBatch = 256  // works that are committed together
	maxQueue = 4096 // works that wait; callers beyond them wait before theirs does

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

// work is what a caller wants of the next transaction of the ledger and the key pool: to record a request, to acquire a
// key, or to end a lease, which may record a request too.
type work struct {
	record
	acquire *acquisition
	end     *leaseEnd
	actor   string
}

func newQueue(r *Registry) *batch.Queue[work] {
	return batch.New(maxBatch, maxQueue, r.db.TurnTimeout(), r.commitWorks)
}

// maxSyncs is how often a commit is tried that a disk cannot sync. A server is tried until the batch's time is over.
const maxSyncs = 3

// commitWorks does a batch in one transaction and returns an error, or nil, for each work. A commit
// of which nobody knows whether it happened is repeated: ids of requests and leases tell what was done.
func (r *Registry) commitWorks(ctx context.Context, works []work) []error {
	ctx, cancel := context.WithTimeout(ctx, batchPatience)
	defer cancel()
	errs, err := r.doOnce(ctx, works)
	uncertain := false
	for n := 1; errors.Is(err, ErrUncertain) && ctx.Err() == nil && (n < maxSyncs || r.db.Dialect() != dialect.SQLite); n++ {
		uncertain = true
		for i := range works {
			works[i].repeated()
		}
		errs, err = r.doOnce(ctx, works)
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
	errs = make([]error, len(works))
	for i := range works {
		errs[i] = err
		if len(works) > 1 && isFault(err) {
			errs[i] = r.commitWorks(ctx, works[i:i+1])[0]
		}
	}
	return errs
}

// repeated notes that the work may have been done already.
func (w *work) repeated() {
	w.named = true
	switch {
	case w.acquire != nil:
		w.acquire.repeated = true
	case w.end != nil:
		w.end.repeated = true
	}
}

// doOnce does in one transaction, or within the registry's, those of the works that can be done.
func (r *Registry) doOnce(ctx context.Context, works []work) (errs []error, err error) {
	err = r.doTx(ctx, works, func(verdicts []error) error {
		errs = verdicts
		return nil
	})
	return errs, err
}

// doWhole does all of the works in one transaction, or none.
func (r *Registry) doWhole(ctx context.Context, works []work) error {
	return r.doTx(ctx, works, func(verdicts []error) error {
		for i, err := range verdicts {
			if err != nil && len(works) > 1 {
				err = fmt.Errorf("request %d: %w", i, err)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// doTx does works in a transaction, which judge may undo. It does so again, with nothing remembered, when an event has
// no partition, because another process dropped it since it was last seen; when a row is gone that was remembered; and
// when another process has recorded a request meanwhile, which the next attempt then finds.
func (r *Registry) doTx(ctx context.Context, works []work, judge func(verdicts []error) error) error {
	for stale, overtaken, attempts := false, 0, 0; ; {
		var b *basis
		err := r.write(ctx, "", func(tx *ent.Client) (err error) {
			if attempts++; attempts%2 == 0 && !r.inTx && r.db.Dialect() == dialect.Postgres {
				if err := r.lockRows(ctx, tx, works); err != nil {
					return err
				}
			}
			within := ctx
			if r.db.Dialect() == dialect.SQLite {
				// Nothing keeps the statements waiting, and the driver runs one that can be cancelled in a goroutine of its own.
				within = context.WithoutCancel(ctx)
			}
			if b, err = r.memory.recall(within, r.db, tx); err != nil {
				return err
			}
			verdicts, err := r.doAll(within, tx, b, works)
			if err != nil {
				return err
			}
			return judge(verdicts)
		})
		if err == nil {
			r.memory.keep(b)
		}
		if errors.Is(err, bulk.ErrStale) && !stale {
			stale = true
			continue
		}
		if overtaken < len(works) && strings.HasSuffix(store.DuplicateOf(err), requestIndex) {
			overtaken++ // each attempt finds at least one request more
			continue
		}
		if !store.IsNoPartition(err) {
			return err
		}
		r.partitions.forget()
	}
}

// isFault tells whether an error can be the fault of one work of a batch, such as a sum that does
// not fit, so that the others are better off without it.
func isFault(err error) bool {
	return errors.Is(err, ErrInvalidData) || errors.Is(err, ErrForeignKey) || errors.Is(err, ErrConflict)
}

// doAll does those of the works that can be done, and says of the others why not. A request that was
// recorded before is one that can be, and is left out.
func (r *Registry) doAll(ctx context.Context, tx *ent.Client, b *basis, works []work) ([]error, error) {
	if r.db.Dialect() == dialect.Postgres {
		if err := r.prepareEvents(ctx, tx, works); err != nil {
			return nil, err
		}
	}
	if err := r.readBasis(ctx, tx, b, works); err != nil {
		return nil, err
	}
	errs, e := make([]error, len(works)), entries{periods: make(map[period]sums, 2*len(works)+2)}
	for i := range works {
		if works[i].acquire != nil { // what ends gives way to what begins
			continue
		}
		if errs[i] = b.finish(&works[i], &e); errors.Is(errs[i], fault.ErrOverflow) && len(works) > 1 {
			return nil, errs[i] // of sums, which each record alone does not have
		}
	}
	for _, id := range e.refused {
		if lease := b.leases[id]; lease != nil {
			e.leases = append(e.leases, lease)
			delete(b.leases, id)
		} else if lease := b.expired[id]; lease != nil {
			e.expired = append(e.expired, lease)
			delete(b.expired, id)
		}
	}
	for i := range works {
		if works[i].acquire == nil {
			continue
		}
		var err error
		if errs[i], err = r.acquireOne(ctx, tx, b, &works[i], &e); err != nil {
			return nil, err
		}
	}
	all := sortedPeriods(e.periods)
	if err := r.readPeriods(ctx, tx, b, all); err != nil {
		return nil, err
	}
	for _, p := range all {
		s, known := b.periods[p] // zero: it is new
		if err := s.merge(e.periods[p]); err != nil {
			return nil, err
		}
		b.periods[p] = s
		if known {
			e.changed = append(e.changed, p)
		} else {
			e.added = append(e.added, p)
		}
	}
	return errs, r.writeEntries(ctx, tx, b, e)
}

// acquireOne leases a key, or says why there is none. Leases that have expired are looked for once a second, and before a
// caller is turned away.
func (r *Registry) acquireOne(ctx context.Context, tx *ent.Client, b *basis, w *work, e *entries) (verdict, err error) {
	p := b.pools[w.acquire.provider]
	if r.expiries.due(p.ID, b.now) {
		if err := r.takeExpired(ctx, tx, b, p); err != nil {
			return nil, err
		}
	}
	for {
		verdict = b.acquire(w, e)
		if b.looked[p.ID] || !errors.Is(verdict, ErrNoKeyAvailable) {
			return verdict, nil
		}
		if err := r.takeExpired(ctx, tx, b, p); err != nil {
			return nil, err
		}
	}
}

// writeEntries writes what a batch changes. A single record's statements go to the server as one: its caller
// waits for one round trip rather than four. Those of larger batches would make too many different ones to prepare.
func (r *Registry) writeEntries(ctx context.Context, tx *ent.Client, b *basis, e entries) error {
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
	if err := writePeriods(ctx, to, e.added, b.periods); err != nil {
		return err
	}
	if err := updatePeriods(ctx, to, r.db.Dialect(), e.changed, b.periods); err != nil {
		return err
	}
	if err := insertLeases(ctx, to, e.leases); err != nil {
		return err
	}
	if err := insertExpired(ctx, tx, e.expired); err != nil {
		return err
	}
	if err := r.writePool(ctx, tx, to, b); err != nil {
		return err
	}
	if err := one.Flush(ctx, tx); err != nil {
		return err
	}
	for _, a := range e.audits {
		if err := r.As(a.actor).audit(ctx, tx, b.now, a.entries...); err != nil {
			return err
		}
	}
	return nil
}

// requestLock is the number of the advisory lock for request ids ("MSrq").
const requestLock = 0x4d537271

// midnight is how far two machines' clocks may be apart.
const midnight = time.Minute

// prepareEvents makes the partitions for events. Each partition keeps its request ids unique, and nothing keeps the same
// request from being recorded twice at once in two of them. Therefore whoever records a named request of another day
// than today does so alone.
func (r *Registry) prepareEvents(ctx context.Context, tx *ent.Client, works []work) error {
	days := eventDays(works)
	if len(days) == 0 {
		return nil
	}
	now := works[0].now
	today := utc.StartOfDay(now)
	if slices.ContainsFunc(days, today.Equal) {
		days = append(days, today.Add(utc.Day))
	}
	if err := r.partitions.ensure(ctx, tx, days, r.inTx); err != nil {
		return err
	}
	named, alone := false, !utc.StartOfDay(now.Add(-midnight)).Equal(utc.StartOfDay(now.Add(midnight)))
	for i := range works {
		if w := &works[i]; w.records() {
			named = named || w.named
			alone = alone || w.named && !utc.StartOfDay(w.At).Equal(today)
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

// entries are what works add to the ledger and the pool.
type entries struct {
	events  []event
	periods map[period]sums // what is added to them
	added   []period        // those that are new, in their order
	changed []period        // the others
	leases  []*pool.Lease   // to be inserted
	expired []*pool.Lease   // likewise, among those that have expired
	refused []uuid.UUID     // leases whose end was refused
	audits  []actorEntries
}

// actorEntries are changes that somebody made.
type actorEntries struct {
	actor   string
	entries []auditEntry
}

// audit adds what the pool did by itself.
func (e *entries) audit(actor string, events []pool.Event) {
	if len(events) == 0 {
		return
	}
	entries := make([]auditEntry, len(events))
	for i, event := range events {
		entries[i] = auditPool(event)
	}
	e.audits = append(e.audits, actorEntries{actor, entries})
}

// add adds a record to the entries, or returns why it cannot be recorded. Of a lease that ends, it counts in the lease's
// stead.
func (b *basis) add(rec *record, lease *pool.Lease, e *entries) error {
	of, ok := b.models[rec.ModelID]
	if !ok {
		return fault.Missing("model", rec.ModelID)
	}
	k, ok := b.keys[rec.APIKeyID]
	if !ok {
		return fault.Missing("API key", rec.APIKeyID)
	}
	if of.provider != k.Provider {
		return fmt.Errorf("%w: the key belongs to another provider than the model", ErrInvalidData)
	}
	if b.recorded[rec.RequestID] {
		return nil
	}
	p := bestPrice(b.prices[rec.ModelID], rec.At, rec.ServiceTier, rec.TotalInput())
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
		b.release(lease, took)
	} else {
		k.Use(at, b.now, took)
	}
	e.events = append(e.events, added)
	b.recorded[rec.RequestID] = true
	return nil
}

// addToPeriods adds an event to the four periods that it is counted in.
func (e *entries) addToPeriods(added event) error {
	one := added.sums()
	quarterly := period{added.ModelID, added.APIKeyID, added.price, grainQuarter, added.At.Truncate(utc.Quarter)}
	daily := quarterly
	daily.grain, daily.start = grainDay, added.At.Truncate(utc.Day)
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
