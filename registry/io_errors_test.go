package registry_test

// These tests have the disk fail, and have no source of their own.

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
)

func init() {
	faultChildren["unsynced"] = unsyncedChild
	faultChildren["unread"] = unreadChild
	faultChildren["descriptors"] = descriptorsChild
}

const unsyncedRequests = 40

// injected runs a function of faultChildren on a database, with system calls that fail as strace is told. It returns
// what the child has written, how it ended, and how many calls failed.
func injected(t *testing.T, inject, child, path string, args ...string) (lines []string, failed int, ended error) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "strace", "-f", "-o", os.DevNull, "true").
		CombinedOutput(); err != nil {
		t.Skipf("this system does not let us trace a process with strace: %v: %s", err, out)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	of := faultChild(t, child, append([]string{path}, args...)...)
	calls, _, _ := strings.Cut(inject, ":")
	cmd := exec.CommandContext(t.Context(), "strace", append([]string{
		"-f", "-o", trace, "-e", "signal=none", "-e", "trace=" + calls, "-e", "inject=" + inject,
	}, of.Args...)...)
	cmd.Env = of.Env
	stderr := new(strings.Builder)
	cmd.Stderr = stderr
	out, ended := cmd.Output()
	t.Logf("%s", stderr)
	said, err := os.ReadFile(trace)
	require.NoError(t, err)
	failed = strings.Count(string(said), "(INJECTED)")
	require.Positive(t, failed)
	scanner := bufio.NewScanner(strings.NewReader(string(out)))
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	return lines, failed, ended
}

// unsyncedChild records requests by their ids and prints what became of each. The one that is uncertain is recorded
// again until it is not, or, with "once", the process ends with it, as if it were killed.
func unsyncedChild(ctx context.Context, args ...string) error {
	reg, err := registry.Open(ctx, args[0])
	if err != nil {
		return err
	}
	in := registry.UsageInput{
		ModelID: uuid.MustParse(args[1]), APIKeyID: uuid.MustParse(args[2]), Tokens: meter.Tokens{InputTokens: 1},
	}
	for n := range unsyncedRequests {
		in.RequestID = fmt.Sprint("request ", n)
		for err = reg.RecordUsage(ctx, in); err != nil; err = reg.RecordUsage(ctx, in) {
			if !errors.Is(err, registry.ErrUncertain) {
				return fmt.Errorf("%s: %w", in.RequestID, err)
			}
			fmt.Println("uncertain")
			if args[3] == "once" {
				err := faultError("a transaction", reg.SetSetting(ctx, "a", "b"), registry.ErrUncertain)
				if _, read := reg.ListProviders(ctx, registry.ProviderFilter{}); err == nil {
					err = read
				}
				if err == nil {
					err = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				}
				return err
			}
		}
		fmt.Println(in.RequestID)
	}
	return reg.Close()
}

// A commit that cannot be synced may turn up after a crash: it is repeated by the ids of its requests, and nobody is
// told that nothing was done.
func TestUnsynced(t *testing.T) {
	t.Parallel()
	prepare := func(t *testing.T) (path string, args []string) {
		t.Helper()
		path = filepath.Join(t.TempDir(), "registry.db")
		reg := mustOpen(t, path)
		m, k, err := faultFixture(t.Context(), reg)
		require.NoError(t, err)
		require.NoError(t, reg.Close())
		return path, []string{m.ID.String(), k.ID.String()}
	}
	check := func(t *testing.T, path string, args []string, acked map[string]bool) {
		t.Helper()
		reg := mustOpen(t, path)
		require.NoError(t, faultIntegrity(t.Context(), reg))
		for id := range acked {
			n, err := reg.Client().UsageEvent.Query().Where(usageevent.RequestID(id)).Count(t.Context())
			require.NoError(t, err)
			require.Equal(t, 1, n, id)
		}
		for n := range unsyncedRequests { // again, of whom nobody knows
			require.NoError(t, reg.RecordUsage(t.Context(), registry.UsageInput{
				ModelID: uuid.MustParse(args[0]), APIKeyID: uuid.MustParse(args[1]),
				Tokens:    meter.Tokens{InputTokens: 1},
				RequestID: fmt.Sprint("request ", n),
			}))
		}
		require.Equal(t, unsyncedRequests, reg.Client().UsageEvent.Query().CountX(t.Context()))
		require.Empty(t, verified(t, reg).Differences)
		require.NoError(t, reg.Close())
	}
	split := func(lines []string) (acked map[string]bool, uncertain int) {
		acked = map[string]bool{}
		for _, line := range lines {
			if line == "uncertain" {
				uncertain++
			} else {
				acked[line] = true
			}
		}
		return acked, uncertain
	}
	t.Run("OK_now_and_then", func(t *testing.T) {
		t.Parallel()
		path, args := prepare(t)
		lines, failed, err := injected(
			t, "fsync,fdatasync:error=EIO:when=2+5", "unsynced", path, append(args, "again")...,
		)
		require.NoError(t, err)
		acked, uncertain := split(lines)
		require.Len(t, acked, unsyncedRequests)
		require.Less(t, uncertain, failed, "they are repeated")
		check(t, path, args, acked)
	})
	t.Run("ErrUncertain", func(t *testing.T) {
		t.Parallel()
		path, args := prepare(t)
		lines, _, err := injected(t, "fsync,fdatasync:error=EIO:when=6+", "unsynced", path, append(args, "once")...)
		require.Error(t, err, "it is killed")
		acked, uncertain := split(lines)
		require.Equal(t, 1, uncertain, lines)
		require.NotEmpty(t, acked)
		check(t, path, args, acked)
	})
}

// unreadChild opens and reads a database until that fails.
func unreadChild(ctx context.Context, args ...string) error {
	for {
		reg, err := registry.Open(ctx, args[0])
		if err == nil {
			_, err = reg.ListSettings(ctx, registry.SettingFilter{})
			err = errors.Join(err, reg.Close())
		}
		if err != nil {
			if errors.Is(err, registry.ErrCorrupt) { // what SQLite takes some of them for
				return nil
			}
			return faultError("a file that cannot be read", err, registry.ErrUnavailable)
		}
	}
}

func TestUnread(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registry.db")
	openOnce(t, path)
	_, _, err := injected(t, "pread64:error=EIO:when=40+", "unread", path)
	require.NoError(t, err)
	openOnce(t, path)
}

// A process that may open no more files is told so.
func TestFileDescriptors(t *testing.T) {
	t.Parallel()
	out, err := faultChild(t, "descriptors", filepath.Join(t.TempDir(), "registry.db")).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func descriptorsChild(ctx context.Context, args ...string) (err error) {
	reg, err := registry.Open(ctx, args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	if err := reg.SetSetting(ctx, "a", "b"); err != nil {
		return err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY, 0) // the first that is free
	if err == nil {
		err = syscall.Close(fd)
	}
	if err != nil {
		return err
	}
	old := limit.Cur
	limit.Cur = uint64(fd)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	for what, name := range map[string]string{"the same file": args[0], "a new file": args[0] + ".new"} {
		_, open := registry.Open(ctx, name)
		err = errors.Join(err, faultError(what, open, registry.ErrUnavailable))
	}
	_, read := reg.GetSetting(ctx, "a") // on a connection that is opened for it
	err = errors.Join(err, faultError("a read", read, registry.ErrUnavailable))
	limit.Cur = old
	return errors.Join(err, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit), reg.SetSetting(ctx, "a", "c"))
}
