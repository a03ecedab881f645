// Package pgtest runs real PostgreSQL servers for tests: one that a whole `go test` shares, with a database for each
// test, and others that tests kill, restart and give standbys.
package pgtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Main runs the tests of a package, for its TestMain, with the temporary files of tests in memory if there is room: a
// file system takes a quarter of the time that tests of SQLite take. Benchmarks are to see the disk. Unless -parallel
// says otherwise, four tests run for each processor, because most wait for a server or for a commit. Unless GOGC says
// otherwise, garbage is collected a quarter as often, which saves time where tests run on SQLite.
func Main(m *testing.M) (code int) {
	flag.Parse()
	var err error
	if dir := home(); dir != "" {
		err = os.Setenv("TMPDIR", dir)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		err = errors.Join(err, flag.Set("test.parallel", strconv.Itoa(4*runtime.GOMAXPROCS(0))))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return 1
	}
	return m.Run()
}

// Database creates a database for a test, drops it after the test, and returns its URL. The test
// is skipped when there is no PostgreSQL, and under -short, because most of what tests wait for are servers.
//
// The database is a copy of one that fill filled, once for a key and a `go test`: fill gets its
// URL, and must have closed its connections when it returns. Without fill the database is empty.
func Database(tb testing.TB, key string, fill func(ctx context.Context, url string) error) (url string) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("-short: the test needs a PostgreSQL server")
	}
	url, remove, err := database(tb.Context(), key, fill)
	if errors.Is(err, ErrNotFound) {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		if err := remove(); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	return url
}

// Server returns a server of the test's own, which is gone after the test. The test is skipped when there is no
// PostgreSQL, and under -short, because it takes seconds to start a server and to stop it.
func Server(tb testing.TB, settings ...string) *Cluster {
	tb.Helper()
	if testing.Short() {
		tb.Skip("-short: the test starts a PostgreSQL server of its own")
	}
	c, err := Start(tb.Context(), settings...)
	if errors.Is(err, ErrNotFound) {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	return c
}

// Empty creates an empty database outside of a test, on the server that [Variable] names or on one
// of its own. Remove removes whatever it made. It returns [ErrNotFound].
func Empty(ctx context.Context) (url string, remove func() error, err error) {
	if os.Getenv(Variable) != "" {
		return database(ctx, "", nil)
	}
	c, err := Start(ctx)
	if err != nil {
		return "", nil, err
	}
	return c.URL("postgres"), c.Close, nil
}

func database(
	ctx context.Context, key string, fill func(ctx context.Context, url string) error,
) (url string, remove func() error, err error) {
	shared, err := Shared(ctx)
	if err != nil {
		return "", nil, err
	}
	s := server(shared)
	from := empty
	// A server that was there before stays when the tests are over, and nobody would drop the
	// template: there, each database is filled by itself.
	external := os.Getenv(Variable) != ""
	if fill != nil && !external {
		if from, err = s.template(ctx, key, fill); err != nil {
			return "", nil, err
		}
	}
	name, err := s.create(ctx, from)
	if err != nil {
		return "", nil, err
	}
	if fill != nil && external {
		if err := fill(ctx, s.url(name)); err != nil {
			return "", nil, errors.Join(err, s.drop(ctx, name))
		}
	}
	return s.url(name), func() error { return s.drop(context.Background(), name) }, nil
}

// server is the URL of the database of a server from which others are created and dropped.
type server string

// url returns the URL of one of its databases.
func (s server) url(name string) string {
	u, err := url.Parse(string(s))
	if err != nil {
		panic(err) // Shared has parsed it
	}
	u.Path = "/" + name
	return u.String()
}

// administrators are the connections over which databases are created and dropped, by server. They stay open until the
// process ends: a connection takes the server longer than what is done over it.
var administrators sync.Map

func (s server) administrator() (*sql.DB, error) {
	db, err := sql.Open("pgx", string(s))
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(2)
	if known, ok := administrators.LoadOrStore(s, db); ok {
		return known.(*sql.DB), db.Close()
	}
	return db, nil
}

func (s server) exec(ctx context.Context, statements ...string) error {
	db, err := s.administrator()
	if err != nil {
		return err
	}
	for _, statement := range statements {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// empty is the template that is the same on every server.
const empty = "template0"

// create creates a database and returns its name.
func (s server) create(ctx context.Context, template string) (name string, err error) {
	name = "modelscan_test_" + strings.ToLower(rand.Text())
	// Copying the files takes half the time of logging them, where a checkpoint is cheap.
	return name, s.exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template+" STRATEGY FILE_COPY")
}

func (s server) drop(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return s.exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
}

// template makes the template of a key, unless it is there, and returns its name.
func (s server) template(
	ctx context.Context, key string, fill func(ctx context.Context, url string) error,
) (name string, err error) {
	sum := sha256.Sum256([]byte(key))
	name = fmt.Sprintf("template_%x", sum[:8])
	db, err := sql.Open("pgx", string(s))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }() // and the lock goes with the connection
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "SELECT pg_advisory_lock(hashtext($1))", name); err != nil {
		return "", err
	}
	var exists bool
	err = db.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists)
	if err != nil || exists {
		return name, err
	}
	draft, err := s.create(ctx, empty)
	if err != nil {
		return "", err
	}
	err = fill(ctx, s.url(draft))
	if err == nil { // it gets the name when it is whole, and stays as it is
		err = s.exec(
			ctx, "ALTER DATABASE "+draft+" ALLOW_CONNECTIONS false", "ALTER DATABASE "+draft+" RENAME TO "+name,
		)
	}
	if err != nil {
		return "", errors.Join(err, s.drop(ctx, draft))
	}
	return name, nil
}
