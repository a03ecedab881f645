package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// Postgres is an open PostgreSQL database. Plain reads go to the replica, if there is one and it keeps up. Everything
// else goes to the primary.
type Postgres struct {
	entsql.Conn // by ExecContext and QueryContext

	primary *sql.DB
	replica *replica // nil: none
	begin   string   // what begins a transaction

	beginBatch string // likewise, of Batch

	busyTimeout time.Duration // for a lock, and for a connection

	using sync.RWMutex // held while a call or a transaction is under way, and for ever by Close
	once  sync.Once
	err   error // what Close returned
}

var _ DB = (*Postgres)(nil)

func newPostgres(primary *sql.DB, cfg PostgresConfig) *Postgres {
	timeout := cmp.Or(cfg.BusyTimeout, DefaultBusyTimeout)
	d := &Postgres{primary: primary, busyTimeout: timeout}
	d.Conn = entsql.Conn{ExecQuerier: d}
	// To the server, 0 milliseconds mean no limit.
	d.begin = fmt.Sprintf(
		"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = %d", max(1, timeout.Milliseconds()),
	)
	if cfg.Durability == Relaxed {
		d.begin += "; SET LOCAL synchronous_commit = off"
	}
	d.beginBatch = d.begin
	if !cfg.Pooler { // statements stay prepared
		d.beginBatch += "; SET LOCAL plan_cache_mode = force_generic_plan"
	}
	return d
}

// Writer implements DB.
func (d *Postgres) Writer() *sql.DB { return d.primary }

// Fresh implements DB.
func (d *Postgres) Fresh() dialect.Driver {
	if d.replica == nil {
		return d
	}
	return fresh{d}
}

// fresh reads at the primary alone.
type fresh struct{ *Postgres }

func (d fresh) Query(ctx context.Context, query string, args, v any) error {
	return entsql.Conn{ExecQuerier: d}.Query(ctx, query, args, v)
}

func (d fresh) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return d.query(ctx, query, args)
}

// Dialect implements dialect.Driver.
func (*Postgres) Dialect() string { return dialect.Postgres }

// Batch implements DB. Generic plans are good enough for the statements of a batch, and take no time. Other statements
// are better planned by their values: for a range of events, such as Prune removes, the server then locks only its
// partitions.
func (d *Postgres) Batch() dialect.Driver { return batches{d} }

type batches struct{ *Postgres }

func (d batches) Tx(ctx context.Context) (dialect.Tx, error) { return d.beginBy(ctx, d.beginBatch) }

// Close waits for the writes that are under way and closes all connections. Further calls return
// what the first one did.
func (d *Postgres) Close() error {
	d.once.Do(func() {
		d.using.Lock()
		d.err = d.primary.Close()
		if d.replica != nil {
			d.err = errors.Join(d.err, d.replica.Close())
		}
	})
	return d.err
}

// enter notes that a call is under way; leave that it has ended.
func (d *Postgres) enter() (leave func(), err error) {
	if !d.using.TryRLock() { // Close waits, or is done
		return nil, ErrClosed
	}
	return sync.OnceFunc(d.using.RUnlock), nil
}

// TurnTimeout implements DB: transactions do not wait for each other, and may outlast a failover.
func (*Postgres) TurnTimeout() time.Duration { return 0 }

// State implements DB: other machines write too.
func (*Postgres) State(context.Context, entsql.ExecQuerier) (State, bool, error) {
	return State{}, false, nil
}

// connection takes a connection out of the pool.
func (d *Postgres) connection(ctx context.Context) (*sql.Conn, error) {
	if !isFull(d.primary) {
		return d.primary.Conn(ctx)
	}
	conn, err := connection(ctx, d.primary, d.busyTimeout)
	if errors.Is(err, ErrHeld) {
		err = fmt.Errorf("all %d connections: %w", d.primary.Stats().MaxOpenConnections, err)
	}
	return conn, err
}

// ExecContext runs a statement outside of a transaction. It is repeated if it was not sent.
func (d *Postgres) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	var res sql.Result
	err = d.Retry(ctx, func() error {
		// On a connection of its own, because the pool would repeat the statement by itself.
		conn, err := d.connection(ctx)
		if err != nil {
			return err
		}
		res, err = normalizing{conn}.ExecContext(ctx, query, args...)
		if len(args) == 0 && errors.Is(err, driver.ErrBadConn) {
			err = fmt.Errorf("%w: %w", ErrUncertain, err) // what the driver makes of ErrConnClosed: see uncertain
		}
		return errors.Join(uncertain(err), conn.Close())
	})
	return res, err
}

// QueryContext runs a SELECT on the replica or the primary, and anything else on the primary.
func (d *Postgres) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if d.replica != nil && isSelect(query) {
		if rows, ok := d.replica.query(ctx, query, args); ok {
			return rows, nil
		}
	}
	return d.query(ctx, query, args)
}

func isSelect(query string) bool { return strings.HasPrefix(query, "SELECT ") }

func (d *Postgres) query(ctx context.Context, query string, args []any) (*sql.Rows, error) {
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	var rows *sql.Rows
	err = d.Retry(ctx, func() (err error) {
		if isFull(d.primary) { // the pool itself would wait without a limit
			conn, err := d.connection(ctx)
			if err == nil {
				err = conn.Close()
			}
			if err != nil {
				return err
			}
		}
		rows, err = normalizing{d.primary}.QueryContext(ctx, query, args...) //nolint:rowserrcheck // the caller's
		if isSelect(query) {
			return err
		}
		return uncertain(err)
	})
	return rows, err
}

