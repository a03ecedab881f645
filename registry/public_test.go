package registry_test

// This test reads all packages that users import, and has no source of its own.

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPublic reads the packages that users import: what they see must be declared there, for go doc shows nothing of
// what an internal package declares.
func TestPublic(t *testing.T) {
	t.Parallel()
	declarations := 0
	for _, dir := range []string{".", "registrytest", "../money", "../meter", "../catalog", "../migrate"} {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			require.NoError(t, err)
			require.Empty(t, publicFaults(file), name)
			declarations += len(file.Decls)
		}
	}
	require.Greater(t, declarations, 500, "the packages were read")

	for source, want := range map[string]int{
		"type A = x.T":                               1,
		"type A struct { F x.T }":                    1,
		"type A struct { f x.T }":                    0,
		"type A interface { M(x.T) }":                1,
		"type a = x.T":                               0,
		"func F() (int, *x.T) { return 0, nil }":     1,
		"func f() x.T { return x.T{} }":              0,
		"type A int; func (A) M(...x.T) {}":          1,
		"type a int; func (a) M(x.T) {}":             0,
		"func F[T x.T]() {}":                         1,
		"func F() { var _ x.T }":                     0,
		"type A struct { F func(map[string][]x.T) }": 1,
		"type A struct { F func(m x.T) }":            1,
	} {
		file, err := parser.ParseFile(
			token.NewFileSet(), "", `package p; import x "example.com/internal/y"; `+source, 0,
		)
		require.NoError(t, err)
		require.Len(t, publicFaults(file), want, source)
	}
}

// publicFaults returns the exported declarations of a file that show something of an internal package.
func publicFaults(file *ast.File) (found []string) {
	internal := map[string]bool{}
	for _, spec := range file.Imports {
		path := strings.Trim(spec.Path.Value, `"`)
		if strings.Contains(path, "/internal/") {
			name := path[strings.LastIndex(path, "/")+1:]
			if spec.Name != nil {
				name = spec.Name.Name
			}
			internal[name] = true
		}
	}
	look := func(of string, node ast.Node) {
		ast.Inspect(node, func(n ast.Node) bool {
			if field, ok := n.(*ast.Field); ok && len(field.Names) > 0 && !anyExported(field.Names) &&
				isField(node, field) {
				return false
			}
			if s, ok := n.(*ast.SelectorExpr); ok {
				if pkg, ok := s.X.(*ast.Ident); ok && internal[pkg.Name] {
					found = append(found, of+" shows "+pkg.Name+"."+s.Sel.Name)
				}
			}
			return true
		})
	}
	for _, declaration := range file.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && (d.Recv == nil || exportedReceiver(d.Recv)) {
				look(d.Name.Name, d.Type)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() {
						look(s.Name.Name, s)
					}
				case *ast.ValueSpec:
					if s.Type != nil && anyExported(s.Names) {
						look(s.Names[0].Name, s.Type)
					}
				}
			}
		}
	}
	return found
}

// isField tells a field of the struct that a declaration declares from a parameter.
func isField(declaration ast.Node, field *ast.Field) bool {
	spec, ok := declaration.(*ast.TypeSpec)
	if !ok {
		return false
	}
	s, ok := spec.Type.(*ast.StructType)
	return ok && slices.Contains(s.Fields.List, field)
}

func anyExported(names []*ast.Ident) bool {
	for _, name := range names {
		if name.IsExported() {
			return true
		}
	}
	return false
}

func exportedReceiver(receiver *ast.FieldList) bool {
	exported := false
	ast.Inspect(receiver.List[0].Type, func(n ast.Node) bool {
		if name, ok := n.(*ast.Ident); ok && !exported {
			exported = name.IsExported()
		}
		return true
	})
	return exported
}
