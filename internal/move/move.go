// Package move copies a whole database into another one, of the same or the other engine, and compares both.
package move

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	entmigrate "github.com/jeffersonwarrior/modelscan/ent/migrate"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Copied says what was copied of a table.
type Copied struct {
	Name   string
	Rows   int64
	Digest string // SHA-256 over all values of all rows in their order, lower-case hex
}

// Mover is one run of Move.
type Mover struct {
	source, target store.DB
	owner          string // of the target's moveTable: whoever comes later puts its own there
	progress       func(table string, done, total int64)
	partitions     ledger.Partitions
}

// New returns a move from one database to another.
func New(source, target store.DB, progress func(table string, done, total int64)) *Mover {
	return &Mover{source: source, target: target, owner: rand.Text(), progress: progress}
}

// moveTable marks the target of a move. It has one row: the run at work, and whether the target turned out to differ
// from the source.
const moveTable = "modelscan_move"

// Run copies and compares, and returns the tables in the order in which they were copied. It returns fault.ErrConflict
// if the target is not empty, if another run has taken over, or if the source was changed meanwhile.
func (m *Mover) Run(ctx context.Context) (moved []Copied, err error) {
	tables := inOrder(entmigrate.Tables)
	if err := m.begin(ctx, tables); err != nil {
		return nil, err
	}
	conn, err := m.source.Writer().Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	version, err := m.snapshot(ctx, conn)
	if err != nil {
		return nil, err
	}
	defer func() {
		_, rollback := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		if err == nil {
			err = rollback
		}
	}()
	for _, t := range tables {
		copied, err := m.copyTable(ctx, conn, t)
		kind := store.Classify(err)
		if errors.Is(kind, fault.ErrConflict) || errors.Is(kind, fault.ErrForeignKey) { // with rows of an earlier run
			err = errors.Join(err, m.differ(ctx))
		}
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", t.name, err)
		}
		moved = append(moved, copied)
	}
	for i, t := range tables {
		if err := m.verify(ctx, t, moved[i]); err != nil {
			return nil, err
		}
	}
	if err := m.hold(ctx, conn, tables, moved, version); err != nil {
		return nil, err
	}
	return moved, m.end(ctx, conn)
}

