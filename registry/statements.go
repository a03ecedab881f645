package registry

import (
	"context"
	stdsql "database/sql"
	"errors"
	"fmt"
	"math/bits"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// execer is the part of a transaction that writes.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (stdsql.Result, error)
}

// querier is a transaction: Ent's or database/sql's.
type querier interface {
	execer
	QueryContext(ctx context.Context, query string, args ...any) (*stdsql.Rows, error)
}

// together collects statements of which none needs to see what another one did, and executes them as one. It is for
// PostgreSQL: SQLite has nothing like it, and no round trips.
type together struct {
	texts []string
	args  []any
}

// ExecContext implements execer. It returns no result: nothing is executed yet.
func (t *together) ExecContext(_ context.Context, query string, args ...any) (stdsql.Result, error) {
	t.texts = append(t.texts, shifted(shift{query, len(t.args)}))
	t.args = append(t.args, args...)
	return nil, nil //nolint:nilnil // see above
}

// flush executes what was collected.
func (t *together) flush(ctx context.Context, tx execer) error {
	last := len(t.texts) - 1
	if last < 0 {
		return nil
	}
	var b strings.Builder
	for i, text := range t.texts[:last] {
		fmt.Fprintf(&b, "%s s%d AS (%s)", []string{"WITH", ","}[min(i, 1)], i, text)
	}
	b.WriteString(" " + t.texts[last])
	_, err := tx.ExecContext(ctx, b.String(), t.args...)
	return err
}

type shift struct {
	query string
	by    int
}

// shifted is a statement whose placeholders have higher numbers.
var shifted = statements(func(s shift) string {
	return placeholder.ReplaceAllStringFunc(s.query, func(p string) string {
		n, _ := strconv.Atoi(p[1:]) // digits
		return "$" + strconv.Itoa(n+s.by)
	})
})

var placeholder = regexp.MustCompile(`\$[0-9]+`)

// inList returns the right side of IN for values, of few different lengths: the last value is repeated. Each length
// is a statement, which connections keep prepared.
func inList[T any](values []T) (list string, args []any) { return inListFrom(1, values) }

// inListFrom is inList with the number of the first placeholder.
func inListFrom[T any](first int, values []T) (list string, args []any) {
	n := 1
	for n < len(values) {
		n *= 2
	}
	args = make([]any, n)
	for i := range args {
		args[i] = values[min(i, len(values)-1)]
	}
	return inListSQL(listSize{first, n}), args
}

type listSize struct{ first, n int }

var inListSQL = statements(func(size listSize) string {
	return "(" + strings.NewReplacer("(", "", ")", "").Replace(placeholdersFrom(size.first, size.n, "$%d")) + ")"
})

// scanRows runs a query and calls each for its rows.
func scanRows(ctx context.Context, tx querier, query string, args []any, each func(scan func(...any) error) error) (err error) {
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

// chunks calls write for rows in chunks of few different sizes: each size is a statement, which connections
// keep prepared.
func chunks[T any](rows []T, write func([]T) error) error {
	for len(rows) > 0 {
		n := chunkSize(len(rows))
		if err := write(rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// chunkSize returns how many of n rows the next chunk takes: a power of two, up to 64.
func chunkSize(n int) int {
	if n == 0 {
		return 0
	}
	return min(64, 1<<(bits.Len(uint(n))-1)) //nolint:gosec // a length
}

// placeholders returns n rows of VALUES, whose columns are written by column: its argument is the number of the
// placeholder.
func placeholders(n int, columns ...string) string { return placeholdersFrom(1, n, columns...) }

// placeholdersFrom is placeholders with the number of the first one.
func placeholdersFrom(first, n int, columns ...string) string {
	var b strings.Builder
	number := first - 1
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

// statements keeps the statements for chunks.
func statements[N comparable](write func(n N) string) func(n N) string {
	var kept sync.Map
	return func(n N) string {
		text, ok := kept.Load(n)
		if !ok {
			text, _ = kept.LoadOrStore(n, write(n))
		}
		return text.(string)
	}
}
