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
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Registry is an open database of providers, models, prices, API keys and usage. It is safe
// for concurrent use.
type Registry struct {
	db     store.DB
	client *ent.Client
	shown  *ent.Client // what Client returns
	fresh  *ent.Client // reads at the primary alone; else the same as client
	clock  func() time.Time
	inTx   bool         // client belongs to a transaction
	outer  *Registry    // of a transaction: on which it was begun
	over   *atomic.Bool // of a transaction: it has ended
	torn   *error       // of a transaction: why it must not commit: a part of it could be neither kept nor undone
	// blank is a row that Ent made, never changed, without its values; nil within a transaction. Copies of it are tied
	// to the client as Ent's rows are, so that a caller can walk on from them, and hold nothing of another key.
	blank *atomic.Pointer[ent.APIKey]
	actor string // as given: audit checks it
	// commits does what is recorded, acquired and ended together.
	commits  *commit.Committer
	vault    *vault
	waiters  *waiters
	classify Classifier

	mostRetryAfter time.Duration

	pieceRows int                         // see there
	between   func(context.Context) error // stands for the pauses between the pieces of long operations; nil but in tests
}

// Close waits for the transaction that is under way and closes the database. Operations that
// are called later, or that still wait for their turn to write, return [ErrClosed]. A second
// Close does nothing. The registry of a transaction cannot be closed: [ErrInvalidData].
//
// It waits as long as that takes: within the function of [Registry.InTx] it would wait for itself.
func (r *Registry) Close() error {
	if r.inTx {
		return fmt.Errorf("close registry: %w: inside of a transaction", ErrInvalidData)
	}
	r.commits.Close()
	return translate(context.Background(), "close registry", r.db.Close())
}

// Client returns the Ent client, for walking the graph. It sees everything there is: deleted providers, models and keys
// are told by deleted_at, counters of a day and degradations that are over by their times.
//
// It only reads. What would write a row, with a builder of the client or of a row, returns [ErrReadOnly] and names the
// operations to use: they keep the rules and the audit trail. So do Tx and Schema.Create, and Close does nothing.
// Within [Registry.InTx], tx.Client() sees the transaction, and only reads too. ExecContext is the way past all that,
// for tables of your own, for example: in the transaction, with tx.Client().ExecContext.
func (r *Registry) Client() *ent.Client { return r.shown }

// InTx runs fn in one transaction: what fn does through tx is committed together when fn
// returns nil, and undone when it returns an error or panics. Within fn use tx and nothing
// else of the registry: on SQLite a write through r, and in memory a read too, waits for the transaction
// that it is called in, and returns [ErrBusy] after [WithBusyTimeout]; on PostgreSQL, where it needs a row that the
// transaction has changed, or uses, leases or changes keys of a provider of which the transaction has done so. tx is
// not for several goroutines, and is of no use after fn. Rows that tx returned can be walked on from: within fn they
// see the transaction, after it the database.
//
// Called on tx, InTx runs fn within the same transaction, and undoes only what that fn did.
//
// On PostgreSQL other transactions go on meanwhile, at the isolation level READ COMMITTED: what fn
// has read may have changed when it writes, unless it locked the row. A read that fails, for its
// context has ended, say, ends the transaction; an operation that fails does not. Two transactions that wait for
// each other are no standstill: one of them gets [ErrBusy], with nothing done, and may be run again.
// It is not run again by itself, because fn may do more than use the database.
//
// It returns the error of fn as it is, or that of the commit, which can be [ErrUncertain]; when ctx has ended, the
// error matches that of ctx too.
func (r *Registry) InTx(ctx context.Context, fn func(tx *Registry) error) error {
	return r.transact(ctx, r.db, nil, steps{"begin transaction", "commit"}, fn)
}

// steps are what the beginning and the end of a transaction are called in errors; nothing where an operation has a name
// of its own.
type steps struct{ begin, commit string }

