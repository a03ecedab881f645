package migrate_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
)

// A file, and one that comes after it.
const (
	filledTable = "CREATE TABLE a (id bigint PRIMARY KEY);\nINSERT INTO a VALUES (1), (2);\n"
	widerTable  = "ALTER TABLE a ADD COLUMN n bigint NOT NULL DEFAULT 7;\n"
)

func TestPostgres(t *testing.T) {
	t.Parallel()
	two := map[string]string{first: filledTable, second: widerTable}
	begun := map[string]string{first: two[first]}

	t.Run("OK", func(t *testing.T) {
		t.Parallel()
		_, db := emptyPostgres(t)
		dir, err := migrate.Load(migrate.Files, "postgres")
		require.NoError(t, err)
		files, err := dir.Files()
		require.NoError(t, err)
		require.Equal(t, names(embedded(t)), names(files), "both dialects have the same migrations")

		state, err := migrate.Status(t.Context(), db, migrate.Postgres)
		require.NoError(t, err)
		require.Empty(t, state.Applied)
		require.Equal(t, names(files), state.Pending)
		require.Empty(t, column[string](t, db,
			"SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"), "Status only reads")

		applied, err := migrate.Apply(t.Context(), db, migrate.Postgres)
		require.NoError(t, err)
		require.Equal(t, names(files), applied)
		require.NoError(t, migrate.Verify(t.Context(), db, migrate.Postgres))
		state, err = migrate.Status(t.Context(), db, migrate.Postgres)
		require.NoError(t, err)
		require.Empty(t, state.Pending)
		require.Len(t, state.Applied, len(files))
		require.Equal(t, "init", state.Applied[0].Name)
		require.Equal(t, time.UTC, state.Applied[0].ExecutedAt.Location())

		applied, err = migrate.Apply(t.Context(), db, migrate.Postgres)
		require.NoError(t, err)
		require.Empty(t, applied)
	})
	t.Run("OK/another schema", func(t *testing.T) {
		t.Parallel()
		name, db := emptyPostgres(t)
		run(t, db, "CREATE SCHEMA registry", "CREATE TABLE of_somebody_else (id integer)")
		u, err := url.Parse(name)
		require.NoError(t, err)
		q := u.Query()
		q.Set("search_path", "registry")
		u.RawQuery = q.Encode()
		ours := openPostgres(t, u.String())
		_, err = migrate.Apply(t.Context(), ours, migrate.Postgres)
		require.NoError(t, err)
		require.NotZero(t, one[int](t, ours, "SELECT count(*) FROM pg_tables WHERE schemaname = 'registry'"))
		// The functions are of this schema, wherever who calls them looks.
		require.Equal(t, 1, one[int](t, db, "SELECT registry.usage_events_make_partitions('{2026-01-01}')"))
		require.Equal(t, 1, one[int](t, ours,
			"SELECT count(*) FROM pg_tables WHERE schemaname = 'registry' AND tablename = 'usage_events_20260101'"))
		require.Equal(t, []string{"of_somebody_else"},
			column[string](t, ours, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
	})
	t.Run("OK/beside an extension", func(t *testing.T) {
		t.Parallel()
		_, db := emptyPostgres(t)
		run(t, db, "CREATE EXTENSION pg_stat_statements") // has a view in the schema
		_, err := migrate.Apply(t.Context(), db, migrate.Postgres)
		require.NoError(t, err)
	})
	t.Run("OK/function bodies", func(t *testing.T) {
		t.Parallel()
		_, db := emptyPostgres(t)
		_, err := migrate.ApplyDir(t.Context(), db, migrate.Postgres, directory(t, map[string]string{
			first: "CREATE FUNCTION twice(n bigint) RETURNS bigint LANGUAGE plpgsql AS $$\nBEGIN\n  n := n * 2;\n " +
				" RETURN n;\nEND;\n$$;\n" +
				"CREATE TABLE a AS SELECT twice(21) AS n;\n",
		}))
		require.NoError(t, err)
		require.Equal(t, 42, one[int](t, db, "SELECT n FROM a"))
	})
	t.Run("OK/data stays", func(t *testing.T) {
		t.Parallel()
		_, db := emptyPostgres(t)
		_, err := migrate.ApplyDir(t.Context(), db, migrate.Postgres, directory(t, begun))
		require.NoError(t, err)
		applied, err := migrate.ApplyDir(t.Context(), db, migrate.Postgres, directory(t, two))
		require.NoError(t, err)
		require.Equal(t, []string{second}, applied)
		require.Equal(t, []int{7, 7}, column[int](t, db, "SELECT n FROM a ORDER BY id"))
	})
}

// TestPostgresRefuses shows what is not applied, and that it is not in halves.
func TestPostgresRefuses(t *testing.T) {
	t.Parallel()
	two := map[string]string{first: filledTable, second: widerTable}
	begun := map[string]string{first: two[first]}
	t.Run("ErrStatement", func(t *testing.T) {
		t.Parallel()
		_, db := emptyPostgres(t)
		bad := directory(t, map[string]string{
			first: two[first], second: "CREATE TABLE b (id bigint);\nINSERT INTO a VALUES (1);\nCREATE TABLE c (id" +
				" bigint);\n",
		})
		applied, err := migrate.ApplyDir(t.Context(), db, migrate.Postgres, bad)
		var server *pgconn.PgError
		require.ErrorAs(t, err, &server)
		require.Equal(t, "23505", server.Code, "the first error, not that the transaction is aborted")
		require.ErrorContains(t, err, second)
		require.Equal(t, []string{first}, applied)
		require.Equal(t, []string{"a", "atlas_schema_revisions"},
			column[string](t, db, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"))
		require.Equal(t, []string{"20260101000000"}, versions(t, db))
		// The pool's connections are fit for use.
		applied, err = migrate.ApplyDir(t.Context(), db, migrate.Postgres, directory(t, two))
		require.NoError(t, err)
		require.Equal(t, []string{second}, applied)
	})
	t.Run("ErrBusy", func(t *testing.T) {
		t.Parallel()
		_, db := emptyPostgres(t)
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close()) }()
		// As the CLI takes it, for its session.
		_, err = conn.ExecContext(t.Context(), "SELECT pg_advisory_lock(2686470616)")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err = migrate.Apply(ctx, db, migrate.Postgres)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "wait for another migration")
		require.Empty(t, column[string](t, db, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
	})
	for name, test := range map[string]struct {
		before []string
		want   error
	}{
		"tables of somebody else": {before: []string{"CREATE TABLE users (id integer)"}, want: migrate.ErrForeign},
		"a view of somebody else": {before: []string{"CREATE VIEW v AS SELECT 1"}, want: migrate.ErrForeign},
		"an unknown beginning": {
			before: []string{"UPDATE atlas_schema_revisions SET version = '1'"}, want: migrate.ErrForeign,
		},
		"newer": {
			before: []string{"INSERT INTO atlas_schema_revisions SELECT '99990101000000'," +
				" description, type, applied, total, executed_at, execution_time, error, error_stmt, hash," +
				" partial_hashes, operator_version FROM atlas_schema_revisions"},
			want: migrate.ErrNewer,
		},
		"edited":    {before: []string{"UPDATE atlas_schema_revisions SET hash = 'x'"}, want: migrate.ErrEdited},
		"no schema": {before: []string{"DROP SCHEMA public CASCADE"}, want: migrate.ErrForeign},
	} {
		t.Run("Err/"+name, func(t *testing.T) {
			t.Parallel()
			_, db := emptyPostgres(t)
			if !errors.Is(test.want, migrate.ErrForeign) || name == "an unknown beginning" {
				_, err := migrate.ApplyDir(t.Context(), db, migrate.Postgres, directory(t, begun))
				require.NoError(t, err)
			}
			run(t, db, test.before...)
			before := column[string](t, db,
				"SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('public') ORDER BY 1")
			dir := directory(t, two)
			_, err := migrate.StatusDir(t.Context(), db, migrate.Postgres, dir)
			requireOnly(t, err, test.want)
			applied, err := migrate.ApplyDir(t.Context(), db, migrate.Postgres, dir)
			requireOnly(t, err, test.want)
			require.Empty(t, applied)
			require.Equal(t, before, column[string](t, db,
				"SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('public') ORDER BY 1"))
		})
	}
}

// TestPostgresCLI takes turns with the Atlas CLI on one database.
func TestPostgresCLI(t *testing.T) {
	t.Parallel()
	binary, err := exec.LookPath("atlas")
	if err != nil {
		t.Skip("atlas is not on PATH: install the Atlas CLI, community edition (https://atlasgo.io/docs), to run this" +
			" test")
	}
	two := map[string]string{first: "CREATE TABLE a (id bigint);\n", second: "CREATE TABLE b (id bigint);\n"}
	cli := func(t *testing.T, name, command string, args ...string) (string, error) {
		t.Helper()
		u, err := url.Parse(name)
		require.NoError(t, err)
		q := u.Query()
		q.Set("search_path", "public")
		u.RawQuery = q.Encode()
		cmd := exec.CommandContext(t.Context(), binary,
			append([]string{"migrate", command, "--env", "postgres", "--var", "postgres_url=" + u.String()},
				args...)...)
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "ATLAS_NO_UPDATE_NOTIFIER=1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(t *testing.T, text, name, command string, args ...string) {
		t.Helper()
		out, err := cli(t, name, command, args...)
		require.NoError(t, err, out)
		require.Contains(t, out, text)
	}
	t.Run("OK/the committed files", func(t *testing.T) {
		t.Parallel()
		name, db := emptyPostgres(t)
		must(t, "Pending", name, "status")
		must(t, "", name, "apply")
		must(t, "Migration Status: OK", name, "status")
		applied, err := migrate.Apply(t.Context(), db, migrate.Postgres)
		require.NoError(t, err)
		require.Empty(t, applied)
		_, ours := emptyPostgres(t)
		_, err = migrate.Apply(t.Context(), ours, migrate.Postgres)
		require.NoError(t, err)
		const revisions = "SELECT column_name || ' ' || data_type || ' ' || is_nullable || ' ' ||" +
			" coalesce(column_default, '-')" +
			" FROM information_schema.columns WHERE table_name = 'atlas_schema_revisions' ORDER BY ordinal_position"
		require.Equal(t, column[string](t, db, revisions), column[string](t, ours, revisions))
		const rows = "SELECT row_to_json(r)::jsonb - 'executed_at' - 'execution_time' - 'operator_version' FROM" +
			" atlas_schema_revisions r ORDER BY version"
		require.Equal(t, column[string](t, db, rows), column[string](t, ours, rows))
	})
	t.Run("OK/turns", func(t *testing.T) {
		t.Parallel()
		for _, cliFirst := range []bool{true, false} {
			name, db := emptyPostgres(t)
			path := folder(t, two)
			if cliFirst {
				must(t, "", name, "apply", "1", from(path))
				applied, err := migrate.ApplyDir(t.Context(), db, migrate.Postgres, load(t, path))
				require.NoError(t, err)
				require.Equal(t, []string{second}, applied)
			} else {
				_, err := migrate.ApplyDir(t.Context(), db, migrate.Postgres,
					directory(t, map[string]string{first: two[first]}))
				require.NoError(t, err)
				must(t, "", name, "apply", from(path))
			}
			must(t, "Migration Status: OK", name, "status", from(path))
			state, err := migrate.StatusDir(t.Context(), db, migrate.Postgres, load(t, path))
			require.NoError(t, err)
			require.Empty(t, state.Pending)
		}
	})
	t.Run("OK/resume", func(t *testing.T) {
		t.Parallel()
		name, db := emptyPostgres(t)
		broken := folder(t, map[string]string{first: "CREATE TABLE a (id bigint);\nCREATE TABLE b (id nothing);\n"})
		out, err := cli(t, name, "apply", "--tx-mode", "none", from(broken))
		require.Error(t, err, out)
		require.Equal(t, 1, one[int](t, db, "SELECT applied FROM atlas_schema_revisions"),
			"the first of two statements")
		state, err := migrate.StatusDir(t.Context(), db, migrate.Postgres, load(t, broken))
		require.NoError(t, err)
		require.Equal(t, []string{first}, state.Pending)
		run(t, db, "CREATE DOMAIN nothing AS bigint")
		applied, err := migrate.ApplyDir(t.Context(), db, migrate.Postgres, load(t, broken))
		require.NoError(t, err)
		require.Equal(t, []string{first}, applied)
	})
}
