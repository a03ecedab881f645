package bulk

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Together collects statements and executes them as one. None of them may need what another one did. It is for
// PostgreSQL: SQLite has nothing like it, and no round trips.
type Together struct {
	texts []string
	args  []any
}

// ExecContext implements Execer. It returns no result: nothing is executed yet.
func (t *Together) ExecContext(_ context.Context, query string, args ...any) (sql.Result, error) {
	t.texts = append(t.texts, shifted(shift{query, len(t.args)}))
	t.args = append(t.args, args...)
	return nil, nil //nolint:nilnil // see above
}

// Flush executes what was collected.
func (t *Together) Flush(ctx context.Context, tx Execer) error {
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

// shifted returns a statement with higher numbers of placeholders.
var shifted = Statements(func(s shift) string {
	return placeholder.ReplaceAllStringFunc(s.query, func(p string) string {
		n, _ := strconv.Atoi(p[1:]) // digits
		return "$" + strconv.Itoa(n+s.by)
	})
})

var placeholder = regexp.MustCompile(`\$[0-9]+`)
