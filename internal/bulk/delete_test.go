package bulk_test

import (
	"context"
	"testing"
	"time"

	"entgo.io/ent/dialect"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

func TestDelete(t *testing.T) {
	eachEngine(t, func(t *testing.T, db store.DB) {
		t.Helper()
		a, b, c := uuid.New(), uuid.New(), uuid.New()
		_, err := db.ExecContext(t.Context(), "INSERT INTO api_keys (id, usage_count) VALUES ($1, 1), ($2, 2), ($3, 3)",
			a, b, c)
		require.NoError(t, err)
		remove := bulk.NewDelete("api_keys", []string{"id", "usage_count"}, "t.id = %s AND t.usage_count < %s")
		require.NoError(t, remove.Run(t.Context(), db, db.Dialect(), nil))
		require.NoError(t, remove.Run(t.Context(), db, db.Dialect(), [][]any{{a, 2}, {b, 2}, {uuid.New(), 2}}))
		require.Equal(t, map[uuid.UUID]int{b: 2, c: 3}, counts(t, db))
		if db.Dialect() == dialect.SQLite { // which has one writer
			return
		}
		tx, err := db.Tx(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, tx.Rollback()) }()
		require.NoError(t, tx.Exec(t.Context(), "UPDATE api_keys SET usage_count = 2 WHERE id = $1", []any{b}, nil))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		require.NoError(t, remove.Run(ctx, db, db.Dialect(), [][]any{{b, 9}, {c, 9}}), "it does not wait")
		require.Equal(t, map[uuid.UUID]int{b: 2}, counts(t, db), "somebody else had locked it")
	})
}

// TestReturn: an insert returns the rows that it has made or changed. For PostgreSQL see TestTogether.
func TestReturn(t *testing.T) {
	eachEngine(t, func(t *testing.T, db store.DB) {
		t.Helper()
		if db.Dialect() != dialect.SQLite {
			return
		}
		insert := bulk.NewInsert("api_keys", []string{"id", "usage_count"}, " ON CONFLICT (id) DO UPDATE SET"+
			" usage_count = api_keys.usage_count + excluded.usage_count RETURNING id, usage_count")
		a, b, c := uuid.New(), uuid.New(), uuid.New()
		returned := map[uuid.UUID]int{}
		add := func(rows ...[]any) error {
			return insert.Return(t.Context(), db, rows, func(scan func(...any) error) error {
				var id uuid.UUID
				var n int
				err := scan(&id, &n)
				returned[id] = n
				return err
			})
		}
		require.NoError(t, add())
		require.NoError(t, add([]any{a, 1}, []any{b, 2}, []any{c, 3}))
		require.NoError(t, add([]any{b, 10}))
		require.Equal(t, map[uuid.UUID]int{a: 1, b: 12, c: 3}, returned)
		require.Equal(t, returned, counts(t, db))
	})
}
