package registry_test

// These tests have files, disks and processes fail, and have no source of their own.

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// Nothing is acknowledged that goes to a file which nobody will find again. The tests are in bubbles, whose time moves
// when everybody waits.
func TestFileReplaced(t *testing.T) {
	t.Parallel()
	remove := func(t *testing.T, path string) {
		t.Helper()
		require.NoError(t, os.Remove(path))
	}
	replace := func(t *testing.T, path string) {
		t.Helper()
		other := mustOpen(t, path+".other")
		require.NoError(t, other.SetSetting(t.Context(), "other", "file"))
		require.NoError(t, other.Close())
		require.NoError(t, os.Rename(path+".other", path))
	}
	for name, hide := range map[string]func(*testing.T, string){"removed": remove, "replaced": replace} {
		t.Run("ErrUnavailable_"+name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "registry.db")
			synctest.Test(t, func(t *testing.T) {
				reg := mustOpen(t, path)
				m, k, err := faultFixture(t.Context(), reg)
				require.NoError(t, err)
				refused := func(err error) {
					require.ErrorIs(t, err, registry.ErrUnavailable)
					require.ErrorContains(t, err, "removed or replaced")
				}
				refused(reg.InTx(t.Context(), func(tx *registry.Registry) error {
					require.NoError(t, tx.SetSetting(t.Context(), "under", "way"))
					hide(t, path)
					<-time.After(time.Second)
					return nil
				}))
				refused(reg.SetSetting(t.Context(), "a", "b"))
				refused(reg.RecordUsage(t.Context(), registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID}))
				_, err = reg.Client().ExecContext(t.Context(), "DELETE FROM settings")
				require.ErrorContains(t, err, "removed or replaced") // Ent's own
				require.NoError(t, reg.Close())
			})
		})
	}
	t.Run("OK_moved_and_back", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "registry.db")
		synctest.Test(t, func(t *testing.T) {
			reg := mustOpen(t, path)
			require.NoError(t, reg.SetSetting(t.Context(), "a", "b"))
			require.NoError(t, os.Rename(path, path+".away"))
			<-time.After(time.Second)
			require.ErrorIs(t, reg.SetSetting(t.Context(), "a", "c"), registry.ErrUnavailable)
			require.NoError(t, os.Rename(path+".away", path))
			require.NoError(t, reg.SetSetting(t.Context(), "a", "d"))
			require.NoError(t, reg.Close())
		})
	})
	// A connection that is opened later is to the same file.
	t.Run("ErrUnavailable_new_reader", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "registry.db")
		reg := mustOpen(t, path)
		defer func() { require.NoError(t, reg.Close()) }()
		replace(t, path)
		// takes the connection that is open, if there is one
		rows, err := reg.Client().QueryContext(t.Context(), "SELECT 1")
		for err == nil {
			defer func() { require.NoError(t, rows.Close()) }()
			require.NoError(t, rows.Err())
			rows, err = reg.Client().QueryContext(t.Context(), "SELECT 1")
		}
		require.ErrorContains(t, err, "removed or replaced")
		_, err = reg.GetSetting(t.Context(), "other")
		require.ErrorIs(t, err, registry.ErrUnavailable)
	})
}