// transact is InTx with what begins the transaction, and the operation that writes in it; nil: operations of their own
// do.
func (r *Registry) transact(
	ctx context.Context, db dialect.Driver, o *operation, named steps, fn func(tx *Registry) error,
) error {
	if r.inTx {
		return r.savepoint(ctx, o, named, fn)
	}
	rows := &rowDriver{Driver: db}
	tx, err := r.client.With(ent.Driver(rows), ent.Scope(o)).Tx(ctx)
	if err != nil {
		return translate(ctx, named.begin, err)
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
	within.client, within.shown, within.fresh, within.blank, within.between = client, client, client, nil, nil
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
	return translate(ctx, named.commit, tx.Commit())
}

// savepoint is a transaction within a transaction.
func (r *Registry) savepoint(ctx context.Context, o *operation, named steps, fn func(tx *Registry) error) error {
	within := r
	if o != nil {
		copied := *r
		copied.client, within = r.client.With(ent.Scope(o)), &copied
	}
	exec := func(ctx context.Context, statement string) error {
		_, err := r.client.ExecContext(ctx, statement)
		return err
	}
	if err := exec(ctx, "SAVEPOINT op"); err != nil {
		return translate(ctx, named.begin, err)
	}
	open := true
	end := func(statements ...string) error {
		open = false
		lingering, cancel := r.db.Linger(ctx) // from now on: what fn did may have taken long
		defer cancel()
		for _, statement := range statements {
			if err := exec(lingering, statement); err != nil {
				*r.torn = cmp.Or(*r.torn, translate(ctx, "end a part of a transaction", err))
				return err
			}
		}
		return nil
	}
	undo := func() error { return end("ROLLBACK TO op", "RELEASE op") }
	defer func() {
		if open { // fn panicked or ended its goroutine
			_ = undo() // the transaction remembers
		}
	}()
	err := fn(within)
	if err == nil {
		err = translate(ctx, named.commit, ctx.Err())
	}
	if err != nil {
		if rollback := undo(); rollback != nil && store.Classify(rollback) != store.Closed {
			err = errors.Join(err, translate(ctx, "roll back", rollback))
		}
		return err
	}
	return translate(ctx, named.commit, end("RELEASE op"))
}

// writeBatch runs the body of a batch.
func (r *Registry) writeBatch(ctx context.Context, body func(tx *ent.Client) error) error {
	return r.writeOn(ctx, r.db.Batch(), "", body)
}

// holdPools keeps others from changing pools until the transaction ends. It comes before any row of theirs.
func (r *Registry) holdPools(ctx context.Context, tx *ent.Client, which commit.Pools, args ...any) error {
	return commit.Hold(ctx, tx, r.db.Dialect(), which, args...)
}

// write runs the body of an operation in a transaction and translates its error. On PostgreSQL the
// body may run several times, each time in a new transaction after the last one was undone.
func (r *Registry) write(ctx context.Context, op string, body func(tx *ent.Client) error) error {
	return r.writeOn(ctx, r.db, op, body)
}

// writeOn is write with what begins the transaction.
func (r *Registry) writeOn(ctx context.Context, db dialect.Driver, op string, body func(tx *ent.Client) error) error {
	once := func() error { return r.operate(ctx, db, body) }
	if r.inTx {
		return translate(ctx, op, once())
	}
	return translate(ctx, op, r.db.Retry(ctx, once))
}

// operate is one attempt of an operation.
func (r *Registry) operate(ctx context.Context, db dialect.Driver, body func(tx *ent.Client) error) error {
	o := &operation{clock: r.clock}
	defer o.over.Store(true)
	return r.transact(ctx, db, o, steps{}, func(tx *Registry) error { return body(tx.client) })
}

// catalogueLock is the number of PostgreSQL's advisory lock for changes of the catalogue ("MSrc").
const catalogueLock = 0x4d537263

// writeAlone is write for an operation that reads what others might change before it writes: while
// it runs, no other such operation does, in any process. SQLite has one writer anyway.
func (r *Registry) writeAlone(ctx context.Context, op string, body func(tx *ent.Client) error) error {
	return r.write(ctx, op, func(tx *ent.Client) error {
		if r.db.Dialect() == dialect.Postgres {
			if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", catalogueLock); err != nil {
				return err
			}
		}
		return body(tx)
	})
}

// now returns the time of an operation; each operation asks once.
func (r *Registry) now() time.Time { return utc.Of(r.clock()) }

// value returns what p points to, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
