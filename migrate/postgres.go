package migrate

import (
	"context"
	"database/sql"
	"fmt"

	atlas "ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/postgres"
)

type postgresEngine struct{}

var _ engine = postgresEngine{}

// advisoryLock is the number of the lock that the Atlas CLI takes (FNV-1 of
// "atlas_migrate_execute"). The CLI holds it for a session, this package for a transaction, which
// is what works through a transaction pooler too; the two exclude each other.
const advisoryLock = 2686470616

// createPostgresRevisions makes the table that the Atlas CLI makes, as pg_dump shows it.
const createPostgresRevisions = `CREATE TABLE IF NOT EXISTS "atlas_schema_revisions" (` +
	`"version" character varying NOT NULL, "description" character varying NOT NULL, ` +
	`"type" bigint NOT NULL DEFAULT 2, ` +
	`"applied" bigint NOT NULL DEFAULT 0, "total" bigint NOT NULL DEFAULT 0, ` +
	`"executed_at" timestamptz NOT NULL, "execution_time" bigint NOT NULL, "error" text NULL, ` +
	`"error_stmt" text NULL, "hash" character varying NOT NULL, "partial_hashes" jsonb NULL, ` +
	`"operator_version" character varying NOT NULL, PRIMARY KEY ("version"))`

func (postgresEngine) read(ctx context.Context, q querier) (history, error) {
	var (
		h        history
		recorded bool
		schema   sql.NullString
	)
	// Objects of an extension, such as pg_stat_statements, do not count.
	err := q.QueryRowContext(ctx, `
		SELECT COUNT(*) FILTER (WHERE c.relname <> $1), COUNT(*) FILTER (WHERE c.relname = $1) > 0, current_schema()
		FROM pg_catalog.pg_class c
		WHERE c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema())
		  AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
		  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
		                  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
		                  AND d.objid = c.oid AND d.deptype = 'e')`, revisionsTable).
		Scan(&h.tables, &recorded, &schema)
	if err != nil {
		return h, fmt.Errorf("read pg_class: %w", err)
	}
	if !schema.Valid {
		return h, fmt.Errorf("%w: its search_path names no schema that exists", ErrForeign)
	}
	if recorded {
		h.revisions, err = revisions{querier: q}.ReadRevisions(ctx)
	}
	return h, err
}

func (postgresEngine) marked(history) bool { return true }

func (postgresEngine) prepare(context.Context, *sql.Conn) (restore func() error, err error) {
	return func() error { return nil }, nil
}

// begin takes the advisory lock. The time limit holds for the locks on tables too: a migration
// that waits for one keeps everybody else from that table.
func (postgresEngine) begin(ctx context.Context, conn *sql.Conn) error {
	for _, statement := range []string{
		"BEGIN",
		fmt.Sprintf("SET LOCAL lock_timeout = %d", patience.Milliseconds()),
		fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", advisoryLock),
	} {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func (postgresEngine) open(conn *untilError) (atlas.Driver, error) { return postgres.Open(conn) }

func (postgresEngine) revisions(ctx context.Context, q querier) (revisions, error) {
	_, err := q.ExecContext(ctx, createPostgresRevisions)
	return revisions{querier: q, jsonText: true}, err
}

func (postgresEngine) finish(context.Context, querier, history) error { return nil }
