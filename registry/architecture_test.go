package registry_test

// These tests compare docs/architecture.md with the sources, and have no source of their own.

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRooms compares the picture in docs/architecture.md with what the packages import. Programs and what only
// tests use are not in it; ent and its packages are one room.
func TestRooms(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/architecture.md")
	require.NoError(t, err)
	_, picture, ok := strings.Cut(string(text), "```mermaid\n")
	require.True(t, ok)
	picture, _, ok = strings.Cut(picture, "```")
	require.True(t, ok)
	var drawn []string
	for _, line := range regexp.MustCompile(`(?m)^  (\S+) --> (.*)$`).FindAllStringSubmatch(picture, -1) {
		for _, to := range strings.Split(line[2], " & ") {
			drawn = append(drawn, line[1]+" --> "+to)
		}
	}
	slices.Sort(drawn)
	require.Equal(t, arrows(t), drawn, "what is imported, and what is drawn")
	for _, arrow := range drawn {
		from, to, _ := strings.Cut(arrow, " --> ")
		for _, room := range []string{from, to} {
			require.Regexp(t, "(?m)^\\|.*`"+room+"`.* \\|", string(text), "the table of rooms")
		}
	}
}

// arrows returns which package of this module imports which one.
func arrows(t *testing.T) (found []string) {
	t.Helper()
	const module = "github.com/jeffersonwarrior/modelscan/"
	room := func(path string) string {
		if strings.HasPrefix(path, "ent/") {
			return "ent"
		}
		return path
	}
	skipped := []string{".git", "testdata", "bench", "cmd", "examples", "tools", "registrytest"}
	require.NoError(t, filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		dir := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), ".."+string(filepath.Separator)))
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(skipped, entry.Name()):
			return filepath.SkipDir
		case entry.IsDir(), filepath.Ext(path) != ".go", strings.HasSuffix(path, "_test.go"), dir == "internal/pgtest",
			dir == "ent/enttest":
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			to, ours := strings.CutPrefix(imported, module)
			if from := room(dir); ours && from != room(to) {
				found = append(found, from+" --> "+room(to))
			}
		}
		return nil
	}))
	slices.Sort(found)
	return slices.Compact(found)
}
