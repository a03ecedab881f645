package proof_test

import (
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/proof"
)

func TestCounters(t *testing.T) {
	t.Parallel()
	for engine, name := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { t.Helper(); return filepath.Join(t.TempDir(), "registry.db") },
		"postgres": func(t *testing.T) string { t.Helper(); return pgtest.Database(t, "", nil) },
	} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			reg := newLedger(t, name(t))
			key := reg.Client().APIKey.Query().OnlyX(ctx)
			read := func(some []uuid.UUID) (all []proof.Counter) {
				t.Helper()
				require.NoError(t, proof.Counters(ctx, reg.Client(), some, func(c proof.Counter) error {
					all = append(all, c)
					return nil
				}))
				return all
			}
			damage := func(statement string) {
				t.Helper()
				_, err := reg.Client().ExecContext(ctx, statement)
				require.NoError(t, err)
			}
			require.Empty(t, read([]uuid.UUID{uuid.New()}))
			require.Empty(t, read(nil)[0].Differences())

			damage("UPDATE api_keys SET usage_count = 2")
			all := read([]uuid.UUID{key.ID})
			require.Len(t, all, 1)
			require.Equal(t, []proof.Difference{{
				Kind: proof.WrongKeyCounter, Table: "api_keys", Key: key.ID, Field: "usage_count", Have: "2", Want: "3",
			}}, all[0].Differences())
		})
	}
}

// TestCountersOverflow: sums of damaged rows need not fit.
func TestCountersOverflow(t *testing.T) {
	t.Parallel()
	wrong := proof.Counter{Have: [2]int64{3, 4}, Want: [2]int64{3, 4}}.Differences()
	require.Len(t, wrong, 2)
	require.Equal(t, "4", wrong[1].Have)
	require.Equal(t, fault.ErrOverflow.Error(), wrong[1].Want)
}
