package migrate

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	atlas "ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/sqlite"

	"github.com/jeffersonwarrior/modelscan/internal/busy"
)

type sqliteEngine struct{}

var _ engine = sqliteEngine{}

// createRevisions creates the table as the Atlas CLI does, so that sqlite_master is the same whoever was first.
const createRevisions = "CREATE TABLE IF NOT EXISTS `atlas_schema_revisions` (" +
	"`version` text NOT NULL, `description` text NOT NULL, `type` integer NOT NULL DEFAULT (2), " +
	"`applied` integer NOT NULL DEFAULT (0), `total` integer NOT NULL DEFAULT (0), " +
	"`executed_at` datetime NOT NULL, `execution_time` integer NOT NULL, `error` text NULL, " +
	"`error_stmt` text NULL, `hash` text NOT NULL, `partial_hashes` json NULL, " +
	"`operator_version` text NOT NULL, PRIMARY KEY (`version`))"

func (sqliteEngine) read(ctx context.Context, q querier) (history, error) {
	var (
		h        history
		recorded bool
	)
	if err := q.QueryRowContext(ctx, "PRAGMA application_id").Scan(&h.applicationID); err != nil {
		return h, fmt.Errorf("read application_id: %w", err)
	}
	err := q.QueryRowContext(ctx,
		"SELECT COUNT(*) FILTER (WHERE name <> ?1), COUNT(*) FILTER (WHERE name = ?1) FROM sqlite_master"+
			" WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'", revisionsTable).
		Scan(&h.tables, &recorded)
	if err != nil {
		return h, fmt.Errorf("read sqlite_master: %w", err)
	}
	if recorded {
		h.revisions, err = revisions{querier: q}.ReadRevisions(ctx)
	}
	return h, err
}

// marked is false for a file that the CLI made.
func (sqliteEngine) marked(h history) bool { return h.applicationID == ApplicationID }

// prepare switches foreign keys off, which works only outside of a transaction: a rebuilt
// table is dropped, and with foreign keys on that would delete the rows that refer to it.
func (sqliteEngine) prepare(ctx context.Context, conn *sql.Conn) (restore func() error, err error) {
	var foreignKeys, busyTimeout int
	read := func(ctx context.Context, pragma string, value *int) error {
		return conn.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(value)
	}
	set := func(ctx context.Context, foreignKeys, busyTimeout int) error {
		_, err := conn.ExecContext(ctx, fmt.Sprintf(
			"PRAGMA foreign_keys = %d; PRAGMA busy_timeout = %d", foreignKeys, busyTimeout))
		return err
	}
	err = errors.Join(read(ctx, "foreign_keys", &foreignKeys), read(ctx, "busy_timeout", &busyTimeout))
	if err != nil {
		return func() error { return nil }, err
	}
	restore = func() error {
		// A connection that is still in a transaction does not change its foreign keys.
		var now int
		ctx := context.WithoutCancel(ctx)
		err := errors.Join(set(ctx, foreignKeys, busyTimeout), read(ctx, "foreign_keys", &now))
		if err == nil && now == foreignKeys {
			return nil
		}
		// Never return it to the pool in this state.
		if discard := conn.Raw(func(any) error { return driver.ErrBadConn }); !errors.Is(discard, driver.ErrBadConn) {
			err = errors.Join(err, discard)
		}
		return err
	}
	return restore, set(ctx, 0, int(busy.Step.Milliseconds()))
}

// begin takes the write lock of the file, which is the lock of migrations too.
func (sqliteEngine) begin(ctx context.Context, conn *sql.Conn) error {
	return busy.Wait(ctx, patience, func() error {
		_, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE")
		return err
	})
}

func (sqliteEngine) open(conn *untilError) (atlas.Driver, error) { return sqlite.Open(conn) }

func (sqliteEngine) revisions(ctx context.Context, q querier) (revisions, error) {
	_, err := q.ExecContext(ctx, createRevisions)
	return revisions{querier: q}, err
}

// finish marks the file as ours, and finds rows whose parents went away while foreign keys were off.
func (sqliteEngine) finish(ctx context.Context, q querier, before history) error {
	if before.applicationID == 0 { // made by the CLI, or brand-new
		if _, err := q.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", ApplicationID)); err != nil {
			return err
		}
	}
	return checkForeignKeys(ctx, q)
}

// checkForeignKeys returns an error that names the first row whose parent is missing.
func checkForeignKeys(ctx context.Context, conn querier) error {
	var (
		table, parent string
		row           sql.NullInt64
	)
	err := conn.QueryRowContext(ctx, `SELECT "table", rowid, parent FROM pragma_foreign_key_check LIMIT 1`).
		Scan(&table, &row, &parent)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%w: row %d of %s has no %s", ErrForeignKeys, row.Int64, table, parent)
}
