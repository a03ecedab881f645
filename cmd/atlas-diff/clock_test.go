package main_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestClock: a file that is later than the clock says (a clock that is behind, or a merged branch
// of somebody whose clock is ahead) must not make the plan sort before it.
func TestClock(t *testing.T) {
	t.Parallel()
	folder := sqliteEngine.copied(t)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "99990101000000_later.sql"), []byte("DROP TABLE settings;\n"),
		0o600))
	rehash(t, folder)
	before := contents(t, folder)
	code, stdout, _ := diff(t, "-dialect", "sqlite", "-check", "-dir", folder)
	require.Equal(t, 1, code)
	require.Contains(t, stdout, "CREATE TABLE `settings`", "it prints the last file instead of what is planned")

	code, _, stderr := diff(t, "-dialect", "sqlite", "-name", "mend", "-dir", folder)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "99990101000000_later.sql is later than this machine's clock")
	require.Equal(t, before, contents(t, folder))
}
