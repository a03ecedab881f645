package registry_test

// These tests have files, disks and processes fail, and have no source of their own.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

func TestReadOnly(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		require.NoError(t, faultReadOnly(t.Context(), t.TempDir()))
		return
	}
	// The modes of files mean nothing to root: the same as somebody else, who needs a copy of
	// the test binary where he can reach it.
	const nobody = 65534
	dir, err := os.MkdirTemp("", "registry-read-only-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	cmd := faultChild(t, "read-only", filepath.Join(dir, "data"))
	binary, err := os.ReadFile(cmd.Path)
	require.NoError(t, err)
	cmd.Path = filepath.Join(dir, "registry.test")
	syscall.ForkLock.RLock() // a process that another test starts meanwhile would hold the file open for writing
	err = os.WriteFile(cmd.Path, binary, 0o755)
	syscall.ForkLock.RUnlock()
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "data"), 0o700))
	for _, name := range []string{"of-root.db", "beside-root.db"} {
		openOnce(t, filepath.Join(dir, "data", name))
	}
	require.NoError(t, os.Chmod(filepath.Join(dir, "data", "of-root.db"), 0o644))
	require.NoError(t, os.Chown(filepath.Join(dir, "data", "beside-root.db"), nobody, nobody))
	for _, suffix := range []string{"-wal", "-shm"} { // as a process of root's leaves them that is killed
		require.NoError(t, os.WriteFile(filepath.Join(dir, "data", "beside-root.db"+suffix), nil, 0o644))
	}
	require.NoError(t, os.Chown(filepath.Join(dir, "data"), nobody, nobody))
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skipf("this system does not let root start a process as user %d here: %v", nobody, err)
	}
	require.NoError(t, err, "%s", out)
}

