package bulk

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Together collects statements and executes them as one. None of them may need what another one did. It is for
// PostgreSQL: SQLite has nothing like it, and no round trips.
type Together struct {
	texts   []string
	args    []any
	last    int      // how many arguments come before those of the last statement
	counts  []string // of the rows that the collected updates change
	updated int      // how many rows they must change
	read    string   // a query for what one of them returns
	columns int      // of read, beside the first one
	each    func(scan func(...any) error) error
}

// ExecContext implements Execer. It returns no result: nothing is executed yet.
func (t *Together) ExecContext(_ context.Context, query string, args ...any) (sql.Result, error) {
	t.last = len(t.args)
	t.texts = append(t.texts, shifted(shift{query, t.last}))
	t.args = append(t.args, args...)
	return nil, nil //nolint:nilnil // see above
}

// expect has Flush check that the last statement changes some rows.
func (t *Together) expect(rows int) {
	last := len(t.texts) - 1
	t.texts[last] += " RETURNING 1"
	t.counts = append(t.counts, fmt.Sprintf("(SELECT count(*) FROM s%d)", last))
	t.updated += rows
}

// Read has Flush call each for the rows of a query about what the last statement returned: %s in the query stands for
// those rows. The query has the same arguments. All its columns are integers.
func (t *Together) Read(query string, columns int, each func(scan func(...any) error) error) {
	last := len(t.texts) - 1
	t.read, t.columns, t.each = shifted(shift{fmt.Sprintf(query, fmt.Sprint("s", last)), t.last}), columns-1, each
}

// Flush executes what was collected. It returns ErrStale if a row to be updated is not there.
func (t *Together) Flush(ctx context.Context, tx Querier) error {
	if len(t.texts) == 0 {
		return nil
	}
	var b strings.Builder
	for i, text := range t.texts {
		fmt.Fprintf(&b, "%s s%d AS (%s)", []string{"WITH", ","}[min(i, 1)], i, text)
	}
	b.WriteString(" SELECT " + strings.Join(append(t.counts, "0"), " + ") + strings.Repeat(", 0", t.columns))
	if t.read != "" {
		b.WriteString(" UNION ALL " + t.read) // the parts are executed one after the other
	}
	counted, updated := false, 0
	unused := slices.Repeat([]any{new(int64)}, t.columns)
	err := Scan(ctx, tx, b.String(), t.args, func(scan func(...any) error) error {
		if counted {
			return t.each(scan)
		}
		counted = true
		return scan(append([]any{&updated}, unused...)...)
	})
	if err == nil && updated != t.updated {
		return ErrStale
	}
	return err
}

type shift struct {
	query string
	by    int
}

// shifted returns a statement with higher numbers of placeholders.
var shifted = Statements(func(s shift) string {
	return placeholder.ReplaceAllStringFunc(s.query, func(p string) string {
		n, _ := strconv.Atoi(p[1:]) // digits
		return "$" + strconv.Itoa(n+s.by)
	})
})

var placeholder = regexp.MustCompile(`\$[0-9]+`)
