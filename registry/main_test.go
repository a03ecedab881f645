package registry_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
)

const faultChildEnv = "REGISTRY_TEST_CHILD"

// TestMain is the way in for a test that runs a function of faultChildren as a process of its
// own: one that is killed, or has another user, another limit or another file system.
func TestMain(m *testing.M) {
	name := os.Getenv(faultChildEnv)
	if name == "" {
		os.Exit(pgtest.Main(m))
	}
	if err := faultChildren[name](context.Background(), os.Args[1:]...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// faultChild returns the command that runs a function of faultChildren. The test is skipped under -short: what needs
// processes waits for them.
func faultChild(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	long(t, "the test starts processes")
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), faultChildEnv+"="+name, "GORACE=atexit_sleep_ms=0")
	return cmd
}
