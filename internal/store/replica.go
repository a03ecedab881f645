package store

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// maxLag is how old an answer of a replica may be.
	maxLag = time.Second
	// lookEvery is how often the replica's position is compared with the primary's.
	lookEvery = maxLag / 4
)

// replica is a server that follows the primary. It is used while it is known to have every commit older than maxLag.
type replica struct {
	pool, primary *sql.DB
	freshAt       atomic.Pointer[time.Time] // everything committed until then is there; nil: not known

	conns sync.Map // open ones: net.Conn

	stop     context.CancelFunc
	watching sync.WaitGroup
}

func newReplica(config *pgx.ConnConfig, maxConns int, primary *sql.DB) *replica {
	ctx, stop := context.WithCancel(context.Background())
	r := &replica{primary: primary, stop: stop}
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return r.track(conn), nil
	}
	r.pool = openPool(wholeAnswers{newConnector(config)}, maxConns)
	r.watching.Go(func() { r.watch(ctx) })
	return r
}

// Close closes the connections.
func (r *replica) Close() error {
	r.stop()
	r.watching.Wait()
	return r.pool.Close()
}

// watch compares the positions until the context ends.
func (r *replica) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		r.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look notes how fresh the replica is. If it does not answer, its connections are closed, so that nobody waits for it.
func (r *replica) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, maxLag)
	defer cancel()
	at := time.Now()
	var position, system, database string
	err := r.primary.QueryRowContext(ctx, "SELECT pg_current_wal_lsn()::text, system_identifier::text,"+
		" current_database()"+
		" FROM pg_control_system()").Scan(&position, &system, &database)
	if err != nil {
		return // without a primary, a replica gets older every moment
	}
	var caughtUp sql.NullBool // NULL on a server that is no replica
	err = r.pool.QueryRowContext(ctx, "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn AND"+
		" system_identifier::text = $2::text"+
		" AND current_database() = $3::text FROM pg_control_system()", position, system, database).Scan(&caughtUp)
	switch {
	case err != nil && !errors.Is(ctx.Err(), context.Canceled): // canceled when the replica is closed
		r.lost()
	case caughtUp.Bool:
		r.freshAt.Store(&at)
	}
}

// query runs a SELECT on the replica, unless it lags or is gone.
func (r *replica) query(ctx context.Context, query string, args []any) (*sql.Rows, bool) {
	if at := r.freshAt.Load(); at == nil || time.Since(*at) > maxLag {
		return nil, false
	}
	rows, err := normalizing{r.pool}.QueryContext(ctx, query, args...)
	if err == nil {
		return rows, true
	}
	// A bad query fails on the primary too, which reports it.
	if rows != nil {
		err = errors.Join(err, rows.Err(), rows.Close())
	}
	if IsUnavailable(err) {
		r.freshAt.Store(nil)
	}
	return nil, false
}

// lost closes what is open to the replica.
func (r *replica) lost() {
	r.freshAt.Store(nil)
	r.conns.Range(func(conn, _ any) bool {
		_ = conn.(net.Conn).Close() // so that whoever reads from it gets an error
		return true
	})
}

func (r *replica) track(conn net.Conn) net.Conn {
	r.conns.Store(conn, true)
	return &tracked{Conn: conn, forget: func() { r.conns.Delete(conn) }}
}

// wholeAnswers makes connections that read a whole answer before they show its first row. If an answer breaks off, the
// primary can still give it.
type wholeAnswers struct{ driver.Connector }

func (w wholeAnswers) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := w.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return wholeConn{conn.(*stdlib.Conn)}, nil
}

type wholeConn struct{ *stdlib.Conn }

func (c wholeConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.Conn.QueryContext(ctx, query, args)
	if err != nil {
		return nil, err
	}
	all := &wholeRows{columns: rows.Columns()}
	for err == nil {
		row := make([]driver.Value, len(all.columns))
		if err = rows.Next(row); err == nil {
			for i, value := range row {
				if text, ok := value.([]byte); ok {
					row[i] = bytes.Clone(text) // it was pgx's buffer
				}
			}
			all.rows = append(all.rows, row)
		}
	}
	if err == io.EOF { //nolint:errorlint // the error of a lost connection may wrap it and is not the end
		err = nil
	}
	return all, errors.Join(err, rows.Close())
}

type wholeRows struct {
	columns []string
	rows    [][]driver.Value // those to come
}

func (w *wholeRows) Columns() []string { return w.columns }
func (w *wholeRows) Close() error      { return nil }

func (w *wholeRows) Next(values []driver.Value) error {
	if len(w.rows) == 0 {
		return io.EOF
	}
	copy(values, w.rows[0])
	w.rows = w.rows[1:]
	return nil
}

// tracked is a connection that the replica knows while it is open.
type tracked struct {
	net.Conn
	forget func()
}

func (t *tracked) Close() error {
	t.forget()
	if err := t.Conn.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil // lost was first
}
