package bulk_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
)

func TestUnnest(t *testing.T) {
	t.Parallel()
	require.Equal(t, "unnest(CAST($3 AS bigint[]), CAST($4 AS uuid[]), CAST($5 AS timestamptz[]))"+
		" AS v(number, model_id, period_start)",
		bulk.Unnest(3, usage.Table, []string{bulk.Number, usage.FieldModelID, usage.FieldPeriodStart}))
	require.PanicsWithValue(t, "bulk: no column usage_tracking.nothing", func() {
		bulk.Unnest(1, usage.Table, []string{"nothing"})
	})
}

// TestArrays: values of all types, and texts that the syntax of arrays has to quote, arrive as they were.
func TestArrays(t *testing.T) {
	t.Parallel()
	db := openPostgres(t)
	type row struct {
		ID      uuid.UUID
		Used    *time.Time
		Label   string
		Sealed  []byte
		Allowed *string
		Uses    int64
		Off     bool
	}
	at := time.Date(2026, 7, 15, 12, 0, 0, 123_456_789, time.FixedZone("east", 7200))
	var want []row
	var rows [][]any
	for i, label := range []string{
		"", "NULL", "null", `"`, `\`, `a"b\c`, "{a,b}", " spaces ", "tab\tand\nline", "ünïcødé 語 \u200d", `\x00`, "1",
		"'",
	} {
		text, err := json.Marshal([]string{label})
		require.NoError(t, err)
		list, used := string(text), at.Truncate(time.Microsecond).UTC()
		r := row{
			ID: uuid.New(), Used: &used, Label: label, Sealed: []byte(label + "\x00\xff"), Allowed: &list,
			Uses: math.MaxInt64 - int64(i), Off: i%2 == 0,
		}
		args := []any{r.ID, at, label, r.Sealed, &list, r.Uses, r.Off}
		if i == 3 {
			r.Used, r.Allowed = nil, nil
			args[1], args[4] = (*time.Time)(nil), nil
		}
		want, rows = append(want, r), append(rows, args)
	}
	columns := []string{"id", "last_used_at", "label", "sealed", "allowed_models", "usage_count", "disabled"}
	require.NoError(t, bulk.NewInsert("api_keys", columns, "").Run(t.Context(), db, db.Dialect(), rows))
	var got []row
	const query = "SELECT id, last_used_at, label, sealed, allowed_models, usage_count, disabled FROM api_keys" +
		" ORDER BY usage_count DESC"
	require.NoError(t, bulk.Scan(t.Context(), db, query, nil, func(scan func(...any) error) error {
		var r row
		err := scan(&r.ID, &r.Used, &r.Label, &r.Sealed, &r.Allowed, &r.Uses, &r.Off)
		if r.Used != nil {
			*r.Used = r.Used.UTC()
		}
		got = append(got, r)
		return err
	}))
	require.Equal(t, want, got)

	averages := []any{0.1, math.MaxFloat64, 1e-300}
	args, err := bulk.Arrays(1, [][]any{averages[:1], averages[1:2], averages[2:]})
	require.NoError(t, err)
	i := 0
	err = bulk.Scan(t.Context(), db, "SELECT average_latency_ms FROM "+
		bulk.Unnest(1, usage.Table, []string{usage.FieldAverageLatencyMs}), args, func(scan func(...any) error) error {
		var average float64
		err := scan(&average)
		require.Equal(t, averages[i], average)
		i++
		return err
	})
	require.NoError(t, err)
	require.Equal(t, len(averages), i)

	_, err = bulk.Arrays(1, [][]any{{struct{}{}}})
	require.ErrorContains(t, err, "unsupported type struct {}")
}
