package registry_test

import (
	"context"
	"runtime"
	"testing"

	_ "github.com/mattn/go-sqlite3" // the driver sqlite3, to make databases that are none of ours
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// settingKeys returns the keys of all settings.
func settingKeys(t *testing.T, reg *registry.Registry) []string {
	t.Helper()
	all, err := reg.ListSettings(t.Context(), registry.SettingFilter{})
	require.NoError(t, err)
	keys := []string{}
	for _, s := range all {
		keys = append(keys, s.ID)
	}
	return keys
}

func TestInTx(t *testing.T) { eachEngineAtOnce(t, testInTx) }

func testInTx(t *testing.T, e engine) {
	t.Parallel()
	t.Run("OK_commit", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t)
		require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			p := mustProvider(t, tx, "openai")
			k := mustKey(t, tx, p.ID, 1)
			record(t, tx, mustModel(t, tx, p.ID, "gpt-4", gpt4()), k, 1, 1)
			// Others do not see it, and do not wait.
			all, err := reg.ListProviders(t.Context(), registry.ProviderFilter{})
			require.NoError(t, err)
			require.Empty(t, all)
			used, err := tx.GetLeastUsedKey(t.Context(), p.ID)
			require.NoError(t, err)
			require.Equal(t, int64(1), used.UsageCount)
			return nil
		}))
		_, err := reg.FindProvider(t.Context(), "openai")
		require.NoError(t, err)
	})
	t.Run("ErrOfFn", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t)
		before := dump(t, reg)
		err := reg.InTx(t.Context(), func(tx *registry.Registry) error {
			mustProvider(t, tx, "openai")
			require.NotEqual(t, before, dump(t, tx))
			return errRollback
		})
		require.Equal(t, errRollback, err, "it is returned as it is")
		require.Equal(t, before, dump(t, reg))
	})
	t.Run("OK_after_an_error_of_an_operation", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t)
		require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			p := mustProvider(t, tx, "openai")
			_, err := tx.CreateProvider(t.Context(), registry.ProviderInput{Name: "openai"})
			require.ErrorIs(t, err, registry.ErrConflict)
			// Of these two the first is good, and is undone with the second.
			_, err = tx.CreateModels(t.Context(), []registry.ModelInput{
				{ProviderID: p.ID, ModelID: "twice"}, {ProviderID: p.ID, ModelID: "twice"},
			})
			require.ErrorIs(t, err, registry.ErrConflict)
			mustModel(t, tx, p.ID, "once", nil)
			return nil
		}))
		models, err := reg.ListModels(t.Context(), registry.ModelFilter{})
		require.NoError(t, err)
		require.Equal(t, []string{"once"}, []string{models[0].ModelID})
	})
	t.Run("OK_nested", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t)
		put := func(tx *registry.Registry, key string) { require.NoError(t, tx.SetSetting(t.Context(), key, "")) }
		require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			put(tx, "1")
			require.NoError(t, tx.InTx(t.Context(), func(tx *registry.Registry) error {
				put(tx, "2 kept")
				require.Equal(t, errRollback, tx.InTx(t.Context(), func(tx *registry.Registry) error {
					put(tx, "3 undone")
					return tx.InTx(t.Context(), func(tx *registry.Registry) error {
						put(tx, "4 undone")
						return errRollback
					})
				}))
				put(tx, "5 kept")
				return nil
			}))
			require.Equal(t, errRollback, tx.InTx(t.Context(), func(tx *registry.Registry) error {
				put(tx, "6 undone")
				require.NoError(t, tx.InTx(t.Context(), func(tx *registry.Registry) error {
					put(tx, "7 undone with its surroundings")
					return nil
				}))
				return errRollback
			}))
			require.Panics(t, func() {
				_ = tx.InTx(t.Context(), func(tx *registry.Registry) error {
					put(tx, "8 undone")
					panic("in a nested transaction")
				})
			})
			put(tx, "9 kept")
			return nil
		}))
		require.Equal(t, []string{"1", "2 kept", "5 kept", "9 kept"}, settingKeys(t, reg))
		require.Equal(t, errRollback, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			require.NoError(t, tx.InTx(t.Context(), func(tx *registry.Registry) error {
				put(tx, "lost with the outer one")
				return nil
			}))
			return errRollback
		}))
		require.Len(t, settingKeys(t, reg), 4)
	})
}

// TestInTxEnds ends transactions by a panic, by leaving the goroutine and by the end of a context.
func TestInTxEnds(t *testing.T) { eachEngineAtOnce(t, testInTxEnds) }

func testInTxEnds(t *testing.T, e engine) {
	t.Parallel()
	t.Run("ErrPanic", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t)
		for range 3 {
			require.PanicsWithValue(t, "of the caller", func() {
				_ = reg.InTx(t.Context(), func(tx *registry.Registry) error {
					require.NoError(t, tx.SetSetting(t.Context(), "a", "b"))
					panic("of the caller")
				})
			})
		}
		require.Empty(t, settingKeys(t, reg))
		require.NoError(t, reg.SetSetting(t.Context(), "the pool", "is usable"))
	})
	t.Run("ErrGoexit", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t)
		done := make(chan struct{})
		go func() { // as t.FailNow does in a test
			defer close(done)
			_ = reg.InTx(t.Context(), func(tx *registry.Registry) error {
				if err := tx.SetSetting(t.Context(), "a", "b"); err != nil {
					return err
				}
				return tx.InTx(t.Context(), func(*registry.Registry) error {
					runtime.Goexit()
					return nil
				})
			})
		}()
		<-done
		require.Empty(t, settingKeys(t, reg))
		require.NoError(t, reg.SetSetting(t.Context(), "the pool", "is usable"))
	})
	t.Run("ErrCanceled_before_commit", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t)
		for i := range 20 { // the rollback comes at once, or at the commit
			ctx, cancel := context.WithCancel(t.Context())
			err := reg.InTx(ctx, func(tx *registry.Registry) error {
				err := tx.SetSetting(ctx, "a", "b")
				cancel()
				for i%2 == 0 && err == nil {
					if _, over := tx.GetSetting(t.Context(), "a"); over != nil {
						break
					}
				}
				return err
			})
			require.ErrorIs(t, err, context.Canceled)
			require.NotErrorIs(t, err, registry.ErrClosed)
			require.Empty(t, settingKeys(t, reg))
		}
		require.NoError(t, reg.SetSetting(t.Context(), "the pool", "is usable"))
	})
}
