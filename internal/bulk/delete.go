package bulk

import (
	"context"
	"fmt"

	"entgo.io/ent/dialect"

	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// Delete is a DELETE with a condition for each row of values.
type Delete struct{ sqlite, postgres string }

// NewDelete returns the delete from a table by a condition on its rows t, which has %s for each value. The values are
// of the types of some columns. On PostgreSQL it leaves rows that others have locked: it waits for nobody, and so it is
// part of no deadlock.
func NewDelete(table string, columns []string, where string) Delete {
	condition := func(value func(i int) string) string {
		values := make([]any, len(columns))
		for i := range columns {
			values[i] = value(i)
		}
		return fmt.Sprintf(where, values...)
	}
	return Delete{
		sqlite: "DELETE FROM " + table + " AS t WHERE " +
			condition(func(i int) string { return fmt.Sprintf("$%d", i+1) }),
		postgres: "DELETE FROM " + table + " WHERE id IN (SELECT t.id FROM " + table + " AS t JOIN " +
			Unnest(1, table, columns) + " ON " + condition(func(i int) string { return "v." + columns[i] }) +
			" FOR UPDATE OF t SKIP LOCKED)",
	}
}

// Run deletes what the condition finds for one row of values or another.
func (d Delete) Run(ctx context.Context, tx Execer, engine string, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	if engine == dialect.Postgres {
		_, err := execArrays(ctx, tx, d.postgres, rows)
		return err
	}
	_, err := tx.ExecContext(ctx, d.sqlite, store.Each(rows))
	return err
}
