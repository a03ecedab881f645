package rule_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

func TestTexts(t *testing.T) {
	t.Parallel()
	const joined, turned = "\U0001F469\u200d\U0001F4BB", "a\u202eb"
	for name, c := range map[string]struct {
		rule  func(string) error
		value string
		want  string // empty: allowed
	}{
		"text":           {rule: rule.Text(1, 9), value: "gpt-5" + joined},
		"text, empty":    {rule: rule.Text(1, 9), want: "is empty"},
		"text, optional": {rule: rule.Text(0, 9)},
		"text, long":     {rule: rule.Text(1, 3), value: "äöüß", want: "has 4 characters, not 1 to 3"},
		"text, turned":   {rule: rule.Text(1, 9), value: turned, want: "has control characters or invisible ones"},
		"text, all": {
			rule: rule.Text(1, 2), value: "\xff\x00abc",
			want: "is not valid UTF-8; has a NUL character, which PostgreSQL cannot store; " +
				"has 5 characters, not 1 to 2; has control characters or invisible ones",
		},
		"label, turned":   {rule: rule.Label(1, 9), value: turned},
		"label, blank":    {rule: rule.Label(1, 9), value: " \t", want: "is blank"},
		"label, optional": {rule: rule.Label(0, 9), value: " "},
		"title, empty":    {rule: rule.Title(9)},
		"title, blank":    {rule: rule.Title(9), value: " ", want: "is blank"},
		"title, long":     {rule: rule.Title(1), value: "ab", want: "has 2 characters, not 1 to 1"},
		"prose":           {rule: rule.Prose(2), value: "\x1b\n"},
		"prose, long":     {rule: rule.Prose(1), value: "ab", want: "has 2 characters, more than 1"},
		"slug":            {rule: rule.Slug, value: "z.ai"},
		"slug, upper":     {rule: rule.Slug, value: "OpenAI", want: "is not a slug such as openai or z.ai"},
		"slug, empty":     {rule: rule.Slug, want: "is empty"},
		"URL":             {rule: rule.URL, value: "https://[::1]:8080/v1"},
		"URL, empty":      {rule: rule.URL},
		"URL, relative":   {rule: rule.URL, value: "/v1", want: "is not an absolute http or https URL"},
		"URL, port":       {rule: rule.URL, value: "http://a:99999", want: "has a bad port"},
		"URL, no host":    {rule: rule.URL, value: "http:///v1", want: "has no host"},
		"URL, credentials": {
			rule: rule.URL, value: "http://u:p@a?key=1", want: "has credentials in it; has a query or a fragment",
		},
		"SHA-256": {rule: rule.SHA256, value: strings.Repeat("0a", 32)},
		"SHA-256, upper": {
			rule: rule.SHA256, value: strings.Repeat("0A", 32), want: "is not a SHA-256 in lower-case hex",
		},
		"SHA-256, empty":    {rule: rule.SHA256, want: "is not a SHA-256 in lower-case hex"},
		"optional, empty":   {rule: rule.Optional(rule.SHA256)},
		"optional, refused": {rule: rule.Optional(rule.SHA256), value: "x", want: "is not a SHA-256 in lower-case hex"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireFault(t, c.rule(c.value), c.want)
		})
	}
}

func requireFault(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" {
		require.NoError(t, err)
		return
	}
	require.EqualError(t, err, want)
	var faults rule.ValueErrors
	require.True(t, errors.As(err, &faults))
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	requireFault(t, rule.Range(1, 3)(1), "")
	requireFault(t, rule.Range(1, 3)(3), "")
	requireFault(t, rule.Range(1, 3)(0), "0 is not between 1 and 3")
	requireFault(t, rule.Range[int64](-1, 3)(4), "4 is not between -1 and 3")
	requireFault(t, rule.Amount(rule.MaxAmount), "")
	requireFault(t, rule.Amount(-1), "is not between 0 and 9000000000000000000")
	requireFault(t, rule.Amount(math.MaxInt64), "is not between 0 and 9000000000000000000")
	require.EqualValues(t, meter.MaxTokens, rule.MaxTokens)
	require.EqualValues(t, 1_000_000*money.Dollar, rule.MaxRate)
}

func TestModels(t *testing.T) {
	t.Parallel()
	requireFault(t, rule.Models(nil), "")
	requireFault(t, rule.Models([]string{"gpt-4", "claude-*"}), "")
	requireFault(t, rule.Models([]string{"gpt-4", ""}), "has a name that is empty")
	requireFault(t, rule.Models(make([]string, rule.MaxModels+1)), "has 1001 names, more than 1000")
}
