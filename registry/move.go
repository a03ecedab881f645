package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	stdhash "hash"
	"slices"
	"strings"
	"time"

	"entgo.io/ent/dialect"
	entschema "entgo.io/ent/dialect/sql/schema"

	entmigrate "github.com/jeffersonwarrior/modelscan/ent/migrate"
	"github.com/jeffersonwarrior/modelscan/ent/poolstate"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// MoveProgress is told how many rows of a table are copied, of how many. It is called from one
// goroutine at a time and should return at once.
type MoveProgress func(table string, done, total int64)

// MoveReport is what a move has copied and compared.
type MoveReport struct {
	Tables []MovedTable // in the order in which they were copied
}

// MovedTable is a table that is the same in both databases.
type MovedTable struct {
	Name   string
	Rows   int64
	Digest string // SHA-256 over all values of all rows in the order of their keys, lower-case hex
}

// moveRows is how many rows are copied in one transaction.
const moveRows = 20_000

// Move copies everything from one database into another, empty one, of either kind: a SQLite file
// into PostgreSQL when one machine is not enough, or back. Ids and all else stay as they are. In
// the end both are read as a whole and compared, table by table.
//
// Both are names as for [Open]; options that are for PostgreSQL alone are for whichever of the two it is.
// The source must be up to date. Stop the services that write to it first, and start them again with the target. The
// target is created and migrated as by Open. Until the move is complete, Open refuses it with [ErrSchema].
//
// The source is not changed. Writers to it are not kept waiting, and Move notices what they wrote: it returns
// [ErrConflict], and starts over when it is called again. At its end it holds writers off while it looks whether anything
// was written: in a file for an instant; on PostgreSQL by locks on all tables, for which the role must be allowed to
// UPDATE them, and for as long as it takes to read the source once more. What is written to the source after Move has
// returned is not in the target.
//
// A move that was interrupted is taken up where it was by calling Move again.
//
// Progress may be nil. Move returns [ErrConflict] too when the target has rows in it, or when another
// move into it was begun; [ErrBusy] when a transaction on the source does not end; [ErrUncertain] when the
// connection was lost with a commit, after which Open tells whether the move was complete; else the errors
// of Open, of both databases.
func Move(ctx context.Context, from, to string, progress MoveProgress, options ...Option) (report MoveReport, err error) {
	const op = "move"
	cfg, err := configure(options)
	if err != nil {
		return MoveReport{}, translate(ctx, op, err)
	}
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	cfg.replica, cfg.moving = "", true
	target := cfg
	cfg.migrate = false
	source, err := openDB(ctx, op+" from", from, cfg)
	if err != nil {
		return MoveReport{}, err
	}
	defer func() { err = errors.Join(err, translate(ctx, op, source.Close())) }()
	db, err := openDB(ctx, op+" to", to, target)
	if err != nil {
		return MoveReport{}, err
	}
	defer func() { err = errors.Join(err, translate(ctx, op, db.Close())) }()

	m := mover{source: source, target: db, owner: rand.Text(), progress: progress}
	report, err = m.run(ctx)
	if err != nil {
		return MoveReport{}, translate(ctx, op, err)
	}
	return report, nil
}

// mover is one run of Move.
type mover struct {
	source, target store.DB
	owner          string // of the target's moveTable: whoever comes later puts its own there
	progress       MoveProgress
	partitions     ledger.Partitions
}

// moveTable marks a database that a move goes into. It has one row: the run that is at work, and
// whether the target turned out to differ from the source.
const moveTable = "modelscan_move"

func (m *mover) run(ctx context.Context) (report MoveReport, err error) {
	tables := inOrder(entmigrate.Tables)
	if err := m.begin(ctx, tables); err != nil {
		return MoveReport{}, err
	}
	conn, err := m.source.Writer().Conn(ctx)
	if err != nil {
		return MoveReport{}, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	version, err := m.snapshot(ctx, conn)
	if err != nil {
		return MoveReport{}, err
	}
	defer func() {
		_, rollback := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		if err == nil {
			err = rollback
		}
	}()
	for _, t := range tables {
		moved, err := m.copyTable(ctx, conn, t)
		switch store.Classify(err) {
		case store.Conflict, store.ForeignKey: // with what an earlier run has copied
			err = errors.Join(err, m.differ(ctx))
		}
		if err != nil {
			return MoveReport{}, fmt.Errorf("table %s: %w", t.name, err)
		}
		report.Tables = append(report.Tables, moved)
	}
	for i, t := range tables {
		if err := m.verify(ctx, t, report.Tables[i]); err != nil {
			return MoveReport{}, err
		}
	}
	if err := m.hold(ctx, conn, tables, report.Tables, version); err != nil {
		return MoveReport{}, err
	}
	return report, m.end(ctx, conn)
}

// begin marks an empty target, or takes over one that is marked already.
func (m *mover) begin(ctx context.Context, tables []movedTable) error {
	return m.inTx(ctx, func(tx *sql.Conn) error {
		moving, err := isMoving(ctx, tx, m.target.Dialect())
		if err != nil {
			return err
		}
		if moving {
			return m.takeOver(ctx, tx, tables)
		}
		for _, t := range tables {
			var filled bool
			if err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM "+t.name+")").Scan(&filled); err != nil {
				return err
			}
			if filled {
				return fmt.Errorf("%w: the target is not empty: it has %s", ErrConflict, t.name)
			}
		}
		if _, err := tx.ExecContext(ctx, "CREATE TABLE "+moveTable+" (owner varchar(32) NOT NULL, differs boolean NOT NULL)"); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO "+moveTable+" VALUES ($1, false)", m.owner)
		return err
	})
}

