package registry_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx, to prepare servers
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

const (
	// pgPassword is what no error may hold.
	pgPassword = "hunter2"
	// pgSlack is how long after its deadline a call may return on a machine that is busy. TestSilence
	// measures how long it takes.
	pgSlack = 700 * time.Millisecond
)

// pgCluster returns a server of the test's own.
func pgCluster(t *testing.T, settings ...string) *pgtest.Cluster {
	t.Helper()
	return pgtest.Server(t, append([]string{"shared_buffers = 16MB"}, settings...)...)
}

// pgRun runs statements as the server's owner, over a connection of its own.
func pgRun(tb testing.TB, url string, statements ...string) {
	tb.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(tb, err)
	defer func() { require.NoError(tb, db.Close()) }()
	db.SetMaxOpenConns(1)
	for _, statement := range statements {
		_, err := db.ExecContext(tb.Context(), statement)
		require.NoError(tb, err, statement)
	}
}

// pgValue returns the only value of a query, asked over a connection of its own.
func pgValue[T any](tb testing.TB, url, query string, args ...any) (v T) {
	tb.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(tb, err)
	defer func() { require.NoError(tb, db.Close()) }()
	require.NoError(tb, db.QueryRowContext(tb.Context(), query, args...).Scan(&v), query)
	return v
}

// pgQuery returns the only value of a query that a registry's client asks.
func pgQuery[T any](ctx context.Context, reg *registry.Registry, query string, args ...any) (v T, err error) {
	rows, err := reg.Client().QueryContext(ctx, query, args...)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if !rows.Next() {
		return v, errors.Join(rows.Err(), sql.ErrNoRows)
	}
	return v, rows.Scan(&v)
}

// pgEdit changes a URL.
func pgEdit(t *testing.T, name string, edit func(u *url.URL)) string {
	t.Helper()
	u, err := url.Parse(name)
	require.NoError(t, err)
	edit(u)
	return u.String()
}

// pgAs returns a URL with another user and the password that no error may hold.
func pgAs(t *testing.T, name, user string) string {
	t.Helper()
	return pgEdit(t, name, func(u *url.URL) { u.User = url.UserPassword(user, pgPassword) })
}

