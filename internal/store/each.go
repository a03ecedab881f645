//go:build cgo

package store

import (
	"bytes"
	"context"
	"database/sql/driver"
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

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