func (m *mover) takeOver(ctx context.Context, tx *sql.Conn, tables []movedTable) error {
	if _, err := tx.ExecContext(ctx, "UPDATE "+moveTable+" SET owner = $1", m.owner); err != nil {
		return err
	}
	var differs bool
	if err := tx.QueryRowContext(ctx, "SELECT differs FROM "+moveTable).Scan(&differs); err != nil || !differs {
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

// isMoving tells whether a move into a database was begun and not ended.
func isMoving(ctx context.Context, q interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}, d string) (moving bool, err error) {
	query := "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = $1)"
	if d == dialect.Postgres {
		query = "SELECT to_regclass($1) IS NOT NULL"
	}
	err = q.QueryRowContext(ctx, query, moveTable).Scan(&moving)
	return moving, err
}

// refuseMoving returns ErrSchema for a database that is not whole yet.
func refuseMoving(ctx context.Context, db store.DB) error {
	moving, err := isMoving(ctx, db.Writer(), db.Dialect())
	if err == nil && moving {
		err = fmt.Errorf("%w: a move into the database is not complete: call Move again", ErrSchema)
	}
	return err
}

// End takes the mark away, while the source is held.
func (m *mover) end(ctx context.Context, source *sql.Conn) error {
	return m.inTx(ctx, func(tx *sql.Conn) error {
		if err := m.stillOurs(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DROP TABLE "+moveTable); err != nil {
			return err
		}
		_, err := source.ExecContext(ctx, "SELECT 1") // the connection that holds it is there
		return err
	})
}

// stillOurs locks the mark until the transaction ends.
func (m *mover) stillOurs(ctx context.Context, tx *sql.Conn) error {
	result, err := tx.ExecContext(ctx, "UPDATE "+moveTable+" SET owner = owner WHERE owner = $1", m.owner)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return fmt.Errorf("%w: another move has taken over", ErrConflict)
}

// inTx runs body in a transaction on one connection to the target.
func (m *mover) inTx(ctx context.Context, body func(tx *sql.Conn) error) (err error) {
	conn, err := m.target.Writer().Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if m.target.Dialect() == dialect.SQLite {
		err = store.BeginImmediate(ctx, conn)
	} else {
		_, err = conn.ExecContext(ctx, "BEGIN")
	}
	if err != nil {
		return err
	}
	if err := body(conn); err != nil {
		// It fails where the connection is lost, or SQLite has rolled back by itself.
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		return err
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	if store.Classify(err) == store.Unavailable {
		err = fmt.Errorf("%w: %w", store.ErrUncertain, err)
	}
	return err
}

// copyTable reads a table of the source as a whole, for its digest, and copies what the target
// lacks. The target has a beginning of it, in the order of the keys.
func (m *mover) copyTable(ctx context.Context, source *sql.Conn, t movedTable) (moved MovedTable, err error) {
	var total, done int64
	if err := source.QueryRowContext(ctx, "SELECT count(*) FROM "+t.name).Scan(&total); err != nil {
		return MovedTable{}, err
	}
	if err := m.target.Writer().QueryRowContext(ctx, "SELECT count(*) FROM "+t.name).Scan(&done); err != nil {
		return MovedTable{}, err
	}
	skip := done
	m.progress(t.name, min(done, total), total)

	// While a batch is written, the next one is read.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	batches, written := make(chan []row), make(chan error, 1)
	go func() {
		written <- func() error {
			for batch := range batches {
				if err := m.write(ctx, t, batch); err != nil {
					cancel(err)
					return err
				}
				done += int64(len(batch))
				m.progress(t.name, min(done, total), total)
			}
			return nil
		}()
	}()
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
	if failed := <-written; failed != nil {
		return MovedTable{}, failed // the reader's error is that it was stopped
	}
	return moved, err
}

// write copies rows in one transaction.
func (m *mover) write(ctx context.Context, t movedTable, batch []row) error {
	return m.inTx(ctx, func(tx *sql.Conn) error {
		if err := m.stillOurs(ctx, tx); err != nil {
			return err
		}
		if m.target.Dialect() == dialect.Postgres {
			if err := m.ensurePartitions(ctx, tx, t, batch); err != nil {
				return err
			}
			return store.CopyFrom(ctx, tx, t.name, t.columnNames(), batch)
		}
		insert, err := tx.PrepareContext(ctx, fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", t.name,
			strings.Join(t.quoted(), ", "), strings.TrimSuffix(strings.Repeat("?, ", len(t.columns)), ", ")))
		if err != nil {
			return err
		}
		for _, r := range batch {
			if _, err := insert.ExecContext(ctx, r...); err != nil {
				return errors.Join(err, insert.Close())
			}
		}
		return insert.Close()
	})
}

// ensurePartitions makes room for events.
func (m *mover) ensurePartitions(ctx context.Context, tx *sql.Conn, t movedTable, batch []row) error {
	if t.name != usageevent.Table {
		return nil
	}
	at := slices.Index(t.columnNames(), usageevent.FieldAt)
	var days []time.Time
	for _, r := range batch { // in the order of time
		if day := utc.StartOfDay(r[at].(time.Time)); len(days) == 0 || !days[len(days)-1].Equal(day) {
			days = append(days, day)
		}
	}
	return m.partitions.Ensure(ctx, tx, days, false)
}

// verify reads a table of the target as a whole.
func (m *mover) verify(ctx context.Context, t movedTable, want MovedTable) (err error) {
	conn, err := m.target.Writer().Conn(ctx)
	if err != nil {
		return err
	}
	got, err := digestTable(ctx, conn, t, func(row) error { return nil })
	if err = errors.Join(err, conn.Close()); err != nil || got == want {
		return err
	}
	return errors.Join(fmt.Errorf("%w: table %s has %d rows with digest %s in the source, %d with %s in the target: %s",
		ErrConflict, t.name, want.Rows, want.Digest, got.Rows, got.Digest, sourceChanged), m.differ(ctx))
}

// differ notes that the target is to be emptied first when Move is called again.
func (m *mover) differ(ctx context.Context) error {
	return m.inTx(ctx, func(tx *sql.Conn) error {
		if err := m.stillOurs(ctx, tx); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE "+moveTable+" SET differs = true")
		return err
	})
}

// row is a row of a table, as both drivers take it.
type row = []any

// digestTable reads a table in the order of its keys.
func digestTable(ctx context.Context, conn *sql.Conn, t movedTable, each func(row) error) (_ MovedTable, err error) {
	rows, err := conn.QueryContext(ctx, fmt.Sprintf("SELECT %s FROM %s ORDER BY %s", strings.Join(t.quoted(), ", "), t.name, t.key))
	if err != nil {
		return MovedTable{}, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var (
		moved  = MovedTable{Name: t.name}
		digest = newDigest(t)
		dest   = make([]any, len(t.columns))
		r      = make(row, len(t.columns))
	)
	for i, c := range t.columns {
		dest[i] = c.kind()
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return MovedTable{}, err
		}
		for i := range dest {
			r[i] = dest[i].(cell).write(digest.buffer)
		}
		digest.row()
		moved.Rows++
		if err := each(r); err != nil {
			return MovedTable{}, err
		}
	}
	moved.Digest = digest.sum()
	return moved, rows.Err()
}

// digest is SHA-256 over a table.
type digest struct {
	stdhash.Hash
	buffer *bytes.Buffer
}

// newDigest begins with what the columns are, so that tables of other versions differ.
func newDigest(t movedTable) *digest {
	d := &digest{sha256.New(), new(bytes.Buffer)}
	for _, c := range t.columns {
		writeText(d.buffer, []byte(c.name))
	}
	d.row()
	return d
}

func (d *digest) row() {
	d.Write(d.buffer.Bytes()) // a hash returns no error
	d.buffer.Reset()
}

func (d *digest) sum() string { return hex.EncodeToString(d.Sum(nil)) }

// inOrder returns the tables so that each comes after those that it refers to. States of pools stay behind: they are of
// processes that have the source open.
func inOrder(tables []*entschema.Table) []movedTable {
	var (
		ordered []movedTable
		seen    = map[*entschema.Table]bool{}
		visit   func(*entschema.Table)
	)
	visit = func(t *entschema.Table) {
		if seen[t] || t.Name == poolstate.Table {
			return
		}
		seen[t] = true
		for _, fk := range t.ForeignKeys {
			visit(fk.RefTable)
		}
		moved := movedTable{name: t.Name, key: `"` + t.PrimaryKey[0].Name + `"`}
		for _, c := range t.Columns {
			moved.columns = append(moved.columns, movedColumn{c.Name, newCell[c.Type]})
		}
		ordered = append(ordered, moved)
	}
	for _, t := range tables {
		visit(t)
	}
	return ordered
}

type movedTable struct {
	name, key string
	columns   []movedColumn
}

type movedColumn struct {
	name string
	kind func() cell
}

func (t movedTable) columnNames() (names []string) {
	for _, c := range t.columns {
		names = append(names, c.name)
	}
	return names
}

func (t movedTable) quoted() (names []string) {
	for _, c := range t.columns {
		names = append(names, `"`+c.name+`"`)
	}
	return names
}