// pgListen listens on a port of loopback until the test is over.
func pgListen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// pgRefused returns an address where nobody listens.
func pgRefused(t *testing.T) string {
	t.Helper()
	l := pgListen(t)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// pgFake is a server on whose connections f runs. They are closed after the test.
func pgFake(t *testing.T, f func(conn net.Conn)) (address string) {
	t.Helper()
	l := pgListen(t)
	var (
		mu    sync.Mutex
		conns []net.Conn
		all   sync.WaitGroup
	)
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			all.Go(func() { f(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// pgOld serves what Open asks of a server, as one of version 13 answers.
func pgOld(conn net.Conn) {
	server := pgproto3.NewBackend(conn, conn)
	if _, err := server.ReceiveStartupMessage(); err != nil {
		return
	}
	answers := map[bool][]string{true: {"off"}, false: {"130014", "13.14", "UTF8", "on", "on"}}
	describe := func(simple bool) {
		var fields []pgproto3.FieldDescription
		for i := range answers[simple] {
			fields = append(
				fields,
				pgproto3.FieldDescription{
					Name: fmt.Append(nil, "c", i), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1,
				},
			)
		}
		server.Send(&pgproto3.RowDescription{Fields: fields})
	}
	row := func(simple bool) {
		var values [][]byte
		for _, answer := range answers[simple] {
			values = append(values, []byte(answer))
		}
		server.Send(&pgproto3.DataRow{Values: values})
		server.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
	}
	ready := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	server.Send(&pgproto3.AuthenticationOk{})
	server.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: "13.14"})
	server.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	server.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	server.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	server.Send(ready)
	for server.Flush() == nil {
		message, err := server.Receive()
		if err != nil {
			return
		}
		switch message := message.(type) {
		case *pgproto3.Query: // SHOW transaction_read_only
			describe(true)
			row(true)
			server.Send(ready)
		case *pgproto3.Parse:
			server.Send(&pgproto3.ParseComplete{})
		case *pgproto3.Describe:
			if message.ObjectType == 'S' {
				server.Send(&pgproto3.ParameterDescription{})
			}
			describe(false)
		case *pgproto3.Bind:
			server.Send(&pgproto3.BindComplete{})
		case *pgproto3.Execute:
			row(false)
		case *pgproto3.Sync:
			server.Send(ready)
		case *pgproto3.Terminate:
			return
		}
	}
}

// pgProxy is a way to a server that can be stopped up.
type pgProxy struct {
	address string // where it listens
	target  string

	mu    sync.Mutex
	free  sync.Cond // signalled when held or cut changes
	held  bool      // nothing passes
	cut   bool      // connections are refused
	conns map[net.Conn]struct{}
}

func pgProxyTo(t *testing.T, target string) *pgProxy {
	t.Helper()
	p := &pgProxy{target: target, conns: map[net.Conn]struct{}{}}
	p.free.L = &p.mu
	p.address = pgFake(t, p.serve)
	t.Cleanup(func() { p.set(false, true) })
	return p
}

// url returns the URL of a server, by the way through the proxy.
func (p *pgProxy) url(t *testing.T, name string) string {
	t.Helper()
	return pgEdit(t, name, func(u *url.URL) { u.Host = p.address })
}

// set holds up what is under way, or cuts all connections.
func (p *pgProxy) set(held, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held, p.cut = held, cut
	p.free.Broadcast()
	if cut {
		for conn := range p.conns {
			_ = conn.Close()
		}
		clear(p.conns)
	}
}

// pass waits while the proxy holds, and keeps a connection unless all are cut.
func (p *pgProxy) pass(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.held && !p.cut {
		p.free.Wait()
	}
	for _, conn := range conns {
		p.conns[conn] = struct{}{}
	}
	return !p.cut
}

func (p *pgProxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	if !p.pass(client) {
		return
	}
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	if !p.pass(server) {
		return
	}
	var both sync.WaitGroup
	for from, to := range map[net.Conn]net.Conn{client: server, server: client} {
		both.Go(func() {
			defer func() { _, _ = client.Close(), server.Close() }()
			buffer := make([]byte, 32<<10)
			for {
				n, err := from.Read(buffer)
				if err != nil || !p.pass() {
					return
				}
				if _, err := to.Write(buffer[:n]); err != nil {
					return
				}
			}
		})
	}
	both.Wait()
}

// pgHost returns the address of a URL's server.
func pgHost(t *testing.T, name string) string {
	t.Helper()
	u, err := url.Parse(name)
	require.NoError(t, err)
	return u.Host
}

// pgRefuses opens a registry and returns its error, which names no password and does not come late:
// what does not pass comes at once, and what may pass by the deadline.
func pgRefuses(t *testing.T, passes bool, name string, options ...registry.Option) error {
	t.Helper()
	ctx, limit := t.Context(), 900*time.Millisecond
	if passes {
		const patience = 400 * time.Millisecond
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
		limit = patience + pgSlack
	}
	begin := time.Now()
	reg, err := registry.Open(ctx, name, options...)
	took := time.Since(begin)
	require.Error(t, err)
	require.Nil(t, reg)
	require.Less(t, took, limit, "%v", err)
	for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%q", err)} {
		require.NotContains(t, text, pgPassword)
	}
	if passes {
		require.ErrorIs(t, err, context.DeadlineExceeded)
	} else {
		require.NotErrorIs(t, err, context.DeadlineExceeded)
	}
	t.Logf("%s: %v", took.Round(time.Millisecond), err)
	return err
}

// Names that are none, and servers that are none.
func TestOpenPostgresNames(t *testing.T) {
	t.Parallel()
	t.Run("ErrInvalidData", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{
			"postgres://user:1/hunter2@host/db", "postgres://user:p@hunter2@host/db",
			"postgres://user:hunter2,5:12/x@host",
			"postgres://user:hun/hunter2@host/db", "postgres://user:hunter2#x@127.0.0.1:port",
			"postgres://user:hunter2@host:port/db",
			"postgres://user:hunter2@host:99999/db", "postgres://user:hunter2%zz@host/db",
			"postgres://user@host/db?password=hunter2&sslmode=hunter2",
			"postgres://host/db?password=hunter2&connect_timeout=x",
			"postgresql://user:hunter2@host/db?sslrootcert=/missing/hunter2",
			"postgres://user:hunter2@host/db?target_session_attrs=x",
			"Postgres://user:hunter2@host/db", "postgresql+x://user:hunter2@host/db",
		} {
			require.ErrorIs(t, pgRefuses(t, false, name), registry.ErrInvalidData, name)
			if strings.HasPrefix(name, "postgres://") {
				require.ErrorIs(
					t, pgRefuses(t, false, name, registry.WithoutMigration(), registry.WithPooler()),
					registry.ErrInvalidData, name,
				)
			}
		}
	})
	t.Run("ErrInvalidData_options", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "registry.db")
		name := "postgres://user:hunter2@" + pgRefused(t) + "/db?sslmode=disable"
		for says, option := range map[string]registry.Option{
			"WithReadReplica": registry.WithReadReplica(name), "WithPooler": registry.WithPooler(),
			"WithMaxConns": registry.WithMaxConns(4),
		} {
			for _, name := range []string{file, ":memory:"} {
				err := pgRefuses(t, false, name, option)
				require.ErrorIs(t, err, registry.ErrInvalidData)
				require.ErrorContains(t, err, says+" is for PostgreSQL")
			}
		}
		require.NoFileExists(t, file)
		for says, option := range map[string]registry.Option{
			"WithMaxConns: less than 1":                     registry.WithMaxConns(0),
			"WithMaxConns: less":                            registry.WithMaxConns(-5),
			"WithReadReplica: the URL does not begin":       registry.WithReadReplica("nonsense"),
			"WithReadReplica: the URL does not":             registry.WithReadReplica(""),
			"WithReadReplica: the URL":                      registry.WithReadReplica("mysql://user:hunter2@host"),
			"an option is nil":                              nil,
			"WithDurability: not one of DurabilityFull and": registry.WithDurability(7),
		} {
			err := pgRefuses(t, false, name, option)
			require.ErrorIs(t, err, registry.ErrInvalidData)
			require.ErrorContains(t, err, says)
		}
		server := registrytest.PostgresURL(t)
		err := pgRefuses(t, false, server, registry.WithReadReplica("postgres://user:hunter2@host:port/db"))
		require.ErrorIs(t, err, registry.ErrInvalidData)
		require.ErrorContains(t, err, "replica")
	})
	t.Run("ErrUnavailable_host", func(t *testing.T) { // which does not pass: the name is not known
		t.Parallel()
		var lookup *net.DNSError
		if _, err := net.DefaultResolver.LookupHost(t.Context(), "modelscan.invalid"); !errors.As(err, &lookup) ||
			!lookup.IsNotFound {
			t.Skipf("the resolver does not tell that a name is not known: %v", err)
		}
		for _, name := range []string{
			"postgres://user:hunter2@modelscan.invalid/db",
			"postgres://modelscan.invalid,also.invalid/db?user=u&password=hunter2",
			"postgres://user:hun?hunter2@modelscan.invalid/db",
			// Not that a URL could be read so, but PostgreSQL's own programs do.
			"postgres://user:hunter2#x@modelscan.invalid",
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // a resolver may be slow to say so
			defer cancel()
			_, err := registry.Open(ctx, name)
			require.ErrorIs(t, err, registry.ErrUnavailable, name)
			require.NotContains(t, err.Error(), pgPassword)
		}
	})
}

