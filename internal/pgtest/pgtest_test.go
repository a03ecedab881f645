package pgtest_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
)

// roleVariable makes the test binary a process of a test.
const roleVariable = "MODELSCAN_PGTEST_ROLE"

// TestMain plays a role until its standard input ends, or runs the tests.
func TestMain(m *testing.M) {
	role, process, _ := strings.Cut(os.Getenv(roleVariable), " ")
	var text string
	var err error
	switch role {
	case "":
		os.Exit(m.Run())
	case "wait":
	case "share":
		var life int
		if life, err = strconv.Atoi(process); err == nil {
			text, err = pgtest.Share(context.Background(), life)
		}
	case "start":
		var c *pgtest.Cluster
		if c, err = pgtest.Start(context.Background()); err == nil {
			text = c.URL("postgres")
		}
	}
	fmt.Println(text, err)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// process plays a role. Its first line is what it says.
type process struct {
	cmd  *exec.Cmd
	says *bufio.Scanner
}

func play(t *testing.T, role string) *process {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: the test starts processes, and servers with them")
	}
	binary, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	_, err = cmd.StdinPipe() // open until it is killed
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &process{cmd, bufio.NewScanner(out)}
	t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait() // "signal: killed"
	}
}

// url returns the URL that the process says.
func (p *process) url(t *testing.T) string {
	t.Helper()
	require.True(t, p.says.Scan())
	url, err, _ := strings.Cut(p.says.Text(), " ")
	require.Equal(t, "<nil>", err)
	return url
}

// start returns a server that is closed after the test.
func start(t *testing.T, settings ...string) *pgtest.Cluster {
	t.Helper()
	var c *pgtest.Cluster
	t.Cleanup(func() {
		if c != nil { // it has been closed
			require.NoDirExists(t, filepath.Dir(c.Data()))
		}
	})
	c = pgtest.Server(t, settings...)
	return c
}

// value returns the only value of a query.
func value[T any](url, query string) (v T, err error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.QueryRow(query).Scan(&v)
	return v, err
}

func one[T any](t *testing.T, url, query string) T {
	t.Helper()
	v, err := value[T](url, query)
	require.NoError(t, err)
	return v
}

func run(url string, statements ...string) (err error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			return err
		}
	}
	return nil
}

// eventually waits for something that other processes do.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(t, pgtest.Until(ctx, func() (bool, error) { return f(), nil }), what)
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c := start(t, "work_mem = 5MB", "application_name = 'x'")
	url, port := c.URL("postgres"), c.Port()
	for setting, want := range map[string]string{
		"work_mem": "5MB", "application_name": "x", "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
		"listen_addresses": "127.0.0.1", "server_encoding": "UTF8", "lc_collate": "C",
	} {
		require.Equal(t, want, one[string](t, url, "SHOW "+setting), setting)
	}
	require.NoError(t, run(url, "CREATE TABLE a (id int)", "INSERT INTO a VALUES (1)"))
	born := one[time.Time](t, url, "SELECT pg_postmaster_start_time()")
	require.ErrorContains(t, c.Run(t.Context()), "it runs")
	require.ErrorContains(t, c.Stop(t.Context(), "soon"), `mode "soon": not one of: fast, immediate`)

	for name, again := range map[string]func() error{
		"fast":      func() error { return c.Restart(t.Context(), pgtest.Fast) },
		"immediate": func() error { return c.Restart(t.Context(), pgtest.Immediate) },
		"kill":      func() error { return errors.Join(c.Kill(), c.Run(t.Context())) },
		"stop":      func() error { return errors.Join(c.Stop(t.Context(), pgtest.Fast), c.Run(t.Context())) },
	} {
		require.NoError(t, again(), name)
		require.Equal(t, url, c.URL("postgres"))
		require.Equal(t, port, c.Port())
		require.Equal(t, 1, one[int](t, url, "SELECT id FROM a"))
		was := born
		born = one[time.Time](t, url, "SELECT pg_postmaster_start_time()")
		require.True(t, born.After(was), name)
	}
	require.NoError(t, c.Kill())
	require.ErrorContains(t, c.Kill(), "does not run")
	require.ErrorContains(t, c.Stop(t.Context(), pgtest.Fast), "does not run")
	_, err := value[int](url, "SELECT 1")
	require.Error(t, err)
}

