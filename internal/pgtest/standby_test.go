package pgtest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
)

func TestStandby(t *testing.T) {
	t.Parallel()
	primary := start(t)
	require.NoError(t, run(primary.URL("postgres"), "CREATE TABLE a (id int)"))
	standby, err := primary.Standby(t.Context(), "work_mem = 5MB")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Close()) })
	require.Equal(t, "5MB", one[string](t, standby.URL("postgres"), "SHOW work_mem"))
	require.True(t, one[bool](t, standby.URL("postgres"), "SELECT pg_is_in_recovery()"))
	require.ErrorContains(t, run(standby.URL("postgres"), "INSERT INTO a VALUES (0)"), "read-only")
	rows := func() int { return one[int](t, standby.URL("postgres"), "SELECT count(*) FROM a") }

	_, err = standby.Pause(t.Context(), "walsender")
	require.ErrorContains(t, err, `no process of type "walsender" is running`)
	resume, err := standby.Pause(t.Context(), "walreceiver")
	require.NoError(t, err)
	require.NoError(t, run(primary.URL("postgres"), "INSERT INTO a VALUES (1)"))
	require.Zero(t, rows())
	require.NoError(t, resume())
	eventually(t, "the standby catches up", func() bool { return rows() == 1 })

	require.NoError(t, primary.Kill())
	_, err = primary.Standby(t.Context())
	require.ErrorContains(t, err, "pg_basebackup", "the primary is gone")
	require.NoError(t, standby.Promote(t.Context()))
	require.NoError(t, run(standby.URL("postgres"), "INSERT INTO a VALUES (2)"))
	require.Equal(t, 2, rows())
	require.NoError(t, standby.Restart(t.Context(), pgtest.Immediate))
	require.Equal(t, 2, rows())
	require.Error(t, standby.Promote(t.Context()), "it is no standby any more")

	require.NoError(t, primary.Run(t.Context())) // which does not know, and has its own rows
	require.Equal(t, 1, one[int](t, primary.URL("postgres"), "SELECT count(*) FROM a"))
}
