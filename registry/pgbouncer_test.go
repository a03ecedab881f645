package registry_test

// These tests work through a pooler, and have no source of their own.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// pgBouncer starts PgBouncer in front of a server and returns what makes a URL lead through it. It
// hands a connection of its four to another client after each transaction.
func pgBouncer(t *testing.T, server string) (through func(name string) string) {
	t.Helper()
	long(t, "the test starts PgBouncer")
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer" // which is on the $PATH of root alone
	}
	if err := exec.Command(program, "--version").Run(); err != nil {
		t.Skipf("there is no PgBouncer to test with (apt-get install pgbouncer): %v", err)
	}
	address := pgRefused(t)
	host, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	u, err := url.Parse(server)
	require.NoError(t, err)
	if u.User.Username() == "" || u.Port() == "" {
		t.Skip("the server's URL lacks a user or a port")
	}
	password, _ := u.User.Password()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"users": fmt.Sprintf("%q %q\n", u.User.Username(), password),
		"conf": fmt.Sprintf("[databases]\n* = host=%s"+
			" port=%s\n[pgbouncer]\nlisten_addr=%s\nlisten_port=%s\nunix_socket_dir=\n"+
			"auth_type=trust\nauth_file=%s\npool_mode=transaction\ndefault_pool_size=4\nmax_client_conn=200\n"+
			"ignore_startup_parameters=extra_float_digits\n", u.Hostname(), u.Port(), host, port,
			filepath.Join(dir, "users")),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	// The shell ends it when this process is gone, however it went.
	cmd := exec.Command(
		"sh", "-c", `"$1" "$2" & pid=$!; cat; kill "$pid"; wait "$pid"`, "sh", program, filepath.Join(dir, "conf"),
	)
	cmd.Dir = dir
	if os.Geteuid() == 0 { // which it refuses
		nobody, err := user.Lookup("nobody")
		require.NoError(t, err)
		uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
		require.NoError(t, err)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = log, log
	stop, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = stop.Close()
		_ = cmd.Wait() // how it ends does not matter
		require.NoError(t, log.Close())
		if t.Failed() {
			text, err := os.ReadFile(log.Name())
			require.NoError(t, err)
			t.Logf("PgBouncer: %s", text[max(0, len(text)-4096):])
		}
	})
	require.Eventually(t, func() bool {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		return err == nil && conn.Close() == nil
	}, 20*time.Second, 20*time.Millisecond, "PgBouncer does not listen")
	return func(name string) string {
		return pgEdit(t, name, func(u *url.URL) { u.Host = address })
	}
}

// pgMixedLoad calls operations from 16 goroutines for a while, and returns how many it called and how
// many errors of each SQLSTATE there were.
func pgMixedLoad(t *testing.T, l *load, d time.Duration, give func(error) bool) (calls int64, errs map[string]int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var (
		all sync.WaitGroup
		n   atomic.Int64
		mu  sync.Mutex
	)
	errs = map[string]int{}
	for g := range 16 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(2, uint64(g)))
			for i := 0; ctx.Err() == nil; i++ {
				err := l.call(t.Context(), random, 1_000_000*(g+1)+i)
				n.Add(1)
				if err == nil {
					continue
				}
				if strings.Contains(err.Error(), "prepared statement") &&
					(!errors.Is(err, registry.ErrUnsupported) || !strings.Contains(err.Error(), "WithPooler")) {
					err = fmt.Errorf("not explained: %w", err)
					t.Error(err)
				}
				code := err.Error()
				var server *pgconn.PgError
				if errors.As(err, &server) {
					code = server.Code
				}
				mu.Lock()
				errs[code]++
				mu.Unlock()
				if give(err) {
					return
				}
			}
		})
	}
	all.Wait()
	return n.Load(), errs
}

