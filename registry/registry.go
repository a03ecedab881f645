package registry

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/policy"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Registry is an open database of providers, models, prices, API keys and usage. It is safe for concurrent use.
type Registry struct {
	db     store.DB
	client *ent.Client
	shown  *ent.Client // what Client returns
	fresh  *ent.Client // reads at the primary alone; else the same as client
	clock  func() time.Time
	inTx   bool         // within a transaction, to which client belongs
	outer  *Registry    // within a transaction: the registry that began it
	over   *atomic.Bool // within a transaction: set when it has ended
	torn   *error       // within a transaction: why it must not commit: a savepoint could be neither kept nor undone
	// blank is a row that Ent made, without its values; it never changes. GetLeastUsedKey copies it: a copy is tied to
	// the client as Ent's rows are, so that a caller can walk on from it, and holds nothing of another key. It is nil
	// within a transaction.
	blank *atomic.Pointer[ent.APIKey]
	actor string // unchecked: audit checks it
	// commits records requests and begins and ends leases, many callers' in one transaction.
	commits  *commit.Committer
	vault    *vault
	policy   *policy.Memory
	waiters  *waiters
	classify Classifier

	mostRetryAfter time.Duration

	requireConsumer bool // see WithRequiredConsumer

	pieceRows int                         // see the constant pieceRows
	between   func(context.Context) error // replaces the pauses of long operations; set in tests only
}

// Close closes the database. It waits for the transaction that is under way, however long that takes; do not call it
// from within the function of [Registry.InTx]. Operations that are called later, or that still wait for their turn to
// write, return [ErrClosed].
//
// A second Close does nothing. Close on the registry of a transaction returns [ErrInvalidData].
func (r *Registry) Close() error {
	if r.inTx {
		return fmt.Errorf("close registry: %w: the registry of a transaction cannot be closed", ErrInvalidData)
	}
	r.commits.Close()
	err := r.db.Close()
	r.policy.Expire() // nobody is let in from memory any more
	return translate(context.Background(), "close registry", err)
}

// Client returns an Ent client for walking the graph. It sees everything in the database:
//
//   - Deleted providers, models and keys are included; deleted_at tells them apart.
//   - Counters and degradations are as stored, also those whose day or time is over.
//
// The client only reads. Builders that would write a row, of the client or of a row, return [ErrReadOnly] and name the
// operations to use instead: those keep the rules and the audit trail. Tx returns [ErrReadOnly] too, Schema.Create
// fails, and Close does nothing.
//
// Within [Registry.InTx], tx.Client() sees the transaction, and also only reads. To write past the registry, to tables
// of your own for example, use ExecContext; in a transaction, tx.Client().ExecContext.
func (r *Registry) Client() *ent.Client { return r.shown }

// InTx runs fn in one transaction. What fn does through tx is committed when fn returns nil, and undone when it returns
// an error or panics.
//
// Within fn, use tx and nothing else of the registry:
//
//   - On SQLite, a write through r waits for the transaction it is called in, and returns [ErrBusy] after
//     [WithBusyTimeout]. In memory, so does a read.
//   - On PostgreSQL, the same happens to a write through r that needs a row the transaction has changed, or that uses,
//     leases or changes keys of a provider whose keys the transaction has used, leased or changed. After a change of
//     consumers, access keys or budgets, requests for consumers wait until the transaction ends, in all processes. If
//     there are budgets, they also wait after past usage was priced.
//
// Use tx from one goroutine, and not after fn has returned. Rows that tx returned stay usable: they see the transaction
// within fn, and the database afterwards.
//
// Called on tx, InTx runs fn within the same transaction, and undoes only what that fn did.
//
// On PostgreSQL other transactions go on meanwhile, at the isolation level READ COMMITTED. What fn has read may have
// changed by the time it writes, unless it locked the row. A failed read (a cancelled context, for example) aborts the
// transaction; a failed operation does not. If two transactions wait for each other, one of them gets [ErrBusy] with
// nothing done, and may be run again. InTx does not repeat fn by itself, because fn may do more than use the database.
//
// InTx returns the error of fn unchanged, or the error of the commit, which can be [ErrUncertain]. If ctx has ended,
// the error also matches the context's.
func (r *Registry) InTx(ctx context.Context, fn func(tx *Registry) error) error {
	defer r.policy.Expire() // fn may have changed what is remembered
	return r.transact(ctx, r.db, nil, fn)
}

