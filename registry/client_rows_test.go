package registry_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestRows walks on from rows that operations have returned.
func TestRows(t *testing.T) { eachEngine(t, testRows) }

func testRows(t *testing.T, e engine) {
	t.Parallel()
	t.Run("OK_operations", func(t *testing.T) { // openSecond looks at what they return
		t.Parallel()
		reg := e.new(t, registry.WithKeyring(ring(t, "a")))
		for name, operate := range openOperations(t, reg) {
			require.NoError(t, operate(t.Context(), reg), name)
		}
	})
	t.Run("OK_operations_in_a_transaction", func(t *testing.T) {
		t.Parallel()
		reg := e.new(t, registry.WithKeyring(ring(t, "a")))
		for name, operate := range openOperations(t, reg) {
			if name == "Prune" { // which is no part of a transaction
				continue
			}
			require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
				return operate(t.Context(), tx)
			}), name)
		}
	})
	t.Run("OK_after_a_write", func(t *testing.T) {
		t.Parallel()
		reg, _ := e.setup(t)
		p := mustProvider(t, reg, "openai")
		m := mustModel(t, reg, p.ID, "gpt-4", gpt4())
		record(t, reg, m, mustKey(t, reg, p.ID, 1), 1, 1)
		require.Equal(t, 1, must(m.QueryUsageEvents().Count(t.Context())))
		require.Equal(t, p.ID, must(m.QueryProvider().Only(t.Context())).ID)
		require.Equal(t, 1, must(must(m.QueryProvider().Only(t.Context())).QueryModels().Count(t.Context())), "and on")
		_, err := m.Update().SetDescription("x").Save(t.Context())
		require.ErrorIs(t, err, registry.ErrReadOnly)
	})
	t.Run("OK_in_a_transaction_and_after_it", func(t *testing.T) {
		t.Parallel()
		reg, _ := e.setup(t)
		var p, found, undone *ent.Provider
		require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			p = mustProvider(t, tx, "openai")
			found = must(tx.FindProvider(t.Context(), "openai"))
			mustModel(t, tx, p.ID, "gpt-4", gpt4())
			listed := must(tx.ListProviders(t.Context(), registry.ProviderFilter{}))[0]
			for _, row := range []*ent.Provider{p, found, listed} {
				require.Equal(t, 1, must(row.QueryModels().Count(t.Context())), "what is not committed yet")
			}
			for _, row := range []*ent.Provider{p, found, listed} {
				require.ErrorIs(t, row.Update().SetDescription("x").Exec(t.Context()), registry.ErrReadOnly)
			}
			must(tx.UpdateProvider(t.Context(), p.ID, registry.ProviderUpdate{Description: ptr("x")}))
			require.ErrorIs(t, tx.InTx(t.Context(), func(tx *registry.Registry) error {
				undone = must(tx.UpdateProvider(t.Context(), p.ID, registry.ProviderUpdate{Description: ptr("y")}))
				return errRollback
			}), errRollback)
			return nil
		}))
		mustModel(t, reg, p.ID, "gpt-5", gpt4())
		for _, row := range []*ent.Provider{p, found, undone} {
			require.Equal(t, 2, must(row.QueryModels().Count(t.Context())))
		}
		require.Equal(t, "x", must(reg.GetProvider(t.Context(), p.ID)).Description)
	})
	t.Run("Err_rolled_back", func(t *testing.T) {
		t.Parallel()
		reg, _ := e.setup(t)
		var p *ent.Provider
		require.ErrorIs(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			p = mustProvider(t, tx, "openai")
			return errRollback
		}), errRollback)
		require.Zero(t, must(p.QueryModels().Count(t.Context())))
		require.ErrorIs(t, p.Update().SetDescription("x").Exec(t.Context()), registry.ErrReadOnly)
	})
}
