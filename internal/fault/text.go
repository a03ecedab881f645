package fault

import (
	"strings"
	"unicode/utf8"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// Clean returns the first characters of a text, up to most, without unprintable ones. It makes any text of somebody
// else's storable.
func Clean(text string, most int) string {
	return Cut(strings.Map(func(r rune) rune {
		if rule.Invisible(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\ufffd")), most)
}

// Cut cuts a text to its first characters, up to most.
func Cut(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most])
	}
	return text
}

// Storable reports whether a database can hold a text. If not, no row has it, and PostgreSQL would refuse the query.
func Storable(text string) bool { return utf8.ValidString(text) && !strings.ContainsRune(text, 0) }
