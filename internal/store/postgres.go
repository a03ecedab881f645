package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// PostgresConfig says which server to use, and how.
type PostgresConfig struct {
	URL        string // postgres://user:password@host:port,host:port/database?parameters
	Replica    string // URL of a replica for plain reads; empty: none
	Pooler     bool   // a transaction pooler is in between
	Durability Durability
	MaxConns   int // open connections at most, to each of the two. Defaults to DefaultConns
	// BusyTimeout is how long to wait for a lock, and for a connection. Defaults to DefaultBusyTimeout.
	BusyTimeout time.Duration
}

const (
	// DefaultConns is how many connections a process opens at most.
	DefaultConns = 16
	// oldestPostgres is the oldest server that the tests run on.
	oldestPostgres = 150000
	// connectTimeout is how long one host may take, unless the URL says connect_timeout.
	connectTimeout = 5 * time.Second
	// postgresPatience is how long calls are repeated while the server starts, fails over, or rolls back conflicting
	// transactions.
	postgresPatience = 30 * time.Second
	// farewell is how long a rollback may take, or a statement whose context has ended. After that the connection is
	// given up.
	farewell = 150 * time.Millisecond
)

// IsPostgres reports whether a data source name is the URL of a PostgreSQL database.
func IsPostgres(name string) bool {
	return strings.HasPrefix(name, "postgres://") || strings.HasPrefix(name, "postgresql://")
}

// RedactURL returns what can be shown of a URL: hosts and database.
func RedactURL(name string) string {
	place, _ := placeOf(name)
	return "postgres://" + place
}

// placeOf returns the hosts and the database of a URL, with its escapes. It is not ok if a part of a password may be in
// it, because of a character that should have been escaped.
func placeOf(name string) (place string, ok bool) {
	_, place, _ = strings.Cut(name, "://")
	i := strings.IndexAny(place, "@/")
	user := i >= 0 && place[i] == '@'
	if user {
		place = place[i+1:]
	}
	place, query, _ := strings.Cut(place, "?")
	if strings.Contains(place, "@") || strings.Contains(query, "@") && !user {
		return "", false
	}
	return place, true
}

// OpenPostgres opens pools of connections and makes sure that the server can be worked with.
func OpenPostgres(ctx context.Context, cfg PostgresConfig) (_ *Postgres, err error) {
	config, err := parsePostgres(cfg.URL, cfg.Pooler)
	if err != nil {
		return nil, err
	}
	config.ValidateConnect = requirePrimary(config.ValidateConnect)
	cfg.MaxConns = cmp.Or(cfg.MaxConns, DefaultConns)
	db := newPostgres(openPool(newConnector(config), cfg.MaxConns), cfg)
	if err := db.Retry(ctx, func() error { return checkServer(ctx, db.primary, cfg.Durability) }); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if cfg.Replica != "" {
		config, err := parsePostgres(cfg.Replica, cfg.Pooler)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("replica: %w", err), db.Close())
		}
		db.replica = newReplica(config, cfg.MaxConns, db.primary)
	}
	return db, nil
}

// prefetchSQL makes the server read many pages of a table at once, if it can and nobody has set it otherwise. The days
// of a year are on as many pages.
const prefetchSQL = "SELECT set_config('effective_io_concurrency', '64', false) FROM pg_settings" +
	" WHERE name = 'effective_io_concurrency' AND setting = boot_val AND setting <> '0'"

func newConnector(config *pgx.ConnConfig) driver.Connector {
	return stdlib.GetConnector(*config, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		conn.TypeMap().RegisterType(&pgtype.Type{
			Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
		})
		if config.DefaultQueryExecMode == pgx.QueryExecModeExec { // a pooler gives the connection to others
			return nil
		}
		_, err := conn.Exec(ctx, prefetchSQL, pgx.QueryExecModeExec)
		return err
	}), stdlib.OptionResetSession(func(_ context.Context, conn *pgx.Conn) error {
		if _, ok := conn.PgConn().CustomData()[lateCancel]; ok {
			return driver.ErrBadConn
		}
		return nil
	}))
}