// Servers that are none, or too old.
func TestOpenPostgresServers(t *testing.T) {
	t.Parallel()
	t.Run("Err_refused", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{
			"postgres://user:hunter2@" + pgRefused(t) + "/db",
			"postgres://" + pgRefused(t) + "," + pgRefused(t) + "/db?user=u&password=hunter2",
			"postgresql://" + pgRefused(t) + "/db?user=u&pass%77ord=hunter2&sslmode=require",
		} {
			err := pgRefuses(t, true, name)
			require.ErrorContains(t, err, "connection refused")
			require.ErrorIs(t, err, registry.ErrUnavailable)
		}
	})
	t.Run("Err_black_hole", func(t *testing.T) {
		t.Parallel()
		hole := pgFake(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
		for _, mode := range []string{"disable", "prefer", "require"} {
			require.ErrorIs(
				t, pgRefuses(t, true, "postgres://user:hunter2@"+hole+"/db?sslmode="+mode), registry.ErrUnavailable,
			)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		begin := time.Now()
		_, err := registry.Open(ctx, "postgres://user:hunter2@"+hole+"/db")
		require.ErrorIs(t, err, context.Canceled)
		require.Less(t, time.Since(begin), 100*time.Millisecond+pgSlack)
	})
	t.Run("Err_no_server", func(t *testing.T) { // of this kind
		t.Parallel()
		web := httptest.NewServer(http.NotFoundHandler())
		defer web.Close()
		hangsUp := pgFake(t, func(conn net.Conn) { _ = conn.Close() })
		noise := pgFake(
			t, func(conn net.Conn) { _, _ = io.Copy(conn, bytes.NewReader(bytes.Repeat([]byte{0xff}, 1<<20))) },
		)
		require.ErrorIs(
			t, pgRefuses(t, true, "postgres://user:hunter2@"+hangsUp+"/db?sslmode=disable"), registry.ErrUnavailable,
		)
		require.ErrorIs(
			t, pgRefuses(t, false, "postgres://user:hunter2@"+noise+"/db?sslmode=disable"), registry.ErrUnsupported,
		)
		_ = pgRefuses(t, true, "postgres://user:hunter2@"+web.Listener.Addr().String()+"/db?sslmode=disable")
	})
	t.Run("ErrUnsupported_old", func(t *testing.T) {
		t.Parallel()
		name := "postgres://user:hunter2@" + pgFake(t, pgOld) + "/db?sslmode=disable"
		for _, options := range [][]registry.Option{
			nil, {registry.WithPooler()}, {registry.WithDurability(registry.DurabilityRelaxed)},
		} {
			err := pgRefuses(t, false, name, options...)
			require.ErrorIs(t, err, registry.ErrUnsupported)
			require.ErrorContains(t, err, "PostgreSQL 13.14; 15 or newer is needed")
		}
	})
}

// pgPasswords makes a server ask everybody but its owner for a password.
func pgPasswords(t *testing.T, c *pgtest.Cluster) {
	t.Helper()
	hba := pgValue[string](t, c.URL("postgres"), "SHOW hba_file")
	file, err := os.OpenFile(hba, os.O_WRONLY|os.O_TRUNC, 0)
	require.NoError(t, err)
	_, err = file.WriteString(
		"host all,replication postgres 127.0.0.1/32 trust\nhost all locked 127.0.0.1/32 reject\nhost all all" +
			" 127.0.0.1/32 scram-sha-256\n",
	)
	require.NoError(t, errors.Join(err, file.Close()))
	pgRun(t, c.URL("postgres"), "SELECT pg_reload_conf()")
}

// pgRefusing returns a server whose roles and databases are not all of use.
func pgRefusing(t *testing.T) *pgtest.Cluster {
	t.Helper()
	c := pgCluster(t, "max_connections = 40")
	owner := c.URL("postgres")
	pgPasswords(t, c)
	pgRun(t, owner,
		"CREATE ROLE keeper LOGIN PASSWORD '"+pgPassword+"'", "CREATE ROLE other LOGIN PASSWORD 'another'",
		"CREATE ROLE locked LOGIN PASSWORD '"+pgPassword+"'", "CREATE ROLE sleeper NOLOGIN PASSWORD '"+pgPassword+"'",
		"CREATE ROLE few LOGIN PASSWORD '"+pgPassword+"' CONNECTION LIMIT 1",
		"CREATE DATABASE kept OWNER keeper", "CREATE DATABASE ours OWNER few",
		"CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0",
		"CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0",
		"CREATE DATABASE lax", "ALTER DATABASE lax SET synchronous_commit = off",
		"CREATE DATABASE still", "ALTER DATABASE still SET default_transaction_read_only = on",
		"CREATE DATABASE shut", "ALTER DATABASE shut ALLOW_CONNECTIONS false",
		"CREATE DATABASE foreign_one", "CREATE DATABASE newer", "CREATE DATABASE blank")
	return c
}

// What a server refuses, and what is refused of a server.
func TestOpenPostgresRefuses(t *testing.T) {
	t.Parallel()
	c := pgRefusing(t)
	kept := pgAs(t, c.URL("kept"), "keeper")
	// The standby has the roles, and asks nobody for a password.
	standby, err := c.Standby(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Close()) })

	t.Run("OK", func(t *testing.T) {
		t.Parallel()
		openOnce(t, kept)
		openOnce(t, kept, registry.WithoutMigration(), registry.WithMaxConns(1))
		openOnce(t, pgEdit(t, kept, func(u *url.URL) {
			u.User = url.User("keeper")
			u.RawQuery += "&password=" + pgPassword
		}))
		openOnce(t, pgEdit(t, kept, func(u *url.URL) { u.Host = pgRefused(t) + "," + u.Host })) // one that is not there
		openOnce(t, pgEdit(t, kept, func(u *url.URL) { u.Host = pgHost(t, standby.URL("kept")) + "," + u.Host }))
	})
	t.Run("ErrDenied", func(t *testing.T) {
		t.Parallel()
		for what, name := range map[string]string{
			"password": pgAs(t, c.URL("kept"), "other"), "user": pgAs(t, c.URL("kept"), "nobody"),
			"rejected": pgAs(t, c.URL("kept"), "locked"), "not to log in": pgAs(t, c.URL("kept"), "sleeper"),
			"parameter": pgEdit(
				t, c.URL("kept"), func(u *url.URL) { u.User, u.RawQuery = nil, "user=other&password="+pgPassword },
			),
			"no password": pgEdit(t, kept, func(u *url.URL) { u.User = url.User("keeper") }),
			// On schema public nobody but its owner may create, since version 15.
			"no permission": pgAs(t, c.URL("blank"), "keeper"),
			"TLS, or none":  pgAs(t, c.URL("kept"), "other") + "&sslmode=prefer",
		} {
			for _, options := range [][]registry.Option{nil, {registry.WithPooler()}} {
				require.ErrorIs(t, pgRefuses(t, false, name, options...), registry.ErrDenied, what)
			}
		}
	})
	t.Run("ErrInvalidData_database", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{
			pgAs(t, c.URL("missing"), "keeper"), pgAs(t, c.URL("with%20space%20%C3%A4"), "keeper"),
		} {
			err := pgRefuses(t, false, name)
			require.ErrorIs(t, err, registry.ErrInvalidData)
			require.ErrorContains(t, err, "does not exist")
		}
	})
	t.Run("ErrUnsupported", func(t *testing.T) { testOpenUnsupported(t, c) })
	t.Run("ErrReadOnly", func(t *testing.T) { // it passes: a standby may be promoted
		t.Parallel()
		for _, name := range []string{
			standby.URL("postgres"), c.URL("still"), standby.URL("postgres") + "&target_session_attrs=read-write",
		} {
			require.ErrorIs(t, pgRefuses(t, true, name), registry.ErrReadOnly)
		}
	})
	t.Run("Err_too_many_connections", func(t *testing.T) { testOpenTooMany(t, c) }) // it passes: one may be closed
	t.Run("ErrSchema", func(t *testing.T) { testOpenSchema(t, c) })
	// Some of these refuse connections by no code of their own.
	t.Run("Err_others", func(t *testing.T) {
		t.Parallel()
		for what, name := range map[string]string{
			"no connections allowed": c.URL("shut"), "unknown parameter": c.URL("kept") + "&no_such_parameter=" + "1",
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, err := registry.Open(ctx, name)
			cancel()
			require.Error(t, err, what)
			t.Logf("%s: %v", what, err)
		}
	})
}

