package commit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect"

	"github.com/google/uuid"

	batches "github.com/jeffersonwarrior/modelscan/internal/batch"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/pool"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

const (
	maxBatch = 256  // calls that are committed together
	maxQueue = 4096 // calls that wait; further callers wait to enter the queue

	// Patience bounds a batch whose callers have no deadline. It is for servers that do not answer: waits for locks and
	// repetitions end earlier.
	Patience = 40 * time.Second
)

// Committer commits the calls of a process.
type Committer struct {
	env
	memory memory
	queue  *batches.Queue[Call]
	folds  *folder
}

// New returns a Committer. Close ends it.
func New(c Config) *Committer {
	m := &Committer{env: env{Config: c, engine: c.DB.Dialect()}}
	m.folds = newFolder(m.foldAll)
	m.queue = batches.New(maxBatch, maxQueue, c.DB.TurnTimeout(), m.commit)
	return m
}

// Close refuses new calls and waits for those under way, and for a fold.
func (m *Committer) Close() {
	m.queue.Close()
	m.folds.close()
}

// Do does a call in a batch with others.
func (m *Committer) Do(ctx context.Context, c Call) error { return m.queue.Do(ctx, c) }

// DoAll does all of the calls in one transaction of their own, or none.
func (m *Committer) DoAll(ctx context.Context, calls []Call) error {
	err := m.transact(ctx, nil, calls, first)
	if err == nil {
		m.countRecorded(calls, nil)
	}
	return err
}

