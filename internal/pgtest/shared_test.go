package pgtest_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
)

func TestShared(t *testing.T) {
	t.Parallel()
	require.Contains(t, []int{os.Getpid(), os.Getppid()}, pgtest.Life())
	if _, err := pgtest.Find(); err != nil {
		t.Skip(err)
	}
	// What `go test` is, and the processes of three packages.
	parent := play(t, "wait")
	life := parent.cmd.Process.Pid
	var packages []*process
	for range 3 {
		packages = append(packages, play(t, fmt.Sprintf("share %d", life)))
	}
	url := packages[0].url(t)
	for _, p := range packages[1:] {
		require.Equal(t, url, p.url(t))
	}
	data := one[string](t, url, "SHOW data_directory")
	for _, p := range packages {
		p.kill()
	}
	require.Equal(t, url, play(t, fmt.Sprintf("share %d", life)).url(t), "it outlives the process that started it")

	// A server that went down with the machine.
	note, err := os.ReadFile(pgtest.NotePath(life))
	require.NoError(t, err)
	require.NoError(
		t, os.WriteFile(pgtest.NotePath(life), []byte(strings.Replace(string(note), data, "/another", 1)), 0o600),
	)
	second := play(t, fmt.Sprintf("share %d", life)).url(t)
	require.NotEqual(t, url, second)
	secondData := one[string](t, second, "SHOW data_directory")

	parent.kill()
	gone(t, url, data)
	gone(t, second, secondData)
	eventually(t, "the note is removed", func() bool {
		_, err := os.Stat(pgtest.NotePath(life))
		return errors.Is(err, os.ErrNotExist)
	})
}

// TestWatcher: a test that is killed leaves no server behind.
func TestWatcher(t *testing.T) {
	t.Parallel()
	if _, err := pgtest.Find(); err != nil {
		t.Skip(err)
	}
	p := play(t, "start")
	url := p.url(t)
	data := one[string](t, url, "SHOW data_directory")
	p.kill()
	gone(t, url, data)
}
