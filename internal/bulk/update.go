package bulk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"entgo.io/ent/dialect"

	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// ErrStale is returned when a row that was there is gone, so that what was read before is wrong.
var ErrStale = errors.New("a row is gone that was there")

// Update is an UPDATE of some columns of many rows.
type Update struct{ sqlite, postgres string }

// NewUpdate returns the update of a table's columns, in rows that the columns of a key identify.
func NewUpdate(table string, key []string, columns ...string) Update {
	all := slices.Concat(columns, key)
	text := func(value func(i int) string, from string) string {
		terms := make([]string, len(all))
		for i, name := range all {
			if i >= len(columns) {
				name = table + "." + name
			}
			terms[i] = name + " = " + value(i)
		}
		return "UPDATE " + table + " SET " + strings.Join(terms[:len(columns)], ", ") + from +
			" WHERE " + strings.Join(terms[len(columns):], " AND ")
	}
	return Update{
		sqlite:   text(func(i int) string { return fmt.Sprintf("$%d", i+1) }, ""),
		postgres: text(func(i int) string { return "v." + all[i] }, " FROM "+Unnest(1, table, all)),
	}
}

// Run writes rows: each has the values of the columns, and then of the key. It returns ErrStale if a row is not there.
func (u Update) Run(ctx context.Context, tx Execer, engine string, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	var result sql.Result
	var err error
	if engine == dialect.Postgres {
		result, err = execArrays(ctx, tx, u.postgres, rows)
	} else { // a join with VALUES takes SQLite five times as long, because it copies the rows first
		result, err = tx.ExecContext(ctx, u.sqlite, store.Each(rows))
	}
	if err != nil {
		return err
	}
	if later, ok := tx.(*Together); ok {
		later.expect(len(rows))
		return nil
	}
	if n, err := result.RowsAffected(); err != nil || n == int64(len(rows)) {
		return err
	}
	return ErrStale
}

// ByID is the key of rows identified by their ids.
var ByID = []string{"id"}