// DoWithin does all of the calls, or none, in a caller's transaction: write runs a body within it.
func (m *Committer) DoWithin(
	ctx context.Context, write func(body func(tx *ent.Client) error) error, calls []Call,
) error {
	if len(calls) > 1 {
		return m.transact(ctx, write, calls, first)
	}
	// As in a batch, what a refused call leaves stays: a lease ends though its request is not counted.
	var refused error
	err := m.transact(ctx, write, calls, func(verdicts []error) error {
		refused = verdicts[0]
		return nil
	})
	return cmp.Or(err, refused)
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

// maxSyncs is how often a commit is tried if the disk cannot sync it. On a server it is tried until Patience is over.
const maxSyncs = 3

// commit does a batch in one transaction and returns an error, or nil, for each call. An uncertain commit is repeated:
// the ids of requests and leases show what it did. A batch that one call spoils is done call by call.
func (m *Committer) commit(ctx context.Context, calls []Call) []error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	errs, err := m.once(ctx, calls)
	uncertain := false
	for n := 1; errors.Is(err, fault.ErrUncertain) && ctx.Err() == nil &&
		(n < maxSyncs || m.engine != dialect.SQLite); n++ {
		uncertain = true
		for i := range calls {
			calls[i].repeated()
		}
		errs, err = m.once(ctx, calls)
	}
	if err == nil {
		m.countRecorded(calls, errs)
		return errs
	}
	if uncertain && !isFault(err) && !errors.Is(err, fault.ErrUncertain) { // the first attempt is still uncertain
		err = fmt.Errorf("%w: %w", fault.ErrUncertain, err)
	}
	if errors.Is(err, fault.ErrForeignKey) {
		m.known.Clear() // one may have been purged
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

// once does the calls in one transaction, as far as they can be done, and returns an error, or nil, for each.
func (m *Committer) once(ctx context.Context, calls []Call) (errs []error, err error) {
	err = m.transact(ctx, nil, calls, func(verdicts []error) error {
		errs = verdicts
		return nil
	})
	return errs, err
}

// transact does calls in a transaction, which judge may undo. Write runs a body within a caller's transaction; if it is
// nil, the transaction is the committer's own. It begins anew, with nothing remembered, if another process has dropped
// the partition of an event, has removed a remembered row, or has recorded one of the requests meanwhile.
func (m *Committer) transact(
	ctx context.Context, write func(body func(tx *ent.Client) error) error, calls []Call,
	judge func(verdicts []error) error,
) error {
	inTx := write != nil
	if !inTx {
		write = func(body func(tx *ent.Client) error) error { return m.Write(ctx, body) }
	}
	for stale, overtaken, attempts := false, 0, 0; ; {
		var s *snapshot
		err := write(func(tx *ent.Client) (err error) {
			if attempts++; attempts%2 == 0 && !inTx && m.engine == dialect.Postgres {
				if err := lockRows(ctx, tx, calls); err != nil {
					return err
				}
			}
			s, err = m.attempt(ctx, tx, inTx, calls, judge)
			return err
		})
		if err == nil && !inTx {
			m.memory.last.Store(s)
		}
		if errors.Is(err, bulk.ErrStale) && !stale {
			stale = true
			continue
		}
		if overtaken < len(calls) && strings.HasSuffix(store.DuplicateOf(err), ledger.RequestIndex) {
			overtaken++ // each attempt finds at least one more request
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
) (s *snapshot, err error) {
	if m.engine == dialect.SQLite {
		// The statements wait for nothing, and the driver needs a goroutine for each that can be cancelled.
		ctx = context.WithoutCancel(ctx)
	}
	if inTx {
		s = newSnapshot(m.Strategy, time.Time{})
	} else if s, err = m.memory.recall(ctx, m.DB, tx, m.Strategy); err != nil {
		return nil, err
	}
	s.begin()
	b := batch{env: &m.env, snapshot: s, tx: tx, inTx: inTx}
	verdicts, err := b.run(ctx, calls)
	if err != nil {
		return nil, err
	}
	if b.unsure {
		clear(s.accounts)
	}
	return s, judge(verdicts)
}

// countRecorded counts the requests that were recorded.
func (m *Committer) countRecorded(calls []Call, errs []error) {
	models := make([]uuid.UUID, 0, len(calls))
	for i := range calls {
		if calls[i].records() && (errs == nil || errs[i] == nil) {
			models = append(models, calls[i].Request.Model)
		}
	}
	m.folds.count(models, m.Clock())
}

// foldAll folds models, and returns the models that it could not fold. Reports read their requests from the tail, and
// Prune returns the reason.
func (m *Committer) foldAll(ctx context.Context, due dueModels) (failed []uuid.UUID) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	b, err := dimension.Read(ctx, ent.NewClient(ent.Driver(m.DB.Fresh())))
	switch {
	case err != nil:
		return due.models
	case len(b.All) == 0: // most registries have none
		return nil
	}
	for _, id := range due.models {
		if m.Fold(ctx, id, due.now) != nil {
			failed = append(failed, id)
		}
	}
	return failed
}

// Fold adds the requests of a model, as of an instant, to the periods of their values, but for those that may still be
// overtaken.
func (m *Committer) Fold(ctx context.Context, model uuid.UUID, now time.Time) error {
	for more := true; more; {
		err := m.Write(ctx, func(tx *ent.Client) (err error) {
			more, err = m.FoldSome(ctx, tx, model, now)
			return err
		})
		if err != nil {
			return fmt.Errorf("fold model %s: %w", model, err)
		}
	}
	return nil
}

// FoldSome is Fold for the first requests, in a transaction. It reports whether there are more.
func (m *Committer) FoldSome(
	ctx context.Context, tx *ent.Client, model uuid.UUID, now time.Time,
) (more bool, err error) {
	b := batch{env: &m.env, snapshot: newSnapshot(m.Strategy, now), tx: tx}
	if b.version, err = m.sharePolicy(ctx, tx); err != nil { // the dimensions stay as they are
		return false, err
	}
	if err := b.openBook(ctx); err != nil {
		return false, err
	}
	return b.book.Fold(ctx, tx, m.engine, &m.dimensions, dimension.Tail{
		Model: model, Now: now, Limit: foldAtOnce,
	})
}

// isFault reports whether one call of a batch may have caused an error, such as a sum that does not fit. The others can
// then be done without it.
func isFault(err error) bool {
	return errors.Is(err, fault.ErrInvalidData) || errors.Is(err, fault.ErrForeignKey) ||
		errors.Is(err, fault.ErrConflict)
}

// memory keeps the snapshot of the last batch for the next one, which then reads only what it lacks. On SQLite the
// snapshot is valid as long as no other connection has written, which db.State reports; in doubt, everything is read.
// On PostgreSQL only pools are remembered, and lockPools forgets the pools that others have changed.
type memory struct{ last atomic.Pointer[snapshot] }

// recall returns the snapshot for the batch whose transaction has just begun.
func (m *memory) recall(ctx context.Context, db store.DB, tx *ent.Client, strategy pool.Strategy) (*snapshot, error) {
	last := m.last.Swap(nil) // the batch changes it, and may fail
	state, ok, err := db.State(ctx, tx)
	if err != nil {
		return nil, err
	}
	s := newSnapshot(strategy, time.Time{})
	if last != nil && (!ok || state.Follows(last.state)) {
		if len(last.accounts) <= maxAccounts {
			s.accounts, s.version, s.now = last.accounts, last.version, last.now
		}
		if last.rows() <= maxRemembered {
			last.accounts, s = s.accounts, last
		}
	}
	if !ok { // PostgreSQL
		clear(s.models)
		clear(s.prices)
		clear(s.stored)
		clear(s.accounts)
		s.version = nil
	}
	s.state = state
	return s, nil
}