// faultReadOnly works in an empty folder, as a user who minds modes.
func faultReadOnly(ctx context.Context, args ...string) error {
	parent := args[0]
	fresh, err := os.MkdirTemp(parent, "fresh")
	if err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o500); err != nil {
		return err
	}
	_, err = registry.Open(ctx, filepath.Join(fresh, "registry.db"))
	if err := faultError("a new file in a read-only folder", err, registry.ErrReadOnly); err != nil {
		return err
	}
	for _, name := range []string{"of-root.db", "beside-root.db"} {
		if err := faultOfAnother(ctx, filepath.Join(parent, name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for what, modes := range map[string][2]os.FileMode{
		"a read-only folder":              {0o500, 0o600},
		"a file that others may write":    {0o700, 0o466},
		"a read-only file":                {0o700, 0o400},
		"a read-only file and folder":     {0o500, 0o400},
		"a file that cannot be read":      {0o700, 0o000},
		"a folder that cannot be entered": {0o000, 0o600},
	} {
		for _, options := range [][]registry.Option{nil, {registry.WithoutMigration()}} {
			dir, err := os.MkdirTemp(parent, "old")
			if err != nil {
				return err
			}
			if err := faultWithModes(ctx, dir, modes[0], modes[1], options...); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
		}
	}
	return nil
}

// faultOfAnother opens a database that everybody may read and only another user may write, if there is one.
func faultOfAnother(ctx context.Context, path string) error {
	before, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, options := range [][]registry.Option{nil, {registry.WithoutMigration()}} {
		_, open := registry.Open(ctx, path, options...)
		err = errors.Join(err, faultError("a file of another user", open, registry.ErrReadOnly))
	}
	after, read := os.ReadFile(path)
	if !bytes.Equal(before, after) {
		err = errors.Join(err, errors.New("a file of another user was changed"))
	}
	beside, glob := filepath.Glob(path + "-*")
	if len(beside) > 0 && filepath.Base(path) == "of-root.db" {
		err = errors.Join(err, fmt.Errorf("left beside a file of another user: %s", beside))
	}
	return errors.Join(err, read, glob)
}

// faultWithModes opens a database in a folder of some mode.
func faultWithModes(ctx context.Context, dir string, folder, file os.FileMode, options ...registry.Option) error {
	path := filepath.Join(dir, "registry.db")
	reg, err := registry.Open(ctx, path)
	if err != nil {
		return err
	}
	if err := errors.Join(reg.SetSetting(ctx, "a", "b"), reg.Close()); err != nil {
		return err
	}
	before, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(path, file), os.Chmod(dir, folder)); err != nil {
		return err
	}
	if _, err = registry.Open(ctx, path, options...); !errors.Is(err, registry.ErrReadOnly) {
		return fmt.Errorf("open: %w", err)
	}
	if err := errors.Join(os.Chmod(dir, 0o700), os.Chmod(path, 0o600)); err != nil {
		return err
	}
	after, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(before, after) {
		err = errors.New("the file was changed")
	}
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 1 {
		err = fmt.Errorf("it left %s and %s", entries[1], entries[2])
	}
	reg, healed := registry.Open(ctx, path) // with its modes back
	if healed == nil {
		healed = errors.Join(reg.SetSetting(ctx, "a", "c"), reg.Close())
	}
	return errors.Join(err, healed)
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(arg ...string) *exec.Cmd {
		flags := "-Urm" // a user's own mounts
		if os.Getuid() == 0 {
			flags = "-m"
		}
		return exec.CommandContext(t.Context(), "unshare", append([]string{
			flags, "sh", "-c", `mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"`, dir}, arg...)...)
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

// Another process holds the write lock: writes wait for it, reads do not.
func TestWaitsForAnotherProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registry.db")
	reg, err := registry.Open(t.Context(), path)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()

	holder := faultChild(t, "hold", path)
	stdin, err := holder.StdinPipe()
	require.NoError(t, err)
	stdout, err := holder.StdoutPipe()
	require.NoError(t, err)
	holder.Stderr = os.Stderr
	require.NoError(t, holder.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "held\n", line)

	var before string
	written := make(chan error, 1)
	go func() {
		written <- reg.InTx(t.Context(), func(tx *registry.Registry) (err error) {
			if before, err = tx.GetSetting(t.Context(), "holder"); err != nil {
				return err
			}
			return tx.SetSetting(t.Context(), "waiter", "was here")
		})
	}()
	_, err = reg.GetSetting(t.Context(), "holder")
	require.ErrorIs(t, err, registry.ErrNotFound)
	select {
	case err := <-written:
		require.FailNow(t, "it did not wait", "%v", err)
	default:
	}
	require.NoError(t, stdin.Close())
	require.NoError(t, <-written)
	require.Equal(t, "was here", before, "it saw what the other process wrote last")
	require.NoError(t, holder.Wait())
}

// faultHold writes in a transaction that it commits when its input ends.
func faultHold(ctx context.Context, args ...string) error {
	reg, err := registry.Open(ctx, args[0])
	if err != nil {
		return err
	}
	err = reg.InTx(ctx, func(tx *registry.Registry) error {
		if err := tx.SetSetting(ctx, "holder", "was here"); err != nil {
			return err
		}
		fmt.Println("held")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	})
	return errors.Join(err, reg.Close())
}

// faultRecord records requests and prints the id of each that is acknowledged: as many as it is
// told, or without an end.
func faultRecord(ctx context.Context, args ...string) error {
	path, prefix := args[0], args[3]
	modelID, keyID := uuid.MustParse(args[1]), uuid.MustParse(args[2])
	most, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	reg, err := registry.Open(ctx, path)
	if err != nil {
		return err
	}
	for n := 0; most == 0 || n < most; n++ {
		id := fmt.Sprint(prefix, n)
		if err := faultPut(ctx, reg, modelID, keyID, id, "x"); err != nil {
			return errors.Join(err, reg.Close())
		}
		fmt.Println(id)
	}
	return reg.Close()
}

// Several processes record at once: none fails, and nothing is counted twice or not at all.
func TestSeveralProcesses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registry.db")
	reg, err := registry.Open(t.Context(), path)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	m, k, err := faultFixture(t.Context(), reg)
	require.NoError(t, err)
	const processes, each = 3, 40
	var wg sync.WaitGroup
	errs := make([]error, processes)
	for i := range errs {
		cmd := faultChild(t, "record", path, m.ID.String(), k.ID.String(), fmt.Sprint(i, "-"), fmt.Sprint(each))
		wg.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				errs[i] = fmt.Errorf("process %d: %w: %s", i, err, out)
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	n, err := faultSum(t.Context(), reg)
	require.NoError(t, err)
	require.Equal(t, int64(processes*each), n)
}

const (
	kills        = 60 // processes that are killed
	killedWindow = 32 // requests that are under way at once
)

// faultAnswers opens a database, at a time that stands still as some answers are of this minute, and returns all that
// can be read of it.
func faultAnswers(t *testing.T, path string) (answers string, err error) {
	t.Helper()
	ctx := t.Context()
	reg, err := registry.Open(ctx, path, registry.WithClock(registrytest.NewClock(registrytest.Start).Now))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	var all []any
	var errs []error
	add := func(rows any, err error) {
		all = append(all, rows)
		errs = append(errs, err)
	}
	providers, err := reg.ListProviders(ctx, registry.ProviderFilter{})
	add(providers, err)
	for _, p := range providers {
		for _, read := range []func() (any, error){
			func() (any, error) { return reg.GetModelsByProvider(ctx, p.ID, registry.Page{}) },
			func() (any, error) { return reg.ListAPIKeys(ctx, registry.KeyFilter{ProviderID: p.ID}) },
			func() (any, error) { return reg.ListFamilies(ctx, registry.FamilyFilter{ProviderID: p.ID}) },
			func() (any, error) { return reg.ListSDKVersions(ctx, registry.SDKVersionFilter{ProviderID: p.ID}) },
			func() (any, error) { return reg.GetCostBreakdown(ctx, p.ID) },
		} {
			add(read())
		}
	}
	add(reg.ListModels(ctx, registry.ModelFilter{Order: registry.OrderByInputCost}))
	add(reg.ListSettings(ctx, registry.SettingFilter{}))
	add(reg.GetRecentDiscoveries(ctx, registry.DiscoveryFilter{}))
	for _, p := range providers {
		models, err := reg.GetModelsByProvider(ctx, p.ID, registry.Page{})
		add(nil, err)
		for _, m := range models {
			add(reg.GetUsageStats(ctx, m.ID, time.Unix(0, 0), time.Unix(1<<33, 0)))
			add(reg.PriceAt(ctx, m.ID, registrytest.Start))
		}
	}
	// in lines, for a difference to be shown
	return strings.ReplaceAll(fmt.Sprint(all...), ", ", ",\n"), errors.Join(errs...)
}

// A damaged file gives the right answers or ErrCorrupt.
func TestCorruptFile(t *testing.T) {
	long(t, "a file is damaged in many ways")
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "registry.db")
	reg, err := registry.Open(t.Context(), path, registry.WithClock(registrytest.NewClock(registrytest.Start).Now))
	require.NoError(t, err)
	m, k, err := faultFixture(t.Context(), reg)
	require.NoError(t, err)
	for i := range 150 {
		require.NoError(t, faultPut(t.Context(), reg, m.ID, k.ID, fmt.Sprint(i), strings.Repeat("x", 300)))
		if i%10 == 0 {
			mustModel(t, reg, m.ProviderID, fmt.Sprint("model ", i), gpt4())
		}
	}
	require.NoError(t, reg.Close())
	want, err := faultAnswers(t, path)
	require.NoError(t, err)
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	size := int(binary.BigEndian.Uint16(good[16:]))
	pages := len(good) / size
	require.Greater(t, pages, 30)

	var right, corrupt int
	try := func(t *testing.T, what string, damaged []byte) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "registry.db")
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		answers, err := faultAnswers(t, path)
		if err != nil {
			require.ErrorIs(t, err, registry.ErrCorrupt, what)
			corrupt++
			return
		}
		require.Equal(t, want, answers, what)
		right++
	}
	for page := range pages {
		at := page * size
		btree := at // where the page's own header begins
		if page == 0 {
			btree += 100
		}
		damages := []struct {
			name string
			do   func(b []byte)
		}{
			{"type", func(b []byte) { b[btree] ^= 0xff }},
			{"cell count", func(b []byte) { binary.BigEndian.PutUint16(b[btree+3:], 0xffff) }},
			{"cell pointers", func(b []byte) { copy(b[btree+8:btree+16], "\xff\xff\xff\xff\xff\xff\xff\xff") }},
			{"all of it", func(b []byte) { clear(b[at : at+size]) }},
			{"another page", func(b []byte) { copy(b[at:at+size], good[:size]) }},
		}
		damage := damages[page%len(damages)]
		damaged := bytes.Clone(good)
		damage.do(damaged)
		try(t, fmt.Sprintf("page %d: %s", page+1, damage.name), damaged)
		if end := at + page%2*size/2; page%3 == 1 {
			try(t, fmt.Sprintf("cut to %d bytes", end), good[:end])
		}
	}
	t.Logf("%d right answers, %d times ErrCorrupt", right, corrupt)
	require.Positive(t, corrupt)

	// A bit within a value cannot be missed: the answer may be wrong, but there is one.
	random := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		damaged := bytes.Clone(good)
		damaged[random.IntN(len(good))] ^= 1 << random.IntN(8)
		path := filepath.Join(t.TempDir(), "registry.db")
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		_, err := faultAnswers(t, path)
		require.NotErrorIs(t, err, registry.ErrClosed)
	}
}
