package registry_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// Whoever uses within InTx the registry that it was called on waits for himself. He is told so.
func TestRegistryWithinInTx(t *testing.T) {
	t.Parallel()
	// Long enough for a busy machine to make the fixture; all operations wait at the same time.
	soon := registry.WithBusyTimeout(2 * time.Second)
	for name, test := range map[string]struct {
		open  func(t *testing.T, options ...registry.Option) *registry.Registry
		reads error // what reads return
	}{
		"file": {open: func(t *testing.T, options ...registry.Option) *registry.Registry {
			t.Helper()
			return mustOpen(t, filepath.Join(t.TempDir(), "registry.db"), options...)
		}},
		"memory": {open: func(t *testing.T, options ...registry.Option) *registry.Registry {
			t.Helper()
			return mustOpen(t, ":memory:", options...)
		}, reads: registry.ErrBusy},
		"one_connection": {open: func(t *testing.T, options ...registry.Option) *registry.Registry {
			t.Helper()
			return registrytest.NewPostgres(t, append(options, registry.WithMaxConns(1))...)
		}, reads: registry.ErrBusy},
	} {
		t.Run("ErrBusy_"+name, func(t *testing.T) {
			t.Parallel()
			reg := test.open(t, soon, registry.WithKeyring(ring(t, "a")))
			operations := openOperations(t, reg)
			before := dump(t, reg)
			require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
				var (
					all  sync.WaitGroup
					errs sync.Map
				)
				for name, operate := range operations {
					all.Go(func() { errs.Store(name, operate(t.Context(), reg)) })
				}
				all.Wait()
				for name := range operations {
					got, _ := errs.Load(name)
					err, _ := got.(error)
					if openReads(name) && test.reads == nil {
						require.NoError(t, err, name)
						continue
					}
					require.ErrorIs(t, err, registry.ErrBusy, name)
					require.ErrorContains(t, err, "within InTx use the registry that it gives to its function", name)
					require.NotErrorIs(t, err, registry.ErrUncertain, name)
				}
				require.Equal(t, before, dump(t, tx))
				return tx.SetSetting(t.Context(), "and", "goes on")
			}))
			require.NoError(t, reg.SetSetting(t.Context(), "and", "after"))
			require.NoError(t, reg.Close())
		})
	}
	t.Run("ErrBusy_the_same_row", func(t *testing.T) {
		t.Parallel()
		reg := registrytest.NewPostgres(t, registry.WithBusyTimeout(20*time.Millisecond))
		require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			require.NoError(t, tx.SetSetting(t.Context(), "a", "b"))
			err := reg.SetSetting(t.Context(), "a", "c")
			require.ErrorIs(t, err, registry.ErrBusy)
			require.ErrorContains(t, err, "within InTx use the registry that it gives to its function")
			return reg.SetSetting(t.Context(), "another", "does not wait")
		}))
	})
}

// TestRowsLeftOpen writes while rows that were read are left open: the write would wait for their connection for ever.
func TestRowsLeftOpen(t *testing.T) {
	t.Parallel()
	const returning = "INSERT INTO settings (key, value, updated_at)" +
		" VALUES ('x', '', '2026-01-01'), ('y', '', '2026-01-01') RETURNING key"
	for what, of := range map[string]struct{ name, query string }{
		"read_in_memory":    {":memory:", "SELECT 1"},
		"written_in_memory": {":memory:", returning},
		"written_in_a_file": {filepath.Join(t.TempDir(), "registry.db"), returning},
	} {
		t.Run("ErrBusy_"+what, func(t *testing.T) {
			t.Parallel()
			ctx := context.WithoutCancel(t.Context()) // which has no deadline
			reg := mustOpen(t, of.name, registry.WithBusyTimeout(time.Second))
			m, k, err := faultFixture(ctx, reg)
			require.NoError(t, err)
			rows, err := reg.Client().QueryContext(ctx, of.query)
			require.NoError(t, err)
			require.True(t, rows.Next())
			for _, err := range []error{
				reg.SetSetting(ctx, "a", "b"),
				reg.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID}),
				reg.InTx(ctx, func(*registry.Registry) error { return nil }),
			} {
				require.ErrorIs(t, err, registry.ErrBusy)
				require.ErrorContains(t, err, "rows that nobody has closed")
			}
			require.NoError(t, errors.Join(rows.Close(), rows.Err()))
			require.NoError(t, reg.SetSetting(ctx, "a", "b"))
			require.NoError(t, reg.Close())
		})
	}
}

func TestWithBusyTimeout(t *testing.T) {
	t.Parallel()
	holding := func(t *testing.T, reg *registry.Registry, do func()) {
		t.Helper()
		require.NoError(t, reg.InTx(t.Context(), func(*registry.Registry) error {
			do()
			return nil
		}))
	}
	path := func(t *testing.T) string {
		t.Helper()
		return filepath.Join(t.TempDir(), "registry.db")
	}
	t.Run("OK_waits", func(t *testing.T) {
		t.Parallel()
		reg := mustOpen(t, path(t), registry.WithBusyTimeout(time.Minute))
		m, k, err := faultFixture(t.Context(), reg)
		require.NoError(t, err)
		var all sync.WaitGroup
		errs := make([]error, 40)
		holding(t, reg, func() {
			for i := range errs {
				all.Go(func() {
					if i%2 == 0 {
						errs[i] = reg.SetSetting(t.Context(), "a", "b")
					} else {
						errs[i] = reg.RecordUsage(t.Context(), registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID})
					}
				})
			}
		})
		all.Wait()
		require.NoError(t, errors.Join(errs...))
		require.NoError(t, reg.Close())
	})
	t.Run("ErrDeadlineExceeded", func(t *testing.T) {
		t.Parallel()
		reg := mustOpen(t, path(t), registry.WithBusyTimeout(time.Hour))
		m, k, err := faultFixture(t.Context(), reg)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		holding(t, reg, func() {
			for _, err := range []error{
				reg.SetSetting(ctx, "a", "b"), reg.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID}),
			} {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NotErrorIs(t, err, registry.ErrBusy)
			}
		})
		require.NoError(t, reg.Close())
	})
	t.Run("ErrBusy_by_name", func(t *testing.T) {
		t.Parallel()
		reg := mustOpen(t, path(t)+"?_busy_timeout=1")
		holding(t, reg, func() { require.ErrorIs(t, reg.SetSetting(t.Context(), "a", "b"), registry.ErrBusy) })
		require.NoError(t, reg.Close())
	})
	t.Run("ErrBusy_at_once", func(t *testing.T) {
		t.Parallel()
		file := path(t)
		reg := mustOpen(t, file+"?_busy_timeout=60000", registry.WithBusyTimeout(0))
		other := mustOpen(t, file+"?_busy_timeout=0")
		holding(t, reg, func() {
			require.ErrorIs(t, reg.SetSetting(t.Context(), "a", "b"), registry.ErrBusy)
			require.ErrorIs(
				t, other.SetSetting(t.Context(), "a", "b"), registry.ErrBusy, "as another process would be told",
			)
		})
		require.NoError(t, other.SetSetting(t.Context(), "a", "b"))
		require.NoError(t, errors.Join(reg.Close(), other.Close()))
	})
	t.Run("ErrInvalidData", func(t *testing.T) {
		t.Parallel()
		_, err := registry.Open(t.Context(), ":memory:", registry.WithBusyTimeout(-1))
		require.ErrorIs(t, err, registry.ErrInvalidData)
		require.ErrorContains(t, err, "WithBusyTimeout")
	})
}
