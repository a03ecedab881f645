package move

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	entschema "entgo.io/ent/dialect/sql/schema"
	"entgo.io/ent/schema/field"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	"github.com/jeffersonwarrior/modelscan/ent/poolstate"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// orders have the column in whose order a table is copied, if that is not its key: a parent comes before its children.
var orders = map[string]string{consumer.Table: consumer.FieldPath}

// inOrder returns the tables so that each comes after the tables that it refers to. States of pools stay behind: they
// belong to processes that have the source open.
func inOrder(tables []*entschema.Table) []table {
	var (
		ordered []table
		seen    = map[*entschema.Table]bool{}
		visit   func(*entschema.Table)
	)
	visit = func(t *entschema.Table) {
		if seen[t] || t.Name == poolstate.Table {
			return
		}
		seen[t] = true
		for _, fk := range t.ForeignKeys {
			visit(fk.RefTable)
		}
		moved := table{name: t.Name, order: `"` + cmp.Or(orders[t.Name], t.PrimaryKey[0].Name) + `"`}
		for _, c := range t.Columns {
			moved.columns, moved.cells = append(moved.columns, c.Name), append(moved.cells, newCell[c.Type])
		}
		ordered = append(ordered, moved)
	}
	for _, t := range tables {
		visit(t)
	}
	return ordered
}

type table struct {
	name, order string
	columns     []string
	cells       []func() cell // of the columns
}

// list returns the columns for SQL.
func (t table) list() string { return `"` + strings.Join(t.columns, `", "`) + `"` }

// row is a row of a table, as both drivers take it.
type row = []any

// digestTable reads a table in its order. The digest begins with the names of the columns, so that tables
// of other versions differ.
func digestTable(ctx context.Context, conn *sql.Conn, t table, each func(row) error) (_ Copied, err error) {
	rows, err := conn.QueryContext(ctx, fmt.Sprintf("SELECT %s FROM %s ORDER BY %s", t.list(), t.name, t.order))
	if err != nil {
		return Copied{}, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var (
		moved  = Copied{Name: t.name}
		digest = sha256.New()
		buffer bytes.Buffer
		dest   = make([]any, len(t.columns))
		r      = make(row, len(t.columns))
	)
	for i, name := range t.columns {
		write(&buffer, name)
		dest[i] = t.cells[i]()
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return Copied{}, err
		}
		for i := range dest {
			r[i] = write(&buffer, dest[i].(cell).value())
		}
		digest.Write(buffer.Bytes())
		buffer.Reset()
		moved.Rows++
		if err := each(r); err != nil {
			return Copied{}, err
		}
	}
	digest.Write(buffer.Bytes()) // of a table without rows
	moved.Digest = hex.EncodeToString(digest.Sum(nil))
	return moved, rows.Err()
}

// newCell returns what a column of a type is scanned into.
var newCell = map[field.Type]func() cell{
	field.TypeBool:    newNullable[bool],
	field.TypeTime:    newNullable[time.Time],
	field.TypeJSON:    newNullable[[]byte],
	field.TypeBytes:   newNullable[[]byte],
	field.TypeUUID:    newNullable[uuid.UUID],
	field.TypeEnum:    newNullable[string],
	field.TypeString:  newNullable[string],
	field.TypeInt:     newNullable[int64],
	field.TypeInt64:   newNullable[int64],
	field.TypeFloat64: newNullable[float64],
}

// cell takes a value from a database. The next scan does not change the value.
type cell interface {
	value() any // nil for NULL
}

// nullable is a cell of a type that may be NULL.
type nullable[T any] struct{ sql.Null[T] }

func newNullable[T any]() cell { return new(nullable[T]) }

func (c *nullable[T]) value() any {
	if !c.Valid {
		return nil
	}
	return c.V
}

// write appends a value to a digest, and returns it in a form that both drivers take.
func write(to *bytes.Buffer, value any) any {
	switch v := value.(type) {
	case nil:
		to.WriteByte(0)
	case bool:
		n := uint64(0)
		if v {
			n = 1
		}
		writeInt(to, n)
	case time.Time:
		v = utc.Of(v)
		writeInt(to, uint64(v.UnixMicro())) //nolint:gosec // the bits
		return v
	case int64:
		writeInt(to, uint64(v)) //nolint:gosec // the bits
	case float64:
		writeInt(to, math.Float64bits(v))
	case string:
		writeBytes(to, []byte(v))
	case uuid.UUID:
		writeBytes(to, v[:])
	case []byte:
		writeBytes(to, v)
	}
	return value
}

func writeBytes(to *bytes.Buffer, b []byte) {
	writeInt(to, uint64(len(b)))
	to.Write(b)
}

func writeInt(to *bytes.Buffer, n uint64) {
	to.WriteByte(1)
	to.Write(binary.BigEndian.AppendUint64(to.AvailableBuffer(), n))
}
