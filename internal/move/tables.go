package move

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	entschema "entgo.io/ent/dialect/sql/schema"

	"github.com/jeffersonwarrior/modelscan/ent/poolstate"
)

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
		moved := table{name: t.Name, key: `"` + t.PrimaryKey[0].Name + `"`}
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
	name, key string
	columns   []string
	cells     []func() cell // of the columns
}

// list returns the columns for SQL.
func (t table) list() string { return `"` + strings.Join(t.columns, `", "`) + `"` }

// row is a row of a table, as both drivers take it.
type row = []any

// digestTable reads a table in the order of its keys. The digest begins with the names of the columns, so that tables
// of other versions differ.
func digestTable(ctx context.Context, conn *sql.Conn, t table, each func(row) error) (_ Copied, err error) {
	rows, err := conn.QueryContext(ctx, fmt.Sprintf("SELECT %s FROM %s ORDER BY %s", t.list(), t.name, t.key))
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
		writeString(&buffer, name)
		dest[i] = t.cells[i]()
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return Copied{}, err
		}
		for i := range dest {
			r[i] = dest[i].(cell).write(&buffer)
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
