package registry

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
)

// onEach runs a test on a database of each kind that two registries have opened.
func onEach(t *testing.T, test func(t *testing.T, open func(t *testing.T) (reg, other *Registry))) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: thousands of rows")
	}
	t.Parallel()
	now := time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	ring, err := NewKeyring("a", map[string][]byte{"a": slices.Repeat([]byte{'a', 'b'}, KeyringKeySize/2)})
	require.NoError(t, err)
	for engine, name := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { t.Helper(); return filepath.Join(t.TempDir(), "registry.db") },
		"postgres": func(t *testing.T) string { t.Helper(); return pgtest.Database(t, "", nil) },
	} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			test(t, func(t *testing.T) (reg, other *Registry) {
				t.Helper()
				database := name(t)
				all := make([]*Registry, 2)
				for i := range all {
					var err error
					all[i], err = Open(
						t.Context(), database, WithClock(func() time.Time { return now }), WithKeyring(ring),
					)
					require.NoError(t, err)
					t.Cleanup(func() { require.NoError(t, all[i].Close()) })
				}
				return all[0], all[1]
			})
		})
	}
}