// testOpenUnsupported has databases that are not set up for a registry.
func testOpenUnsupported(t *testing.T, c *pgtest.Cluster) {
	t.Parallel()
	for database, says := range map[string]string{
		"ascii": "SQL_ASCII", "latin": "LATIN1", "lax": "synchronous_commit is off",
	} {
		err := pgRefuses(t, false, c.URL(database))
		require.ErrorIs(t, err, registry.ErrUnsupported)
		require.ErrorContains(t, err, says)
		require.Zero(
			t,
			pgValue[int](
				t, c.URL(database), "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace",
			),
		)
	}
	err := pgRefuses(t, false, pgEdit(t, c.URL("kept"), func(u *url.URL) { u.RawQuery = "sslmode=require" }))
	require.ErrorIs(t, err, registry.ErrUnsupported)
	require.ErrorContains(t, err, "refused TLS")
	openOnce(t, c.URL("lax"), registry.WithDurability(registry.DurabilityRelaxed))
}

// testOpenTooMany has a role whose one connection is taken, until it is closed.
func testOpenTooMany(t *testing.T, c *pgtest.Cluster) {
	t.Parallel()
	name := pgAs(t, c.URL("ours"), "few")
	openOnce(t, name, registry.WithMaxConns(1))
	db, err := sql.Open("pgx", name)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	var conn *sql.Conn
	require.Eventually(t, func() bool { // the registry's has gone
		conn, err = db.Conn(t.Context())
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
	err = pgRefuses(t, true, name)
	require.ErrorIs(t, err, registry.ErrUnavailable)
	require.ErrorContains(t, err, "too many connections")
	time.AfterFunc(200*time.Millisecond, func() { _ = conn.Close(); _ = db.Close() })
	openOnce(t, name, registry.WithMaxConns(1)) // it has waited
}

// testOpenSchema has databases of others, of newer programs and without tables.
func testOpenSchema(t *testing.T, c *pgtest.Cluster) {
	t.Parallel()
	pgRun(t, c.URL("foreign_one"), "CREATE TABLE orders (id int)")
	openOnce(t, c.URL("newer"))
	pgRun(t, c.URL("newer"), "INSERT INTO atlas_schema_revisions SELECT '29991231235959', 'future', type,"+
		" applied, total, executed_at,"+
		" execution_time, error, error_stmt, hash, partial_hashes, operator_version FROM"+
		" atlas_schema_revisions LIMIT 1")
	for database, want := range map[string]error{"foreign_one": migrate.ErrForeign, "newer": migrate.ErrNewer} {
		for _, options := range [][]registry.Option{nil, {registry.WithoutMigration()}} {
			err := pgRefuses(t, false, c.URL(database), options...)
			require.ErrorIs(t, err, registry.ErrSchema)
			require.ErrorIs(t, err, want)
		}
	}
	require.Equal(
		t, "orders",
		pgValue[string](
			t, c.URL("foreign_one"),
			"SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = 'public'::regnamespace",
		),
	)
	err := pgRefuses(t, false, c.URL("blank"), registry.WithoutMigration())
	require.ErrorIs(t, err, registry.ErrSchema)
	require.ErrorContains(t, err, "_init.sql")
	require.Zero(
		t,
		pgValue[int](
			t, c.URL("blank"), "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace",
		),
	)
	err = pgRefuses(t, false, c.URL("blank")+"&search_path=nowhere")
	require.ErrorIs(t, err, registry.ErrSchema)
}

// A network that is lost in the middle: every call ends by its deadline with an error that has a
// name, and works again when the network is back.
func TestPostgresLostNetwork(t *testing.T) {
	long(t, "connections stall")
	t.Parallel()
	name := pgAs(t, registrytest.PostgresURL(t), "postgres") // its owner is asked for no password
	proxy := pgProxyTo(t, pgHost(t, name))
	reg, err := registry.Open(t.Context(), proxy.url(t, name))
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	p := mustProvider(t, reg, "openai")
	m, k := mustModel(t, reg, p.ID, "gpt-4", gpt4()), mustKey(t, reg, p.ID, 1)
	use := registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: 1}}
	calls := map[string]func(ctx context.Context) error{
		"read":  func(ctx context.Context) error { return openSecond(reg.GetProvider(ctx, p.ID)) },
		"least": func(ctx context.Context) error { return openSecond(reg.GetLeastUsedKey(ctx, p.ID)) },
		"write": func(ctx context.Context) error { return reg.RecordUsage(ctx, use) },
		"transaction": func(ctx context.Context) error {
			return reg.InTx(ctx, func(tx *registry.Registry) error { return tx.RecordUsage(ctx, use) })
		},
	}
	for _, cut := range []bool{true, false} {
		// In the middle of a transaction, and then with what is left of the pool.
		middle := func(ctx context.Context) error {
			return reg.InTx(ctx, func(tx *registry.Registry) error {
				if err := tx.SetSetting(ctx, "half", "done"); err != nil {
					return err
				}
				proxy.set(true, cut)
				return tx.RecordUsage(ctx, use)
			})
		}
		check := func(what string, call func(context.Context) error) {
			const patience = 300 * time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			begin := time.Now()
			err := call(ctx)
			late := time.Since(begin) - patience
			require.Error(t, err, what)
			require.NotContains(t, err.Error(), pgPassword)
			require.True(
				t, errors.Is(err, context.DeadlineExceeded) || errors.Is(err, registry.ErrUnavailable), "%s: %v", what,
				err,
			)
			t.Logf("cut %v, %s: %s after the deadline: %v", cut, what, late.Round(time.Millisecond), err)
			require.Less(t, late, pgSlack, "%s: %v", what, err)
		}
		check("middle", middle)
		proxy.set(false, false)
		check("idle", func(ctx context.Context) error { // the context ends between two statements
			return reg.InTx(ctx, func(tx *registry.Registry) error {
				err := tx.SetSetting(t.Context(), "half", "done")
				proxy.set(true, cut)
				<-ctx.Done()
				return err
			})
		})
		proxy.set(true, cut) // also if the transaction did not begin in time
		for what, call := range calls {
			check(what, call)
		}
		proxy.set(false, false)
		for what, call := range calls {
			require.NoError(t, call(t.Context()), what)
		}
		_, err := reg.GetSetting(t.Context(), "half")
		require.ErrorIs(t, err, registry.ErrNotFound, "half a transaction was committed")
	}
}

