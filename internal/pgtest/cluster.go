package pgtest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// Cluster is a throw-away PostgreSQL server with a data folder and a port of its own, on
// loopback. It is not safe for concurrent use; its databases are.
type Cluster struct {
	bin     string // folder of the programs
	dir     string // everything of this server; Close removes it
	port    int
	watcher *exec.Cmd
	server  *exec.Cmd     // the last one that was started
	exited  chan struct{} // closed when it has ended
	exit    error         // how it has ended
	paused  []int         // processes
}

// Mode is a way to stop a server.
type Mode string

// The modes of pg_ctl: Fast ends sessions and writes everything out. Immediate does not, so that
// the next start recovers as from a crash.
const (
	Fast      Mode = "fast"
	Immediate Mode = "immediate"
)

// patience is how long a server may take to start or to stop.
const patience = time.Minute

// settings are of every server. Durability stays as it is by default, which is on.
const settings = `
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = 64MB
dynamic_shared_memory_type = mmap
max_connections = 300
`

// Start makes a new server and starts it. More lines of postgresql.conf can be given, such as
// "synchronous_commit = off". The server is gone after Close, or else when this process is.
// Start returns [ErrNotFound].
func Start(ctx context.Context, more ...string) (*Cluster, error) {
	return start(ctx, os.Getpid(), "", more...)
}

// start is Start for the lifetime of a process. The file note is removed with the server.
func start(ctx context.Context, life int, note string, more ...string) (_ *Cluster, err error) {
	bin, err := find()
	if err != nil {
		return nil, err
	}
	c, err := newCluster(bin, life, note)
	if err != nil {
		return nil, err
	}
	defer c.closeIf(&err)
	if life == os.Getpid() {
		err = c.copyTemplate(ctx)
	} else {
		err = c.initialize(ctx)
	}
	if err != nil {
		return nil, err
	}
	return c, c.runFirst(ctx, settings, more)
}

// newCluster makes the folder of a server, and makes sure that it is removed.
func newCluster(bin string, life int, note string) (*Cluster, error) {
	dir, err := os.MkdirTemp(home(), "pgtest")
	if err != nil {
		return nil, err
	}
	c := &Cluster{bin: bin, dir: dir}
	if c.watcher, err = watch(life, dir, note); err == nil {
		err = give(dir)
	}
	c.closeIf(&err)
	return c, err
}

// home returns where databases are made; empty: where temporary files are. It is in memory, if there is room, because
// most of the time of a new database goes to the file system. A killed process leaves its files there, as on a disk,
// because the machine goes on. Benchmarks use the disk.
func home() string {
	bench := flag.Lookup("test.bench")
	if bench != nil && bench.Value.String() != "" || !inMemory() {
		return ""
	}
	return memory
}

// watch starts a watcher that stops a server and removes its folder when a process is gone, however it ended.
func watch(process int, dir, note string) (*exec.Cmd, error) {
	cmd := exec.Command("sh", "-c", `
while kill -0 "$1" && [ -d "$2" ]; do sleep 1; done
[ -d "$2" ] || exit 0
pid=$(head -n 1 "$2/data/postmaster.pid") && kill -QUIT "$pid"
for _ in 1 2 3 4 5 6 7 8; do [ -e "$2/data/postmaster.pid" ] || break; sleep 1; done
[ -e "$2/data/postmaster.pid" ] && kill -KILL "$pid"
rm -rf "$2" "$3"
`, "pgtest", strconv.Itoa(process), dir, note)
	cmd.Dir = "/"
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd, nil
}

