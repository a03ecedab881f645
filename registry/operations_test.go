package registry_test

// These tests are about all operations there are, and have no source of their own.

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// rowsUntied returns an error for a row in v, or in the edges of one, that can't be walked on from once the transaction
// that read it has ended.
func rowsUntied(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return rowsUntied(v.Elem())
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if err := rowsUntied(v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		if v.Type().PkgPath() == reflect.TypeFor[ent.Client]().PkgPath() {
			driver := v.FieldByName("driver")
			if driver.IsValid() && !driver.IsNil() && driver.Elem().Type().String() == "*ent.txDriver" {
				return fmt.Errorf("a %s is tied to its transaction", v.Type())
			}
		}
		for i := range v.NumField() {
			if !v.Type().Field(i).IsExported() {
				continue
			}
			if err := rowsUntied(v.Field(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestOperations(t *testing.T) { eachEngine(t, testOperations) }

func testOperations(t *testing.T, e engine) {
	t.Parallel()
	reg := e.new(t, registry.WithKeyring(ring(t, "a")))
	if e.name == onPostgres.name {
		requireService(t, reg)
	}
	operations := openOperations(t, reg)
	var names []string
	for method := range reflect.TypeFor[*registry.Registry]().Methods() {
		switch method.Name {
		case "As", "Client", "Past": // ask nothing of the database
		case "Close": // ends what the others need
		default:
			names = append(names, method.Name)
		}
	}
	require.Equal(t, names, slices.Sorted(maps.Keys(operations)))
	for name, operate := range operations {
		before := dump(t, reg)
		require.NoError(t, operate(t.Context(), reg), name)
		require.Equal(t, openReads(name), before == dump(t, reg), name)
	}
}

func TestCanceled(t *testing.T) { eachEngine(t, testCanceled) }

func testCanceled(t *testing.T, e engine) {
	t.Parallel()
	reg := e.new(t, registry.WithKeyring(ring(t, "a")))
	operations := openOperations(t, reg)
	before := dump(t, reg)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithTimeout(t.Context(), -time.Second)
	defer cancelLate()
	for name, operate := range operations {
		err := operate(ctx, reg)
		require.ErrorIs(t, err, context.Canceled, name)
		require.NotErrorIs(t, err, registry.ErrClosed, name)
		require.ErrorIs(t, operate(late, reg), context.DeadlineExceeded, name)
	}
	require.ErrorIs(t, reg.InTx(ctx, func(*registry.Registry) error {
		require.FailNow(t, "fn is called in an ended context")
		return nil
	}), context.Canceled)
	require.Equal(t, before, dump(t, reg))

	require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
		for name, operate := range operations {
			require.ErrorIs(t, operate(ctx, tx), context.Canceled, name)
		}
		return nil
	}))
	require.Equal(t, before, dump(t, reg))
}

func TestClosed(t *testing.T) {
	t.Parallel()
	for name, database := range map[string]string{
		"file": filepath.Join(t.TempDir(), "registry.db"), "memory": ":memory:",
	} {
		t.Run("ErrClosed_"+name, func(t *testing.T) {
			t.Parallel()
			reg, err := registry.Open(t.Context(), database, registry.WithKeyring(ring(t, "a")))
			require.NoError(t, err)
			operations := openOperations(t, reg)
			require.NoError(t, reg.Close())
			require.NoError(t, reg.Close())
			for name, operate := range operations {
				require.ErrorIs(t, operate(t.Context(), reg), registry.ErrClosed, name)
			}
			require.NotNil(t, reg.Client())
		})
	}
	t.Run("ErrClosed_ended_transaction", func(t *testing.T) {
		t.Parallel()
		reg := registrytest.New(t, registry.WithKeyring(ring(t, "a")))
		operations := openOperations(t, reg)
		before := dump(t, reg)
		var ended []*registry.Registry
		require.NoError(
			t, reg.InTx(t.Context(), func(tx *registry.Registry) error { ended = append(ended, tx); return nil }),
		)
		require.ErrorIs(
			t,
			reg.InTx(t.Context(), func(tx *registry.Registry) error { ended = append(ended, tx); return errRollback }),
			errRollback,
		)
		for _, tx := range ended {
			for name, operate := range operations {
				require.ErrorIs(t, operate(t.Context(), tx), registry.ErrClosed, name)
			}
		}
		require.Equal(t, before, dump(t, reg))
	})
	t.Run("ErrInvalidData_within_a_transaction", func(t *testing.T) {
		t.Parallel()
		reg := registrytest.New(t)
		require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			require.ErrorIs(t, tx.Close(), registry.ErrInvalidData)
			return tx.SetSetting(t.Context(), "still", "open")
		}))
		require.NoError(t, reg.SetSetting(t.Context(), "and", "after"))
	})
}
