package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/jeffersonwarrior/modelscan/internal/move"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// MoveProgress is called with the number of rows of a table that are copied, and of all its rows. It is called from one
// goroutine at a time, and should return at once.
type MoveProgress func(table string, done, total int64)

// MoveResult says what a move has copied and compared.
type MoveResult struct {
	Tables []MovedTable // in the order in which they were copied
}

// MovedTable is a table that is equal in both databases.
type MovedTable struct {
	Name   string
	Rows   int64
	Digest string // SHA-256 of all values of all rows in the order in which they are copied, in lower-case hex
}

// Move copies everything from one database into another, empty one, of either engine: from a SQLite file to PostgreSQL
// when one machine is not enough, or back. Ids and everything else stay the same. At the end it reads both databases
// completely and compares them, table by table.
//
// To move a service:
//
//   - Bring the source up to date, by opening it once.
//   - Stop the services that write to the source.
//   - Call Move. It creates and migrates the target as Open does.
//   - Start the services with the target.
//
// From and to are names as for [Open]. Options for PostgreSQL apply to the databases that are on PostgreSQL. Until the
// move is complete, Open refuses the target with [ErrSchema]. If a move was interrupted, call Move again: it continues.
//
// The source is not changed, and its writers do not wait. If they write meanwhile, Move notices and returns
// [ErrConflict]; the next call starts over. At the end Move keeps writers off the source while it checks this: for an
// instant in a file; on PostgreSQL with locks on all tables, which require the UPDATE privilege, for as long as reading
// the source once more takes. What is written to the source after Move has returned is not in the target.
//
// Progress may be nil. Errors:
//
//   - [ErrConflict]: the source was written to, the target has rows, or another move into it was begun
//   - [ErrBusy]: a transaction on the source does not end
//   - [ErrUncertain]: the connection was lost during a commit; Open says whether the move is complete
//   - the errors of Open, for both databases
func Move(
	ctx context.Context, from, to string, progress MoveProgress, options ...Option,
) (report MoveResult, err error) {
	const op = "move"
	cfg, err := configure(options)
	if err != nil {
		return MoveResult{}, translate(ctx, op, err)
	}
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	cfg.replica, cfg.moving = "", true
	target := cfg
	cfg.migrate = false
	source, err := openDB(ctx, op+" from", from, cfg)
	if err != nil {
		return MoveResult{}, err
	}
	defer func() { err = errors.Join(err, translate(ctx, op, source.Close())) }()
	db, err := openDB(ctx, op+" to", to, target)
	if err != nil {
		return MoveResult{}, err
	}
	defer func() { err = errors.Join(err, translate(ctx, op, db.Close())) }()

	tables, err := move.New(source, db, progress).Run(ctx)
	if err != nil {
		return MoveResult{}, translate(ctx, op, err)
	}
	for _, t := range tables {
		report.Tables = append(report.Tables, MovedTable(t))
	}
	return report, nil
}

// refuseMoving returns ErrSchema for a database into which a move is not complete.
func refuseMoving(ctx context.Context, db store.DB) error {
	moving, err := move.IsUnderWay(ctx, db.Writer(), db.Dialect())
	if err == nil && moving {
		err = fmt.Errorf("%w: a move into the database is not complete: call Move again", ErrSchema)
	}
	return err
}
