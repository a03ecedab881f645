package registry_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestOpenRefusesAndLeavesNothing: what is refused leaves nothing beside it either.
func TestOpenRefusesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		make func(path string)
		want error
	}{
		"one_byte": {func(path string) { require.NoError(t, os.WriteFile(path, []byte("x"), 0o600)) }, registry.ErrCorrupt},
		"wal_foreign": {func(path string) {
			openForeign(t, path, "PRAGMA journal_mode = WAL", "CREATE TABLE t (x)")
		}, registry.ErrSchema},
		"wal_edited": {func(path string) {
			openOnce(t, path)
			openForeign(t, path, "UPDATE atlas_schema_revisions SET hash = 'h1:other'")
		}, registry.ErrSchema},
	} {
		t.Run("Err_"+name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "other.db")
			test.make(path)
			before := openState(t, dir)
			_, err := registry.Open(t.Context(), path)
			require.ErrorIs(t, err, test.want)
			require.Equal(t, before, openState(t, dir))
		})
	}
}
