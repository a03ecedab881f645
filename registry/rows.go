package registry

import (
	"context"
	stdsql "database/sql"
	"sync/atomic"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
)

// rowDriver is the driver of the rows that the operations of a transaction return. It is the transaction until that has
// ended, and the database afterwards. So a caller can walk on from a row, or from a copy of it, at any time.
type rowDriver struct {
	dialect.Driver // the database's
	tx             dialect.Tx
	ended          atomic.Bool
}

// Tx begins the transaction.
func (d *rowDriver) Tx(ctx context.Context) (dialect.Tx, error) {
	tx, err := d.Driver.Tx(ctx)
	d.tx = tx
	return tx, err
}

// Query runs a query. Rows write nothing: guard prevents it.
func (d *rowDriver) Query(ctx context.Context, query string, args, v any) error {
	if d.ended.Load() {
		return d.Driver.Query(ctx, query, args, v)
	}
	return d.tx.Query(ctx, query, args, v)
}

// ExecContext runs a statement in the transaction, and fails after its end.
func (d *rowDriver) ExecContext(ctx context.Context, query string, args ...any) (stdsql.Result, error) {
	return d.tx.(sql.ExecQuerier).ExecContext(ctx, query, args...)
}

// QueryContext runs a query in the transaction, and fails after its end.
func (d *rowDriver) QueryContext(ctx context.Context, query string, args ...any) (*stdsql.Rows, error) {
	return d.tx.(sql.ExecQuerier).QueryContext(ctx, query, args...)
}

// entRow is a row of Ent's.
type entRow[T any] interface {
	comparable
	Unwrap() T // unties it from its transaction; panics if it has none
}

// tied returns a row that an operation has read. Within a transaction it ties the row to the driver that outlives the
// transaction. A row that a write returns always has a transaction, and is unwrapped by the operation.
func tied[T entRow[T]](r *Registry, read T) T {
	var none T
	if r.inTx && read != none {
		read.Unwrap()
	}
	return read
}

// allTied is tied for several rows.
func allTied[T entRow[T]](r *Registry, read []T) []T {
	for _, row := range read {
		tied(r, row)
	}
	return read
}
