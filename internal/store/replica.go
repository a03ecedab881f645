package store

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// maxLag is how old an answer of a replica may be.
	maxLag = time.Second
	// lookEvery is how often the replica's position is compared with the primary's.
	lookEvery = maxLag / 4
)

// replica is a server that follows the primary. It is used while it is known to have everything
// that was committed maxLag ago.
type replica struct {
	pool, primary *sql.DB
	freshAt       atomic.Pointer[time.Time] // everything committed until then is there; nil: not known

	mu    sync.Mutex
	conns map[net.Conn]struct{} // open ones

	stop context.CancelFunc
	done chan struct{}
}

func newReplica(config *pgx.ConnConfig, maxConns int, primary *sql.DB) *replica {
	ctx, stop := context.WithCancel(context.Background())
	r := &replica{primary: primary, conns: map[net.Conn]struct{}{}, stop: stop, done: make(chan struct{})}
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return r.track(conn), nil
	}
	r.pool = openPool(config, maxConns)
	go r.watch(ctx)
	return r
}

// Close closes the connections.
func (r *replica) Close() error {
	r.stop()
	<-r.done
	return r.pool.Close()
}

// watch compares the positions until the context ends.
func (r *replica) watch(ctx context.Context) {
	defer close(r.done)
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

// look notes how fresh the replica is. One that does not answer loses its connections, so that
// nobody waits for it.
func (r *replica) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, maxLag)
	defer cancel()
	at := time.Now()
	var position string
	if err := r.primary.QueryRowContext(ctx, "SELECT pg_current_wal_lsn()::text").Scan(&position); err != nil {
		return // without a primary, a replica gets older every moment
	}
	var caughtUp sql.NullBool // NULL on a server that is no replica
	err := r.pool.QueryRowContext(ctx, "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", position).Scan(&caughtUp)
	switch {
	case err != nil:
		r.lost()
	case caughtUp.Bool:
		r.freshAt.Store(&at)
	}
}

// query runs a SELECT on the replica, unless that lags or is gone.
func (r *replica) query(ctx context.Context, query string, args []any) (*sql.Rows, bool) {
	if at := r.freshAt.Load(); at == nil || time.Since(*at) > maxLag {
		return nil, false
	}
	rows, err := normalizing{r.pool}.QueryContext(ctx, query, args...)
	if err == nil {
		return rows, true
	}
	// A bad query fails on the primary too, and there it is told.
	if rows != nil {
		err = errors.Join(err, rows.Err(), rows.Close())
	}
	if Classify(err) == Unavailable {
		r.freshAt.Store(nil)
	}
	return nil, false
}

// lost closes what is open to the replica.
func (r *replica) lost() {
	r.freshAt.Store(nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.conns {
		_ = conn.Close() // whoever reads from it gets an error, which is the purpose
	}
}

func (r *replica) track(conn net.Conn) net.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[conn] = struct{}{}
	return &tracked{Conn: conn, forget: func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.conns, conn)
	}}
}

// tracked is a connection that is known while it is open.
type tracked struct {
	net.Conn
	forget func()
}

func (t *tracked) Close() error {
	t.forget()
	return t.Conn.Close()
}
