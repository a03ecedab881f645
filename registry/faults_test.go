package registry_test

// These tests have files, disks and processes fail, and have no source of their own.

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/sample"
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

// A damaged file gives the right answers or ErrCorrupt.
func TestCorruptFile(t *testing.T) {
	sample.OneGoroutine(t)
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
