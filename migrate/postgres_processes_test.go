package migrate_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
)

// TestPostgresProcesses opens new databases by several processes at once.
func TestPostgresProcesses(t *testing.T) {
	t.Parallel()
	_, db := emptyPostgres(t)
	_, err := migrate.Apply(t.Context(), db, migrate.Postgres)
	require.NoError(t, err)
	fresh := columnsOf(t, db)
	for _, n := range []int{4, 6} {
		t.Run(fmt.Sprintf("OK/%d", n), func(t *testing.T) {
			t.Parallel()
			var processes []*process
			for range n {
				processes = append(processes, start(t, "open"))
			}
			for _, p := range processes {
				require.Equal(t, "ready", p.hear(t))
			}
			for range 3 {
				name, db := emptyPostgres(t)
				for _, p := range processes {
					p.say(t, name)
				}
				for _, p := range processes {
					require.Equal(t, "<nil>", p.hear(t))
				}
				require.Equal(t, fresh, columnsOf(t, db))
				require.Equal(t, versionsOf(embedded(t)), versions(t, db))
				require.NoError(t, migrate.Verify(t.Context(), db, migrate.Postgres))
			}
		})
	}
}

// TestPostgresGoroutines applies from several pools at once: each file is applied once.
func TestPostgresGoroutines(t *testing.T) {
	t.Parallel()
	name, _ := emptyPostgres(t)
	dir := directory(t, map[string]string{
		first: "CREATE TABLE a (id bigint);\n", second: "ALTER TABLE a ADD COLUMN n bigint;\n",
		third: "ALTER TABLE a ADD COLUMN m bigint;\n",
	})
	var (
		wg      sync.WaitGroup
		applied [6][]string
		errs    [6]error
	)
	for i := range applied {
		db := openPostgres(t, name)
		wg.Go(func() { applied[i], errs[i] = migrate.ApplyDir(t.Context(), db, migrate.Postgres, dir) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs[:]...))
	var all []string
	for _, some := range applied {
		all = append(all, some...)
	}
	require.ElementsMatch(t, []string{first, second, third}, all)
}

// TestPostgresKill kills a process in the middle of a migration: it waits for a table that the test
// has locked.
func TestPostgresKill(t *testing.T) {
	t.Parallel()
	name, db := emptyPostgres(t)
	begun := map[string]string{first: "CREATE TABLE a (id bigint);\nCREATE TABLE b (id bigint);\n"}
	_, err := migrate.ApplyDir(t.Context(), db, migrate.Postgres, directory(t, begun))
	require.NoError(t, err)
	lock, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = lock.ExecContext(t.Context(), "LOCK TABLE b")
	require.NoError(t, err)

	files := map[string]string{first: begun[first],
		second: "ALTER TABLE a ADD COLUMN n bigint;\nALTER TABLE b ADD COLUMN n bigint;\n"}
	p := start(t, "apply")
	require.Equal(t, "name", p.hear(t))
	p.say(t, name)
	require.Equal(t, "folder", p.hear(t))
	p.say(t, folder(t, files))
	waiting := func() bool {
		return one[int](t, db, "SELECT count(*) FROM pg_locks WHERE relation = 'b'::regclass AND NOT granted") == 1
	}
	require.Eventually(t, waiting, time.Minute, 10*time.Millisecond)
	p.kill()
	require.NoError(t, lock.Rollback())

	applied, err := migrate.ApplyDir(t.Context(), db, migrate.Postgres, directory(t, files))
	require.NoError(t, err, "the server rolls back what it lost the client of, and lets go of the lock")
	require.Equal(t, []string{second}, applied)
	require.Equal(t, []string{"a", "b"},
		column[string](t, db, "SELECT table_name FROM information_schema.columns WHERE column_name = 'n' ORDER BY 1"))
}
