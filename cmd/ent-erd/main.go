// Command ent-erd draws the graph of ent/schema as entity-relationship diagrams in Mermaid, one for each domain:
//
//	go run ./cmd/ent-erd docs/graph.md
package main

import (
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strings"

	"entgo.io/ent/entc"
	"entgo.io/ent/entc/gen"
)

// domain is a part of the graph that fits in one diagram.
type domain struct {
	name, about string
	entities    []string
}

// domains have each entity once.
var domains = []domain{
	{"Catalogue", "What there is, and what it costs.", []string{
		"Provider", "ModelFamily", "Model", "Price", "SDKVersion",
	}},
	{"Keys", "What calls are made with, what is reserved for them, and what seals them.", []string{
		"APIKey", "QuotaGroup", "KeyLease", "ExpiredLease", "PoolState", "DataKey", "Installation",
	}},
	{"Consumers", "For whom calls are made, and how they show it.", []string{
		"Consumer", "AccessKey", "PolicyVersion",
	}},
	{"Budgets", "What consumers may spend.", []string{
		"Budget", "BudgetGrant", "BudgetWindow", "BudgetCrossing",
	}},
	{"Ledger", "What was used: each request, and sums of them.", []string{
		"UsageEvent", "UsageQuarter", "Usage", "UsageTotalQuarter", "UsageTotal", "UsageHorizon",
	}},
	{"Attribution", "The same usage under what callers say of their requests.", []string{
		"Dimension", "DimensionValue", "UsageByValue", "UsageByValueQuarter", "UsageFold", "ConsumerDay",
	}},
	{"Logs and settings", "What happened beside that.", []string{"DiscoveryLog", "AuditEntry", "Setting"}},
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: ent-erd <file>")
	}
	if err := run("./ent/schema", os.Args[1]); err != nil {
		log.Fatal("ent-erd: ", err)
	}
}

func run(schema, file string) error {
	graph, err := entc.LoadGraph(schema, &gen.Config{})
	if err != nil {
		return err
	}
	text, err := draw(graph.Nodes, domains)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

const head = `<!-- make erd writes this file from ent/schema. -->
# The graph

- A box is an entity of package ent, with its table.
- A row of a box is a column: its type, its name, PK (primary key), FK (foreign key), UK (unique), NULL (it may be).
- A line is an edge, by the name that it has on the side of the one.
- A box without rows is drawn in the diagram of its domain.

[ent/schema](../ent/schema) says what each column means, and [entities.md](entities.md) what can be done with each
entity.
`

// draw returns the diagrams of the entities of a graph.
func draw(entities []*gen.Type, domains []domain) (string, error) {
	left := map[string]*gen.Type{}
	for _, node := range entities {
		left[node.Name] = node
	}
	var whole, parts strings.Builder
	for _, d := range domains {
		var edges strings.Builder
		fmt.Fprintf(&parts, "\n## %s\n\n%s\n\n```mermaid\nerDiagram\n", d.name, d.about)
		for _, name := range d.entities {
			node, there := left[name]
			if !there {
				return "", fmt.Errorf("domain %s: %s is no entity, or of another domain too", d.name, name)
			}
			delete(left, name)
			drawEntity(&parts, node)
			if err := drawEdges(&edges, node); err != nil {
				return "", err
			}
		}
		fmt.Fprintf(&parts, "%s```\n", edges.String())
		whole.WriteString(edges.String())
	}
	if len(left) > 0 {
		names := slices.Sorted(maps.Keys(left))
		return "", fmt.Errorf("no domain has %s: add them in cmd/ent-erd", strings.Join(names, ", "))
	}
	return head + "\n## All edges\n\n```mermaid\nerDiagram\n" + whole.String() + "```\n" + parts.String(), nil
}

// drawEntity draws an entity with its columns.
func drawEntity(b *strings.Builder, node *gen.Type) {
	marks := map[string]string{}
	for _, f := range node.Fields {
		if f.Unique {
			marks[f.StorageKey()] = " UK"
		}
	}
	for _, key := range node.ForeignKeys {
		marks[key.Field.StorageKey()] = " FK"
		if key.Edge.O2O() {
			marks[key.Field.StorageKey()] = " FK, UK"
		}
	}
	fmt.Fprintf(b, "  %s[\"%[1]s (%s)\"] {\n", node.Name, node.Table())
	fmt.Fprintf(b, "    %s %s PK\n", typeOf(node.ID), node.ID.StorageKey())
	for _, f := range node.Fields {
		null := ""
		if f.Optional {
			null = ` "NULL"`
		}
		fmt.Fprintf(b, "    %s %s%s%s\n", typeOf(f), f.StorageKey(), marks[f.StorageKey()], null)
	}
	b.WriteString("  }\n")
}

// typeOf returns the type of a column in one word.
func typeOf(f *gen.Field) string {
	if f.HasGoType() && f.Type.RType != nil && f.Type.RType.Ident == "money.USD" {
		return "USD"
	}
	return strings.ToLower(strings.TrimPrefix(f.Type.ConstName(), "Type"))
}

// drawEdges draws the edges to an entity that has their foreign keys.
func drawEdges(b *strings.Builder, node *gen.Type) error {
	for _, e := range node.Edges {
		if e.M2M() || e.OwnFK() && e.Ref == nil {
			return fmt.Errorf("edge %s of %s has no foreign key, or no name on the other side", e.Name, node.Name)
		}
		if !e.OwnFK() {
			continue
		}
		from, to := "||", "o{"
		if e.Optional {
			from = "|o"
		}
		if e.O2O() {
			to = "o|"
		}
		fmt.Fprintf(b, "  %s %s--%s %s : %s\n", e.Type.Name, from, to, node.Name, e.Ref.Name)
	}
	return nil
}
