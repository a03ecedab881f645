package registry_test

// These tests compare docs/entities.md with the methods there are, and have no source of their own.

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestEntities compares the table of docs/entities.md with the methods of a registry.
func TestEntities(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/entities.md")
	require.NoError(t, err)
	_, reasons, found := strings.Cut(string(text), "**Why a cell is empty.**")
	require.True(t, found)
	byHand, _, found := strings.Cut(string(text), "## What the registry writes alone")
	require.True(t, found)
	name := regexp.MustCompile("`([A-Za-z]+)`")
	var listed []string
	rows := 0
	for line := range strings.Lines(byHand) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| entity") || strings.HasPrefix(line, "| ---") {
			continue
		}
		rows++
		require.Len(t, cells, 9, line)
		for _, cell := range cells[1:] {
			names := name.FindAllStringSubmatch(cell, -1)
			for _, match := range names {
				listed = append(listed, match[1])
			}
			if len(names) == 0 {
				require.Equal(t, "–", strings.TrimSpace(cell), line)
				require.Contains(t, reasons, "- "+strings.TrimSpace(cells[0])+": ", "why a cell is empty")
			}
		}
	}
	require.Equal(t, 16, rows)

	verbs := regexp.MustCompile(
		`^(Create|Ensure|Add|Grant|Get|Find|Latest|List|Price|Update|Move|Set|Ack|Deprecate|Rotate|Revoke|Retire|` +
			`Delete|Undelete|Purge)[A-Z]`)
	others := []string{ // of the pool, the ledger and the keyring
		"GetCostBreakdown", "GetLease", "GetLeastUsedKey", "GetUsageStats", "ListUsageEvents", "RotateKeyring",
	}
	var methods []string
	for method := range reflect.TypeFor[*registry.Registry]().Methods() {
		if verbs.MatchString(method.Name) && !slices.Contains(others, method.Name) {
			methods = append(methods, method.Name)
		}
	}
	slices.Sort(listed)
	require.Equal(t, methods, slices.Compact(listed))
}

// TestEntitiesNamed compares the tables of docs/entities.md with the entities of the schema, and what reads and writes
// those that the registry writes alone with the methods there are.
func TestEntitiesNamed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/entities.md")
	require.NoError(t, err)
	_, alone, found := strings.Cut(string(text), "## What the registry writes alone")
	require.True(t, found)
	var named []string
	for _, row := range regexp.MustCompile("(?m)^\\| `?([A-Za-z ]+?)`? \\|").FindAllStringSubmatch(string(text), -1) {
		named = append(named, strings.ToLower(strings.ReplaceAll(row[1], " ", "")))
	}
	named = slices.DeleteFunc(named, func(name string) bool { return name == "entity" }) // heads of tables
	files, err := filepath.Glob("../ent/schema/*.go")
	require.NoError(t, err)
	var entities []string
	for _, file := range files {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		entity := regexp.MustCompile(`(?m)^type (\w+) struct\{ ent\.Schema \}`)
		for _, match := range entity.FindAllStringSubmatch(string(source), -1) {
			entity := strings.ToLower(match[1])
			if entity == "modelfamily" {
				entity = "family"
			}
			entities = append(entities, entity)
		}
	}
	require.ElementsMatch(t, entities, named)

	others := []string{"Open", "EventsFrom", "QuartersFrom", "Client"}
	for _, match := range regexp.MustCompile("`([A-Z][A-Za-z]+)`").FindAllStringSubmatch(alone, -1) {
		_, ofRegistry := reflect.TypeFor[*registry.Registry]().MethodByName(match[1])
		_, ofLease := reflect.TypeFor[*registry.Lease]().MethodByName(match[1])
		isEntity := slices.Contains(entities, strings.ToLower(match[1]))
		require.True(t, ofRegistry || ofLease || isEntity || slices.Contains(others, match[1]), match[1])
	}
}
