//go:build cgo

package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/google/uuid"
)

var _ driver.NamedValueChecker = (*conn)(nil)

// CheckNamedValue lets Each pass as it is.
func (c *conn) CheckNamedValue(arg *driver.NamedValue) error {
	if _, ok := arg.Value.(Each); ok {
		return nil
	}
	return driver.ErrSkip
}

// each runs a statement for each of the rows. It keeps the statement prepared until the connection is closed, because
// there are few of them.
func (c *conn) each(ctx context.Context, query string, rows Each) (driver.Result, error) {
	stmt := c.prepared[query]
	if stmt == nil {
		s, err := c.SQLiteConn.PrepareContext(ctx, query)
		if err != nil {
			return nil, err
		}
		if c.prepared == nil {
			c.prepared = map[string]driver.Stmt{}
		}
		stmt = s
		c.prepared[query] = s
	}
	var affected int64
	for _, row := range rows {
		c.args = c.args[:0]
		for i, arg := range row {
			value, err := stored(arg)
			if err != nil {
				return nil, err
			}
			c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: value})
		}
		result, err := stmt.(driver.StmtExecContext).ExecContext(ctx, c.args)
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

// Close implements driver.Conn.
func (c *conn) Close() error {
	for query, stmt := range c.prepared {
		_ = stmt.Close() // the connection goes, and the statement with it
		delete(c.prepared, query)
	}
	return c.SQLiteConn.Close()
}

// stored converts a value for the driver, as database/sql would.
func stored(arg any) (driver.Value, error) {
	switch v := arg.(type) {
	case nil, int64, float64, bool, string, []byte:
		return v, nil
	case time.Time:
		return string(appendTime(make([]byte, 0, len(timeLayout)), v)), nil
	case *time.Time:
		if v == nil {
			return nil, nil //nolint:nilnil // NULL
		}
		return stored(*v)
	case uuid.UUID:
		return v.String(), nil
	case int:
		return int64(v), nil
	}
	return nil, fmt.Errorf("store: %T is not known as an argument of Each", arg)
}

const timeLayout = "2006-01-02 15:04:05.000000+00:00"

// appendTime writes a time as the driver does, in UTC and cut to microseconds.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, d := t.Date()
	if year < 0 || year > 9999 {
		return t.Truncate(time.Microsecond).AppendFormat(b, "2006-01-02 15:04:05.999999999-07:00")
	}
	hour, minute, second := t.Clock()
	b = appendDigits(b, year, 4)
	for _, part := range []struct {
		before byte
		n      int
	}{{'-', int(month)}, {'-', d}, {' ', hour}, {':', minute}, {':', second}} {
		b = appendDigits(append(b, part.before), part.n, 2)
	}
	if micros := t.Nanosecond() / 1000; micros > 0 {
		b = appendDigits(append(b, '.'), micros, 6)
		for b[len(b)-1] == '0' {
			b = b[:len(b)-1]
		}
	}
	return append(b, "+00:00"...)
}

// appendDigits writes a number with leading zeros.
func appendDigits(b []byte, n, digits int) []byte {
	at := len(b)
	for range digits {
		b = append(b, '0')
	}
	for i := at + digits - 1; i >= at; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return b
}