// closeIf closes a server that could not be made.
func (c *Cluster) closeIf(err *error) {
	if *err != nil {
		*err = errors.Join(*err, c.Close())
	}
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// runFirst configures a new server and starts it on a free port.
func (c *Cluster) runFirst(ctx context.Context, settings string, more []string) error {
	conf, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = conf.WriteString(settings + strings.Join(more, "\n") + "\n")
	if err = errors.Join(err, conf.Close()); err != nil {
		return err
	}
	for range 20 {
		if c.port, err = freePort(ctx); err != nil {
			return err
		}
		if err = c.Run(ctx); !errors.Is(err, errPort) {
			return err
		}
	}
	return err
}

// freePort returns a port that is free now. It is below those that systems give to outgoing
// connections, so that it is free again for a restart.
func freePort(ctx context.Context) (int, error) {
	var listen net.ListenConfig
	for {
		port := 20000 + rand.IntN(12000)
		l, err := listen.Listen(ctx, "tcp", address(port))
		if err == nil {
			return port, l.Close()
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return 0, err
		}
	}
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

const (
	superuser   = "postgres"
	maintenance = "postgres" // the database that is always there
)

// URL returns the URL of a database of the server. There is always one called "postgres".
func (c *Cluster) URL(database string) string {
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", superuser, address(c.port), database)
}

// Port returns the server's port on 127.0.0.1, which stays the same.
func (c *Cluster) Port() int { return c.port }

var (
	errPort  = errors.New("the port is taken")
	errStill = errors.New("processes of the last start are still there")
)

// Run starts the server after Stop or Kill, and waits until it takes connections.
func (c *Cluster) Run(ctx context.Context) error {
	if c.running() {
		return errors.New("start PostgreSQL: it runs")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return until(ctx, func() (bool, error) {
		err := c.tryRun(ctx)
		if errors.Is(err, errStill) {
			return false, nil
		}
		return true, err
	})
}

func (c *Cluster) tryRun(ctx context.Context) (err error) {
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	cmd := exec.Command(filepath.Join(c.bin, "postgres"), "-D", c.data(), "-p", strconv.Itoa(c.port))
	if err := c.prepare(cmd); err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		c.exit = cmd.Wait()
		close(exited)
	}()
	c.server, c.exited = cmd, exited
	err = until(ctx, func() (bool, error) {
		if !c.running() {
			return true, errors.Join(errors.New("it has ended"), c.exit)
		}
		return c.answers(ctx), nil
	})
	if err == nil {
		return nil
	}
	if c.running() {
		err = errors.Join(err, c.Kill())
	}
	text, readErr := os.ReadFile(log.Name())
	switch {
	case bytes.Contains(text, []byte("Address already in use")):
		err = errPort
	case bytes.Contains(text, []byte("still in use")), bytes.Contains(text, []byte("already exists")):
		err = errStill // shared memory, or the lock file
	}
	return errors.Join(fmt.Errorf("start PostgreSQL: %w\n%s", err, text[max(0, len(text)-4096):]), readErr)
}

// answers returns an error unless the server takes connections, and is not another one on its port.
func (c *Cluster) answers(ctx context.Context) bool {
	folder, err := one[string](ctx, c.URL(maintenance), "SHOW data_directory")
	return err == nil && folder == c.data()
}

func (c *Cluster) running() bool {
	if c.server == nil {
		return false
	}
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// Stop stops the server and waits until it has ended.
func (c *Cluster) Stop(ctx context.Context, mode Mode) error {
	signal, ok := map[Mode]os.Signal{Fast: syscall.SIGINT, Immediate: syscall.SIGQUIT}[mode]
	if !ok {
		return fmt.Errorf("stop PostgreSQL: mode %q: not one of: %s, %s", mode, Fast, Immediate)
	}
	if !c.running() {
		return errors.New("stop PostgreSQL: it does not run")
	}
	if err := errors.Join(c.resume(), c.server.Process.Signal(signal)); err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-c.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop PostgreSQL: %w", ctx.Err())
	}
}

// Restart stops the server and starts it again.
func (c *Cluster) Restart(ctx context.Context, mode Mode) error {
	if err := c.Stop(ctx, mode); err != nil {
		return err
	}
	return c.Run(ctx)
}

// Kill ends the server's first process with SIGKILL. The others end by themselves.
func (c *Cluster) Kill() error {
	if !c.running() {
		return errors.New("kill PostgreSQL: it does not run")
	}
	if err := c.server.Process.Kill(); err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	<-c.exited
	return nil
}

// Close stops the server, if it runs, and removes its folder.
func (c *Cluster) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := c.resume()
	if c.running() {
		err = errors.Join(err, c.Stop(ctx, Immediate))
	}
	// After Kill, the last processes may still write into it.
	err = errors.Join(err, until(ctx, func() (bool, error) { return os.RemoveAll(c.dir) == nil, nil }))
	if c.watcher != nil {
		err = errors.Join(err, killSession(c.watcher))
		var killed *exec.ExitError
		if failed := c.watcher.Wait(); !errors.As(failed, &killed) {
			err = errors.Join(err, failed)
		}
		c.watcher = nil
	}
	return err
}

// tool runs one of PostgreSQL's programs to its end.
func (c *Cluster) tool(ctx context.Context, name string, args ...string) error {
	return c.execute(ctx, filepath.Join(c.bin, name), args...)
}

// execute runs a program to its end.
func (c *Cluster) execute(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	if err := c.prepare(cmd); err != nil {
		return err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// prepare makes a command independent of the user's environment.
func (c *Cluster) prepare(cmd *exec.Cmd) error {
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"} // and no PGDATA, PGOPTIONS, ...
	return asOwner(cmd)
}

// until calls f again and again, until it is done or fails, or the context ends.
func until(ctx context.Context, f func() (done bool, err error)) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if done, err := f(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// one returns the only value of a query, over a connection of its own.
func one[T any](ctx context.Context, url, query string, args ...any) (value T, err error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return value, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.QueryRowContext(ctx, query, args...).Scan(&value)
	return value, err
}
