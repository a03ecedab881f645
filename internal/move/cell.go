package move

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"math"

	"entgo.io/ent/schema/field"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// cell takes a value from one database and gives it to another.
type cell interface {
	// write appends the value to a digest, and returns it in a form that both drivers take. The next scan does not
	// change the result.
	write(*bytes.Buffer) any
}

// newCell returns what a column of a type is scanned into.
var newCell = map[field.Type]func() cell{
	field.TypeBool:    func() cell { return new(boolCell) },
	field.TypeTime:    func() cell { return new(timeCell) },
	field.TypeJSON:    func() cell { return new(bytesCell) },
	field.TypeBytes:   func() cell { return new(bytesCell) },
	field.TypeUUID:    func() cell { return new(uuidCell) },
	field.TypeEnum:    func() cell { return new(textCell) },
	field.TypeString:  func() cell { return new(textCell) },
	field.TypeInt:     func() cell { return new(intCell) },
	field.TypeInt64:   func() cell { return new(intCell) },
	field.TypeFloat64: func() cell { return new(floatCell) },
}

type (
	boolCell  struct{ sql.NullBool }
	timeCell  struct{ sql.NullTime }
	intCell   struct{ sql.NullInt64 }
	floatCell struct{ sql.NullFloat64 }
	textCell  struct{ sql.NullString }
	uuidCell  struct{ uuid.NullUUID }
	bytesCell struct{ b []byte }
)

func (c *boolCell) write(to *bytes.Buffer) any {
	if !c.Valid {
		return writeNull(to)
	}
	n := uint64(0)
	if c.Bool {
		n = 1
	}
	writeInt(to, n)
	return c.Bool
}

func (c *timeCell) write(to *bytes.Buffer) any {
	if !c.Valid {
		return writeNull(to)
	}
	t := utc.Of(c.Time)
	writeInt(to, uint64(t.UnixMicro())) //nolint:gosec // the bits
	return t
}

func (c *intCell) write(to *bytes.Buffer) any {
	if !c.Valid {
		return writeNull(to)
	}
	writeInt(to, uint64(c.Int64)) //nolint:gosec // the bits
	return c.Int64
}

func (c *floatCell) write(to *bytes.Buffer) any {
	if !c.Valid {
		return writeNull(to)
	}
	writeInt(to, math.Float64bits(c.Float64))
	return c.Float64
}

func (c *textCell) write(to *bytes.Buffer) any {
	if !c.Valid {
		return writeNull(to)
	}
	writeText(to, []byte(c.String))
	return c.String
}

func (c *uuidCell) write(to *bytes.Buffer) any {
	if !c.Valid {
		return writeNull(to)
	}
	writeText(to, c.UUID[:])
	return c.UUID
}

// Scan implements sql.Scanner. JSON is bytes in SQLite and text in PostgreSQL.
func (c *bytesCell) Scan(src any) error {
	switch v := src.(type) {
	case string:
		c.b = []byte(v)
		return nil
	default:
		var raw sql.Null[[]byte]
		err := raw.Scan(src)
		c.b = raw.V
		return err
	}
}

func (c *bytesCell) write(to *bytes.Buffer) any {
	if c.b == nil {
		return writeNull(to)
	}
	writeText(to, c.b)
	return c.b
}

func writeNull(to *bytes.Buffer) any {
	to.WriteByte(0)
	return nil
}

func writeInt(to *bytes.Buffer, n uint64) {
	var b [9]byte
	b[0] = 1
	binary.BigEndian.PutUint64(b[1:], n)
	to.Write(b[:])
}

func writeText(to *bytes.Buffer, text []byte) {
	writeInt(to, uint64(len(text)))
	to.Write(text)
}