// uncertain marks an error after which nobody knows whether a statement that was sent has been committed.
func uncertain(err error) error {
	switch {
	case errors.Is(err, pgconn.ErrConnClosed):
		// pgx says so, and that it is safe to retry, also when it has closed the connection because the
		// answer did not come.
	case err == nil, pgconn.SafeToRetry(err), has[*pgconn.ConnectError](err), errors.Is(err, driver.ErrBadConn),
		errors.Is(err, sql.ErrConnDone), errors.Is(err, ErrClosed):
		return err // it was not sent
	case said(err).SeverityUnlocalized == "ERROR" && said(err).Code != statementCompletionUnknown:
		return err // it was refused
	}
	return fmt.Errorf("%w: %w", ErrUncertain, err)
}

// Tx begins a transaction at READ COMMITTED, whatever the server's default is: after waiting for a lock, a transaction
// must see what was done meanwhile.
func (d *Postgres) Tx(ctx context.Context) (dialect.Tx, error) { return d.beginBy(ctx, d.begin) }

// beginBy begins a transaction with a statement.
func (d *Postgres) beginBy(ctx context.Context, begin string) (dialect.Tx, error) {
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	var conn *sql.Conn
	err = d.Retry(ctx, func() (err error) {
		// A connection that does not answer is not waited for until the context ends.
		soon, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		if conn, err = d.connection(ctx); err != nil {
			return err
		}
		if _, err = conn.ExecContext(soon, begin); err != nil {
			err = errors.Join(err, discard(conn))
			if ctx.Err() == nil && soon.Err() != nil {
				err = fmt.Errorf("%w: %w", errSilent, err)
			}
			return err
		}
		return nil
	})
	if err != nil {
		leave()
		return nil, err
	}
	t := &postgresTx{ctx: ctx, conn: conn, leave: leave}
	t.Conn = entsql.Conn{ExecQuerier: normalizing{t}}
	return t, nil
}

// Snapshot implements DB. It reads at the primary.
func (d *Postgres) Snapshot(ctx context.Context) (*Snapshot, error) {
	t, err := d.beginBy(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1")
	if err != nil {
		return nil, err
	}
	return &Snapshot{t.(*postgresTx).Conn, d.Dialect(), t.Rollback}, nil
}

// postgresTx is a transaction. It is not one of database/sql, which would cancel a commit.
type postgresTx struct {
	entsql.Conn
	ctx   context.Context //nolint:containedctx // of the transaction; Commit has none of its own
	conn  *sql.Conn
	leave func()
}

// over returns the error of the context that has ended: the transaction's or the statement's. pgx
// would give up the connection, and the transaction with it.
func (t *postgresTx) over(ctx context.Context) error { return cmp.Or(t.ctx.Err(), ctx.Err()) }

// ExecContext implements entsql.ExecQuerier.
func (t *postgresTx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if err := t.over(ctx); err != nil {
		return nil, err
	}
	return t.conn.ExecContext(ctx, query, args...)
}

// QueryContext implements entsql.ExecQuerier.
func (t *postgresTx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := t.over(ctx); err != nil {
		return nil, err
	}
	return t.conn.QueryContext(ctx, query, args...)
}

// Commit returns [ErrUncertain] if the connection was lost or the context ended before the answer
// came, and [ErrRolledBack] if a statement had failed.
func (t *postgresTx) Commit() error {
	if err := t.ctx.Err(); err != nil {
		return errors.Join(err, t.Rollback())
	}
	defer t.leave()
	ctx := context.WithValue(t.ctx, lastWords{}, true)
	err := t.conn.Raw(func(c any) error {
		conn := c.(*stdlib.Conn).Conn()
		if conn.IsClosed() {
			return driver.ErrBadConn // nothing is sent
		}
		tag, err := conn.Exec(ctx, "COMMIT")
		if err == nil && tag.String() == "ROLLBACK" {
			return ErrRolledBack
		}
		return uncertain(err)
	})
	if errors.Is(err, sql.ErrConnDone) {
		return sql.ErrTxDone
	}
	if err != nil && !errors.Is(err, ErrRolledBack) {
		return errors.Join(err, discard(t.conn))
	}
	return errors.Join(err, t.conn.Close())
}

// Rollback undoes the transaction. If the server cannot be told in time, it does so by itself.
func (t *postgresTx) Rollback() error {
	defer t.leave()
	ctx, cancel := context.WithTimeout(context.WithValue(context.WithoutCancel(t.ctx), lastWords{}, true), farewell)
	defer cancel()
	_, err := t.conn.ExecContext(ctx, "ROLLBACK")
	switch {
	case errors.Is(err, sql.ErrConnDone):
		return sql.ErrTxDone
	case err != nil:
		return discard(t.conn)
	}
	return t.conn.Close()
}

// discard closes a connection instead of giving it back to the pool.
func discard(conn *sql.Conn) error {
	err := conn.Raw(func(any) error { return driver.ErrBadConn })
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return nil
	}
	return err
}

// CopyFrom writes rows by PostgreSQL's COPY, within a transaction of [Postgres].
func CopyFrom(ctx context.Context, tx dialect.Tx, table string, columns []string, rows [][]any) error {
	return tx.(*postgresTx).conn.Raw(func(c any) error {
		_, err := c.(*stdlib.Conn).Conn().CopyFrom(ctx, pgx.Identifier{table}, columns,
			pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
				for n, value := range rows[i] {
					if id, ok := value.(uuid.UUID); ok { // pgx would take it for its text
						rows[i][n] = [16]byte(id)
					}
				}
				return rows[i], nil
			}))
		return err
	})
}