func openPool(connector driver.Connector, maxConns int) *sql.DB {
	pool := sql.OpenDB(connector)
	pool.SetMaxOpenConns(maxConns)
	pool.SetMaxIdleConns(maxConns)
	return pool
}

// parsePostgres parses a URL. The error repeats nothing of it: a password with a character that should have been
// escaped can turn up as a host or a port.
func parsePostgres(name string, pooler bool) (*pgx.ConnConfig, error) {
	if !IsPostgres(name) {
		return nil, fmt.Errorf("%w: it does not begin with postgres://", ErrName)
	}
	config, err := pgx.ParseConfig(name)
	if _, ok := placeOf(name); err != nil || !ok {
		return nil, errURL(name)
	}
	config.ConnectTimeout = cmp.Or(config.ConnectTimeout, connectTimeout)
	if pooler {
		// One round trip a statement, and nothing that a server connection has to remember.
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
		config.StatementCacheCapacity, config.DescriptionCacheCapacity = 0, 0
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "modelscan"
	}
	config.DialFunc = overhear(config.DialFunc)
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		w := &watcher{
			cancel: &canceler{conn: conn},
			hangUp: &pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn()},
		}
		if pooler {
			w.cancel = w.hangUp // PgBouncer 1.18 ends, for everybody, when a statement is canceled
		}
		return w
	}
	return config, nil
}

// requirePrimary refuses servers that cannot be written to: standbys, and those in read-only mode.
func requirePrimary(also pgconn.ValidateConnectFunc) pgconn.ValidateConnectFunc {
	return func(ctx context.Context, conn *pgconn.PgConn) error {
		if also != nil {
			if err := also(ctx, conn); err != nil {
				return standby(err)
			}
		}
		return standby(pgconn.ValidateConnectTargetSessionAttrsReadWrite(ctx, conn))
	}
}

// standby names the error of a check of target_session_attrs, which has no type.
func standby(err error) error {
	if err == nil || Classify(err) != nil {
		return err
	}
	return fmt.Errorf("%w: %w", ErrStandby, err)
}

// checkServer returns an error if the server cannot be used.
func checkServer(ctx context.Context, db *sql.DB, durability Durability) error {
	var (
		version                     int
		name, encoding, commit, syn string
	)
	err := db.QueryRowContext(ctx, "SELECT current_setting('server_version_num')::int,"+
		" current_setting('server_version'),"+
		" current_setting('server_encoding'), current_setting('synchronous_commit'), current_setting('fsync')").
		Scan(&version, &name, &encoding, &commit, &syn)
	if err != nil {
		return err
	}
	return judgeServer(version, name, encoding, commit, syn, durability)
}

func judgeServer(version int, name, encoding, commit, syn string, durability Durability) error {
	switch {
	case version < oldestPostgres:
		return fmt.Errorf("%w: PostgreSQL %s; 15 or newer is needed", ErrUnsupported, name)
	case encoding != "UTF8":
		return fmt.Errorf("%w: the database's encoding is %s, not UTF8", ErrUnsupported, encoding)
	case durability == Full && (commit == "off" || syn == "off"):
		return fmt.Errorf("%w: synchronous_commit is %s and fsync is %s, so that a crash takes commits;"+
			" switch both on, or open the registry with WithDurability(Relaxed)", ErrUnsupported, commit, syn)
	}
	return nil
}

// watcher ends what a connection does when the context ends. Statements are cancelled, and the connection lives on. A
// COMMIT or ROLLBACK is not cancelled, but the connection is given up: a commit that is cancelled while it waits for a
// synchronous standby succeeds, although the standby does not have it.
type watcher struct {
	cancel, hangUp, used ctxwatch.Handler
}

func (w *watcher) HandleCancel(ctx context.Context) {
	w.used = w.cancel
	if ctx.Value(lastWords{}) != nil {
		w.used = w.hangUp
	}
	w.used.HandleCancel(ctx)
}

