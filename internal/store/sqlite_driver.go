//go:build cgo

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/jeffersonwarrior/modelscan/internal/busy"
)

// SQLite is an open SQLite database. Reads go to a pool of read-only connections. Everything else goes to the one
// writer connection, in the order of arrival.
type SQLite struct {
	entsql.Conn // by ExecContext and QueryContext

	writer, readers *sql.DB
	file            *openFile // nil: in memory

	*line
	busyTimeout time.Duration

	reading sync.RWMutex  // held while a snapshot is open, and for ever by Close
	closing chan struct{} // closed by Close
	once    sync.Once
	shared  *sharedMemory // nil: the pools are this one's own
	err     error         // what Close returned
}

var _ DB = (*SQLite)(nil)

func newSQLite(cfg Config, writer, readers *sql.DB, l *line) *SQLite {
	d := &SQLite{
		writer: writer, readers: readers, line: l, busyTimeout: cfg.BusyTimeout, closing: make(chan struct{}),
	}
	d.Conn = entsql.Conn{ExecQuerier: d}
	return d
}

// line is where writers wait for the one connection that may write.
type line struct {
	turn  chan struct{} // holds a token while somebody writes; waiters are served in order
	turns uint64        // that writers have had; whoever has the turn may read and write it
}

func newLine() *line { return &line{turn: make(chan struct{}, 1)} }

// sharedMemory is the database in memory for all openers in a process that ask for a shared one. It is gone when the
// last of them has closed it.
type sharedMemory struct {
	mu     sync.Mutex
	users  int
	writer *sql.DB
	line   *line
}

var shared sharedMemory

func (m *sharedMemory) open(cfg Config) *SQLite {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users == 0 {
		m.writer, m.line = openMemory(cfg), newLine()
	}
	m.users++
	d := newSQLite(cfg, m.writer, m.writer, m.line)
	d.shared = m
	return d
}

// close closes the database for one of its users.
func (m *sharedMemory) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users--; m.users > 0 {
		return nil
	}
	return m.writer.Close()
}

// Writer implements DB.
func (d *SQLite) Writer() *sql.DB { return d.writer }

// Fresh implements DB: readers see every commit.
func (d *SQLite) Fresh() dialect.Driver { return d }

// Batch implements DB: SQLite's statements stay as they are prepared.
func (d *SQLite) Batch() dialect.Driver { return d }

// Linger implements DB. SQLite keeps nobody waiting, and rolls back a whole transaction that is interrupted.
func (*SQLite) Linger(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithoutCancel(ctx), func() {}
}

// Retry implements DB: waiting for other processes is done statement by statement.
func (*SQLite) Retry(_ context.Context, call func() error) error { return call() }

// TurnTimeout implements DB.
func (d *SQLite) TurnTimeout() time.Duration { return d.busyTimeout }

// State implements DB. It is for the transaction that has the turn.
func (d *SQLite) State(ctx context.Context, tx entsql.ExecQuerier) (_ State, ok bool, err error) {
	rows, err := tx.QueryContext(ctx, "PRAGMA data_version") //nolint:rowserrcheck // ScanInt64 asks
	if err != nil {
		return State{}, false, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	s := State{transaction: d.turns, connection: d.writer.Driver().(*connector).opened.Load()}
	s.data, err = entsql.ScanInt64(rows)
	return s, err == nil, err
}

// Dialect implements dialect.Driver.
func (*SQLite) Dialect() string { return dialect.SQLite }

// Close waits for the transaction and the snapshots that are open and closes the database. Whoever
// waits for its turn gets [ErrClosed]. Further calls return what the first one did.
func (d *SQLite) Close() error {
	d.once.Do(func() {
		close(d.closing)
		d.turn <- struct{}{}
		d.reading.Lock()
		d.err = d.closePools()
		<-d.turn
	})
	return d.err
}

func (d *SQLite) closePools() error {
	switch {
	case d.shared != nil:
		return d.shared.close()
	case d.writer == d.readers:
		return d.writer.Close()
	}
	return errors.Join(d.readers.Close(), d.writer.Close())
}

// acquire waits for the writer connection, to write or to read; release hands it on. It returns [ErrHeld] if that takes
// too long, because the holder may be waiting for this call to return.
func (d *SQLite) acquire(ctx context.Context, writes bool) (release func(), err error) {
	select {
	case <-d.closing:
		return nil, ErrClosed
	default:
	}
	select {
	case d.turn <- struct{}{}: // nobody waits
	default:
		if err := d.queue(ctx); err != nil {
			return nil, err
		}
	}
	if err := d.prepare(ctx, writes); err != nil {
		<-d.turn
		return nil, err
	}
	return sync.OnceFunc(func() { <-d.turn }), nil
}

// prepare makes sure that the connection can be used, and counts turns to write. The caller has the turn.
func (d *SQLite) prepare(ctx context.Context, writes bool) error {
	if isFull(d.writer) { // by rows that are not closed; the pool itself would wait without a limit
		conn, err := connection(ctx, d.writer, d.busyTimeout)
		if errors.Is(err, ErrHeld) {
			err = fmt.Errorf("by rows that nobody has closed, or %w", err)
		}
		if err == nil {
			err = conn.Close() // nobody else takes it without the turn
		}
		if err != nil {
			return d.closed(err)
		}
	}
	if !writes {
		return nil
	}
	if err := d.file.check(); err != nil {
		return err
	}
	d.turns++
	return nil
}

func (d *SQLite) queue(ctx context.Context) error {
	select {
	case d.turn <- struct{}{}:
		return nil
	case <-d.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d.busyTimeout):
		return heldFor(d.busyTimeout)
	}
}

