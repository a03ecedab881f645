package registry_test

// These tests have files, disks and processes fail, and have no source of their own.

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// A deadline that passes anywhere in an operation leaves all of it or nothing.
func TestDeadlineAnywhere(t *testing.T) {
	long(t, "a context ends at each moment")
	t.Parallel()
	reg := registrytest.New(t)
	m, k, err := faultFixture(t.Context(), reg)
	require.NoError(t, err)
	var done int64
	for i := range 400 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*5*time.Microsecond)
		err := faultPut(ctx, reg, m.ID, k.ID, fmt.Sprint(i), "x")
		cancel()
		if err == nil {
			done++
			continue
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, registry.ErrClosed)
	}
	n, err := faultSum(t.Context(), reg)
	require.NoError(t, err)
	require.Equal(t, done, n)
}

// A context that ends in a nested transaction undoes that transaction, whose error may be
// ignored, and nothing else.
func TestNestedContextEnds(t *testing.T) {
	t.Parallel()
	reg := registrytest.New(t)
	put := func(ctx context.Context, tx *registry.Registry, key string) {
		require.NoError(t, tx.SetSetting(ctx, key, ""))
	}
	ending := func(tx *registry.Registry, key string) {
		ctx, cancel := context.WithCancel(t.Context())
		require.ErrorIs(t, tx.InTx(ctx, func(tx *registry.Registry) error {
			put(ctx, tx, key)
			cancel()
			return nil
		}), context.Canceled)
	}
	require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
		put(t.Context(), tx, "1 kept")
		ending(tx, "2 undone")
		put(t.Context(), tx, "3 kept")
		require.Equal(t, errRollback, tx.InTx(t.Context(), func(tx *registry.Registry) error {
			put(t.Context(), tx, "4 undone")
			ending(tx, "5 undone")
			return errRollback
		}))
		return nil
	}))
	all, err := reg.ListSettings(t.Context(), registry.SettingFilter{})
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, "1 kept", all[0].ID)
	require.Equal(t, "3 kept", all[1].ID)
}

// SQLite itself ends a transaction when the disk is full, or when a statement that writes is
// interrupted: then all of it is undone, whatever fn does next.
func TestRolledBackBySQLite(t *testing.T) {
	t.Parallel()
	interrupted := func(t *testing.T, tx *registry.Registry) {
		t.Helper()
		// The statement takes seconds, and ends: the driver interrupts once, which SQLite forgets between two calls.
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, tx.InTx(ctx, func(tx *registry.Registry) error {
			_, err := tx.Client().ExecContext(ctx, "INSERT INTO settings (key, value, updated_at) SELECT i, '',"+
				" '2026-01-01 00:00:00+00:00' FROM"+
				" (WITH RECURSIVE c(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM c WHERE i < 1000000)"+
				" SELECT i FROM c)")
			return err
		}), context.DeadlineExceeded)
	}
	full := func(t *testing.T, tx *registry.Registry) {
		t.Helper()
		_, err := tx.Client().ExecContext(t.Context(), "PRAGMA max_page_count = 1")
		for err == nil {
			_, err = tx.CreateDiscoveryLog(t.Context(), registry.DiscoveryInput{Identifier: strings.Repeat("x", 2000)})
		}
		require.ErrorIs(t, err, registry.ErrDiskFull)
	}
	for name, provoke := range map[string]func(*testing.T, *registry.Registry){
		"interrupted": interrupted, "full": full,
	} {
		t.Run("Err_"+name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New(t)
			before := dump(t, reg)
			require.Error(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
				require.NoError(t, tx.SetSetting(t.Context(), "first", "x"))
				for err := error(nil); err == nil; err = tx.SetSetting(t.Context(), "later", "x") {
					provoke(t, tx) // until a statement was interrupted and not what was before it
				}
				return nil
			}))
			_, err := reg.Client().ExecContext(t.Context(), "PRAGMA max_page_count = 1000000")
			require.NoError(t, err)
			require.Equal(t, before, dump(t, reg))
			require.NoError(t, reg.SetSetting(t.Context(), "the pool", "is usable"))
		})
	}
}

func TestMemoryOutlivesContexts(t *testing.T) {
	t.Parallel()
	reg, err := registry.Open(t.Context(), ":memory:")
	require.NoError(t, err)
	require.NoError(t, reg.SetSetting(t.Context(), "a", "b"))
	ctx, cancel := context.WithCancel(t.Context())
	require.ErrorIs(t, reg.InTx(ctx, func(tx *registry.Registry) error {
		defer cancel()
		return tx.SetSetting(ctx, "x", "y")
	}), context.Canceled)
	value, err := reg.GetSetting(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, "b", value)
	_, err = reg.GetSetting(t.Context(), "x")
	require.ErrorIs(t, err, registry.ErrNotFound)
	require.NoError(t, reg.Close())
}