// TestPgBouncer works through a pooler that gives a connection to somebody else after each
// transaction.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	server := pgtest.Database(t, "", nil) // for its address
	through := pgBouncer(t, server)

	t.Run("OK_operations", func(t *testing.T) {
		t.Parallel()
		for _, options := range [][]registry.Option{
			nil, {registry.WithDurability(registry.DurabilityRelaxed), registry.WithMaxConns(2)},
		} {
			reg := must(
				registry.Open(
					t.Context(), through(registrytest.PostgresURL(t)),
					append(options, registry.WithPooler(), registry.WithKeyring(ring(t, "a")))...,
				),
			)
			operations := openOperations(t, reg)
			for _, name := range slices.Sorted(maps.Keys(operations)) {
				require.NoError(t, operations[name](t.Context(), reg), name)
			}
			require.NoError(t, reg.Close())
		}
	})
	t.Run("OK_load", func(t *testing.T) {
		t.Parallel()
		name := registrytest.PostgresURL(t)
		reg := must(registry.Open(t.Context(), through(name), registry.WithPooler()))
		defer func() { require.NoError(t, reg.Close()) }()
		l := newLoad(t, reg)
		calls, errs := pgMixedLoad(t, l, time.Second, func(error) bool { return true })
		require.Empty(t, errs)
		l.check(t)
		// Autovacuum works in the database too, but nobody has connected for it.
		const connected = " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()" +
			" AND backend_type = 'client backend'"
		backends := pgValue[int](t, name, "SELECT count(*)"+connected)
		require.LessOrEqual(t, backends, 4, "it went past the pooler: %s",
			pgValue[string](
				t, name,
				"SELECT coalesce(string_agg(concat_ws(' ', application_name, state, backend_start, query), '; '), '')"+
					connected,
			))
		t.Logf("%d calls over %d connections of the pooler", calls, backends)
	})
	// a context that ends, an error, a panic: nothing is left for the next client
	t.Run("OK_transactions", func(t *testing.T) {
		t.Parallel()
		reg := must(
			registry.Open(
				t.Context(), through(registrytest.PostgresURL(t)), registry.WithPooler(), registry.WithMaxConns(8),
			),
		)
		defer func() { require.NoError(t, reg.Close()) }()
		for i := range 20 {
			// PgBouncer 1.18 would end if the statement were canceled.
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*500*time.Microsecond)
			err := reg.InTx(ctx, func(tx *registry.Registry) error {
				err := errors.Join(
					tx.SetSetting(ctx, "half", "done"),
					openSecond(pgQuery[string](ctx, tx, "SELECT pg_sleep(0.05)::text")),
				)
				// On a busy machine the deadline's timer can be later than the statement's answer. If it ended the
				// COMMIT instead, the error would match DeadlineExceeded, and ErrUncertain: it may be committed.
				<-ctx.Done()
				return err
			})
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
				return errors.Join(tx.SetSetting(t.Context(), "half", "done"), errRollback)
			}), errRollback)
			require.Panics(t, func() {
				_ = reg.InTx(t.Context(), func(tx *registry.Registry) error {
					_ = tx.SetSetting(t.Context(), "half", "done")
					panic("on purpose")
				})
			})
		}
		for range 8 {
			require.ErrorIs(t, openSecond(reg.GetSetting(t.Context(), "half")), registry.ErrNotFound)
		}
	})
}

// TestPgBouncerOpen opens through the pooler.
func TestPgBouncerOpen(t *testing.T) {
	t.Parallel()
	server := pgtest.Database(t, "", nil) // for its address
	through := pgBouncer(t, server)
	t.Run("OK_migration_at_once", func(t *testing.T) {
		t.Parallel()
		name := through(pgtest.Database(t, "", nil))
		var all sync.WaitGroup
		regs, errs := make([]*registry.Registry, 4), make([]error, 4)
		begin := make(chan struct{})
		for i := range regs {
			all.Go(func() {
				<-begin
				regs[i], errs[i] = registry.Open(t.Context(), name, registry.WithPooler())
			})
		}
		close(begin)
		all.Wait()
		require.NoError(t, errors.Join(errs...))
		for i, reg := range regs {
			mustProvider(t, reg, fmt.Sprint("p", i))
			require.NoError(t, reg.Close())
		}
		openOnce(t, name, registry.WithPooler(), registry.WithoutMigration())
	})
	// both ways lead through the pooler; the server is no replica, and so it is not used
	t.Run("OK_replica", func(t *testing.T) {
		t.Parallel()
		name := through(registrytest.PostgresURL(t))
		reg := must(registry.Open(t.Context(), name, registry.WithPooler(), registry.WithReadReplica(name)))
		require.NoError(t, reg.SetSetting(t.Context(), "k", "v"))
		require.Equal(t, "v", must(reg.GetSetting(t.Context(), "k")))
		require.NoError(t, reg.Close())
	})
	// What the option is for: without it, statements that were prepared on one connection are looked for on
	// another. It is the proof that the tests above go through a pooler at all.
	t.Run("Err_without_WithPooler", func(t *testing.T) {
		t.Parallel()
		name := through(registrytest.PostgresURL(t))
		reg := must(registry.Open(t.Context(), name, registry.WithPooler()))
		l := newLoad(t, reg)
		require.NoError(t, reg.Close())
		require.Eventually(t, func() (ok bool) { // Open may fail too
			if reg, err := registry.Open(t.Context(), name); err == nil {
				l.reg, ok = reg, true
			}
			return ok
		}, 20*time.Second, 10*time.Millisecond)
		defer func() { require.NoError(t, l.reg.Close()) }()
		calls, errs := pgMixedLoad(t, l, time.Second, func(error) bool { return false })
		require.Positive(t, errs["42P05"]+errs["26000"], "%v", errs)
		t.Logf("without WithPooler: %d calls, errors by SQLSTATE: %v", calls, errs)
	})
}
