package registry_test

// These tests have files, disks and processes fail, and have no source of their own.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(arg ...string) *exec.Cmd {
		flags := "-Urm" // a user's own mounts
		if os.Getuid() == 0 {
			flags = "-m"
		}
		return exec.CommandContext(t.Context(), "unshare", append([]string{
			flags, "sh", "-c", `mount -t tmpfs -o size=3m tmpfs "$0" && exec "$@"`, dir}, arg...)...)
	}
	if out, err := in("true").CombinedOutput(); err != nil {
		t.Skipf("this system does not let us mount a small file system: %v: %s", err, out)
	}
	child := faultChild(t, "full", dir)
	cmd := in(child.Args...)
	cmd.Env = child.Env
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
}

// faultFull fills the file system that a folder is on.
func faultFull(ctx context.Context, args ...string) (err error) {
	ballast, path := filepath.Join(args[0], "ballast"), filepath.Join(args[0], "registry.db")
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("the file system is not a small one: %w", err)
	}
	if _, err := registry.Open(ctx, path); !errors.Is(err, registry.ErrDiskFull) {
		return fmt.Errorf("open on a full disk: %w", err)
	}
	if err := os.WriteFile(ballast, make([]byte, 500<<10), 0o600); err != nil {
		return err
	}
	reg, err := registry.Open(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	m, k, err := faultFixture(ctx, reg)
	if err != nil {
		return err
	}
	heal := func() error { return os.Remove(ballast) }
	if err := faultFillAndHeal(ctx, reg, m, k, heal); err != nil {
		return err
	}
	return faultReopened(ctx, reg, path)
}

// faultFillAndHeal records requests until there is no space, and again after heal made some.
func faultFillAndHeal(
	ctx context.Context, reg *registry.Registry, m *ent.Model, k *ent.APIKey, heal func() error,
) error {
	var acked int64
	for ; ; acked++ {
		err := faultPut(ctx, reg, m.ID, k.ID, fmt.Sprint(acked), strings.Repeat("x", 1000))
		if errors.Is(err, registry.ErrDiskFull) {
			break
		}
		if err != nil {
			return fmt.Errorf("request %d: %w", acked, err)
		}
	}
	sum := func() error {
		n, err := faultSum(ctx, reg)
		if err == nil && n != acked {
			err = fmt.Errorf("%d requests were recorded, of which %d are left", acked, n)
		}
		return err
	}
	for range 3 {
		if err := faultError(
			"more writes", reg.SetSetting(ctx, "big", strings.Repeat("x", 100_000)), registry.ErrDiskFull,
		); err != nil {
			return err
		}
		if err := sum(); err != nil {
			return fmt.Errorf("reads on a full disk: %w", err)
		}
	}
	if err := heal(); err != nil {
		return err
	}
	for range 5 {
		if err := faultPut(ctx, reg, m.ID, k.ID, fmt.Sprint(acked), "healed"); err != nil {
			return fmt.Errorf("with space again: %w", err)
		}
		acked++
	}
	fmt.Printf("%d requests were recorded, none was lost\n", acked)
	return errors.Join(sum(), faultIntegrity(ctx, reg))
}

// faultReopened compares what a registry says before and after it is opened again.
func faultReopened(ctx context.Context, reg *registry.Registry, path string) error {
	before, err := faultSum(ctx, reg)
	if err != nil {
		return err
	}
	if err := reg.Close(); err != nil {
		return err
	}
	if reg, err = registry.Open(ctx, path); err != nil {
		return err
	}
	after, err := faultSum(ctx, reg)
	if err == nil && after != before {
		err = fmt.Errorf("%d requests before, %d after it was opened again", before, after)
	}
	return errors.Join(err, faultIntegrity(ctx, reg), reg.Close())
}

func TestFileSizeLimit(t *testing.T) {
	t.Parallel()
	out, err := faultChild(t, "limited", filepath.Join(t.TempDir(), "registry.db")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
}

// faultLimited lets no file of this process grow any more.
func faultLimited(ctx context.Context, args ...string) (err error) {
	signal.Ignore(syscall.SIGXFSZ)
	reg, err := registry.Open(ctx, args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	m, k, err := faultFixture(ctx, reg)
	if err != nil {
		return err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	old := limit.Cur
	limit.Cur = 512 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	heal := func() error {
		limit.Cur = old
		return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
	}
	if err := faultFillAndHeal(ctx, reg, m, k, heal); err != nil {
		return err
	}
	return faultReopened(ctx, reg, args[0])
}
