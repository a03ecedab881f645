package registry

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent"
)

// TestImportInPieces imports a catalogue while others write: no piece is of more models than it may be, or those of one
// provider. Within a transaction there are no pieces.
func TestImportInPieces(t *testing.T) {
	onEach(t, func(t *testing.T, open func(t *testing.T) (reg, other *Registry)) {
		t.Helper()
		reg, other := open(t)
		ctx, pauses, seen := t.Context(), 0, 0
		reg.pieceRows = 100 * importWeight
		reg.between = func(ctx context.Context) error {
			pauses++
			within, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			if err := other.SetSetting(within, "pauses", strconv.Itoa(pauses)); err != nil {
				return err
			}
			n, largest := other.Client().Model.Query().CountX(ctx), 0
			for _, p := range catalog.Catwalk().Providers {
				largest = max(largest, len(p.Models))
			}
			require.Less(t, n-seen, 100+largest)
			seen = n
			return nil
		}
		undone := errors.New("undone")
		require.ErrorIs(t, reg.InTx(ctx, func(tx *Registry) error {
			report, err := tx.ImportCatalog(ctx, catalog.Catwalk(), nil)
			require.NoError(t, err)
			require.Equal(t, ImportChanges{Created: 1506}, report.Models)
			return undone
		}), undone)
		report, err := reg.ImportCatalog(ctx, catalog.Catwalk(), nil)
		require.NoError(t, err)
		require.Equal(t, ImportChanges{Created: 1506}, report.Models)
		require.GreaterOrEqual(t, pauses, 6)
	})
}

// TestOthersWriteBetween: others write between the steps of Prune, and between those of RotateKeyring.
func TestOthersWriteBetween(t *testing.T) {
	onEach(t, func(t *testing.T, open func(t *testing.T) (reg, other *Registry)) {
		t.Helper()
		reg, other := open(t)
		ctx, c, long := t.Context(), reg.Past(), reg.now().AddDate(-1, 0, 0)
		for range 3 {
			logs := make([]*ent.DiscoveryLogCreate, pruneRows)
			for i := range logs {
				logs[i] = c.DiscoveryLog.Create().SetIdentifier(strconv.Itoa(i)).SetStartedAt(long)
			}
			require.NoError(t, c.DiscoveryLog.CreateBulk(logs...).Exec(ctx))
		}
		pauses := 0
		reg.between = func(ctx context.Context) error {
			pauses++
			within, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			return other.SetSetting(within, "pauses", strconv.Itoa(pauses))
		}
		report, err := reg.Prune(ctx, PruneInput{})
		require.NoError(t, err)
		require.EqualValues(t, 3*pruneRows, report.Discoveries)
		require.GreaterOrEqual(t, pauses, 3)

		pauses = 0
		for _, provider := range []string{"p", "q"} {
			p, err := reg.CreateProvider(ctx, ProviderInput{Name: provider})
			require.NoError(t, err)
			for i := range MaxKeysPerProvider {
				_, err := reg.AddAPIKey(ctx, KeyInput{ProviderID: p.ID, APIKey: fmt.Sprintf("sk-test-%012d", i)})
				require.NoError(t, err)
			}
		}
		rotated, err := reg.RotateKeyring(ctx, KeyringRotationInput{DataKey: true})
		require.NoError(t, err)
		require.Equal(t, 2*MaxKeysPerProvider, rotated.Resealed)
		require.Equal(t, 2, pauses)
	})
}
