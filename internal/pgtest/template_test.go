package pgtest_test

import (
	"io/fs"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
)

// TestTemplate: nothing stays of a folder that could not be made.
func TestTemplate(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	made, err := pgtest.NewTemplate(t.Context(), "/no/such/folder")
	require.ErrorIs(t, err, fs.ErrNotExist, "there is no initdb")
	require.Nil(t, made)
	left, err := os.ReadDir(os.TempDir())
	require.NoError(t, err)
	require.Empty(t, left)
}
