package registry_test

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx, to prepare servers
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// pgPasswords makes a server ask everybody but its owner for a password.
func pgPasswords(t *testing.T, c *pgtest.Cluster) {
	t.Helper()
	hba := pgValue[string](t, c.URL("postgres"), "SHOW hba_file")
	file, err := os.OpenFile(hba, os.O_WRONLY|os.O_TRUNC, 0)
	require.NoError(t, err)
	_, err = file.WriteString(
		"host all,replication postgres 127.0.0.1/32 trust\nhost all locked 127.0.0.1/32 reject\nhost all all" +
			" 127.0.0.1/32 scram-sha-256\n",
	)
	require.NoError(t, errors.Join(err, file.Close()))
	pgRun(t, c.URL("postgres"), "SELECT pg_reload_conf()")
}

// pgRefusing returns a server whose roles and databases are not all of use.
func pgRefusing(t *testing.T) *pgtest.Cluster {
	t.Helper()
	c := pgCluster(t, "max_connections = 40")
	owner := c.URL("postgres")
	pgPasswords(t, c)
	pgRun(t, owner,
		"CREATE ROLE keeper LOGIN PASSWORD '"+pgPassword+"'", "CREATE ROLE other LOGIN PASSWORD 'another'",
		"CREATE ROLE locked LOGIN PASSWORD '"+pgPassword+"'", "CREATE ROLE sleeper NOLOGIN PASSWORD '"+pgPassword+"'",
		"CREATE ROLE few LOGIN PASSWORD '"+pgPassword+"' CONNECTION LIMIT 1",
		"CREATE DATABASE kept OWNER keeper", "CREATE DATABASE ours OWNER few",
		"CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0",
		"CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0",
		"CREATE DATABASE lax", "ALTER DATABASE lax SET synchronous_commit = off",
		"CREATE DATABASE still", "ALTER DATABASE still SET default_transaction_read_only = on",
		"CREATE DATABASE shut", "ALTER DATABASE shut ALLOW_CONNECTIONS false",
		"CREATE DATABASE foreign_one", "CREATE DATABASE newer", "CREATE DATABASE blank")
	return c
}

// What a server refuses, and what is refused of a server.
func TestOpenPostgresRefuses(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	c := pgRefusing(t)
	kept := pgAs(t, c.URL("kept"), "keeper")
	// The standby has the roles, and asks nobody for a password.
	standby, err := c.Standby(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Close()) })

	t.Run("OK", func(t *testing.T) {
		t.Parallel()
		openOnce(t, kept)
		openOnce(t, kept, registry.WithoutMigration(), registry.WithMaxConns(1))
		openOnce(t, pgEdit(t, kept, func(u *url.URL) {
			u.User = url.User("keeper")
			u.RawQuery += "&password=" + pgPassword
		}))
		openOnce(t, pgEdit(t, kept, func(u *url.URL) { u.Host = pgRefused(t) + "," + u.Host })) // one that is not there
		openOnce(t, pgEdit(t, kept, func(u *url.URL) { u.Host = pgHost(t, standby.URL("kept")) + "," + u.Host }))
	})
	t.Run("ErrDenied", func(t *testing.T) {
		t.Parallel()
		for what, name := range map[string]string{
			"password": pgAs(t, c.URL("kept"), "other"), "user": pgAs(t, c.URL("kept"), "nobody"),
			"rejected": pgAs(t, c.URL("kept"), "locked"), "not to log in": pgAs(t, c.URL("kept"), "sleeper"),
			"parameter": pgEdit(
				t, c.URL("kept"), func(u *url.URL) { u.User, u.RawQuery = nil, "user=other&password="+pgPassword },
			),
			"no password": pgEdit(t, kept, func(u *url.URL) { u.User = url.User("keeper") }),
			// On schema public nobody but its owner may create, since version 15.
			"no permission": pgAs(t, c.URL("blank"), "keeper"),
			"TLS, or none":  pgAs(t, c.URL("kept"), "other") + "&sslmode=prefer",
		} {
			for _, options := range [][]registry.Option{nil, {registry.WithPooler()}} {
				require.ErrorIs(t, pgRefuses(t, false, name, options...), registry.ErrDenied, what)
			}
		}
	})
	t.Run("ErrInvalidData_database", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{
			pgAs(t, c.URL("missing"), "keeper"), pgAs(t, c.URL("with%20space%20%C3%A4"), "keeper"),
		} {
			err := pgRefuses(t, false, name)
			require.ErrorIs(t, err, registry.ErrInvalidData)
			require.ErrorContains(t, err, "does not exist")
		}
	})
	t.Run("ErrUnsupported", func(t *testing.T) { testOpenUnsupported(t, c) })
	t.Run("ErrReadOnly", func(t *testing.T) { // it passes: a standby may be promoted
		t.Parallel()
		for _, name := range []string{
			standby.URL("postgres"), c.URL("still"), standby.URL("postgres") + "&target_session_attrs=read-write",
		} {
			require.ErrorIs(t, pgRefuses(t, true, name), registry.ErrReadOnly)
		}
	})
	t.Run("Err_too_many_connections", func(t *testing.T) { testOpenTooMany(t, c) }) // it passes: one may be closed
	t.Run("ErrSchema", func(t *testing.T) { testOpenSchema(t, c) })
	// Some of these refuse connections by no code of their own.
	t.Run("Err_others", func(t *testing.T) {
		t.Parallel()
		for what, name := range map[string]string{
			"no connections allowed": c.URL("shut"), "unknown parameter": c.URL("kept") + "&no_such_parameter=" + "1",
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, err := registry.Open(ctx, name)
			cancel()
			require.Error(t, err, what)
			t.Logf("%s: %v", what, err)
		}
	})
}

