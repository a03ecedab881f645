package bulk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"entgo.io/ent/dialect"

	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// ErrStale is returned when a row that was there is gone, so that what was read before is wrong.
var ErrStale = errors.New("a row is gone that was there")

// Column is a column that is written.
type Column struct {
	Name     string
	Postgres string // its type there
}

// Columns returns columns of one type.
func Columns(postgres string, names ...string) []Column {
	columns := make([]Column, len(names))
	for i, name := range names {
		columns[i] = Column{Name: name, Postgres: postgres}
	}
	return columns
}

// Update is an UPDATE of some columns of n rows, by dialect.
type Update map[string]func(n int) string

// NewUpdate returns the update of a table's columns, in rows that the columns of a key identify.
func NewUpdate(table string, key []Column, columns ...Column) Update {
	text := func(value func(i int, c Column) string, from string) string {
		var sets, is []string
		for i, c := range columns {
			sets = append(sets, c.Name+" = "+value(i, c))
		}
		for i, c := range key {
			is = append(is, table+"."+c.Name+" = "+value(len(columns)+i, c))
		}
		return "UPDATE " + table + " SET " + strings.Join(sets, ", ") + from + " WHERE " + strings.Join(is, " AND ")
	}
	one := text(func(i int, _ Column) string { return fmt.Sprintf("$%d", i+1) }, "")
	var casts []string
	for _, c := range slices.Concat(columns, key) {
		casts = append(casts, "CAST($%d AS "+c.Postgres+")")
	}
	return Update{
		// A join with VALUES takes SQLite five times as long, because it copies the rows first.
		dialect.SQLite: func(int) string { return one },
		dialect.Postgres: Statements(func(n int) string {
			return text(func(i int, _ Column) string { return fmt.Sprintf("v.column%d", i+1) },
				" FROM (VALUES "+Placeholders(n, casts...)+") AS v")
		}),
	}
}

// Run writes rows: each has the values of the columns, and then of the key. It returns ErrStale if a row is not there.
func (u Update) Run(ctx context.Context, tx Execer, engine string, rows [][]any) error {
	write := func(some [][]any, args ...any) error {
		result, err := tx.ExecContext(ctx, u[engine](len(some)), args...)
		if err != nil || result == nil { // it is executed later
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == int64(len(some)) {
			return err
		}
		return ErrStale
	}
	switch {
	case engine == dialect.Postgres:
		return Chunks(rows, func(some [][]any) error { return write(some, slices.Concat(some...)...) })
	case len(rows) == 0:
		return nil
	}
	return write(rows, store.Each(rows))
}

// ByID is the key of rows identified by their ids.
var ByID = Columns("uuid", "id")