func (w *watcher) HandleUnwatchAfterCancel() { w.used.HandleUnwatchAfterCancel() }

// canceler asks the server to cancel a statement. The request travels on a connection of its own, which the server
// closes when it has passed the request on; until then it can hit a later statement. pgx's own handler does not report
// that. If the server did not close it in time, the statement's connection is not used again after its transaction.
type canceler struct {
	conn   *pgconn.PgConn
	passed chan bool
}

// lateCancel marks such a connection, in its custom data.
const lateCancel = "modelscan.late-cancel"

func (c *canceler) HandleCancel(context.Context) {
	deadline := time.Now().Add(farewell)
	_ = c.conn.Conn().SetDeadline(deadline) // it fails where the connection is closed
	c.passed = make(chan bool, 1)
	go func() {
		var heard error
		ctx, cancel := context.WithDeadline(context.WithValue(context.Background(), cancelAnswer{}, &heard), deadline)
		defer cancel()
		err := c.conn.CancelRequest(ctx)
		c.passed <- err == nil && errors.Is(heard, io.EOF)
	}()
}

func (c *canceler) HandleUnwatchAfterCancel() {
	if !<-c.passed {
		c.conn.CustomData()[lateCancel] = true
	}
	_ = c.conn.Conn().SetDeadline(time.Time{}) // it fails where the connection is closed
}

// cancelAnswer is the key of a context value: it takes the error that ends the reading of the answer to a cancel
// request.
type cancelAnswer struct{}

func overhear(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if heard, ok := ctx.Value(cancelAnswer{}).(*error); ok && err == nil {
			return overheard{conn, heard}, nil
		}
		return conn, err
	}
}

type overheard struct {
	net.Conn
	err *error
}

func (o overheard) Read(b []byte) (int, error) {
	n, err := o.Conn.Read(b)
	*o.err = err
	return n, err
}

// lastWords is the key of a context value that marks a statement that ends a transaction or a part of it.
type lastWords struct{}

// Linger implements DB.
func (*Postgres) Linger(ctx context.Context) (context.Context, context.CancelFunc) {
	lingering, cancel := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), lastWords{}, true))
	late := time.AfterFunc(math.MaxInt64, cancel)
	stop := context.AfterFunc(ctx, func() { late.Reset(farewell) })
	return lingering, func() {
		stop()
		late.Stop()
		cancel()
	}
}

// Retry implements DB.
func (d *Postgres) Retry(ctx context.Context, call func() error) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval, wait.RandomizationFactor = 5*time.Millisecond, 500*time.Millisecond, 1
	var err, last error
	began := time.Now()
	_, stopped := backoff.Retry(ctx, func() (struct{}, error) {
		if err = call(); err != nil && !passes(err) {
			return struct{}{}, backoff.Permanent(err)
		}
		if IsLockTimeout(err) && d.busyTimeout > 0 && time.Since(began) >= d.busyTimeout {
			err = fmt.Errorf("%w: %w", heldFor(d.busyTimeout), err)
		}
		if errors.Is(err, ErrHeld) {
			return struct{}{}, backoff.Permanent(err)
		}
		if last == nil || !isOver(ctx) { // else err may only say that the context has ended
			last = err
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(postgresPatience))
	switch {
	case err == nil:
		return nil
	case last != nil && (!errors.Is(err, stopped) || errors.Is(Classify(err), context.Canceled) ||
		isOver(ctx) && passes(err)):
		return &gaveUpError{stopped, last}
	}
	return err
}

// isOver reports whether a context has ended or is about to: a connection's own timer may be the first to see the
// deadline.
func isOver(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// passes reports whether an error passes by itself and means that nothing was done.
func passes(err error) bool {
	switch kind := Classify(err); {
	case errors.Is(kind, fault.ErrBusy):
		return true
	case errors.Is(kind, fault.ErrReadOnly):
		return errors.Is(err, ErrStandby) // perhaps it is promoted soon
	}
	return IsUnavailable(err) && !isUnknownHost(err)
}