// testOpenUnsupported has databases that are not set up for a registry.
func testOpenUnsupported(t *testing.T, c *pgtest.Cluster) {
	t.Parallel()
	for database, says := range map[string]string{
		"ascii": "SQL_ASCII", "latin": "LATIN1", "lax": "synchronous_commit is off",
	} {
		err := pgRefuses(t, false, c.URL(database))
		require.ErrorIs(t, err, registry.ErrUnsupported)
		require.ErrorContains(t, err, says)
		require.Zero(
			t,
			pgValue[int](
				t, c.URL(database), "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace",
			),
		)
	}
	err := pgRefuses(t, false, pgEdit(t, c.URL("kept"), func(u *url.URL) { u.RawQuery = "sslmode=require" }))
	require.ErrorIs(t, err, registry.ErrUnsupported)
	require.ErrorContains(t, err, "refused TLS")
	openOnce(t, c.URL("lax"), registry.WithDurability(registry.DurabilityRelaxed))
}

// testOpenTooMany has a role whose one connection is taken, until it is closed.
func testOpenTooMany(t *testing.T, c *pgtest.Cluster) {
	t.Parallel()
	name := pgAs(t, c.URL("ours"), "few")
	openOnce(t, name, registry.WithMaxConns(1))
	db, err := sql.Open("pgx", name)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	var conn *sql.Conn
	require.Eventually(t, func() bool { // the registry's has gone
		conn, err = db.Conn(t.Context())
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
	err = pgRefuses(t, true, name)
	require.ErrorIs(t, err, registry.ErrUnavailable)
	require.ErrorContains(t, err, "too many connections")
	time.AfterFunc(200*time.Millisecond, func() { _ = conn.Close(); _ = db.Close() })
	openOnce(t, name, registry.WithMaxConns(1)) // it has waited
}

// testOpenSchema has databases of others, of newer programs and without tables.
func testOpenSchema(t *testing.T, c *pgtest.Cluster) {
	t.Parallel()
	pgRun(t, c.URL("foreign_one"), "CREATE TABLE orders (id int)")
	openOnce(t, c.URL("newer"))
	pgRun(t, c.URL("newer"), "INSERT INTO atlas_schema_revisions SELECT '29991231235959', 'future', type,"+
		" applied, total, executed_at,"+
		" execution_time, error, error_stmt, hash, partial_hashes, operator_version FROM"+
		" atlas_schema_revisions LIMIT 1")
	for database, want := range map[string]error{"foreign_one": migrate.ErrForeign, "newer": migrate.ErrNewer} {
		for _, options := range [][]registry.Option{nil, {registry.WithoutMigration()}} {
			err := pgRefuses(t, false, c.URL(database), options...)
			require.ErrorIs(t, err, registry.ErrSchema)
			require.ErrorIs(t, err, want)
		}
	}
	require.Equal(
		t, "orders",
		pgValue[string](
			t, c.URL("foreign_one"),
			"SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = 'public'::regnamespace",
		),
	)
	err := pgRefuses(t, false, c.URL("blank"), registry.WithoutMigration())
	require.ErrorIs(t, err, registry.ErrSchema)
	require.ErrorContains(t, err, "_init.sql")
	require.Zero(
		t,
		pgValue[int](
			t, c.URL("blank"), "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace",
		),
	)
	err = pgRefuses(t, false, c.URL("blank")+"&search_path=nowhere")
	require.ErrorIs(t, err, registry.ErrSchema)
}
