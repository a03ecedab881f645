package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/migrate"
)

// Registry is an open database of providers, models, prices, API keys and usage. It is safe
// for concurrent use.
type Registry struct {
	db     *store.DB
	client *ent.Client
	clock  func() time.Time
	inTx   bool // client belongs to a transaction
	hot    *hot // nil within a transaction
}

// Open opens the database of that name, creates it if there is none, and brings it up to date.
//
// The name is the path of a SQLite file, "file:" and such a path with percent escapes, or
// ":memory:" for a private database that is gone after Close. Several processes may open one
// file at once. A new file is readable by its owner alone.
//
// It returns [ErrInvalidData] for a name that is none, such as a directory or a path whose folder
// does not exist, and for a file that does not exist [WithoutMigration]; [ErrSchema] for a database that is newer than this program, belongs
// to another application or has another history of migrations; [ErrCorrupt], [ErrReadOnly],
// [ErrDiskFull] or [ErrBusy]. A database that is refused is not changed.
func Open(ctx context.Context, name string, options ...Option) (*Registry, error) {
	cfg := config{clock: time.Now, migrate: true}
	for _, option := range options {
		if option == nil {
			return nil, fmt.Errorf("open registry: %w: an option is nil", ErrInvalidData)
		}
		if err := option(&cfg); err != nil {
			return nil, fmt.Errorf("open registry: %w: %w", ErrInvalidData, err)
		}
	}
	path, err := store.ParseName(name)
	if err != nil {
		return nil, translate(ctx, "open registry", err)
	}
	op := fmt.Sprintf("open registry %q", name)
	db, err := store.OpenSQLite(ctx, store.Config{
		Path:          path,
		Durability:    cfg.durability,
		ApplicationID: migrate.ApplicationID,
		Existing:      !cfg.migrate,
		Inspect: func(ctx context.Context, db *sql.DB) error {
			return upToDate(ctx, db, cfg.migrate)
		},
	})
	if err != nil {
		return nil, translate(ctx, op, err)
	}
	if cfg.migrate {
		_, err = migrate.Apply(ctx, db.Writer(), migrate.SQLite)
	} else {
		err = upToDate(ctx, db.Writer(), false)
	}
	if err != nil {
		return nil, translate(ctx, op, errors.Join(err, db.Close()))
	}
	return &Registry{db: db, client: ent.NewClient(ent.Driver(db)), clock: cfg.clock, hot: new(hot)}, nil
}

// upToDate returns why a database cannot be used: where it may be migrated, pending files are
// no reason.
func upToDate(ctx context.Context, db *sql.DB, mayMigrate bool) error {
	state, err := migrate.Status(ctx, db, migrate.SQLite)
	if err != nil {
		return err
	}
	if !mayMigrate && len(state.Pending) > 0 {
		return fmt.Errorf("%w: not applied yet: %s", ErrSchema, strings.Join(state.Pending, ", "))
	}
	return nil
}

// Close waits for the transaction that is under way and closes the database. Operations that
// are called later, or that still wait for their turn to write, return [ErrClosed]. A second
// Close does nothing. The registry of a transaction cannot be closed: [ErrInvalidData].
func (r *Registry) Close() error {
	if r.inTx {
		return fmt.Errorf("close registry: %w: inside of a transaction", ErrInvalidData)
	}
	return translate(context.Background(), "close registry", r.db.Close())
}

// Client returns the Ent client, for walking the graph. It sees everything there is: deleted
// providers, models and keys are told by deleted_at, counters of a day and degradations that
// are over by their times. Write through the registry's methods, which keep the rules.
func (r *Registry) Client() *ent.Client { return r.client }

// InTx runs fn in one transaction: what fn does through tx is committed together when fn
// returns nil, and undone when it returns an error or panics. Within fn use tx and nothing
// else of the registry: a write through r, and in memory a read too, would wait for the transaction
// that it is called in. tx is not for several goroutines, and is of no use after fn.
//
// Called on tx, InTx runs fn within the same transaction, and undoes only what that fn did.
//
// It returns the error of fn as it is, or that of the commit; when ctx has ended, the error matches
// that of ctx too.
func (r *Registry) InTx(ctx context.Context, fn func(tx *Registry) error) error {
	if r.inTx {
		return r.savepoint(ctx, fn)
	}
	tx, err := r.client.Tx(ctx)
	if err != nil {
		return translate(ctx, "begin transaction", err)
	}
	open := true
	defer func() {
		if open { // fn panicked or ended its goroutine
			_ = tx.Rollback()
		}
	}()
	err = fn(&Registry{db: r.db, client: tx.Client(), clock: r.clock, inTx: true})
	open = false
	if err != nil {
		if rollback := tx.Rollback(); rollback != nil && !errors.Is(rollback, sql.ErrTxDone) {
			err = errors.Join(err, translate(ctx, "roll back", rollback))
		}
		return ended(ctx, err)
	}
	return translate(ctx, "commit", tx.Commit())
}

// savepoint is a transaction within a transaction.
func (r *Registry) savepoint(ctx context.Context, fn func(tx *Registry) error) error {
	exec := func(ctx context.Context, statement string) error {
		_, err := r.client.ExecContext(ctx, statement)
		return err
	}
	if err := exec(ctx, "SAVEPOINT op"); err != nil {
		return translate(ctx, "begin transaction", err)
	}
	open := true
	detached := context.WithoutCancel(ctx)
	undo := func() error {
		open = false
		return errors.Join(exec(detached, "ROLLBACK TO op"), exec(detached, "RELEASE op"))
	}
	defer func() {
		if open { // fn panicked or ended its goroutine
			_ = undo()
		}
	}()
	err := fn(r)
	if err == nil {
		err = translate(ctx, "commit", ctx.Err())
	}
	if err != nil {
		if rollback := undo(); rollback != nil && store.Classify(rollback) != store.Closed {
			err = errors.Join(err, translate(ctx, "roll back", rollback))
		}
		return err
	}
	open = false
	return translate(ctx, "commit", exec(detached, "RELEASE op"))
}

// write runs the body of an operation in a transaction and translates its error.
func (r *Registry) write(ctx context.Context, op string, body func(tx *ent.Client) error) error {
	return translate(ctx, op, r.InTx(ctx, func(tx *Registry) error { return body(tx.client) }))
}

// now returns the time of an operation; each operation asks once.
func (r *Registry) now() time.Time { return store.Time(r.clock()) }

// value returns what p points to, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