// closed replaces the nameless error of a closed pool by ErrClosed.
func (d *SQLite) closed(err error) error {
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

// ExecContext runs a statement on the writer connection.
func (d *SQLite) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	release, err := d.acquire(ctx, true)
	if err != nil {
		return nil, err
	}
	defer release()
	var res sql.Result
	err = busy.Wait(ctx, d.busyTimeout, func() (err error) {
		res, err = normalizing{d.writer}.ExecContext(ctx, query, args...)
		return uncertainSync(err)
	})
	return res, d.closed(err)
}

// QueryContext runs a SELECT on a reader connection, and anything else on the writer's. A SELECT that writes fails,
// because readers are read-only. In memory there are no readers.
func (d *SQLite) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	reads := strings.HasPrefix(query, "SELECT ")
	if reads && d.readers != d.writer {
		rows, err := normalizing{d.readers}.QueryContext(ctx, query, args...)
		return rows, d.closed(err)
	}
	release, err := d.acquire(ctx, !reads)
	if err != nil {
		return nil, err
	}
	defer release() // until the rows are closed, the next writer waits for the connection itself: see prepare
	var rows *sql.Rows
	err = busy.Wait(ctx, d.busyTimeout, func() (err error) {
		rows, err = normalizing{d.writer}.QueryContext(ctx, query, args...) //nolint:rowserrcheck // the caller's
		return err
	})
	return rows, d.closed(err)
}

// Tx begins a transaction that holds the write lock from its start.
func (d *SQLite) Tx(ctx context.Context) (dialect.Tx, error) {
	release, err := d.acquire(ctx, true)
	if err != nil {
		return nil, err
	}
	var t *sql.Tx
	err = busy.Wait(ctx, d.busyTimeout, func() (err error) {
		t, err = d.writer.BeginTx(ctx, nil)
		return err
	})
	if err != nil {
		release()
		return nil, d.closed(err)
	}
	return &tx{Conn: entsql.Conn{ExecQuerier: normalizing{t}}, tx: t, file: d.file, release: release}, nil
}

// Snapshot implements DB. The log of a file grows while a snapshot is open.
func (d *SQLite) Snapshot(ctx context.Context) (*Snapshot, error) {
	if d.writer == d.readers {
		t, err := d.Tx(ctx)
		if err != nil {
			return nil, err
		}
		return &Snapshot{t.(*tx).Conn, d.Dialect(), t.Rollback}, nil
	}
	if !d.reading.TryRLock() { // Close waits
		return nil, ErrClosed
	}
	t, err := d.readers.BeginTx(ctx, nil)
	if err == nil {
		// The first read says which state it is.
		if _, err = t.ExecContext(ctx, "SELECT count(*) FROM sqlite_master"); err != nil {
			err = errors.Join(err, t.Rollback())
		}
	}
	if err != nil {
		d.reading.RUnlock()
		return nil, d.closed(err)
	}
	leave := sync.OnceFunc(d.reading.RUnlock)
	return &Snapshot{entsql.Conn{ExecQuerier: normalizing{t}}, d.Dialect(), func() error {
		defer leave()
		return t.Rollback()
	}}, nil
}

// tx is a transaction that passes the turn on when it ends.
type tx struct {
	entsql.Conn
	tx      *sql.Tx
	file    *openFile
	release func()
}

func (t *tx) Commit() error {
	defer t.release()
	if err := t.file.check(); err != nil { // it may have been open for long
		return errors.Join(err, t.tx.Rollback())
	}
	return uncertainSync(t.tx.Commit())
}

func (t *tx) Rollback() error {
	defer t.release()
	return t.tx.Rollback()
}
