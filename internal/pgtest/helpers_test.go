package pgtest_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
)

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
