package registry_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// filledFile returns a file with a provider and a setting.
func filledFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	reg, err := registry.Open(t.Context(), path)
	require.NoError(t, err)
	mustProvider(t, reg, "openai")
	require.NoError(t, reg.SetSetting(t.Context(), "k", "v"))
	require.NoError(t, reg.Close())
	return path
}

// moveTargets are empty places of each engine.
var moveTargets = map[string]func(t *testing.T) string{
	"sqlite":   func(t *testing.T) string { t.Helper(); return filepath.Join(t.TempDir(), "target.db") },
	"postgres": func(t *testing.T) string { t.Helper(); return pgtest.Database(t, "", nil) },
}

func TestMoveRefuses(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	for name, target := range moveTargets {
		t.Run("ErrConflict_not_empty_"+name, func(t *testing.T) {
			t.Parallel()
			to := target(t)
			reg, err := registry.Open(t.Context(), to)
			require.NoError(t, err)
			require.NoError(t, reg.SetSetting(t.Context(), "mine", "1"))
			before := dump(t, reg)
			_, err = registry.Move(t.Context(), filledFile(t), to, nil)
			require.ErrorIs(t, err, registry.ErrConflict)
			require.ErrorContains(t, err, "not empty: it has audit_log")
			require.Equal(t, before, dump(t, reg))
			require.NoError(t, reg.Close())
		})
		t.Run("OK_interrupted_"+name, func(t *testing.T) {
			t.Parallel()
			from, to := filledFile(t), target(t)
			ctx, cancel := context.WithCancel(t.Context())
			_, err := registry.Move(ctx, from, to, func(table string, _, _ int64) {
				if table == "settings" {
					cancel()
				}
			})
			require.ErrorIs(t, err, context.Canceled)
			_, err = registry.Open(t.Context(), to)
			require.ErrorIs(t, err, registry.ErrSchema)
			require.ErrorContains(t, err, "call Move again")
			_, err = registry.Open(t.Context(), to, registry.WithoutMigration())
			require.ErrorIs(t, err, registry.ErrSchema)

			_, err = registry.Move(t.Context(), from, to, nil)
			require.NoError(t, err)
			reg, err := registry.Open(t.Context(), to)
			require.NoError(t, err)
			_, err = reg.FindProvider(t.Context(), "openai")
			require.NoError(t, err)
			require.NoError(t, reg.Close())
		})
		t.Run("ErrConflict_changed_"+name, func(t *testing.T) {
			t.Parallel()
			// What changes between an interrupted run and the next one is noticed, and mended by a third.
			for change, statement := range map[string]string{
				"updated": "UPDATE providers SET description = 'changed'",
				"earlier": "INSERT INTO providers (id, created_at, updated_at, name) " +
					"SELECT '00000000-0000-7000-8000-000000000000', created_at, updated_at, 'other' FROM providers",
				"removed": "DELETE FROM providers",
			} {
				from, to := filledFile(t), target(t)
				ctx, cancel := context.WithCancel(t.Context())
				_, err := registry.Move(ctx, from, to, func(table string, done, _ int64) {
					if table == "settings" && done == 0 {
						cancel()
					}
				})
				require.ErrorIs(t, err, context.Canceled)
				source, err := sql.Open("sqlite3", from)
				require.NoError(t, err)
				_, err = source.ExecContext(t.Context(), statement)
				require.NoError(t, err, change)
				_, err = registry.Move(t.Context(), from, to, nil)
				require.ErrorIs(t, err, registry.ErrConflict, change)
				_, err = registry.Move(t.Context(), from, to, nil)
				require.NoError(t, err, change)
				want := must(registry.Open(t.Context(), from))
				got := must(registry.Open(t.Context(), to))
				require.Equal(t, dump(t, want), dump(t, got), change)
				require.NoError(t, want.Close())
				require.NoError(t, got.Close())
				require.NoError(t, source.Close())
			}
		})
	}
}

// TestMoveRefusesSources has sources that are none, or that another move takes.
func TestMoveRefusesSources(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	t.Run("ErrConflict_two_at_once", func(t *testing.T) {
		t.Parallel()
		from, to := filledFile(t), pgtest.Database(t, "", nil)
		_, err := registry.Move(t.Context(), from, to, func(table string, done, _ int64) {
			if table == "settings" && done == 0 {
				_, err := registry.Move(t.Context(), from, to, nil)
				require.NoError(t, err)
			}
		})
		require.Error(t, err, "the second has taken over and ended")
		reg, err := registry.Open(t.Context(), to)
		require.NoError(t, err)
		all, err := reg.ListProviders(t.Context(), registry.ProviderFilter{})
		require.NoError(t, err)
		require.Len(t, all, 1)
		require.NoError(t, reg.Close())
	})
	t.Run("Err_source", func(t *testing.T) {
		t.Parallel()
		missing, to := filepath.Join(t.TempDir(), "missing.db"), filepath.Join(t.TempDir(), "target.db")
		_, err := registry.Move(t.Context(), missing, to, nil)
		require.ErrorIs(t, err, registry.ErrInvalidData)
		require.NoFileExists(t, missing)
		require.NoFileExists(t, to)
		_, err = registry.Move(t.Context(), pgtest.Database(t, "", nil), to, nil)
		require.ErrorIs(t, err, registry.ErrSchema, "the source is not migrated")
		require.NoFileExists(t, to)
		_, err = registry.Move(t.Context(), filledFile(t), filepath.Join(t.TempDir(), "no", "such.db"), nil)
		require.ErrorIs(t, err, registry.ErrInvalidData)
		_, err = registry.Move(t.Context(), filledFile(t), "postgres://u:hunter2@[::1/x", nil)
		require.ErrorIs(t, err, registry.ErrInvalidData)
		require.NotContains(t, err.Error(), "hunter2")
	})
}
