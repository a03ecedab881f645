package registry

import (
	"context"
	"sync/atomic"

	"entgo.io/ent/dialect"
)

// rowDriver is the driver of the rows that the operations of one transaction return: the transaction until that has
// ended, the database from then on. One can walk on from a row at any time, and from a copy of it.
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

// Query runs a query. Rows write nothing: guard keeps them from it.
func (d *rowDriver) Query(ctx context.Context, query string, args, v any) error {
	if d.ended.Load() {
		return d.Driver.Query(ctx, query, args, v)
	}
	return d.tx.Query(ctx, query, args, v)
}

// entRow is a row of Ent's.
type entRow[T any] interface {
	comparable
	Unwrap() T // unties it from its transaction, and panics if it is of none
}

// tied returns what an operation has read: within a transaction, tied to the driver that outlives it. What a write
// returns is always of a transaction, and is unwrapped there.
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
