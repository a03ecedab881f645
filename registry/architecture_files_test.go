package registry_test

// These tests compare docs/architecture.md with the sources, and have no source of their own.

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/packages"

	"github.com/jeffersonwarrior/modelscan/internal/sample"
)

const module = "github.com/jeffersonwarrior/modelscan/"

// mostInCycle is how many files of a package may need each other.
const mostInCycle = 6

// ways are operations, and in how many files at the most their way to SQL is: what an operation calls, and from where
// Ent, package bulk or package store is called in the end.
var ways = map[string]int{
	"RecordUsage": 12, "GetUsageStats": 8, "UpdateModelPricing": 14, "ImportCatalog": 8,
}

// sources are the packages that are written by hand, with what the type checker says of them; but for ent/schema, where
// both ends of an edge name each other.
type sources struct {
	fset     *token.FileSet
	packages []*packages.Package
}

func loadSources(t *testing.T) sources {
	t.Helper()
	long(t, "all packages are type-checked")
	s, err := typeChecked()
	require.NoError(t, err)
	require.Greater(t, len(s.packages), 20)
	return s
}

var typeChecked = sync.OnceValues(func() (s sources, err error) {
	s.fset = token.NewFileSet()
	s.packages, err = packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo |
			packages.NeedImports,
		Dir: "..", Fset: s.fset,
	}, ".", "./registry", "./internal/...", "./migrate", "./catalog", "./meter", "./money", "./cmd/...")
	return s, err
})

// place names a declaration. Objects of other packages are read from their export data, which keeps positions.
func (s sources) place(o types.Object) string {
	if f, ok := o.(*types.Func); ok {
		o = f.Origin()
	}
	p := s.fset.Position(o.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// TestFileCycles: files that need each other are read together.
func TestFileCycles(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	s := loadSources(t)
	for _, p := range s.packages {
		needs := map[string]map[string]bool{}
		for id, o := range p.TypesInfo.Uses {
			if _, is := o.(*types.PkgName); is || o.Pkg() != p.Types || !o.Pos().IsValid() {
				continue
			}
			from, to := filepath.Base(s.fset.Position(id.Pos()).Filename), filepath.Base(s.fset.Position(o.Pos()).
				Filename)
			if from != to {
				if needs[from] == nil {
					needs[from] = map[string]bool{}
				}
				needs[from][to] = true
			}
		}
		for _, cycle := range cycles(needs) {
			t.Log(strings.TrimPrefix(p.PkgPath, module), len(cycle), cycle)
			assertAtMost(t, mostInCycle, cycle)
		}
	}
}

// cycles returns the sets of nodes of which each can be reached from each.
func cycles(edges map[string]map[string]bool) (all [][]string) {
	reach := map[string]map[string]bool{}
	for from := range edges {
		seen := map[string]bool{}
		for next := slices.Collect(maps.Keys(edges[from])); len(next) > 0; {
			at := next[0]
			next = next[1:]
			if !seen[at] {
				seen[at] = true
				next = slices.AppendSeq(next, maps.Keys(edges[at]))
			}
		}
		reach[from] = seen
	}
	for _, from := range slices.Sorted(maps.Keys(reach)) {
		if !reach[from][from] {
			continue
		}
		var cycle []string
		for to := range reach[from] {
			if reach[to][from] {
				cycle = append(cycle, to)
			}
		}
		if slices.Sort(cycle); cycle[0] == from {
			all = append(all, cycle)
		}
	}
	return all
}

// TestWays follows operations to where SQL begins.
func TestWays(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	s := loadSources(t)
	calls, starts, ends := s.calls()
	for name, most := range ways {
		require.Contains(t, starts, name)
		leads := map[string]bool{}
		files := map[string]bool{}
		var follow func(at string, path map[string]bool) bool
		done := map[string]bool{}
		follow = func(at string, path map[string]bool) bool {
			if done[at] || path[at] {
				return leads[at]
			}
			path[at] = true
			for to := range calls[at] {
				if ends[to] || follow(to, path) {
					leads[at] = true
				}
			}
			delete(path, at)
			done[at] = true
			return leads[at]
		}
		follow(starts[name], map[string]bool{})
		for at := range leads {
			file, _, _ := strings.Cut(at, ".go:")
			files[file[strings.LastIndex(file[:strings.LastIndex(file, "/")], "/")+1:]+".go"] = true
		}
		way := slices.Sorted(maps.Keys(files))
		t.Log(name, len(way), way)
		assertAtMost(t, most, way)
	}
}

// assertAtMost has the test fail if there are too many files, and go on.
func assertAtMost(t *testing.T, most int, files []string) {
	t.Helper()
	if len(files) > most {
		t.Errorf("%d files are more than %d: %v", len(files), most, files)
	}
}

// calls returns which functions each function names, where the methods of Registry are, and where SQL begins.
func (s sources) calls() (calls map[string]map[string]bool, starts map[string]string, ends map[string]bool) {
	calls, starts, ends = map[string]map[string]bool{}, map[string]string{}, map[string]bool{}
	for _, p := range s.packages {
		if strings.HasPrefix(p.PkgPath, module+"cmd/") {
			continue
		}
		for _, file := range p.Syntax {
			for _, d := range file.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok || f.Body == nil {
					continue
				}
				o := p.TypesInfo.Defs[f.Name]
				from := s.place(o)
				if p.PkgPath == module+"registry" && f.Recv != nil {
					starts[f.Name.Name] = from
				}
				calls[from] = map[string]bool{}
				ast.Inspect(f.Body, func(n ast.Node) bool {
					id, ok := n.(*ast.Ident)
					if !ok {
						return true
					}
					if to, ok := p.TypesInfo.Uses[id].(*types.Func); ok && to.Pkg() != nil {
						calls[from][s.place(to)] = true
						if isSQL(to) {
							ends[s.place(to)] = true
						}
					}
					return true
				})
			}
		}
	}
	return calls, starts, ends
}

// isSQL reports whether a function runs SQL, or leaves that to Ent.
func isSQL(f *types.Func) bool {
	switch f.Pkg().Path() {
	case module + "ent", module + "internal/store", module + "internal/bulk":
		signature := f.Signature().String()
		return strings.Contains(signature, "context.Context")
	}
	return f.Name() == "ExecContext" || f.Name() == "QueryContext"
}
