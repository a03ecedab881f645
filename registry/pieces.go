package registry

import (
	"context"
	"time"

	"entgo.io/ent/dialect"
)

// pieceRows is about how many events and periods a piece of a long operation covers. Other writers wait for a piece,
// some tenths of a second.
const pieceRows = 5000

// longestPause is the longest pause between two pieces on SQLite. A process that waits to write looks this often.
const longestPause = 25 * time.Millisecond

// pieces calls next until nothing is left of a long operation. It lets others write after each piece, or after several
// short ones.
func (r *Registry) pieces(ctx context.Context, op string, next func() (more bool, err error)) error {
	for held := time.Duration(0); ; {
		began := time.Now()
		more, err := next()
		if err != nil || !more {
			return err
		}
		if held += time.Since(began); held < 2*longestPause && r.between == nil {
			continue
		}
		if err := r.pause(ctx, held); err != nil {
			return translate(ctx, op, err)
		}
		held = 0
	}
}

// pause lets others write between two pieces of a long operation.
func (r *Registry) pause(ctx context.Context, held time.Duration) error {
	if r.between != nil {
		return r.between(ctx)
	}
	if r.inTx || r.db.Dialect() == dialect.Postgres { // PostgreSQL queues those who wait
		return ctx.Err()
	}
	select {
	case <-time.After(min(held, longestPause)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
