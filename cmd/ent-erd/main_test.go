package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"entgo.io/ent/entc"
	"entgo.io/ent/entc/gen"
	"github.com/stretchr/testify/require"
)

const schema = "../../ent/schema"

// TestGraph draws ent/schema as it is: docs/graph.md has that.
func TestGraph(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "graph.md")
	require.NoError(t, run(schema, file))
	drawn, err := os.ReadFile(file)
	require.NoError(t, err)
	committed, err := os.ReadFile("../../docs/graph.md")
	require.NoError(t, err)
	require.Equal(t, string(committed), string(drawn), "run make erd")
	for _, line := range []string{
		`  APIKey["APIKey (api_keys)"] {`,
		"    uuid id PK",
		"    uuid provider_id FK",
		`    uuid quota_group_id FK "NULL"`,
		"    uuid provider_id FK, UK",
		"    int number UK",
		"    enum cost_status",
		`    USD cost "NULL"`,
		"  Provider ||--o{ APIKey : keys",
		"  QuotaGroup |o--o{ APIKey : keys",
		"  Provider ||--o| PoolState : pool_state",
	} {
		require.Contains(t, string(drawn), "\n"+line+"\n")
	}
}

func TestDraw(t *testing.T) {
	t.Parallel()
	graph, err := entc.LoadGraph(schema, &gen.Config{})
	require.NoError(t, err)
	for name, test := range map[string]struct {
		domain   int
		entities []string
		want     string
	}{
		"ErrNoDomain": {0, []string{"Provider", "Model", "Price", "SDKVersion"}, "no domain has ModelFamily"},
		"ErrTwice":    {1, []string{"Provider"}, "domain Keys: Provider is no entity, or of another domain too"},
		"ErrUnknown":  {6, []string{"Gone"}, "domain Logs and settings: Gone is no entity"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changed := slices.Clone(domains)
			changed[test.domain].entities = test.entities
			_, err := draw(graph.Nodes, changed)
			require.ErrorContains(t, err, test.want)
		})
	}
	t.Run("ErrEdge", func(t *testing.T) {
		t.Parallel()
		nodes := slices.Clone(graph.Nodes)
		for i, node := range nodes {
			if node.Name == "Price" {
				other := *node
				other.Edges = []*gen.Edge{{Name: "models", Type: node, Rel: gen.Relation{Type: gen.M2M}}}
				nodes[i] = &other
			}
		}
		_, err := draw(nodes, domains)
		require.ErrorContains(t, err, "edge models of Price")
	})
}
