package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
)

// Snapshot is one state of a database, for reads alone. It is a driver that Ent can be given. Others write
// meanwhile, but in memory, where they wait.
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

// Snapshot implements DB. The log of a file grows while one is open, for what is read from it stays.
func (d *SQLite) Snapshot(ctx context.Context) (*Snapshot, error) {
	if d.writer == d.readers {
		t, err := d.BeginTx(ctx, nil)
		if err != nil {
			return nil, err
		}
		return &Snapshot{t.(*tx).Conn, d.Dialect(), t.Rollback}, nil
	}
	if !d.reading.TryRLock() { // Close waits
		return nil, ErrClosed
	}
	t, err := d.readers.BeginTx(ctx, nil)
	if err == nil {
		// The first read says which state it is.
		if _, err = t.ExecContext(ctx, "SELECT count(*) FROM sqlite_master"); err != nil {
			err = errors.Join(err, t.Rollback())
		}
	}
	if err != nil {
		d.reading.RUnlock()
		return nil, d.closed(err)
	}
	leave := sync.OnceFunc(d.reading.RUnlock)
	return &Snapshot{entsql.Conn{ExecQuerier: normalizing{t}}, d.Dialect(), func() error {
		defer leave()
		return t.Rollback()
	}}, nil
}

// Snapshot implements DB. It reads at the primary.
func (d *Postgres) Snapshot(ctx context.Context) (*Snapshot, error) {
	t, err := d.beginBy(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1")
	if err != nil {
		return nil, err
	}
	return &Snapshot{t.Conn, d.Dialect(), t.Rollback}, nil
}
