package registry_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3" // the driver sqlite3, to make databases that are none of ours
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// A file that is refused is as it was: its bytes, its mode and what lies beside it.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 20_000)
	_, err := rand.Read(noise)
	require.NoError(t, err)
	write := func(content []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			require.NoError(t, os.WriteFile(path, content, 0o600))
		}
	}
	foreign := func(statement string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			openForeign(t, path, statement)
		}
	}
	ours := func(statement string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			openOnce(t, path)
			// In this journal mode nothing lies beside the file.
			openForeign(t, path, statement, "PRAGMA journal_mode = DELETE")
		}
	}
	for name, test := range map[string]struct {
		make func(t *testing.T, path string)
		want []error
	}{
		"random_bytes": {make: write(noise), want: []error{registry.ErrCorrupt}},
		"text": {
			make: write([]byte(strings.Repeat("This is no database.\n", 100))), want: []error{registry.ErrCorrupt},
		},
		"short_text":   {make: write([]byte("no")), want: []error{registry.ErrCorrupt}},
		"header_alone": {make: write([]byte("SQLite format 3\x00")), want: []error{registry.ErrCorrupt}},
		"zeroes":       {make: write(make([]byte, 8192)), want: []error{registry.ErrCorrupt}},
		"other_tables": {make: foreign("CREATE TABLE t (x)"), want: []error{registry.ErrSchema, migrate.ErrForeign}},
		"other_id": {
			make: foreign("PRAGMA application_id = 42"), want: []error{registry.ErrSchema, migrate.ErrForeign},
		},
		"our_tables_other_id": {
			make: ours("PRAGMA application_id = 42"), want: []error{registry.ErrSchema, migrate.ErrForeign},
		},
		"newer": {
			make: ours("INSERT INTO atlas_schema_revisions SELECT '29991231235959', 'future', type, applied, total," +
				" executed_at," +
				" execution_time, error, error_stmt, hash, partial_hashes, operator_version FROM" +
				" atlas_schema_revisions LIMIT 1"),
			want: []error{registry.ErrSchema, migrate.ErrNewer},
		},
		"edited": {
			make: ours("UPDATE atlas_schema_revisions SET hash = 'h1:other'"),
			want: []error{registry.ErrSchema, migrate.ErrEdited},
		},
		"no_history": {
			make: ours("DELETE FROM atlas_schema_revisions"), want: []error{registry.ErrSchema, migrate.ErrForeign},
		},
	} {
		t.Run("Err_"+name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "other.db")
			test.make(t, path)
			require.NoError(t, os.Chmod(path, 0o640))
			before := openState(t, dir)
			for _, options := range [][]registry.Option{nil, {registry.WithoutMigration()}} {
				_, err := registry.Open(t.Context(), path, options...)
				for _, want := range test.want {
					require.ErrorIs(t, err, want)
				}
				require.ErrorContains(t, err, path)
				require.Equal(t, before, openState(t, dir))
			}
		})
	}
}

func TestWithoutMigration(t *testing.T) {
	t.Parallel()
	t.Run("OK_up_to_date", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "registry.db")
		openOnce(t, path)
		openOnce(t, path, registry.WithoutMigration())
	})
	t.Run("ErrInvalidData_missing", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		_, err := registry.Open(t.Context(), filepath.Join(dir, "registry.db"), registry.WithoutMigration())
		require.ErrorIs(t, err, registry.ErrInvalidData)
		require.Empty(t, openState(t, dir))
	})
	t.Run("ErrSchema_pending", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		path := filepath.Join(dir, "registry.db")
		for name, prepare := range map[string]func(){
			"empty": func() { require.NoError(t, os.WriteFile(path, nil, 0o640)) },
			"ours":  func() { openForeign(t, path, fmt.Sprintf("PRAGMA application_id = %d", migrate.ApplicationID)) },
		} {
			prepare()
			before := openState(t, dir)
			_, err := registry.Open(t.Context(), path, registry.WithoutMigration())
			require.ErrorIs(t, err, registry.ErrSchema, name)
			require.ErrorContains(t, err, "_init.sql", name)
			require.Equal(t, before, openState(t, dir), name)
			require.NoError(t, os.Remove(path))
		}
		_, err := registry.Open(t.Context(), ":memory:", registry.WithoutMigration())
		require.ErrorIs(t, err, registry.ErrSchema)
	})
}

// TestOpenRefusesAndLeavesNothing: what is refused leaves nothing beside it either.
func TestOpenRefusesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		make func(path string)
		want error
	}{
		"one_byte": {
			make: func(path string) { require.NoError(t, os.WriteFile(path, []byte("x"), 0o600)) },
			want: registry.ErrCorrupt,
		},
		"wal_foreign": {make: func(path string) {
			openForeign(t, path, "PRAGMA journal_mode = WAL", "CREATE TABLE t (x)")
		}, want: registry.ErrSchema},
		"wal_edited": {make: func(path string) {
			openOnce(t, path)
			openForeign(t, path, "UPDATE atlas_schema_revisions SET hash = 'h1:other'")
		}, want: registry.ErrSchema},
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
