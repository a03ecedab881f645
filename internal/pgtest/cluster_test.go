package pgtest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
)

func TestCluster(t *testing.T) {
	t.Parallel()
	c := start(t, "work_mem = 5MB", "application_name = 'x'")
	url, port := c.URL("postgres"), c.Port()
	for setting, want := range map[string]string{
		"work_mem": "5MB", "application_name": "x", "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
		"listen_addresses": "127.0.0.1", "server_encoding": "UTF8", "lc_collate": "C",
	} {
		require.Equal(t, want, one[string](t, url, "SHOW "+setting), setting)
	}
	require.NoError(t, run(url, "CREATE TABLE a (id int)", "INSERT INTO a VALUES (1)"))
	born := one[time.Time](t, url, "SELECT pg_postmaster_start_time()")
	require.ErrorContains(t, c.Run(t.Context()), "it runs")
	require.ErrorContains(t, c.Stop(t.Context(), "soon"), `mode "soon": not one of: fast, immediate`)

	for name, again := range map[string]func() error{
		"fast":      func() error { return c.Restart(t.Context(), pgtest.Fast) },
		"immediate": func() error { return c.Restart(t.Context(), pgtest.Immediate) },
		"kill":      func() error { return errors.Join(c.Kill(), c.Run(t.Context())) },
		"stop":      func() error { return errors.Join(c.Stop(t.Context(), pgtest.Fast), c.Run(t.Context())) },
	} {
		require.NoError(t, again(), name)
		require.Equal(t, url, c.URL("postgres"))
		require.Equal(t, port, c.Port())
		require.Equal(t, 1, one[int](t, url, "SELECT id FROM a"))
		was := born
		born = one[time.Time](t, url, "SELECT pg_postmaster_start_time()")
		require.True(t, born.After(was), name)
	}
	require.NoError(t, c.Kill())
	require.ErrorContains(t, c.Kill(), "does not run")
	require.ErrorContains(t, c.Stop(t.Context(), pgtest.Fast), "does not run")
	_, err := value[int](url, "SELECT 1")
	require.Error(t, err)
}

func TestClusterErrors(t *testing.T) {
	t.Parallel()
	c := start(t)
	require.ErrorContains(t, c.Run(t.Context()), "it runs")
	_, err := pgtest.Start(t.Context(), "no_such_setting = 1")
	require.ErrorContains(t, err, `unrecognized configuration parameter "no_such_setting"`)
	require.NotErrorIs(t, err, pgtest.ErrNotFound)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = pgtest.Start(canceled)
	require.ErrorIs(t, err, context.Canceled)
}

// TestClosePaused: a process that is paused cannot end, and would keep back the others.
func TestClosePaused(t *testing.T) {
	t.Parallel()
	c := start(t)
	_, err := c.Pause(t.Context(), "walwriter")
	require.NoError(t, err)
	require.NoError(t, c.Restart(t.Context(), pgtest.Fast))
	_, err = c.Pause(t.Context(), "walwriter")
	require.NoError(t, err)
}
