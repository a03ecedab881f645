package bulk_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/bulk"
)

func TestIn(t *testing.T) {
	t.Parallel()
	list, args := bulk.In([]int{7, 8, 9})
	require.Equal(t, "($1, $2, $3, $4)", list)
	require.Equal(t, []any{7, 8, 9, 9}, args)
	list, args = bulk.In([]string{"a"})
	require.Equal(t, "($1)", list)
	require.Equal(t, []any{"a"}, args)
}

func TestPlaceholders(t *testing.T) {
	t.Parallel()
	require.Equal(t, "($1, CAST($2 AS uuid)), ($3, CAST($4 AS uuid))", bulk.Placeholders(2, "$%d", "CAST($%d AS uuid)"))
}

func TestChunks(t *testing.T) {
	t.Parallel()
	var sizes []int
	rows, again := make([]int, 64+64+5), []int{}
	for i := range rows {
		rows[i] = i
	}
	require.NoError(t, bulk.Chunks(rows, func(some []int) error {
		sizes, again = append(sizes, len(some)), append(again, some...)
		return nil
	}))
	require.Equal(t, []int{64, 64, 4, 1}, sizes)
	require.Equal(t, rows, again)
	refused := errors.New("refused")
	require.ErrorIs(t, bulk.Chunks(rows, func([]int) error { return refused }), refused)
}

func TestStatements(t *testing.T) {
	t.Parallel()
	written := 0
	text := bulk.Statements(func(n int) string { written++; return bulk.Placeholders(n, "$%d") })
	for range 2 {
		require.Equal(t, "($1), ($2)", text(2))
	}
	require.Equal(t, 1, written)
}

func TestUnknown(t *testing.T) {
	t.Parallel()
	a, b := uuid.New(), uuid.New()
	require.Equal(t, []uuid.UUID{b}, bulk.Unknown(map[uuid.UUID]bool{a: true, b: true}, map[uuid.UUID]int{a: 1}))
}
