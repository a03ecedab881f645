// Package rule says what a field may be. The validators in ent/schema and the operations of the registry ask it.
package rule

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The most characters of texts.
const (
	MaxName    = 128
	MaxModelID = 256
	MaxKey     = 256 // of a setting, and of an id in the audit trail
	MaxWord    = 64  // such as a service tier, or an action in the audit trail
	MaxKind    = 32  // of a consumer
	MaxURL     = 2048
	MaxReason  = 1024
	MaxProse   = 4096
	MaxData    = 1 << 20
)

// The largest numbers.
const (
	MaxAmount = 9_000_000_000_000_000_000 // sums of them are checked: the next one would not fit into an int64
	MaxTokens = 1_000_000_000_000         // of one request, and so of a context
	MaxRate   = 1_000_000_000_000_000     // nano-dollars per one million tokens: a dollar a token
	MaxCount  = 1_000_000                 // of failures in a row
	MaxModels = 1000                      // in a list

	MaxPermissions = 100 // of a consumer
)

// ValueErrors is everything that is wrong with one value. Each fault goes on from the name of the field: "is empty".
type ValueErrors []string

func (f ValueErrors) Error() string { return strings.Join(f, "; ") }

func (f *ValueErrors) check(ok bool, format string, args ...any) {
	if !ok {
		*f = append(*f, fmt.Sprintf(format, args...))
	}
}

func (f ValueErrors) err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// Text is the rule of a name that identifies something: a label in which every character can be seen. Control
// characters, line separators and invisible characters, which can turn text around, are not allowed: names that look
// the same are the same. No fault repeats the value.
func Text(least, most int) func(string) error {
	return func(value string) error { return text(value, least, most).err() }
}

func text(value string, least, most int) ValueErrors {
	f := label(value, least, most)
	f.check(strings.IndexFunc(value, Invisible) < 0, "has control characters or invisible ones")
	return f
}

// Label is the rule of a name for people, in any language.
func Label(least, most int) func(string) error {
	return func(value string) error { return label(value, least, most).err() }
}

func label(value string, least, most int) ValueErrors {
	f := unicodeFaults(value)
	n := utf8.RuneCountInString(value)
	switch {
	case n < least && n == 0:
		f.check(false, "is empty")
	case least > 0 && strings.TrimSpace(value) == "":
		f.check(false, "is blank")
	case n < least || n > most:
		f.check(false, "has %d characters, not %d to %d", n, least, most)
	}
	return f
}

// Title is the rule of a label that may be empty, but not blank. If it is empty, another field stands for it.
func Title(most int) func(string) error {
	return func(value string) error { return label(value, min(1, len(value)), most).err() }
}

// Prose is the rule of a text for people, in any language.
func Prose(most int) func(string) error {
	return func(value string) error {
		f, n := unicodeFaults(value), utf8.RuneCountInString(value)
		f.check(n <= most, "has %d characters, more than %d", n, most)
		return f.err()
	}
}

// unicodeFaults returns why an engine does not store a text as it is: SQLite takes all bytes, PostgreSQL valid UTF-8
// without NUL.
func unicodeFaults(value string) (f ValueErrors) {
	f.check(utf8.ValidString(value), "is not valid UTF-8")
	f.check(!strings.ContainsRune(value, 0), "has a NUL character, which PostgreSQL cannot store")
	return f
}

// Invisible reports whether a character is a control, a format, a line or a paragraph character. The joiner that emoji
// are made with is allowed.
func Invisible(r rune) bool {
	const zeroWidthJoiner = '\u200d'
	if r >= ' ' && r < 0x7f {
		return false
	}
	return r != zeroWidthJoiner && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

var slug = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

// Slug is the rule of a provider's name.
func Slug(value string) error {
	f := text(value, 1, MaxName)
	f.check(value == "" || slug.MatchString(value), "is not a slug such as openai or z.ai")
	return f.err()
}

// hostname is a name or an IPv4 address; url.Parse has checked an IPv6 address.
var hostname = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9.])?$`)

// URL is the rule of the URL of an API: empty, or absolute, with a host, perhaps a port and a path, and nothing that
// could carry a credential.
func URL(value string) error {
	if value == "" {
		return nil
	}
	f := text(value, 0, MaxURL)
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || strings.ContainsRune(value, ' ') {
		f.check(false, "is not an absolute http or https URL")
		return f
	}
	port, err := strconv.Atoi(cmp.Or(u.Port(), "443"))
	f.check(err == nil && port >= 1 && port <= 65535, "has a bad port")
	f.check(hostname.MatchString(u.Hostname()) || strings.Contains(u.Hostname(), ":"), "has no host")
	f.check(u.User == nil, "has credentials in it")
	f.check(u.RawQuery == "" && !u.ForceQuery && u.Fragment == "", "has a query or a fragment")
	return f.err()
}

var sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)

// SHA256 is the rule of a SHA-256 in hex.
func SHA256(value string) (err error) {
	if !sha256Hex.MatchString(value) {
		err = ValueErrors{"is not a SHA-256 in lower-case hex"}
	}
	return err
}

// Optional is a rule of a text that may also be empty.
func Optional(rule func(string) error) func(string) error {
	return func(value string) error {
		if value == "" {
			return nil
		}
		return rule(value)
	}
}

// Range is the rule of a number.
func Range[T int | int64](least, most T) func(T) error {
	return func(n T) error {
		if n < least || n > most {
			return ValueErrors{fmt.Sprintf("%d is not between %d and %d", n, least, most)}
		}
		return nil
	}
}

// Amount is the rule of a number that is added up: requests, tokens or nano-dollars.
func Amount(n int64) error {
	if n < 0 || n > MaxAmount {
		return ValueErrors{fmt.Sprintf("is not between 0 and %d", int64(MaxAmount))}
	}
	return nil
}

// Saturated returns the sum of two amounts, cut to the range of a column.
func Saturated[T ~int64](a, b T) T {
	if b > 0 && a > MaxAmount-b {
		return MaxAmount
	}
	return max(0, a+b)
}

// Models is the rule of a list of models, by their provider's names.
func Models(names []string) error {
	if len(names) > MaxModels {
		return ValueErrors{fmt.Sprintf("has %d names, more than %d", len(names), MaxModels)}
	}
	for _, name := range names {
		if err := Text(1, MaxModelID)(name); err != nil {
			return ValueErrors{"has a name that " + err.Error()}
		}
	}
	return nil
}

// InModels reports whether a model is in such a list. A name that ends with * matches every model that begins so.
func InModels(list []string, model string) bool {
	for _, name := range list {
		begin, isBegin := strings.CutSuffix(name, "*")
		if isBegin && strings.HasPrefix(model, begin) || name == model {
			return true
		}
	}
	return false
}
