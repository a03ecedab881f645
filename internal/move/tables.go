package move

import (
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
			moved.columns = append(moved.columns, column{c.Name, newCell[c.Type]})
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
	columns   []column
}

type column struct {
	name string
	kind func() cell
}

func (t table) columnNames() (names []string) {
	for _, c := range t.columns {
		names = append(names, c.name)
	}
	return names
}

func (t table) quoted() (names []string) {
	for _, c := range t.columns {
		names = append(names, `"`+c.name+`"`)
	}
	return names
}
