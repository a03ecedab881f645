package fault

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// List collects what is wrong with an input.
type List []string

// Check notes a fault unless ok.
func (f *List) Check(ok bool, format string, args ...any) {
	if !ok {
		*f = append(*f, fmt.Sprintf(format, args...))
	}
}

// Text notes a fault unless value can be a name that identifies something: a label in which every character can be
// seen. Control characters, line separators and invisible characters, which can turn text around, are not allowed:
// names that look the same are the same. It never repeats the value.
func (f *List) Text(field, value string, least, most int) {
	f.Label(field, value, least, most)
	f.Check(strings.IndexFunc(value, invisible) < 0, "%s has control characters or invisible ones", field)
}

// Label notes a fault unless value can be a name for people, in any language: of at least least and at most most
// characters.
func (f *List) Label(field, value string, least, most int) {
	f.Unicode(field, value)
	n := utf8.RuneCountInString(value)
	switch {
	case n < least && n == 0:
		f.Check(false, "%s is empty", field)
	case least > 0 && strings.TrimSpace(value) == "":
		f.Check(false, "%s is blank", field)
	case n < least || n > most:
		f.Check(false, "%s has %d characters, not %d to %d", field, n, least, most)
	}
}

// Prose notes a fault unless value can be a text for people, in any language, of at most most characters.
func (f *List) Prose(field, value string, most int) {
	f.Unicode(field, value)
	n := utf8.RuneCountInString(value)
	f.Check(n <= most, "%s has %d characters, more than %d", field, n, most)
}

// Unicode notes a fault unless both engines store value as it is: SQLite takes all bytes, PostgreSQL valid UTF-8
// without NUL.
func (f *List) Unicode(field, value string) {
	f.Check(utf8.ValidString(value), "%s is not valid UTF-8", field)
	f.Check(!strings.ContainsRune(value, 0), "%s has a NUL character, which PostgreSQL cannot store", field)
}

// Time notes a fault unless t can be stored.
func (f *List) Time(field string, t time.Time) {
	f.Check(!t.Before(utc.Beginning) && !t.After(utc.End), "%s is not within 1970 and 9999", field)
}

// Span notes a fault unless start is before end.
func (f *List) Span(start, end time.Time) {
	f.Check(start.Before(end), "start %s is not before end %s", start.Format(time.RFC3339), end.Format(time.RFC3339))
}

// In puts a prefix before every fault of another input.
func (f *List) In(prefix string, others List) {
	for _, o := range others {
		*f = append(*f, prefix+o)
	}
}

// Err returns nil, or ErrInvalidData with every fault.
func (f *List) Err() error {
	if len(*f) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrInvalidData, strings.Join(*f, "; "))
}
