package move

import (
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
