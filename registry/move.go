package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/jeffersonwarrior/modelscan/internal/move"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// MoveProgress is told how many rows of a table are copied, of how many. It is called from one
// goroutine at a time and should return at once.
type MoveProgress func(table string, done, total int64)

// MoveResult is what a move has copied and compared.
type MoveResult struct {
	Tables []MovedTable // in the order in which they were copied
}

// MovedTable is a table that is the same in both databases.
type MovedTable struct {
	Name   string
	Rows   int64
	Digest string // SHA-256 over all values of all rows in the order of their keys, lower-case hex
}

// Move copies everything from one database into another, empty one, of either kind: a SQLite file into PostgreSQL when
// one machine is not enough, or back. Ids and all else stay as they are. In the end both are read as a whole and
// compared, table by table.
//
// Both are names as for [Open]; options that are for PostgreSQL alone are for whichever of the two it is. The source
// must be up to date. Stop the services that write to it first, and start them again with the target. The target is
// created and migrated as by Open. Until the move is complete, Open refuses it with [ErrSchema].
//
// The source is not changed. Writers to it are not kept waiting, and Move notices what they wrote: it returns
// [ErrConflict], and starts over when it is called again. At its end it holds writers off while it looks whether
// anything was written: in a file for an instant; on PostgreSQL by locks on all tables, for which the role must be
// allowed to UPDATE them, and for as long as it takes to read the source once more. What is written to the source after
// Move has returned is not in the target.
//
// A move that was interrupted is taken up where it was by calling Move again.
//
// Progress may be nil. Move returns [ErrConflict] too when the target has rows in it, or when another move into it was
// begun; [ErrBusy] when a transaction on the source does not end; [ErrUncertain] when the connection was lost with a
// commit, after which Open tells whether the move was complete; else the errors of Open, of both databases.
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

// refuseMoving returns ErrSchema for a database that is not whole yet.
func refuseMoving(ctx context.Context, db store.DB) error {
	moving, err := move.IsUnderWay(ctx, db.Writer(), db.Dialect())
	if err == nil && moving {
		err = fmt.Errorf("%w: a move into the database is not complete: call Move again", ErrSchema)
	}
	return err
}
