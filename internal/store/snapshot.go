package store

import (
	"context"
	"database/sql"
	"errors"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
)

// Snapshot is one state of a database, for reads alone, as a driver for Ent. Others can write meanwhile; in memory they
// wait.
type Snapshot struct {
	entsql.Conn
	dialect string
	end     func() error
}

var _ dialect.Driver = (*Snapshot)(nil)

// Close ends the reads. A second Close does nothing.
func (s *Snapshot) Close() error {
	if err := s.end(); !errors.Is(err, sql.ErrTxDone) {
		return err
	}
	return nil
}

// Dialect implements dialect.Driver.
func (s *Snapshot) Dialect() string { return s.dialect }

// errSnapshot is returned for a transaction within a snapshot.
var errSnapshot = errors.New("a snapshot has no transactions")

// Tx implements dialect.Driver. It returns an error.
func (*Snapshot) Tx(context.Context) (dialect.Tx, error) { return nil, errSnapshot }

// Snapshot implements DB. It reads at the primary.
func (d *Postgres) Snapshot(ctx context.Context) (*Snapshot, error) {
	t, err := d.beginBy(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1")
	if err != nil {
		return nil, err
	}
	return &Snapshot{t.(*postgresTx).Conn, d.Dialect(), t.Rollback}, nil
}
