package registry_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOperationsAreInIndex checks that the index of the package's documentation has each operation once.
func TestOperationsAreInIndex(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments|parser.PackageClauseOnly)
	require.NoError(t, err)

	var listed []string
	for line := range strings.Lines(indexOf(t, file)) {
		if item, found := strings.CutPrefix(strings.TrimSpace(line), "- ["); found {
			name, text, closed := strings.Cut(item, "] ")
			require.True(t, closed && strings.TrimSpace(text) != "", "%q says what it does", line)
			listed = append(listed, name)
		}
	}

	require.ElementsMatch(t, append(methodsOf(t, "Registry"), "All", "Move", "Open"), listed)
}

// methodsOf returns the exported methods of a type, as its files declare them.
func methodsOf(t *testing.T, name string) (methods []string) {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv == nil || !f.Name.IsExported() {
				continue
			}
			if of, ok := f.Recv.List[0].Type.(*ast.StarExpr); ok {
				if of, ok := of.X.(*ast.Ident); ok && of.Name == name {
					methods = append(methods, name+"."+f.Name.Name)
				}
			}
		}
	}
	return methods
}

// indexOf returns the section of a package's documentation that lists its operations.
func indexOf(t *testing.T, file *ast.File) string {
	t.Helper()
	_, index, found := strings.Cut(file.Doc.Text(), "# Operations\n")
	require.True(t, found)
	index, _, found = strings.Cut(index, "\n# ")
	require.True(t, found)
	return index
}