func TestClusterErrors(t *testing.T) {
	t.Parallel()
	_ = start(t)
	_, err := pgtest.Start(t.Context(), "no_such_setting = 1")
	require.ErrorContains(t, err, `unrecognized configuration parameter "no_such_setting"`)
	require.NotErrorIs(t, err, pgtest.ErrNotFound)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = pgtest.Start(canceled)
	require.ErrorIs(t, err, context.Canceled)
}

func TestStandby(t *testing.T) {
	t.Parallel()
	primary := start(t)
	require.NoError(t, run(primary.URL("postgres"), "CREATE TABLE a (id int)"))
	standby, err := primary.Standby(t.Context(), "work_mem = 5MB")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Close()) })
	require.Equal(t, "5MB", one[string](t, standby.URL("postgres"), "SHOW work_mem"))
	require.True(t, one[bool](t, standby.URL("postgres"), "SELECT pg_is_in_recovery()"))
	require.ErrorContains(t, run(standby.URL("postgres"), "INSERT INTO a VALUES (0)"), "read-only")
	rows := func() int { return one[int](t, standby.URL("postgres"), "SELECT count(*) FROM a") }

	_, err = standby.Pause(t.Context(), "walsender")
	require.ErrorContains(t, err, `no process of type "walsender" is running`)
	resume, err := standby.Pause(t.Context(), "walreceiver")
	require.NoError(t, err)
	require.NoError(t, run(primary.URL("postgres"), "INSERT INTO a VALUES (1)"))
	require.Zero(t, rows())
	require.NoError(t, resume())
	eventually(t, "the standby catches up", func() bool { return rows() == 1 })

	require.NoError(t, primary.Kill())
	require.NoError(t, standby.Promote(t.Context()))
	require.NoError(t, run(standby.URL("postgres"), "INSERT INTO a VALUES (2)"))
	require.Equal(t, 2, rows())
	require.NoError(t, standby.Restart(t.Context(), pgtest.Immediate))
	require.Equal(t, 2, rows())
	require.Error(t, standby.Promote(t.Context()), "it is no standby any more")

	require.NoError(t, primary.Run(t.Context())) // which does not know, and has its own rows
	require.Equal(t, 1, one[int](t, primary.URL("postgres"), "SELECT count(*) FROM a"))
}

// TestClosePaused: a process that is paused cannot end, and would keep back the others.
func TestClosePaused(t *testing.T) {
	t.Parallel()
	c := start(t)
	_, err := c.Pause(t.Context(), "walwriter")
	require.NoError(t, err)
	require.NoError(t, c.Restart(t.Context(), pgtest.Fast))
	_, err = c.Pause(t.Context(), "walwriter")
	require.NoError(t, err)
}

