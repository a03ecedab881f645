package bulk

import (
	"context"
	"slices"
	"strings"
)

// Insert is an INSERT of n rows.
type Insert func(n int) string

// NewInsert returns the insert of a table's columns, a list with commas, and of what follows the rows.
func NewInsert(table, columns, after string) Insert {
	row := slices.Repeat([]string{"$%d"}, strings.Count(columns, ",")+1)
	return Statements(func(n int) string {
		return "INSERT INTO " + table + " (" + columns + ") VALUES " + Placeholders(n, row...) + after
	})
}

// Run writes rows: each has the values of the columns.
func (i Insert) Run(ctx context.Context, tx Execer, rows [][]any) error {
	return Chunks(rows, func(some [][]any) error {
		_, err := tx.ExecContext(ctx, i(len(some)), slices.Concat(some...)...)
		return err
	})
}
