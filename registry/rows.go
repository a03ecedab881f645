package registry

import (
	"context"
	"sync/atomic"

	"entgo.io/ent/dialect"
)

// rowDriver is the driver of the rows that the operations of one transaction return: the transaction until that has
// ended, the database from then on. One can walk on from a row at any time, and from a copy of it.
type rowDriver struct {
	dialect.Driver            // the database's
	tx             dialect.Tx // nil until it has begun
	ended          atomic.Bool
}

// Tx begins the transaction; what Ent does in a transaction of its own then becomes a part of it.
func (d *rowDriver) Tx(ctx context.Context) (dialect.Tx, error) {
	if d.ended.Load() {
		return d.Driver.Tx(ctx)
	}
	if d.tx != nil {
		return dialect.NopTx(d), nil
	}
	tx, err := d.Driver.Tx(ctx)
	d.tx = tx
	return tx, err
}

// Exec runs a statement.
func (d *rowDriver) Exec(ctx context.Context, query string, args, v any) error {
	return d.now().Exec(ctx, query, args, v)
}

// Query runs a query.
func (d *rowDriver) Query(ctx context.Context, query string, args, v any) error {
	return d.now().Query(ctx, query, args, v)
}

func (d *rowDriver) now() dialect.ExecQuerier {
	if d.ended.Load() {
		return d.Driver
	}
	return d.tx
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
