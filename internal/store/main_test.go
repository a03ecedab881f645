package store_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

const childEnv = "STORE_TEST_CHILD"

// TestMain is the way in for a child process, whose umask a test may set.
func TestMain(m *testing.M) {
	if umask := os.Getenv(childEnv); umask != "" {
		if err := printModes(umask, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(pgtest.Main(m))
}

// printModes makes a database under a umask and prints the modes of its files.
func printModes(umask, path string) error {
	mask, err := strconv.ParseInt(umask, 8, 0)
	if err != nil {
		return err
	}
	syscall.Umask(int(mask))
	db, err := store.OpenSQLite(context.Background(), store.Config{Path: path})
	if err != nil {
		return err
	}
	if _, err := db.ExecContext(context.Background(), "CREATE TABLE t (x)"); err != nil {
		return err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	for _, suffix := range []string{"", "-shm", "-wal"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			return err
		}
		fmt.Printf("%s %04o\n", strings.TrimPrefix(info.Name(), filepath.Base(path)), info.Mode().Perm())
	}
	return db.Close()
}

func modesUnder(t *testing.T, umask, path string) string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, path)
	cmd.Env = append(os.Environ(), childEnv+"="+umask, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}
