package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	atlas "ariga.io/atlas/sql/migrate"

	"github.com/jeffersonwarrior/modelscan/internal/busy"
)

// patience is how long a migrating process waits for another one.
const patience = time.Minute

// engine is what differs between the databases.
type engine interface {
	// read returns what the database says of itself, in one snapshot.
	read(ctx context.Context, q querier) (history, error)
	// marked reports whether a database that has all files needs nothing else.
	marked(h history) bool
	// prepare prepares a connection for migrations. Restore undoes that; call it whether prepare succeeds or not.
	prepare(ctx context.Context, conn *sql.Conn) (restore func() error, err error)
	// begin begins a transaction that keeps other migrations out until it ends.
	begin(ctx context.Context, conn *sql.Conn) error
	// open returns Atlas's driver on a connection.
	open(conn *untilError) (atlas.Driver, error)
	// revisions returns the table of revisions, and creates a missing one.
	revisions(ctx context.Context, q querier) (revisions, error)
	// finish does the rest before the commit.
	finish(ctx context.Context, q querier, before history) error
}

func apply(ctx context.Context, db *sql.DB, e engine, dir atlas.Dir) (applied []string, err error) {
	var h history
	err = busy.Wait(ctx, patience, func() (err error) {
		h, err = e.read(ctx, db)
		return err
	})
	if err != nil {
		return nil, err
	}
	pending, err := h.pending(dir)
	if err != nil {
		return nil, err
	}
	if len(pending) == 0 && e.marked(h) {
		return nil, nil // the usual start: no lock is taken
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	restore, err := e.prepare(ctx, conn)
	defer func() {
		// The driver reports the lost connection, not the context that ended.
		if ended := ctx.Err(); err != nil && ended != nil && !errors.Is(err, ended) {
			err = fmt.Errorf("%w: %w", ended, err)
		}
		err = errors.Join(err, restore())
	}()
	for err == nil {
		var name string
		if name, err = applyNext(ctx, conn, e, dir); err != nil || name == "" {
			break
		}
		applied = append(applied, name)
	}
	return applied, err
}

// applyNext applies the next file in a transaction of its own and returns its name, or "" when nothing is left. It
// reads the state under the lock, so that the second process sees what the first one did.
func applyNext(ctx context.Context, conn *sql.Conn, e engine, dir atlas.Dir) (name string, err error) {
	defer func() {
		if err != nil {
			// It fails where the database has rolled back by itself; restore looks at what is left.
			_, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		}
	}()
	if err := e.begin(ctx, conn); err != nil {
		return "", fmt.Errorf("wait for another migration: %w", err)
	}
	h, err := e.read(ctx, conn)
	if err != nil {
		return "", err
	}
	pending, err := h.pending(dir)
	if err != nil {
		return "", err
	}
	if len(pending) > 0 {
		name = pending[0].Name()
		if err := execute(ctx, &untilError{Conn: conn}, e, dir, pending[0]); err != nil {
			return "", fmt.Errorf("migration %s: %w", name, err)
		}
	}
	if err := e.finish(ctx, conn, h); err != nil {
		return "", fmt.Errorf("migration %s: %w", name, err)
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return name, err
}

// untilError is a connection that executes nothing after a failed statement. Some errors make SQLite roll the whole
// transaction back, and the executor's note of the failure would then be committed at once.
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

func execute(ctx context.Context, conn *untilError, e engine, dir atlas.Dir, file atlas.File) error {
	table, err := e.revisions(ctx, conn)
	if err != nil {
		return err
	}
	drv, err := e.open(conn)
	if err != nil {
		return err
	}
	executor, err := atlas.NewExecutor(drv, dir, table, atlas.WithOperatorVersion("modelscan"))
	if err != nil {
		return err
	}
	err = executor.Execute(ctx, file)
	var failed *atlas.StmtExecError
	if errors.As(err, &failed) { // without the note that the executor could not write
		return failed
	}
	return err
}
