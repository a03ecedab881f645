package move

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"entgo.io/ent/dialect"

	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

const sourceChanged = "the source changed while it was moved;" +
	" stop what writes to it and call Move again, which starts over"

// beginSource begins a transaction that reads one state. A server must not end it while the target is written or read.
const beginSource = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL idle_in_transaction_session_timeout = 0"

// dataVersion returns a number that changes when another connection writes to the file.
func dataVersion(ctx context.Context, source *sql.Conn) (version int64, err error) {
	err = source.QueryRowContext(ctx, "PRAGMA data_version").Scan(&version)
	return version, err
}

// snapshot begins to read one state of the source. It returns the version of that state, of a file.
func (m *Mover) snapshot(ctx context.Context, source *sql.Conn) (version int64, err error) {
	if m.source.Dialect() == dialect.Postgres {
		_, err = source.ExecContext(ctx, beginSource)
		return 0, err
	}
	if _, err := source.ExecContext(ctx, "BEGIN"); err != nil {
		return 0, err
	}
	return dataVersion(ctx, source)
}

// hold ends the snapshot and begins a transaction that keeps others from writing to the source. If anything was written
// since the snapshot, it returns ErrConflict.
func (m *Mover) hold(
	ctx context.Context, source *sql.Conn, tables []table, want []Copied, version int64,
) (err error) {
	if m.target.Dialect() == dialect.Postgres {
		// The planner knows nothing yet of what was copied.
		if _, err := m.target.Writer().ExecContext(ctx, "ANALYZE"); err != nil {
			return err
		}
	}
	if _, err := source.ExecContext(ctx, "ROLLBACK"); err != nil {
		return err
	}
	var changed bool
	if m.source.Dialect() == dialect.Postgres {
		changed, err = m.holdTables(ctx, source, tables, want)
	} else if err = store.BeginImmediate(ctx, source); err == nil {
		var now int64
		now, err = dataVersion(ctx, source)
		changed = now != version
	}
	if err == nil && changed {
		err = errors.Join(fmt.Errorf("%w: %s", fault.ErrConflict, sourceChanged), m.differ(ctx))
	}
	return err
}

// holdTables locks the tables and reads them again: PostgreSQL does not say whether something was written.
func (m *Mover) holdTables(
	ctx context.Context, source *sql.Conn, tables []table, want []Copied,
) (changed bool, err error) {
	names := make([]string, 0, len(tables))
	for _, t := range tables {
		if t.name == usageevent.Table {
			names = append(names, "ONLY "+t.name) // nobody writes to its partitions directly
			continue
		}
		names = append(names, t.name)
	}
	lock := beginSource + "; SET LOCAL lock_timeout = '10s'; LOCK TABLE " + strings.Join(names, ", ") + " IN SHARE MODE"
	err = m.source.Retry(ctx, func() error { // somebody may wait for Move while Move waits for them
		_, err := source.ExecContext(ctx, lock)
		if err != nil {
			store.Rollback(ctx, source)
		}
		return err
	})
	if err != nil {
		return false, err
	}
	for i, t := range tables {
		got, err := digestTable(ctx, source, t, func(row) error { return nil })
		if err != nil || got != want[i] {
			return true, err
		}
	}
	return false, nil
}

// moveRows is how many rows are copied in one transaction.
const moveRows = 20_000
