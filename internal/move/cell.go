package move

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"math"
	"time"

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
	field.TypeBool:    cellOf(writeBool),
	field.TypeTime:    cellOf(writeTime),
	field.TypeJSON:    cellOf(writeBytes),
	field.TypeBytes:   cellOf(writeBytes),
	field.TypeUUID:    cellOf(writeUUID),
	field.TypeEnum:    cellOf(writeString),
	field.TypeString:  cellOf(writeString),
	field.TypeInt:     cellOf(writeInt64),
	field.TypeInt64:   cellOf(writeInt64),
	field.TypeFloat64: cellOf(writeFloat),
}

// nullable is a cell of a type that may be NULL.
type nullable[T any] struct {
	sql.Null[T]
	value func(*bytes.Buffer, T) any
}

func cellOf[T any](value func(*bytes.Buffer, T) any) func() cell {
	return func() cell { return &nullable[T]{value: value} }
}

func (c *nullable[T]) write(to *bytes.Buffer) any {
	if !c.Valid {
		to.WriteByte(0)
		return nil
	}
	return c.value(to, c.V)
}

func writeBool(to *bytes.Buffer, b bool) any {
	n := uint64(0)
	if b {
		n = 1
	}
	writeInt(to, n)
	return b
}

func writeTime(to *bytes.Buffer, t time.Time) any {
	t = utc.Of(t)
	writeInt(to, uint64(t.UnixMicro())) //nolint:gosec // the bits
	return t
}

func writeInt64(to *bytes.Buffer, n int64) any {
	writeInt(to, uint64(n)) //nolint:gosec // the bits
	return n
}

func writeFloat(to *bytes.Buffer, x float64) any {
	writeInt(to, math.Float64bits(x))
	return x
}

func writeString(to *bytes.Buffer, s string) any {
	writeBytes(to, []byte(s))
	return s
}

func writeUUID(to *bytes.Buffer, id uuid.UUID) any {
	writeBytes(to, id[:])
	return id
}

func writeBytes(to *bytes.Buffer, b []byte) any {
	writeInt(to, uint64(len(b)))
	to.Write(b)
	return b
}

func writeInt(to *bytes.Buffer, n uint64) {
	to.WriteByte(1)
	to.Write(binary.BigEndian.AppendUint64(to.AvailableBuffer(), n))
}