func TestDatabase(t *testing.T) {
	t.Parallel()
	var fills atomic.Int32
	fill := func(_ context.Context, url string) error {
		fills.Add(1)
		return run(url, "CREATE TABLE a (id int)", "INSERT INTO a VALUES (1)")
	}
	empty := pgtest.Database(t, "", nil)
	require.Zero(t, one[int](t, empty, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"))
	exists := func(url string) bool {
		name := url[strings.LastIndex(url, "/")+1:]
		name, _, _ = strings.Cut(name, "?")
		return one[bool](t, empty, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = '"+name+"')")
	}

	t.Run("OK", func(t *testing.T) {
		urls := make([]string, 3)
		t.Run("copies", func(t *testing.T) {
			var wg sync.WaitGroup
			for i := range urls {
				wg.Go(func() {
					urls[i] = pgtest.Database(t, "TestDatabase", fill)
					require.NoError(t, run(urls[i], fmt.Sprintf("INSERT INTO a VALUES (%d)", 10+i)))
				})
			}
			wg.Wait()
			for i, url := range urls {
				require.Equal(t, 11+i, one[int](t, url, "SELECT sum(id) FROM a"))
				require.True(t, exists(url))
			}
		})
		for _, url := range urls {
			require.False(t, exists(url))
		}
		if os.Getenv(pgtest.Variable) == "" {
			require.Equal(t, int32(1), fills.Load())
		}
	})
	t.Run("OK/another key", func(t *testing.T) {
		url := pgtest.Database(t, "TestDatabase/another", func(_ context.Context, url string) error {
			return run(url, "CREATE TABLE b (id int)")
		})
		require.Zero(t, one[int](t, url, "SELECT count(*) FROM b"))
	})
	t.Run("OK/open connections", func(t *testing.T) {
		var db *sql.DB
		t.Run("", func(t *testing.T) {
			var err error
			db, err = sql.Open("pgx", pgtest.Database(t, "", nil))
			require.NoError(t, err)
			require.NoError(t, db.PingContext(t.Context()))
		})
		require.Error(t, db.PingContext(t.Context()))
		require.NoError(t, db.Close())
	})
	t.Run("ErrFill", func(t *testing.T) {
		var draft string
		fails := func(_ context.Context, url string) error {
			draft = url
			return errors.New("filled too much")
		}
		tb := observe("TestDatabase/ErrFill", fails)
		require.Contains(t, tb.failed, "filled too much")
		require.Empty(t, tb.skipped)
		require.False(t, exists(draft))
	})
}

// observed is a test that says how it went. It is to end before it has a database.
type observed struct {
	testing.TB
	skipped, failed string
}

func observe(key string, fill func(ctx context.Context, url string) error) *observed {
	tb := &observed{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		pgtest.Database(tb, key, fill)
	}()
	<-done
	return tb
}

func (*observed) Helper()                  {}
func (*observed) Context() context.Context { return context.Background() }
func (o *observed) Skip(args ...any)       { o.skipped = fmt.Sprint(args...); runtime.Goexit() }
func (o *observed) Fatalf(format string, args ...any) {
	o.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// program makes a folder with programs that say a version.
func programs(t *testing.T, folder, version string, names ...string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(folder, 0o700))
	for _, name := range names {
		script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(script), 0o700))
	}
	return folder
}

func TestFind(t *testing.T) {
	all := []string{"postgres", "initdb", "pg_basebackup"}
	t.Setenv("PATH", t.TempDir())
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	programs(t, root+"/9/bin", "9.6.24", all...)
	programs(t, root+"/14/bin", "14.9 (Debian 14.9-1)", all...)
	programs(t, root+"/99/bin", "99.1", "postgres", "initdb") // not whole
	require.NoError(t, os.MkdirAll(root+"/empty/bin", 0o700))
	pgtest.SetPlaces(t, root+"/*/bin")
	t.Setenv(pgtest.Variable, "")

	for _, version := range []string{"9.6.24", "14.9"} { // on $PATH, it is still too old
		t.Setenv("PATH", programs(t, t.TempDir(), version, all...)+":/bin:/usr/bin")
		_, err = pgtest.Find()
		require.ErrorIs(t, err, pgtest.ErrNotFound)
	}
	pgtest.SetLife(t, -1)
	tb := observe("", nil)
	if testing.Short() {
		require.Equal(t, "-short: the test needs a PostgreSQL server", tb.skipped)
		t.Skip("-short: what is said when there is no server")
	}
	require.Equal(t, "no PostgreSQL 15 or newer was found: install it (Debian, Ubuntu: apt-get install postgresql), "+
		"or set MODELSCAN_TEST_POSTGRES to the postgres:// URL of a server on which databases may"+
		" be created", tb.skipped)
	require.Empty(t, tb.failed)
	require.NoError(t, os.Remove(pgtest.NotePath(-1)))
	_, _, err = pgtest.Empty(t.Context())
	require.ErrorIs(t, err, pgtest.ErrNotFound)

	programs(t, root+"/15/bin", "15.18", all...)
	programs(t, root+"/18/bin", "18beta1", all...)
	programs(t, root+"/16/bin", "16.2", all...)
	bin, err := pgtest.Find()
	require.NoError(t, err)
	require.Equal(t, root+"/18/bin", bin)

	links := t.TempDir()
	require.NoError(t, os.Symlink(root+"/16/bin/initdb", links+"/initdb"))
	t.Setenv("PATH", links)
	bin, err = pgtest.Find()
	require.NoError(t, err)
	require.Equal(t, root+"/16/bin", bin)
}

