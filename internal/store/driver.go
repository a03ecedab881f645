package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
)

// DB is an open database behind Ent's driver interface. Reads go to a pool of read-only
// connections; everything else goes to the one writer connection, in the order of arrival.
type DB struct {
	writer, readers *sql.DB

	turn    chan struct{} // holds a token while somebody writes; waiters are served in order
	closing chan struct{} // closed by Close
	once    sync.Once
	err     error // what Close returned
}

var (
	_ dialect.Driver     = (*DB)(nil)
	_ entsql.ExecQuerier = (*DB)(nil)
)

func newDB(writer, readers *sql.DB) *DB {
	return &DB{writer: writer, readers: readers, turn: make(chan struct{}, 1), closing: make(chan struct{})}
}

// Writer returns the pool of the writer connection, for migrations.
func (d *DB) Writer() *sql.DB { return d.writer }

// Dialect implements dialect.Driver.
func (*DB) Dialect() string { return dialect.SQLite }

// Close waits for the transaction that is under way, if any, and closes the database. Whoever
// waits for its turn gets [ErrClosed]. Further calls return what the first one did.
func (d *DB) Close() error {
	d.once.Do(func() {
		close(d.closing)
		d.turn <- struct{}{}
		d.err = d.readers.Close()
		if d.writer != d.readers {
			d.err = errors.Join(d.err, d.writer.Close())
		}
		<-d.turn
	})
	return d.err
}

// acquire waits for the writer connection; release hands it on.
func (d *DB) acquire(ctx context.Context) (release func(), err error) {
	select {
	case <-d.closing:
		return nil, ErrClosed
	default:
	}
	select {
	case d.turn <- struct{}{}:
		return sync.OnceFunc(func() { <-d.turn }), nil
	case <-d.closing:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// closed replaces the nameless error of a closed pool by ErrClosed.
func (d *DB) closed(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-d.closing:
		return errors.Join(ErrClosed, err)
	default:
		return err
	}
}

// Exec implements dialect.Driver.
func (d *DB) Exec(ctx context.Context, query string, args, v any) error {
	return entsql.Conn{ExecQuerier: d}.Exec(ctx, query, args, v)
}

// Query implements dialect.Driver.
func (d *DB) Query(ctx context.Context, query string, args, v any) error {
	return entsql.Conn{ExecQuerier: d}.Query(ctx, query, args, v)
}

// ExecContext runs a statement on the writer connection.
func (d *DB) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	release, err := d.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	var res sql.Result
	err = patiently(ctx, func() (err error) {
		res, err = normalizing{d.writer}.ExecContext(ctx, query, args...)
		return err
	})
	return res, d.closed(err)
}

// QueryContext runs a SELECT on a reader connection, and anything else on the writer's. What
// writes in spite of its name fails there: readers are read-only.
func (d *DB) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if strings.HasPrefix(query, "SELECT ") {
		rows, err := normalizing{d.readers}.QueryContext(ctx, query, args...)
		return rows, d.closed(err)
	}
	release, err := d.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release() // until the rows are closed, the next writer waits for the connection itself
	var rows *sql.Rows
	err = patiently(ctx, func() (err error) {
		rows, err = normalizing{d.writer}.QueryContext(ctx, query, args...) //nolint:rowserrcheck // the caller's
		return err
	})
	return rows, d.closed(err)
}

// Tx begins a transaction that holds the write lock from its start.
func (d *DB) Tx(ctx context.Context) (dialect.Tx, error) { return d.BeginTx(ctx, nil) }

// BeginTx is [DB.Tx]. It is the form that Ent asks for; SQLite has no further options.
func (d *DB) BeginTx(ctx context.Context, opts *sql.TxOptions) (dialect.Tx, error) {
	release, err := d.acquire(ctx)
	if err != nil {
		return nil, err
	}
	var t *sql.Tx
	err = patiently(ctx, func() (err error) {
		t, err = d.writer.BeginTx(ctx, opts)
		return err
	})
	if err != nil {
		release()
		return nil, d.closed(err)
	}
	return &tx{Conn: entsql.Conn{ExecQuerier: normalizing{t}}, tx: t, release: release}, nil
}

// tx is a transaction that passes the turn on when it ends.
type tx struct {
	entsql.Conn
	tx      *sql.Tx
	release func()
}

func (t *tx) Commit() error {
	defer t.release()
	return t.tx.Commit()
}

func (t *tx) Rollback() error {
	defer t.release()
	return t.tx.Rollback()
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
		if !ok {
			continue
		}
		if &normalized[0] == &args[0] {
			normalized = slices.Clone(args)
		}
		normalized[i] = Time(t)
	}
	return normalized
}

// Time returns t as it is stored: in UTC, cut to microseconds.
func Time(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