// transact is InTx with the driver that begins the transaction and the operation that writes in it. Without an
// operation, fn calls operations of its own.
func (r *Registry) transact(ctx context.Context, db dialect.Driver, o *operation, fn func(tx *Registry) error) error {
	if r.inTx {
		return r.savepoint(ctx, o, fn)
	}
	rows := &rowDriver{Driver: db}
	tx, err := r.client.With(ent.Driver(rows), ent.Scope(o)).Tx(ctx)
	if err != nil {
		return translate(ctx, o.step("begin transaction"), err)
	}
	defer rows.ended.Store(true)
	open := true
	defer func() {
		if open { // fn panicked or ended its goroutine
			_ = tx.Rollback()
		}
	}()
	var torn error
	client := tx.Client()
	within := *r
	within.client, within.fresh, within.blank, within.between = client, client, nil, nil
	within.shown = r.client.With(ent.Driver(walking{rows}))
	within.inTx, within.outer, within.over, within.torn = true, r, &rows.ended, &torn
	err = fn(&within)
	open = false
	if err == nil {
		err = torn
	}
	if err != nil {
		if rollback := tx.Rollback(); rollback != nil && !errors.Is(rollback, sql.ErrTxDone) {
			err = errors.Join(err, translate(ctx, "roll back", rollback))
		}
		return ended(ctx, err)
	}
	return translate(ctx, o.step("commit"), tx.Commit())
}

// savepoint runs fn as a part of the running transaction.
func (r *Registry) savepoint(ctx context.Context, o *operation, fn func(tx *Registry) error) error {
	within := *r
	if o != nil {
		within.client = r.client.With(ent.Scope(o))
	}
	exec := func(ctx context.Context, statement string) error {
		_, err := r.client.ExecContext(ctx, statement)
		return err
	}
	if err := exec(ctx, "SAVEPOINT op"); err != nil {
		return translate(ctx, o.step("begin transaction"), err)
	}
	open := true
	end := func(statements ...string) error {
		open = false
		lingering, cancel := r.db.Linger(ctx) // begins now: fn may have taken long
		defer cancel()
		for _, statement := range statements {
			if err := exec(lingering, statement); err != nil {
				*r.torn = cmp.Or(*r.torn, translate(ctx, "end a savepoint", err))
				return err
			}
		}
		return nil
	}
	undo := func() error { return end("ROLLBACK TO op", "RELEASE op") }
	defer func() {
		if open { // fn panicked or ended its goroutine
			_ = undo() // torn keeps its error
		}
	}()
	err := fn(&within)
	if err == nil {
		err = translate(ctx, o.step("commit"), ctx.Err())
	}
	if err != nil {
		if rollback := undo(); rollback != nil && !errors.Is(store.Classify(rollback), ErrClosed) {
			err = errors.Join(err, translate(ctx, "roll back", rollback))
		}
		return err
	}
	return translate(ctx, o.step("commit"), end("RELEASE op"))
}

// writeBatch runs the body of a batch in a transaction.
func (r *Registry) writeBatch(ctx context.Context, body func(tx *ent.Client) error) error {
	return r.writeOn(ctx, r.db.Batch(), "", body)
}

// holdPools keeps others from changing pools until the transaction ends. Call it before locking any row of a pool.
func (r *Registry) holdPools(ctx context.Context, tx *ent.Client, which commit.Pools, args ...any) error {
	return commit.Hold(ctx, tx, r.db.Dialect(), which, args...)
}

// writeOn runs the body of an operation in a transaction that a driver begins, and translates its error. On PostgreSQL
// the body may run several times, each time in a new transaction after the last one was rolled back.
func (r *Registry) writeOn(ctx context.Context, db dialect.Driver, op string, body func(tx *ent.Client) error) error {
	once := func() error { return r.operate(ctx, db, body) }
	if r.inTx {
		return translate(ctx, op, once())
	}
	return translate(ctx, op, r.db.Retry(ctx, once))
}

// operate makes one attempt at an operation.
func (r *Registry) operate(ctx context.Context, db dialect.Driver, body func(tx *ent.Client) error) error {
	o := &operation{clock: r.clock}
	defer o.over.Store(true)
	return r.transact(ctx, db, o, func(tx *Registry) error { return body(tx.client) })
}

// inOneState runs a body that reads one state of the database. The body may run several times.
func (r *Registry) inOneState(ctx context.Context, body func(client *ent.Client) error) error {
	if r.inTx {
		return body(r.client)
	}
	return r.db.Retry(ctx, func() error {
		s, err := r.db.Snapshot(ctx)
		if err != nil {
			return err
		}
		return errors.Join(body(ent.NewClient(ent.Driver(s))), s.Close())
	})
}

// now returns the time of an operation. Each operation asks once.
func (r *Registry) now() time.Time { return utc.Of(r.clock()) }

// value returns what p points to, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
