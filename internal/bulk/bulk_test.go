package bulk_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/store"
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
	require.Equal(t, "($5), ($6)", bulk.PlaceholdersFrom(5, 2, "$%d"))
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
	require.Zero(t, bulk.ChunkSize(0))
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

// heard keeps what it is to execute.
type heard struct {
	query string
	args  []any
}

func (h *heard) ExecContext(_ context.Context, query string, args ...any) (sql.Result, error) {
	h.query, h.args = query, args
	return nil, nil //nolint:nilnil // nobody reads it
}

func TestTogether(t *testing.T) {
	t.Parallel()
	var (
		both bulk.Together
		h    heard
	)
	require.NoError(t, both.Flush(t.Context(), &h))
	require.Empty(t, h.query)
	for _, table := range []string{"a", "b", "c"} {
		_, err := both.ExecContext(t.Context(), "INSERT INTO "+table+" VALUES ($1, $2)", table, 1)
		require.NoError(t, err)
	}
	require.NoError(t, both.Flush(t.Context(), &h))
	require.Equal(t, "WITH s0 AS (INSERT INTO a VALUES ($1, $2)), s1 AS (INSERT INTO b VALUES ($3, $4))"+
		" INSERT INTO c VALUES ($5, $6)", h.query)
	require.Equal(t, []any{"a", 1, "b", 1, "c", 1}, h.args)
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	columns := append(bulk.Columns("bigint", "x"), bulk.Columns("timestamptz", "updated_at")...)
	update := bulk.NewUpdate("t", bulk.ByID, columns...)
	require.Equal(t, "UPDATE t SET x = $1, updated_at = $2 WHERE t.id = $3", update[dialect.SQLite](2))
	require.Equal(t, "UPDATE t SET x = v.column1, updated_at = v.column2 FROM (VALUES"+
		" (CAST($1 AS bigint), CAST($2 AS timestamptz), CAST($3 AS uuid))) AS v WHERE t.id = v.column3",
		update[dialect.Postgres](1))

	db, err := store.OpenSQLite(t.Context(), store.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	exec := func(query string) {
		_, err := db.ExecContext(t.Context(), query)
		require.NoError(t, err)
	}
	exec("CREATE TABLE t (id text, x integer, updated_at text)")
	exec("INSERT INTO t VALUES ('a', 1, ''), ('b', 2, '')")
	rows := [][]any{{10, "", "a"}, {20, "", "b"}}
	require.NoError(t, update.Run(t.Context(), db, dialect.SQLite, nil))
	require.NoError(t, update.Run(t.Context(), db, dialect.SQLite, rows))
	got := map[string]int{}
	require.NoError(t, bulk.Scan(t.Context(), db, "SELECT id, x FROM t", nil, func(scan func(...any) error) error {
		var (
			id string
			x  int
		)
		defer func() { got[id] = x }()
		return scan(&id, &x)
	}))
	require.Equal(t, map[string]int{"a": 10, "b": 20}, got)
	rows[1][2] = "gone"
	require.ErrorIs(t, update.Run(t.Context(), db, dialect.SQLite, rows), bulk.ErrStale)
}

func TestInsert(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db, err := store.OpenSQLite(ctx, store.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	_, err = db.ExecContext(ctx, "CREATE TABLE t (id integer PRIMARY KEY, x integer)")
	require.NoError(t, err)
	insert := bulk.NewInsert("t", "id, x", " ON CONFLICT (id) DO UPDATE SET x = excluded.x")
	rows, ids := make([][]any, 2100), make([]int, 2100)
	for i := range rows {
		rows[i], ids[i] = []any{i, 10 * i}, i
	}
	require.NoError(t, insert.Run(ctx, db, nil))
	require.NoError(t, insert.Run(ctx, db, rows))
	require.NoError(t, insert.Run(ctx, db, [][]any{{7, 71}}))
	sum := func(query string) (n int, err error) {
		return n, bulk.ScanIn(ctx, db, query, ids, func(scan func(...any) error) error {
			var x int
			defer func() { n += x }()
			return scan(&x)
		})
	}
	n, err := sum("SELECT x FROM t WHERE id IN %s")
	require.NoError(t, err)
	require.Equal(t, 10*2099*2100/2+1, n)
	_, err = sum("SELECT y FROM t WHERE id IN %s")
	require.ErrorContains(t, err, "no such column: y")
	_, err = sum("SELECT x, id FROM t WHERE id IN %s")
	require.ErrorContains(t, err, "expected 2 destination arguments")
}
