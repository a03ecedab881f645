// Package store opens databases and classifies their errors.
package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/jeffersonwarrior/modelscan/internal/busy"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Durability is what an acknowledged write survives.
type Durability int

// The durabilities.
const (
	Full    Durability = iota // a power cut: every commit is synced to disk
	Relaxed                   // the end of the process, but not a power cut
)

// Config says what to open.
type Config struct {
	Path          string // absolute path of the file; empty: a database in memory
	Shared        bool   // in memory: one database for all openers in this process that ask for a shared one
	Durability    Durability
	BusyTimeout   time.Duration // how long to wait for other writers, of any process. Defaults to DefaultBusyTimeout
	ApplicationID int32         // marks a new file as ours
	Existing      bool          // do not create or initialize a file
	// Inspect looks at an existing file before anything is written. Its error is returned,
	// and the file is as it was.
	Inspect func(ctx context.Context, db *sql.DB) error
}

// DB is an open database behind Ent's driver interface.
type DB interface {
	dialect.Driver // Close waits for the transactions that are under way
	entsql.ExecQuerier
	// Snapshot returns the state after all commits so far. Close it.
	Snapshot(ctx context.Context) (*Snapshot, error)
	// Fresh returns the same database for reads that must see all commits so far.
	Fresh() dialect.Driver
	// Batch returns the same database for transactions that repeat the same statements: a server plans them once.
	Batch() dialect.Driver
	// Linger returns a context for ending a part of a transaction that was begun under ctx. It outlives ctx, but not
	// for ever.
	Linger(ctx context.Context) (context.Context, context.CancelFunc)
	// State returns the state of the database when the transaction began. If ok is false, it is unknown, and something
	// may have changed.
	State(ctx context.Context, tx entsql.ExecQuerier) (state State, ok bool, err error)
	// TurnTimeout is how long a caller may wait for the transactions before its own; 0 is no limit.
	TurnTimeout() time.Duration
	// Writer returns the pool of connections that may write, for migrations.
	Writer() *sql.DB
	// Retry repeats a call that failed for a passing reason, if nothing can be done twice. A call is a whole
	// transaction.
	Retry(ctx context.Context, call func() error) error
}

// DefaultBusyTimeout is how long a call waits for what others hold, unless the configuration says otherwise.
const DefaultBusyTimeout = 10 * time.Second

// State is a state of a database. See [State.Follows].
type State struct {
	transaction uint64 // the number of the writer's transaction that begins in it
	connection  int64  // the number of the writer's connection, because data is by connection
	data        int64  // changes when other connections have written
}

// Follows reports whether s comes right after o: the transaction that saw s is the next to write after the one that saw
// o, which has been committed. Then everything that one read and wrote still holds.
func (s State) Follows(o State) bool {
	o.transaction++
	return s == o
}

// normalizing stores every time in UTC and microseconds. SQLite compares times as text, which
// is their order only if all of them are written in one zone; PostgreSQL keeps microseconds.
type normalizing struct{ entsql.ExecQuerier }

func (n normalizing) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return n.ExecQuerier.ExecContext(ctx, query, normalize(args)...)
}

func (n normalizing) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return n.ExecQuerier.QueryContext(ctx, query, normalize(args)...)
}

func normalize(args []any) []any {
	normalized := args // a copy of its own once there is a time in it
	for i, arg := range args {
		t, ok := arg.(time.Time)
		if p, isPointer := arg.(*time.Time); isPointer && p != nil {
			t, ok = *p, true
		}
		if !ok || t.Location() == time.UTC && t.Nanosecond()%1000 == 0 {
			continue
		}
		if &normalized[0] == &args[0] {
			normalized = slices.Clone(args)
		}
		normalized[i] = utc.Of(t)
	}
	return normalized
}

// Each is the only argument of a statement. SQLite runs the statement once with each row as its arguments. This takes
// two thirds of the work of as many calls, because it passes database/sql once. The result counts all affected rows.
// Outside of a transaction, the rows before a failing one stay done.
type Each [][]any

// connection takes a connection out of a pool. If all are in use for too long it returns [ErrHeld], because their
// holders may be waiting for this call to return.
func connection(ctx context.Context, pool *sql.DB, patience time.Duration) (*sql.Conn, error) {
	waiting, cancel := context.WithTimeoutCause(ctx, patience, ErrHeld)
	defer cancel()
	conn, err := pool.Conn(waiting)
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(waiting), ErrHeld) {
		return nil, heldFor(patience)
	}
	return conn, err
}

// isFull reports whether all connections of a pool are in use.
func isFull(pool *sql.DB) bool {
	stats := pool.Stats()
	return stats.InUse == stats.MaxOpenConnections
}

// BeginImmediate begins a transaction that keeps others from writing, on a connection of SQLite's [DB.Writer].
func BeginImmediate(ctx context.Context, conn *sql.Conn) error {
	return busy.Wait(ctx, DefaultBusyTimeout, func() error {
		_, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE")
		return err
	})
}

// Rollback undoes what is left of a transaction that was begun by hand. It has no error of use: it fails where the
// connection is lost or the database has rolled back by itself, and then nothing is left.
func Rollback(ctx context.Context, conn *sql.Conn) {
	_, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
}

// Snapshot is one state of a database, for reads alone, as a driver for Ent. Others can write meanwhile; in memory they
// wait.
type Snapshot struct {
	entsql.Conn
	dialect string
	end     func() error
}

var _ dialect.Driver = (*Snapshot)(nil)

// Close ends the reads. A second Close does nothing.
func (s *Snapshot) Close() error {
	if err := s.end(); !errors.Is(err, sql.ErrTxDone) {
		return err
	}
	return nil
}

// Dialect implements dialect.Driver.
func (s *Snapshot) Dialect() string { return s.dialect }

// errSnapshot is returned for a transaction within a snapshot.
var errSnapshot = errors.New("a snapshot has no transactions")

// Tx implements dialect.Driver. It returns an error.
func (*Snapshot) Tx(context.Context) (dialect.Tx, error) { return nil, errSnapshot }
