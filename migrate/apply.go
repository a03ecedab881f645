package migrate

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	atlas "ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/sqlite"

	"github.com/jeffersonwarrior/modelscan/internal/busy"
)

// patience is how long a migrating process waits for another one.
const patience = time.Minute

func apply(ctx context.Context, db *sql.DB, dir atlas.Dir) (applied []string, err error) {
	var h history
	err = busy.Wait(ctx, patience, func() (err error) {
		h, err = readHistory(ctx, db)
		return err
	})
	if err != nil {
		return nil, err
	}
	pending, err := h.pending(dir)
	if err != nil {
		return nil, err
	}
	if len(pending) == 0 && h.applicationID == ApplicationID {
		return nil, nil // the usual start: no lock is taken
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	restore, err := prepare(ctx, conn)
	defer func() { err = errors.Join(err, restore()) }()
	for err == nil {
		var name string
		if name, err = applyNext(ctx, conn, dir); err != nil || name == "" {
			break
		}
		applied = append(applied, name)
	}
	return applied, err
}

// prepare switches foreign keys off, which works only outside of a transaction: a rebuilt
// table is dropped, and with foreign keys on that would delete the rows that refer to it.
// Restore is to be called, whether prepare succeeds or not.
func prepare(ctx context.Context, conn *sql.Conn) (restore func() error, err error) {
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
		// Never hand it back to the pool as it is.
		if discard := conn.Raw(func(any) error { return driver.ErrBadConn }); !errors.Is(discard, driver.ErrBadConn) {
			err = errors.Join(err, discard)
		}
		return err
	}
	return restore, set(ctx, 0, int(busy.Step.Milliseconds()))
}

// applyNext applies the next file in a transaction of its own and returns its name, or "" when
// nothing is left. BEGIN IMMEDIATE is the lock: the state is read behind it, so that whoever
// comes second sees what the first one did.
func applyNext(ctx context.Context, conn *sql.Conn, dir atlas.Dir) (name string, err error) {
	err = busy.Wait(ctx, patience, func() error {
		_, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE")
		return err
	})
	if err != nil {
		return "", fmt.Errorf("wait for another migration: %w", err)
	}
	defer func() {
		if err != nil {
			// It fails where SQLite has rolled back by itself; restore looks at what is left.
			_, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		}
	}()
	h, err := readHistory(ctx, conn)
	if err != nil {
		return "", err
	}
	pending, err := h.pending(dir)
	if err != nil {
		return "", err
	}
	if h.applicationID == 0 { // made by the CLI, or brand-new
		if _, err := conn.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", ApplicationID)); err != nil {
			return "", err
		}
	}
	if len(pending) > 0 {
		name = pending[0].Name()
		if err := execute(ctx, &untilError{Conn: conn}, dir, pending[0]); err != nil {
			return "", fmt.Errorf("migration %s: %w", name, err)
		}
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return name, err
}

// untilError is a connection that executes nothing more once a statement has failed. Some errors
// make SQLite roll the whole transaction back, and what the executor writes of the failure then
// would be committed at once.
type untilError struct {
	*sql.Conn
	failed error
}

func (c *untilError) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if c.failed != nil {
		return nil, c.failed
	}
	res, err := c.Conn.ExecContext(ctx, query, args...)
	c.failed = err
	return res, err
}

func execute(ctx context.Context, conn *untilError, dir atlas.Dir, file atlas.File) error {
	if _, err := conn.ExecContext(ctx, createRevisions); err != nil {
		return err
	}
	drv, err := sqlite.Open(conn)
	if err != nil {
		return err
	}
	executor, err := atlas.NewExecutor(drv, dir, revisions{conn}, atlas.WithOperatorVersion("modelscan"))
	if err != nil {
		return err
	}
	if err := executor.Execute(ctx, file); err != nil {
		var failed *atlas.StmtExecError
		if errors.As(err, &failed) { // without what the executor could not write of it
			return failed
		}
		return err
	}
	return checkForeignKeys(ctx, conn)
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