// begin marks an empty target, or takes over one that is marked already.
func (m *Mover) begin(ctx context.Context, tables []table) error {
	return m.inTx(ctx, func(tx transaction) error {
		moving, err := IsUnderWay(ctx, tx, m.target.Dialect())
		if err != nil {
			return err
		}
		if moving {
			return m.takeOver(ctx, tx, tables)
		}
		for _, t := range tables {
			filled, err := isTrue(ctx, tx, "SELECT EXISTS (SELECT 1 FROM "+t.name+")")
			if err == nil && filled {
				err = fmt.Errorf("%w: the target is not empty: it has %s", fault.ErrConflict, t.name)
			}
			if err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(
			ctx, "CREATE TABLE "+moveTable+" (owner varchar(32) NOT NULL, differs boolean NOT NULL)",
		)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO "+moveTable+" VALUES ($1, false)", m.owner)
		return err
	})
}

func (m *Mover) takeOver(ctx context.Context, tx transaction, tables []table) error {
	if _, err := tx.ExecContext(ctx, "UPDATE "+moveTable+" SET owner = $1", m.owner); err != nil {
		return err
	}
	if differs, err := isTrue(ctx, tx, "SELECT differs FROM "+moveTable); err != nil || !differs {
		return err
	}
	for _, t := range slices.Backward(tables) {
		if _, err := tx.ExecContext(ctx, "DELETE FROM "+t.name); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, "UPDATE "+moveTable+" SET differs = false")
	return err
}

// IsUnderWay reports whether a move into a database has begun and not ended.
func IsUnderWay(ctx context.Context, q entsql.ExecQuerier, d string) (bool, error) {
	query := "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = $1)"
	if d == dialect.Postgres {
		query = "SELECT to_regclass($1) IS NOT NULL"
	}
	return isTrue(ctx, q, query, moveTable)
}

func isTrue(ctx context.Context, q entsql.ExecQuerier, query string, args ...any) (is bool, err error) {
	rows, err := q.QueryContext(ctx, query, args...) //nolint:rowserrcheck // ScanBool asks
	if err != nil {
		return false, err
	}
	is, err = entsql.ScanBool(rows)
	return is, errors.Join(err, rows.Close())
}

// end removes the mark, while the source is held.
func (m *Mover) end(ctx context.Context, source *sql.Conn) error {
	return m.inTx(ctx, func(tx transaction) error {
		if err := m.stillOurs(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DROP TABLE "+moveTable); err != nil {
			return err
		}
		_, err := source.ExecContext(ctx, "SELECT 1") // the connection that holds it is still there
		return err
	})
}

// stillOurs locks the mark until the transaction ends.
func (m *Mover) stillOurs(ctx context.Context, tx transaction) error {
	result, err := tx.ExecContext(ctx, "UPDATE "+moveTable+" SET owner = owner WHERE owner = $1", m.owner)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return fmt.Errorf("%w: another move has taken over", fault.ErrConflict)
}

// transaction is one of the target.
type transaction interface {
	dialect.Tx
	entsql.ExecQuerier
}

// inTx runs body in a transaction of the target.
func (m *Mover) inTx(ctx context.Context, body func(tx transaction) error) error {
	tx, err := m.target.Tx(ctx)
	if err != nil {
		return err
	}
	if err := body(tx.(transaction)); err != nil {
		if failed := tx.Rollback(); !errors.Is(failed, sql.ErrTxDone) {
			err = errors.Join(err, failed)
		}
		return err
	}
	return tx.Commit()
}

// copyTable reads a whole table of the source, for its digest, and copies what the target lacks. The target has the
// first rows of it, in the same order.
func (m *Mover) copyTable(ctx context.Context, source *sql.Conn, t table) (moved Copied, err error) {
	var total, done int64
	if err := source.QueryRowContext(ctx, "SELECT count(*) FROM "+t.name).Scan(&total); err != nil {
		return Copied{}, err
	}
	if err := m.target.Writer().QueryRowContext(ctx, "SELECT count(*) FROM "+t.name).Scan(&done); err != nil {
		return Copied{}, err
	}
	skip := done
	m.progress(t.name, min(done, total), total)

	// While a batch is written, the next one is read.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		writing sync.WaitGroup
		failed  error // to write
		batches = make(chan []row)
	)
	writing.Go(func() {
		for batch := range batches {
			if failed = m.write(ctx, t, batch); failed != nil {
				cancel(failed)
				return
			}
			done += int64(len(batch))
			m.progress(t.name, min(done, total), total)
		}
	})
	send := func(batch []row) error {
		select {
		case batches <- batch:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	var batch []row
	moved, err = digestTable(ctx, source, t, func(r row) error {
		if skip > 0 {
			skip--
			return nil
		}
		if batch = append(batch, slices.Clone(r)); len(batch) < moveRows {
			return nil
		}
		full := batch
		batch = nil
		return send(full)
	})
	if err == nil && len(batch) > 0 {
		err = send(batch)
	}
	close(batches)
	if writing.Wait(); failed != nil {
		return Copied{}, failed // the reader's own error only says that it was stopped
	}
	return moved, err
}

// write copies rows in one transaction.
func (m *Mover) write(ctx context.Context, t table, batch []row) error {
	return m.inTx(ctx, func(tx transaction) error {
		if err := m.stillOurs(ctx, tx); err != nil {
			return err
		}
		if m.target.Dialect() == dialect.Postgres {
			if err := m.ensurePartitions(ctx, tx, t, batch); err != nil {
				return err
			}
			return store.CopyFrom(ctx, tx, t.name, t.columns, batch)
		}
		insert := fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", t.name, t.list(),
			strings.TrimSuffix(strings.Repeat("?, ", len(t.columns)), ", "))
		_, err := tx.ExecContext(ctx, insert, store.Each(batch))
		return err
	})
}

// ensurePartitions makes room for events.
func (m *Mover) ensurePartitions(ctx context.Context, tx transaction, t table, batch []row) error {
	if t.name != usageevent.Table {
		return nil
	}
	at := slices.Index(t.columns, usageevent.FieldAt)
	var days []time.Time
	for _, r := range batch { // in the order of time
		if day := utc.StartOfDay(r[at].(time.Time)); len(days) == 0 || !days[len(days)-1].Equal(day) {
			days = append(days, day)
		}
	}
	return m.partitions.Ensure(ctx, tx, days, false)
}

// verify reads a table of the target as a whole.
func (m *Mover) verify(ctx context.Context, t table, want Copied) (err error) {
	conn, err := m.target.Writer().Conn(ctx)
	if err != nil {
		return err
	}
	got, err := digestTable(ctx, conn, t, func(row) error { return nil })
	if err = errors.Join(err, conn.Close()); err != nil || got == want {
		return err
	}
	return errors.Join(fmt.Errorf("%w: table %s has %d rows with digest %s in the source, %d with %s in the target: %s",
		fault.ErrConflict, t.name, want.Rows, want.Digest, got.Rows, got.Digest, sourceChanged), m.differ(ctx))
}

// differ notes that the next call of Move must first empty the target.
func (m *Mover) differ(ctx context.Context) error {
	return m.inTx(ctx, func(tx transaction) error {
		if err := m.stillOurs(ctx, tx); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE "+moveTable+" SET differs = true")
		return err
	})
}
