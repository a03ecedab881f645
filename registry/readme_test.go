package registry_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestQuickStart shows that code in the README and in docs is that of examples, which are compiled and run: the whole
// example, or what comes after its setup.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		page, source, example string
		whole                 bool
	}{
		{"../README.md", "example_test.go", "Example", true},
		{"../README.md", "example_consumers_test.go", "Example_consumers", false},
		{"../docs/consumers.md", "example_consumers_test.go", "Example_keyless", false},
	} {
		page, err := os.ReadFile(test.page)
		require.NoError(t, err)
		source, err := os.ReadFile(test.source)
		require.NoError(t, err)
		match := regexp.MustCompile(`(?s)func ` + test.example + `\(\) \{\n(.*?)\n\}\n`).FindSubmatch(source)
		require.NotNil(t, match, test.example)
		body := string(match[1])
		if !test.whole {
			_, body, _ = strings.Cut(body, "\n\n")
		}
		var lines []string
		for line := range strings.Lines(body) {
			lines = append(lines, strings.TrimPrefix(line, "\t"))
		}
		require.NotEmpty(t, lines)
		require.Contains(t, string(page), "```go\n"+strings.Join(lines, "")+"\n```\n", test.example)
	}
}