// What PostgreSQL cannot store is refused with a name, in whichever field it is.
func TestPostgresText(t *testing.T) {
	t.Parallel()
	reg := registrytest.NewPostgres(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "openai")
	m, k := mustModel(t, reg, p.ID, "gpt-4", gpt4()), mustKey(t, reg, p.ID, 1)
	log, err := reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "lab"})
	require.NoError(t, err)
	before := dump(t, reg)
	for _, bad := range []string{"a\x00b", "\x00", "a\xff\xfeb", "\xc0\x80", "\xed\xa0\x80"} {
		for what, err := range map[string]error{
			"provider": openSecond(reg.CreateProvider(ctx, registry.ProviderInput{Name: bad})),
			"base URL": openSecond(
				reg.CreateProvider(ctx, registry.ProviderInput{Name: "x", BaseURL: "https://" + bad}),
			),
			"find provider":   notFoundIsInvalid(openSecond(reg.FindProvider(ctx, bad))),
			"update provider": openSecond(reg.UpdateProvider(ctx, p.ID, registry.ProviderUpdate{Name: &bad})),
			"model":           openSecond(reg.CreateModel(ctx, registry.ModelInput{ProviderID: p.ID, ModelID: bad})),
			"model name": openSecond(
				reg.CreateModel(ctx, registry.ModelInput{ProviderID: p.ID, ModelID: "x", Name: bad}),
			),
			"find model": notFoundIsInvalid(openSecond(reg.FindModel(ctx, p.ID, bad))),
			"family":     openSecond(reg.CreateFamily(ctx, registry.FamilyInput{ProviderID: p.ID, Name: bad})),
			"key":        openSecond(reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: p.ID, APIKey: secret(1) + bad})),
			"label":      openSecond(reg.UpdateAPIKey(ctx, k.ID, registry.KeyUpdate{Label: &bad})),
			"find key":   openSecond(reg.FindAPIKey(ctx, p.ID, secret(1)+bad)),
			"tier":       reg.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, ServiceTier: bad}),
			"price": openSecond(
				reg.UpdateModelPricing(
					ctx, m.ID, registry.PriceInput{ServiceTier: bad, Rates: money.Rates{meter.Input: 1}},
				),
			),
			"setting":         reg.SetSetting(ctx, bad, "x"),
			"setting's value": reg.SetSetting(ctx, "x", bad),
			"get setting":     notFoundIsInvalid(openSecond(reg.GetSetting(ctx, bad))),
			"delete setting":  notFoundIsInvalid(reg.DeleteSetting(ctx, bad)),
			"SDK version": openSecond(
				reg.CreateSDKVersion(ctx, registry.SDKVersionInput{ProviderID: p.ID, Version: bad}),
			),
			"discovery": openSecond(reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: bad})),
			"result":    openSecond(reg.UpdateDiscoveryResult(ctx, log.ID, []byte(bad), "success")),
		} {
			require.ErrorIs(t, err, registry.ErrInvalidData, "%s, %q", what, bad)
		}
	}
	require.Equal(t, before, dump(t, reg))
}

