package registry_test

import (
	"os"
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
	name := regexp.MustCompile("`([A-Za-z]+)`")
	var listed []string
	rows := 0
	for line := range strings.Lines(string(text)) {
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
	require.Equal(t, 10, rows)

	verbs := regexp.MustCompile(
		`^(Create|Add|Get|Find|Latest|List|Price|Update|Set|Deprecate|Rotate|Delete|Undelete|Purge)[A-Z]`)
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
