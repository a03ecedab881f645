package commit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"entgo.io/ent/dialect"

	batches "github.com/jeffersonwarrior/modelscan/internal/batch"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

const (
	maxBatch = 256  // calls that are committed together
	maxQueue = 4096 // calls that wait; callers beyond them wait before theirs does

	// Patience is how long a batch may take, for callers without a deadline. It is for servers that do not answer: what
	// waits for locks, or is repeated, is given up before.
	Patience = 40 * time.Second
)

// Committer commits the calls of a process.
type Committer struct {
	env
	memory memory
	queue  *batches.Queue[Call]
}

// New returns a Committer. Close ends it.
func New(c Config) *Committer {
	m := &Committer{env: env{Config: c, engine: c.DB.Dialect()}}
	m.queue = batches.New(maxBatch, maxQueue, c.DB.TurnTimeout(), m.commit)
	return m
}

// Close waits for the calls that are under way, and refuses others.
func (m *Committer) Close() { m.queue.Close() }

// Do does a call in one batch with those of others.
func (m *Committer) Do(ctx context.Context, c Call) error { return m.queue.Do(ctx, c) }

// DoAll does all of the calls in one transaction of their own, or none.
func (m *Committer) DoAll(ctx context.Context, calls []Call) error {
	return m.transact(ctx, m.own(ctx), calls, first)
}

// DoWithin does all of the calls, or none, as a part of a caller's transaction: write runs a body within it.
func (m *Committer) DoWithin(
	ctx context.Context, write func(body func(tx *ent.Client) error) error, calls []Call,
) error {
	return m.transact(ctx, transaction{write, true}, calls, first)
}

// first returns the first error of several calls.
func first(verdicts []error) error {
	for i, err := range verdicts {
		if err != nil && len(verdicts) > 1 {
			err = fmt.Errorf("request %d: %w", i, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxSyncs is how often a commit is tried that a disk cannot sync. A server is tried until the batch's time is over.
const maxSyncs = 3

// commit does a batch in one transaction and returns an error, or nil, for each call. A commit of which nobody knows
// whether it happened is repeated: ids of requests and leases tell what was done.
func (m *Committer) commit(ctx context.Context, calls []Call) []error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	errs, err := m.Once(ctx, calls)
	uncertain := false
	for n := 1; errors.Is(err, fault.ErrUncertain) && ctx.Err() == nil &&
		(n < maxSyncs || m.engine != dialect.SQLite); n++ {
		uncertain = true
		for i := range calls {
			calls[i].repeated()
		}
		errs, err = m.Once(ctx, calls)
	}
	if err == nil {
		return errs
	}
	if uncertain && !isFault(err) && !errors.Is(err, fault.ErrUncertain) { // of the first attempt nobody knows yet
		err = fmt.Errorf("%w: %w", fault.ErrUncertain, err)
	}
	if errors.Is(err, fault.ErrForeignKey) {
		m.known.forget()
	}
	errs = make([]error, len(calls))
	for i := range calls {
		errs[i] = err
		if len(calls) > 1 && isFault(err) {
			errs[i] = m.commit(ctx, calls[i:i+1])[0]
		}
	}
	return errs
}

// Once does those of the calls that can be done, in one transaction, and returns an error, or nil, for each.
func (m *Committer) Once(ctx context.Context, calls []Call) (errs []error, err error) {
	err = m.transact(ctx, m.own(ctx), calls, func(verdicts []error) error {
		errs = verdicts
		return nil
	})
	return errs, err
}

// transaction runs the body of a transaction.
type transaction struct {
	write func(body func(tx *ent.Client) error) error
	inTx  bool // it is a part of another one
}

// own returns transactions of the committer's own.
func (m *Committer) own(ctx context.Context) transaction {
	return transaction{func(body func(tx *ent.Client) error) error { return m.Write(ctx, body) }, false}
}

// transact does calls in a transaction, which judge may undo. It does so again, with nothing remembered, when an event
// has no partition, because another process dropped it since it was last seen; when a row is gone that was remembered;
// and when another process has recorded a request meanwhile, which the next attempt then finds.
func (m *Committer) transact(
	ctx context.Context, t transaction, calls []Call, judge func(verdicts []error) error,
) error {
	for stale, overtaken, attempts := false, 0, 0; ; {
		var s *Snapshot
		err := t.write(func(tx *ent.Client) (err error) {
			if attempts++; attempts%2 == 0 && !t.inTx && m.engine == dialect.Postgres {
				if err := lockRows(ctx, tx, calls); err != nil {
					return err
				}
			}
			s, err = m.attempt(ctx, tx, t.inTx, calls, judge)
			return err
		})
		if err == nil && !t.inTx {
			m.memory.keep(s)
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
		m.partitions.Forget()
	}
}

// attempt does calls in a transaction that has begun, and returns the snapshot that they leave.
func (m *Committer) attempt(
	ctx context.Context, tx *ent.Client, inTx bool, calls []Call, judge func(verdicts []error) error,
) (s *Snapshot, err error) {
	if m.engine == dialect.SQLite {
		// Nothing keeps the statements waiting, and the driver runs one that can be cancelled in a goroutine of its
		// own.
		ctx = context.WithoutCancel(ctx)
	}
	if inTx {
		s = newSnapshot(m.Strategy, time.Time{})
	} else if s, err = m.memory.recall(ctx, m.DB, tx, m.Strategy); err != nil {
		return nil, err
	}
	s.begin()
	b := batch{env: &m.env, Snapshot: s, tx: tx, inTx: inTx}
	verdicts, err := b.run(ctx, calls)
	if err != nil {
		return nil, err
	}
	return s, judge(verdicts)
}

// isFault reports whether an error can be the fault of one call of a batch, such as a sum that does not fit, so that
// the others are better off without it.
func isFault(err error) bool {
	return errors.Is(err, fault.ErrInvalidData) || errors.Is(err, fault.ErrForeignKey) ||
		errors.Is(err, fault.ErrConflict)
}