// notFoundIsInvalid takes the answer that there is no such row for the other right one.
func notFoundIsInvalid(err error) error {
	if errors.Is(err, registry.ErrNotFound) {
		return registry.ErrInvalidData
	}
	return err
}

// WithMaxConns is kept, whatever 64 goroutines want.
func TestWithMaxConns(t *testing.T) {
	t.Parallel()
	for limit, options := range map[int][]registry.Option{
		16: nil, 1: {registry.WithMaxConns(1)}, 3: {registry.WithMaxConns(3)},
	} {
		t.Run(fmt.Sprint("OK_", limit), func(t *testing.T) {
			t.Parallel()
			name := registrytest.PostgresURL(t)
			watch := must(sql.Open("pgx", name))
			defer func() { require.NoError(t, watch.Close()) }()
			watch.SetMaxOpenConns(1)
			marked := fmt.Sprint("max_conns_", limit)
			reg := must(registry.Open(t.Context(), name+"&application_name="+marked, options...))
			defer func() { require.NoError(t, reg.Close()) }()
			p := mustProvider(t, reg, "openai")
			m, k := mustModel(t, reg, p.ID, "gpt-4", gpt4()), mustKey(t, reg, p.ID, 1)
			var all sync.WaitGroup
			errs := make([]error, 64)
			for i := range errs {
				all.Go(func() {
					for range 8 {
						errs[i] = errors.Join(errs[i], openSecond(
							reg.GetProvider(t.Context(), p.ID),
						), reg.RecordUsage(t.Context(), registry.UsageInput{
							ModelID: m.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: 1},
						}))
					}
				})
			}
			done := make(chan struct{})
			go func() { all.Wait(); close(done) }()
			most := 0
			for running := true; running; {
				select {
				case <-done:
					running = false
				default:
				}
				var n int
				require.NoError(t, watch.QueryRowContext(t.Context(),
					"SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", marked).Scan(&n))
				most = max(most, n)
			}
			require.NoError(t, errors.Join(errs...))
			require.Equal(t, limit, most)
			stats := must(reg.ListAPIKeys(t.Context(), registry.KeyFilter{ProviderID: p.ID}))
			require.EqualValues(t, 64*8, stats[0].UsageCount)
		})
	}
}