// TestVariable: databases on somebody's server, where nothing stays.
func TestVariable(t *testing.T) {
	server := start(t).URL("postgres")
	t.Setenv(pgtest.Variable, server)
	url, err := pgtest.Shared(t.Context())
	require.NoError(t, err)
	require.Equal(t, server, url)
	databases := func() int { return one[int](t, server, "SELECT count(*) FROM pg_database") }
	before := databases()
	t.Run("OK", func(t *testing.T) {
		for range 2 {
			url := pgtest.Database(
				t, "x", func(_ context.Context, url string) error { return run(url, "CREATE TABLE a (id int)") },
			)
			require.Zero(t, one[int](t, url, "SELECT count(*) FROM a"))
		}
		require.Equal(t, before+2, databases())
	})
	require.Equal(t, before, databases())
	tb := observe("x", func(context.Context, string) error { return errors.New("filled too much") })
	require.Contains(t, tb.failed, "filled too much")
	require.Equal(t, before, databases())

	url, remove, err := pgtest.Empty(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, one[int](t, url, "SELECT 1"))
	require.Equal(t, before+1, databases())
	require.NoError(t, remove())
	require.Equal(t, before, databases())

	for _, wrong := range []string{
		"mysql://u:secret@localhost/x", "host=localhost password=secret", "postgres://u:secret@%zz/x",
	} {
		t.Setenv(pgtest.Variable, wrong)
		tb := observe("", nil)
		require.Contains(t, tb.failed, "MODELSCAN_TEST_POSTGRES is not a postgres:// URL")
		require.NotContains(t, tb.failed, "secret")
		require.Empty(t, tb.skipped)
	}
	t.Setenv(pgtest.Variable, "postgres://u:secret@127.0.0.1:1/x?sslmode=disable") // nobody is there
	tb = observe("", nil)
	require.Contains(t, tb.failed, "refused")
	require.NotContains(t, tb.failed, "secret")
	require.Empty(t, tb.skipped)
}

// gone waits until a server and its folder are not there any more.
func gone(t *testing.T, url, data string) {
	t.Helper()
	eventually(t, "the server ends", func() bool {
		_, err := value[int](url, "SELECT 1")
		return err != nil
	})
	eventually(t, "the folder is removed", func() bool {
		_, err := os.Stat(filepath.Dir(data))
		return errors.Is(err, os.ErrNotExist)
	})
}

func TestShared(t *testing.T) {
	t.Parallel()
	require.Contains(t, []int{os.Getpid(), os.Getppid()}, pgtest.Life())
	if _, err := pgtest.Find(); err != nil {
		t.Skip(err)
	}
	// What `go test` is, and the processes of three packages.
	parent := play(t, "wait")
	life := parent.cmd.Process.Pid
	var packages []*process
	for range 3 {
		packages = append(packages, play(t, fmt.Sprintf("share %d", life)))
	}
	url := packages[0].url(t)
	for _, p := range packages[1:] {
		require.Equal(t, url, p.url(t))
	}
	data := one[string](t, url, "SHOW data_directory")
	for _, p := range packages {
		p.kill()
	}
	require.Equal(t, url, play(t, fmt.Sprintf("share %d", life)).url(t), "it outlives the process that started it")

	// A server that went down with the machine.
	note, err := os.ReadFile(pgtest.NotePath(life))
	require.NoError(t, err)
	require.NoError(
		t, os.WriteFile(pgtest.NotePath(life), []byte(strings.Replace(string(note), data, "/another", 1)), 0o600),
	)
	second := play(t, fmt.Sprintf("share %d", life)).url(t)
	require.NotEqual(t, url, second)
	secondData := one[string](t, second, "SHOW data_directory")

	parent.kill()
	gone(t, url, data)
	gone(t, second, secondData)
	eventually(t, "the note is removed", func() bool {
		_, err := os.Stat(pgtest.NotePath(life))
		return errors.Is(err, os.ErrNotExist)
	})
}

// TestWatcher: a test that is killed leaves no server behind.
func TestWatcher(t *testing.T) {
	t.Parallel()
	if _, err := pgtest.Find(); err != nil {
		t.Skip(err)
	}
	p := play(t, "start")
	url := p.url(t)
	data := one[string](t, url, "SHOW data_directory")
	p.kill()
	gone(t, url, data)
}
