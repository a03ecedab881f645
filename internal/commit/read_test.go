package commit

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/bulk"
)

// TestRecordedByIndex: PostgreSQL looks up request ids by the index also in a partition that it takes to be empty.
func TestRecordedByIndex(t *testing.T) {
	t.Parallel()
	d := onPostgres(t)
	require.NoError(t, d.Do(t.Context(), d.call(uuid.NewString()))) // makes the partition
	ids := make([]string, 64)
	for i := range ids {
		ids[i] = uuid.NewString()
	}
	var plan []string
	query := "EXPLAIN " + recordedPostgres
	err := bulk.Scan(t.Context(), d.client, query, []any{ids}, func(scan func(...any) error) error {
		var line string
		err := scan(&line)
		plan = append(plan, line)
		return err
	})
	require.NoError(t, err)
	text := strings.Join(plan, "\n")
	require.Contains(t, text, "Index Scan", text)
	require.NotContains(t, text, "Seq Scan", text)
}
