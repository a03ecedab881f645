// Package bulk writes SQL for many rows: lists, chunks, arrays, inserts and updates, and statements that go to the
// server together. It writes few different statements, so that connections keep each prepared.
package bulk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"sync"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"
)

// Execer is the part of a transaction that writes.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Querier is a transaction: Ent's or database/sql's.
type Querier interface {
	Execer
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// In returns the right side of IN for one value or more. It repeats the last value to reach one of a few lengths, so
// that connections keep the statement of each length prepared.
func In[T any](values []T) (list string, args []any) {
	n := 1
	for n < len(values) {
		n *= 2
	}
	args = make([]any, n)
	for i := range args {
		args[i] = values[min(i, len(values)-1)]
	}
	return inListSQL(n), args
}

var inListSQL = Statements(func(n int) string { return Placeholders(1, slices.Repeat([]string{"$%d"}, n)...) })

// Scan runs a query and calls each for its rows.
func Scan(
	ctx context.Context, tx Querier, query string, args []any, each func(scan func(...any) error) error,
) (err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// ScanIn is Scan for a query about rows whose values are in a list: it has %s for the list, and %d for the number of
// each further argument. It asks for up to 1,024 values at once.
func ScanIn[T any](
	ctx context.Context, tx Querier, query string, values []T, each func(scan func(...any) error) error, more ...any,
) error {
	for some := range slices.Chunk(values, 1024) {
		list, args := In(some)
		parts := []any{list}
		for i := range more {
			parts = append(parts, len(args)+1+i)
		}
		if err := Scan(ctx, tx, fmt.Sprintf(query, parts...), append(args, more...), each); err != nil {
			return err
		}
	}
	return nil
}

// Chunks calls write for rows in chunks of few sizes, powers of two up to 64, so that connections keep the statement of
// each size prepared.
func Chunks[T any](rows []T, write func([]T) error) error {
	for len(rows) > 0 {
		n := min(64, 1<<(bits.Len(uint(len(rows)))-1)) //nolint:gosec // a length
		if err := write(rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// Placeholders returns n rows of VALUES. Each column is a format whose argument is the number of the placeholder.
func Placeholders(n int, columns ...string) string {
	var b strings.Builder
	number := 0
	for row := range n {
		if row > 0 {
			b.WriteString(", ")
		}
		for i, column := range columns {
			number++
			b.WriteString([]string{"(", ", "}[min(i, 1)])
			fmt.Fprintf(&b, column, number)
		}
		b.WriteString(")")
	}
	return b.String()
}

// Insert is an INSERT of many rows.
type Insert struct {
	sqlite   func(n int) string
	postgres string
}

// NewInsert returns the insert of a table's columns, and of what follows the rows.
func NewInsert(table string, columns []string, after string) Insert {
	into := "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") "
	row := slices.Repeat([]string{"$%d"}, len(columns))
	return Insert{
		sqlite:   Statements(func(n int) string { return into + "VALUES " + Placeholders(n, row...) + after }),
		postgres: into + "SELECT * FROM " + Unnest(1, table, columns) + after,
	}
}

// SparseInsert is an insert whose last columns mostly have their defaults. To leave them out saves a quarter of the
// time.
type SparseInsert struct {
	columns  int
	defaults []any    // of the sparse columns
	by       []Insert // by how many of the sparse columns are written
}

// Sparse is a column that mostly has its default. The default is of the type that rows have.
type Sparse struct {
	Column  string
	Default any
}

// NewSparse returns the insert of a table's columns, which the sparse ones follow: first those that are said most
// often.
func NewSparse(table string, columns []string, sparse ...Sparse) SparseInsert {
	i, all := SparseInsert{columns: len(columns)}, slices.Clone(columns)
	i.by = append(i.by, NewInsert(table, all, ""))
	for _, s := range sparse {
		all, i.defaults = append(all, s.Column), append(i.defaults, s.Default)
		i.by = append(i.by, NewInsert(table, all, ""))
	}
	return i
}

// Run is Insert.Run. It leaves out the last sparse columns, those in which all rows have the default.
func (i SparseInsert) Run(ctx context.Context, tx Execer, engine string, rows [][]any) error {
	said := 0
	for _, row := range rows {
		for said < len(i.defaults) && !slices.Equal(row[i.columns+said:], i.defaults[said:]) {
			said++
		}
	}
	for n, row := range rows {
		rows[n] = row[:i.columns+said]
	}
	return i.by[said].Run(ctx, tx, engine, rows)
}

// Run writes rows: each has the values of the columns.
func (i Insert) Run(ctx context.Context, tx Execer, engine string, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	if engine == dialect.Postgres {
		_, err := execArrays(ctx, tx, i.postgres, rows)
		return err
	}
	return Chunks(rows, func(some [][]any) error {
		_, err := tx.ExecContext(ctx, i.sqlite(len(some)), slices.Concat(some...)...)
		return err
	})
}

// Return is Run on SQLite for an insert that returns rows: it calls each for them. On PostgreSQL see Together.Read.
func (i Insert) Return(
	ctx context.Context, tx Querier, rows [][]any, each func(scan func(...any) error) error,
) error {
	return Chunks(rows, func(some [][]any) error {
		return Scan(ctx, tx, i.sqlite(len(some)), slices.Concat(some...), each)
	})
}

// Statements caches the text of each size, for which it calls write once.
func Statements[N comparable](write func(n N) string) func(n N) string {
	var kept sync.Map
	return func(n N) string {
		text, ok := kept.Load(n)
		if !ok {
			text, _ = kept.LoadOrStore(n, write(n))
		}
		return text.(string)
	}
}

// Unknown returns the ids that are not in a map.
func Unknown[T any](ids map[uuid.UUID]bool, in map[uuid.UUID]T) (some []uuid.UUID) {
	for id := range ids {
		if _, ok := in[id]; !ok {
			some = append(some, id)
		}
	}
	return some
}
