package registry

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/migrate"
)

// Registry is an open database of providers, models, prices, API keys and usage. It is safe
// for concurrent use.
type Registry struct {
	db     store.DB
	client *ent.Client
	fresh  *ent.Client // reads at the primary alone; else the same as client
	clock  func() time.Time
	inTx   bool         // client belongs to a transaction
	outer  *Registry    // of a transaction: on which it was begun
	over   *atomic.Bool // of a transaction: it has ended
	torn   *error       // of a transaction: why it must not commit: a part of it could be neither kept nor undone
	hot    *hot         // nil within a transaction
	actor  string       // as given: audit checks it
	// commits does what is recorded, acquired and ended together.
	commits  *commit.Committer
	vault    *vault
	waiters  *waiters
	classify Classifier

	mostRetryAfter time.Duration

	pieceRows int                         // see there
	between   func(context.Context) error // stands for the pauses between the pieces of long operations; nil but in tests
}

// Open opens the database of that name and brings it up to date.
//
// The name is the path of a SQLite file, "file:" and such a path with percent escapes, ":memory:"
// for a private database that is gone after Close, or the URL of a PostgreSQL database:
//
//	modelscan.db
//	file:/var/lib/gateway/what%3f.db
//	postgres://user:password@host:5432/database
//	postgres://user:password@host1,host2/database?target_session_attrs=read-write
//
// After a SQLite name and a "?" may come parameters that ask for what is done anyway: _fk=1 (or _foreign_keys),
// _journal=WAL (or _journal_mode), _txlock=immediate, mode=rwc and cache=private. Two more change something:
// with cache=shared, all of this process that open ":memory:" so have one database; _busy_timeout is
// [WithBusyTimeout] in milliseconds, unless that is given too.
//
// A SQLite file is created if there is none, readable by its owner alone; several processes may
// open one file at once. A PostgreSQL database must exist, on a server of version 15 or newer; its
// tables are made in the first schema of the search_path. Of several hosts the one that can be
// written to is used, also after it has changed.
//
// It returns [ErrInvalidData] for an invalid name: a directory, a path whose folder does not exist, a database that
// the server does not have, other parameters, control characters, the keyword form host=... dbname=..., or sqlite:...;
// and for a file that does not exist [WithoutMigration]; [ErrSchema] for a database that is newer than this program,
// belongs to another application or has another history of migrations; [ErrCorrupt], [ErrReadOnly], [ErrDiskFull],
// [ErrBusy], [ErrUnavailable], [ErrDenied] or [ErrUnsupported]; and [ErrKeyring] if the keyring of [WithKeyring] is
// not that of the database. A database that is refused is not changed, but for migrations where the keyring is the
// reason. ErrDenied of a role names all that it lacks, as GRANTs. No error holds a password.
func Open(ctx context.Context, name string, options ...Option) (*Registry, error) {
	cfg, err := configure(options)
	if err != nil {
		return nil, translate(ctx, "open registry", err)
	}
	db, err := openDB(ctx, "open registry", name, cfg)
	if err != nil {
		return nil, err
	}
	r := &Registry{db: db, client: ent.NewClient(ent.Driver(db)), clock: cfg.clock, hot: new(hot),
		vault: &vault{ring: cfg.keyring, resolve: cfg.resolve}, waiters: &waiters{poll: poll}, classify: cfg.classify,
		pieceRows: pieceRows, mostRetryAfter: cfg.mostRetryAfter}
	r.fresh = r.client
	if driver := db.Fresh(); driver != dialect.Driver(db) {
		r.fresh = ent.NewClient(ent.Driver(driver))
	}
	r.commits = commit.New(commit.Config{
		DB: db, Clock: r.now, Strategy: pool.Strategy(cfg.strategy), Expired: pieceRows, Write: r.writeBatch, NoKey: noKey,
		Audit: r.auditPool,
	})
	if err := r.openVault(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return r, nil
}

func configure(options []Option) (config, error) {
	cfg := config{clock: time.Now, migrate: true, mostRetryAfter: maxRetryAfter}
	for _, option := range options {
		if option == nil {
			return config{}, fmt.Errorf("%w: an option is nil", ErrInvalidData)
		}
		if err := option(&cfg); err != nil {
			return config{}, fmt.Errorf("%w: %w", ErrInvalidData, err)
		}
	}
	if cfg.classify == nil {
		cfg.classify = classifyWithin(cfg.mostRetryAfter)
	}
	return cfg, nil
}

// openDB opens a database that is up to date, or has been brought there, for an operation.
func openDB(ctx context.Context, op, name string, cfg config) (db store.DB, err error) {
	shown, d := store.RedactURL(name), migrate.Postgres
	if store.IsPostgres(name) {
		db, err = store.OpenPostgres(ctx, store.PostgresConfig{
			URL: name, Replica: cfg.replica, Pooler: cfg.pooler,
			Durability: store.Durability(cfg.durability), MaxConns: cfg.maxConns, BusyTimeout: cfg.busyTimeout,
		})
	} else {
		parsed, bad := store.ParseName(name)
		if bad != nil {
			return nil, translate(ctx, op, bad) // the name may hold a password
		}
		if parsed.BusyTimeout != nil && cfg.busyTimeout == 0 {
			cfg.busyTimeout = max(1, *parsed.BusyTimeout)
		}
		shown, d = fmt.Sprintf("%q", name), migrate.SQLite
		db, err = openSQLite(ctx, parsed, cfg)
	}
	if err == nil {
		if err = bringUpToDate(ctx, db, d, cfg); err != nil {
			err = errors.Join(err, db.Close())
		}
	}
	if err != nil {
		return nil, translate(ctx, op+" "+shown, err)
	}
	return db, nil
}

func openSQLite(ctx context.Context, name store.Name, cfg config) (store.DB, error) {
	if cfg.postgres != "" && !cfg.moving {
		return nil, fmt.Errorf("%w: %s is for PostgreSQL", ErrInvalidData, cfg.postgres)
	}
	return store.OpenSQLite(ctx, store.Config{
		Path:          name.Path,
		Shared:        name.Shared,
		Durability:    store.Durability(cfg.durability),
		BusyTimeout:   cfg.busyTimeout,
		ApplicationID: migrate.ApplicationID,
		Existing:      !cfg.migrate,
		Inspect: func(ctx context.Context, db *sql.DB) error {
			return upToDate(ctx, db, migrate.SQLite, cfg.migrate)
		},
	})
}

// bringUpToDate migrates a database, if it may, and returns why it cannot be used otherwise.
func bringUpToDate(ctx context.Context, db store.DB, d migrate.Dialect, cfg config) error {
	return db.Retry(ctx, func() (err error) {
		if d == migrate.Postgres && !cfg.moving {
			if err := checkPrivileges(ctx, db); err != nil {
				return err
			}
		}
		if cfg.migrate {
			_, err = migrate.Apply(ctx, db.Writer(), d)
		} else {
			err = upToDate(ctx, db.Writer(), d, false)
		}
		if err != nil || cfg.moving {
			return err
		}
		return refuseMoving(ctx, db)
	})
}

// upToDate returns why a database cannot be used: where it may be migrated, pending files are
// no reason.
func upToDate(ctx context.Context, db *sql.DB, d migrate.Dialect, mayMigrate bool) error {
	state, err := migrate.Status(ctx, db, d)
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
//
// It waits as long as that takes: within the function of [Registry.InTx] it would wait for itself.
func (r *Registry) Close() error {
	if r.inTx {
		return fmt.Errorf("close registry: %w: inside of a transaction", ErrInvalidData)
	}
	r.commits.Close()
	return translate(context.Background(), "close registry", r.db.Close())
}

// Client returns the Ent client, for walking the graph. It sees everything there is: deleted
// providers, models and keys are told by deleted_at, counters of a day and degradations that
// are over by their times. Write through the registry's methods, which keep the rules.
func (r *Registry) Client() *ent.Client { return r.client }

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
	return r.transact(ctx, steps{"begin transaction", "commit"}, fn)
}

// steps are what the beginning and the end of a transaction are called in errors; nothing where an operation has a name
// of its own.
type steps struct{ begin, commit string }

// transact is InTx.
func (r *Registry) transact(ctx context.Context, named steps, fn func(tx *Registry) error) error {
	return r.transactOn(ctx, r.db, named, fn)
}

// transactOn is transact with what begins the transaction.
func (r *Registry) transactOn(ctx context.Context, db dialect.Driver, named steps, fn func(tx *Registry) error) error {
	if r.inTx {
		return r.savepoint(ctx, named, fn)
	}
	rows := &rowDriver{Driver: db}
	tx, err := ent.NewClient(ent.Driver(rows)).Tx(ctx)
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
	err = fn(&Registry{db: r.db, client: client, fresh: client, clock: r.clock, inTx: true, outer: r, over: &rows.ended, torn: &torn, actor: r.actor, vault: r.vault,
		commits: r.commits, waiters: r.waiters, classify: r.classify,
		pieceRows: r.pieceRows, mostRetryAfter: r.mostRetryAfter})
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
func (r *Registry) savepoint(ctx context.Context, named steps, fn func(tx *Registry) error) error {
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
	err := fn(r)
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
	once := func() error {
		return r.transactOn(ctx, db, steps{}, func(tx *Registry) error { return body(tx.client) })
	}
	if r.inTx {
		return translate(ctx, op, once())
	}
	return translate(ctx, op, r.db.Retry(ctx, once))
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
