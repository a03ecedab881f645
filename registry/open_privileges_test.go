package registry_test

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestPrivileges has roles log in that may not do everything. That every operation works with no more privileges than
// Open asks for, TestOperations shows, and so do the other tests: on PostgreSQL they run by such a role.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	c := pgCluster(t)
	pgRun(t, c.URL("postgres"), "CREATE DATABASE two")
	t.Run("ErrDenied", func(t *testing.T) { t.Parallel(); testLacking(t, c.URL("postgres")) })
	t.Run("functions", func(t *testing.T) { t.Parallel(); testPartitionFunctions(t, c.URL("two")) })
}

// testLacking opens a database by a role that lacks privileges: all of them are said at once, and when they have been
// granted, it serves.
func testLacking(t *testing.T, server string) {
	t.Helper()
	require.NoError(t, must(registry.Open(t.Context(), server)).Close())
	pgRun(t, server, "CREATE ROLE \"the app\" LOGIN", "REVOKE ALL ON SCHEMA public FROM PUBLIC",
		"REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC")
	name := pgEdit(t, server, func(u *url.URL) { u.User = url.User("the app") })
	lacks := func(want string) {
		t.Helper()
		for _, options := range [][]registry.Option{{registry.WithoutMigration()}, nil} {
			_, err := registry.Open(t.Context(), name, options...)
			require.ErrorIs(t, err, registry.ErrDenied)
			require.ErrorContains(t, err, want)
		}
	}

	lacks("GRANT USAGE ON SCHEMA public TO \"the app\"; GRANT SELECT ON public.atlas_schema_revisions TO" +
		" \"the app\"; " +
		"GRANT SELECT, INSERT, UPDATE, DELETE ON public.access_keys, public.api_keys, public.audit_log, ")
	lacks("public.usage_tracking TO \"the app\"; GRANT EXECUTE ON FUNCTION public.share_policy(), " +
		"public.usage_events_drop_partition(part bigint), public.usage_events_make_partitions(days date[]) TO" +
		" \"the app\"")
	pgRun(t, server, "GRANT USAGE ON SCHEMA public TO \"the app\"", "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN"+
		" SCHEMA public TO \"the app\"",
		"REVOKE INSERT ON usage_events, prices FROM \"the app\"")
	lacks(
		"GRANT INSERT, DELETE ON public.prices, public.usage_events TO \"the app\"; " +
			"GRANT DELETE ON public.access_keys, ",
	)
	pgRun(t, server, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO \"the app\"")
	lacks("the owner of the tables can give them: GRANT EXECUTE ON FUNCTION ")
	pgRun(t, server, "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO \"the app\"")

	clock := registrytest.NewClock(registrytest.Start)
	reg, err := registry.Open(t.Context(), name, registry.WithoutMigration(), registry.WithClock(clock.Now))
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	p := mustProvider(t, reg, "p")
	m, k := mustModel(t, reg, p.ID, "m", gpt4()), mustKey(t, reg, p.ID, 1)
	record(t, reg, m, k, 1, 1)
	clock.Advance(10 * 24 * time.Hour)
	record(t, reg, m, k, 1, 1)
	report, err := reg.Prune(t.Context(), registry.PruneInput{})
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Events)
}

// testPartitionFunctions calls the functions of the database as somebody would who is up to no good.
func testPartitionFunctions(t *testing.T, server string) {
	t.Helper()
	reg, err := registry.Open(t.Context(), server)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	p := mustProvider(t, reg, "p")
	m, k := mustModel(t, reg, p.ID, "m", gpt4()), mustKey(t, reg, p.ID, 1)
	record(t, reg, m, k, 1, 1)
	pgRun(t, server, "CREATE ROLE reader LOGIN", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
		"CREATE ROLE writer LOGIN",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO writer", "GRANT reader TO writer")
	as := func(name string) string {
		return pgEdit(t, server, func(u *url.URL) { u.User = url.User(name) })
	}
	const drop = "DO $$ BEGIN PERFORM usage_events_drop_partition(CAST(inhrelid AS bigint)) FROM pg_inherits" +
		" WHERE inhparent = CAST('usage_events' AS regclass); END $$"
	for name, call := range map[string]struct {
		url, statement, want string
	}{
		"make without INSERT": {
			url: as("reader"), statement: "SELECT usage_events_make_partitions('{2020-01-01}')", want: "42501",
		},
		"drop without DELETE": {url: as("reader"), statement: drop, want: "42501"},
		"as a role":           {url: as("writer") + "&role=reader", statement: drop, want: "42501"},
		"too early a day": {
			url: as("writer"), statement: "SELECT usage_events_make_partitions('{1969-12-31}')", want: "22023",
		},
		"no day": {
			url: as("writer"), statement: "SELECT usage_events_make_partitions('{NULL}')", want: "22023",
		},
		"the last moment": {
			url: as("writer"), statement: "SELECT usage_events_make_partitions('{infinity}')", want: "22023",
		},
		"a table of one's own": {
			url:       as("writer"),
			statement: "CREATE TEMP TABLE usage_events (); SELECT usage_events_make_partitions('{2020-01-01}')",
		},
		"nothing to drop": {
			url:       as("writer"),
			statement: "SELECT usage_events_drop_partition(CAST(CAST('models' AS regclass) AS bigint))",
		},
		"what is no partition": {url: as("writer"), statement: "SELECT usage_events_drop_partition(0)"},
		"a day that is there":  {url: as("writer"), statement: "SELECT usage_events_make_partitions('{2020-01-01}')"},
		"days that are there, two": {
			url: as("writer"), statement: "SELECT usage_events_make_partitions('{2020-01-01, 2020-01-01}')",
		},
	} {
		err := pgTry(t, call.url, call.statement)
		if call.want == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, call.want, name)
	}
	// Several processes that make the same partitions, of months too, are not in each other's way.
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			days := fmt.Sprintf(
				"SELECT usage_events_make_partitions(array_agg(DATE '2010-01-01' + (n * %d) %% 99)) FROM"+
					" generate_series(0, 98) AS n",
				1+i*2,
			)
			if err := pgTry(t, as("writer"), days); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, recorded(t, reg))
	require.Len(t, must(reg.ListModels(t.Context(), registry.ModelFilter{})), 1)
}

// pgTry runs statements over a connection of their own.
func pgTry(t *testing.T, url, statements string) (err error) {
	t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(t.Context(), statements)
	return err
}

// requireService demands that a registry's role may do to rows what it likes, and nothing else.
func requireService(t *testing.T, reg *registry.Registry) {
	t.Helper()
	rows, err := reg.Client().QueryContext(t.Context(), "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR"+
		" rolreplication"+
		" OR has_schema_privilege('public', 'CREATE') OR has_database_privilege(current_database(), 'CREATE')"+
		" OR EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = CAST('public' AS regnamespace) AND"+
		" (pg_has_role(relowner, 'MEMBER')"+
		" OR relkind IN ('r', 'p') AND has_table_privilege(oid, 'TRUNCATE, REFERENCES, TRIGGER')))"+
		" FROM pg_roles WHERE rolname = current_user")
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	require.True(t, rows.Next())
	var more bool
	require.NoError(t, rows.Scan(&more))
	require.False(t, more, "the role may do more than a service has to")
	require.NoError(t, rows.Err())
}
