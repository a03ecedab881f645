package store_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// TestEach writes values one by one and by Each: the database has the same.
func TestEach(t *testing.T) {
	t.Parallel()
	db := open(t)
	exec1(t, db, "CREATE TABLE a (n INTEGER PRIMARY KEY, v)")
	exec1(t, db, "CREATE TABLE b (n INTEGER PRIMARY KEY, v)")
	at := time.Date(2026, 7, 15, 12, 30, 5, 0, time.UTC)
	values := []any{
		nil, int64(-7), 7, 1.5, true, false, "text", "", []byte{0, 255}, []byte{}, []byte(nil), uuid.New(),
		(*time.Time)(nil), &at,
		time.Time{}, time.Unix(0, 0), at.Add(time.Nanosecond), at.Add(999_999_999), at.In(
			time.FixedZone("", -3*3600),
		), at.AddDate(-2000, 0, 0), at.AddDate(9000, 0, 0),
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // not for secrets
	for range 500 {
		values = append(
			values, time.Unix(random.Int64N(1<<33), random.Int64N(1e9)),
			at.Add(time.Duration(random.IntN(1000))*time.Millisecond),
		)
	}
	var rows store.Each
	for i, v := range values {
		exec1(t, db, "INSERT INTO a (n, v) VALUES ($1, $2)", i, v)
		rows = append(rows, []any{i, v})
	}
	result, err := db.ExecContext(t.Context(), "INSERT INTO b (n, v) VALUES ($1, $2)", rows)
	require.NoError(t, err)
	n, err := result.RowsAffected()
	require.NoError(t, err)
	require.EqualValues(t, len(values), n)
	differs := "SELECT a.n FROM a JOIN b USING (n) WHERE a.v IS NOT b.v OR typeof(a.v) <> typeof(b.v)"
	require.Empty(t, query1[int](t, db, differs))
	require.Equal(t, []int{len(values)}, query1[int](t, db, "SELECT count(*) FROM b"))

	// Again, by the statement that is kept, of which one row meets none.
	result, err = db.ExecContext(
		t.Context(), "UPDATE b SET v = $1 WHERE n = $2", store.Each{{"x", 0}, {"y", -1}, {"z", 1}},
	)
	require.NoError(t, err)
	n, err = result.RowsAffected()
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	exec1(t, db, "ALTER TABLE b ADD COLUMN w") // it is planned anew
	_, err = db.ExecContext(t.Context(), "UPDATE b SET v = $1 WHERE n = $2", store.Each{{"u", 0}})
	require.NoError(t, err)
	require.Equal(t, []string{"u", "z"}, query1[string](t, db, "SELECT v FROM b WHERE n < 2 ORDER BY n"))

	_, err = db.ExecContext(t.Context(), "UPDATE b SET v = $1 WHERE n = $2", store.Each{{"v", 0}, {make(chan int), 1}})
	require.ErrorContains(t, err, "chan int")
	_, err = db.ExecContext(t.Context(), "INSERT INTO b (n, v) VALUES ($1, $2)", store.Each{{5, "again"}})
	require.Equal(t, fault.ErrConflict, store.Classify(err))
	_, err = db.ExecContext(t.Context(), "UPDATE missing SET v = $1", store.Each{{"v"}})
	require.ErrorContains(t, err, "no such table")
}

// TestEachRolledBack runs nothing after SQLite has ended the transaction.
func TestEachRolledBack(t *testing.T) {
	t.Parallel()
	db := open(t)
	exec1(t, db, "CREATE TABLE a (n INTEGER PRIMARY KEY ON CONFLICT ROLLBACK)")
	tx, err := db.Tx(t.Context())
	require.NoError(t, err)
	insert := func(n int) error {
		return tx.Exec(t.Context(), "INSERT INTO a (n) VALUES ($1)", []any{store.Each{{n}}}, nil)
	}
	require.NoError(t, insert(1))
	require.Equal(t, fault.ErrConflict, store.Classify(insert(1)))
	require.ErrorIs(t, insert(2), store.ErrRolledBack)
	require.NoError(t, tx.Rollback())
	require.Empty(t, query1[int](t, db, "SELECT n FROM a"))
}
