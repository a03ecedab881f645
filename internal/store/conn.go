//go:build cgo

package store

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"sync/atomic"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// connector opens connections of one driver, without registering it by name, and counts them.
type connector struct {
	sqlite3.SQLiteDriver
	dsn    string
	file   *openFile // the file that connections are to; nil: none
	opened atomic.Int64
}

func (c *connector) Driver() driver.Driver { return c }

func (c *connector) Connect(context.Context) (driver.Conn, error) {
	c.opened.Add(1)
	opened, err := c.Open(c.dsn)
	if err != nil {
		return nil, err
	}
	if c.file != nil {
		if err := c.file.look(); err != nil { // it may be connected to another file
			return nil, errors.Join(err, opened.Close())
		}
	}
	return &conn{SQLiteConn: opened.(*sqlite3.SQLiteConn)}, nil
}

// conn is a connection that outlives the contexts it is used with, and knows whether its transaction is still open.
type conn struct {
	*sqlite3.SQLiteConn
	inTx bool // begun and not ended by us
}

var (
	_ driver.SessionResetter   = (*conn)(nil)
	_ driver.Validator         = (*conn)(nil)
	_ driver.NamedValueChecker = (*conn)(nil)
)

// ResetSession prepares the connection for its next user. Without it, database/sql closes a connection whose
// transaction's context has ended. Its prepared statements would be lost and, in memory, the database.
func (c *conn) ResetSession(context.Context) error {
	c.inTx = false
	if c.AutoCommit() {
		return nil
	}
	_, err := c.Exec("ROLLBACK", nil)
	return err
}

// IsValid tells database/sql to keep the connection.
func (c *conn) IsValid() bool { return true }

// over returns ErrRolledBack when SQLite has ended the transaction. A following statement would be committed at once.
func (c *conn) over() error {
	if c.inTx && c.AutoCommit() {
		return ErrRolledBack
	}
	return nil
}

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	t, err := c.SQLiteConn.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	c.inTx = true
	return &connTx{conn: c, Tx: t}, nil
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.over(); err != nil {
		return nil, err
	}
	if len(args) == 1 {
		if rows, ok := args[0].Value.(Each); ok {
			return c.each(ctx, query, rows)
		}
	}
	return c.SQLiteConn.ExecContext(ctx, query, args)
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.over(); err != nil {
		return nil, err
	}
	return c.SQLiteConn.QueryContext(ctx, query, args)
}

type connTx struct {
	conn *conn
	driver.Tx
}

func (t *connTx) Commit() error {
	defer t.end()
	if err := t.conn.over(); err != nil {
		return err
	}
	return t.Tx.Commit()
}

func (t *connTx) Rollback() error {
	defer t.end()
	if t.conn.over() != nil {
		return nil // it is rolled back already
	}
	return t.Tx.Rollback()
}

func (t *connTx) end() { t.conn.inTx = false }

// CheckNamedValue lets Each pass as it is.
func (c *conn) CheckNamedValue(arg *driver.NamedValue) error {
	if _, ok := arg.Value.(Each); ok {
		return nil
	}
	return driver.ErrSkip
}

// each runs a statement for each of the rows. The driver keeps it prepared.
func (c *conn) each(ctx context.Context, query string, rows Each) (driver.Result, error) {
	var (
		affected int64
		args     []driver.NamedValue
	)
	for _, row := range rows {
		args = args[:0]
		for i, arg := range row {
			value, err := stored(arg)
			if err != nil {
				return nil, err
			}
			args = append(args, driver.NamedValue{Ordinal: i + 1, Value: value})
		}
		result, err := c.SQLiteConn.ExecContext(ctx, query, args)
		if err != nil {
			return nil, err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return nil, err
		}
		affected += n
	}
	return driver.RowsAffected(affected), nil
}

// stored converts a value for the driver, as database/sql would.
func stored(arg any) (driver.Value, error) {
	switch v := arg.(type) {
	case time.Time:
		return timeText(v), nil
	case *time.Time:
		if v != nil {
			return timeText(*v), nil
		}
	}
	return driver.DefaultParameterConverter.ConvertValue(arg)
}

// timeText writes a time as the driver does, in UTC and cut to microseconds. Of all layouts, time formats this one
// fast.
func timeText(t time.Time) string {
	b := utc.Of(t).AppendFormat(make([]byte, 0, 40), time.RFC3339Nano)
	b[bytes.IndexByte(b, 'T')] = ' '
	return string(append(b[:len(b)-1], "+00:00"...)) // for the Z
}
