package registry_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// A program that is built without cgo works with PostgreSQL, and is told why it cannot open a SQLite file.
func TestWithoutCgo(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: the test compiles a program")
	}
	database := registrytest.PostgresURL(t)
	dir := t.TempDir()
	program, file := filepath.Join(dir, "nocgo"), filepath.Join(dir, "registry.db")
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", program, "./testdata/nocgo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.CommandContext(t.Context(), program, database, file, ":memory:").CombinedOutput()
	require.NoError(t, err, "%s", out)

	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Len(t, lines, 3, "%s", out)
	require.Equal(t, "<nil> false", lines[0])
	reg := mustOpen(t, database)
	value, err := reg.GetSetting(t.Context(), "built")
	require.NoError(t, err)
	require.Equal(t, "without cgo", value)
	require.NoError(t, reg.Close())
	for _, line := range lines[1:] {
		require.Contains(t, line, "CGO_ENABLED=0")
		require.Contains(t, line, "use PostgreSQL")
		require.True(t, strings.HasSuffix(line, " true"), line)
	}
	require.NoFileExists(t, file)
}
