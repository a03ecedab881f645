// Package fault has the errors that operations return, lists the faults of an input, and cleans texts that others
// wrote.
package fault

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// sentinel is an error for errors.Is. It can also match its group, or another package's error.
type sentinel struct {
	text string
	also error // nil: nothing
}

func (s *sentinel) Error() string        { return s.text }
func (s *sentinel) Is(target error) bool { return s.also != nil && errors.Is(s.also, target) }

// Is reports whether err is, or wraps, one of the errors below.
func Is(err error) bool {
	_, ok := errors.AsType[*sentinel](err)
	return ok
}

// The errors of package registry, which says what each of them means.
var (
	ErrNotFound       error = &sentinel{"not found", sql.ErrNoRows}
	ErrConflict       error = &sentinel{text: "already exists"}
	ErrInvalidData    error = &sentinel{text: "invalid data"}
	ErrForeignKey     error = &sentinel{text: "foreign key violation"}
	ErrNoKeyAvailable error = &sentinel{text: "no API key available"}
	ErrForbidden      error = &sentinel{text: "forbidden"}
	ErrBudget         error = &sentinel{text: "over budget"}
	ErrBusy           error = &sentinel{text: "database busy"}
	ErrUncertain      error = &sentinel{text: "uncertain whether it was committed"}
	ErrUnavailable    error = &sentinel{text: "database unavailable"}
)

// Kinds of the errors above.
var (
	ErrNoSecret    error = &sentinel{"API key not kept", ErrNotFound}
	ErrLeaseEnded  error = &sentinel{"lease ended already", ErrConflict}
	ErrClosed      error = &sentinel{"registry closed", ErrUnavailable}
	ErrSchema      error = &sentinel{"unusable schema", ErrUnavailable}
	ErrReadOnly    error = &sentinel{"read-only", ErrUnavailable}
	ErrDiskFull    error = &sentinel{"disk full", ErrUnavailable}
	ErrCorrupt     error = &sentinel{"corrupt database", ErrUnavailable}
	ErrExhausted   error = &sentinel{"server out of locks or memory", ErrUnavailable}
	ErrDenied      error = &sentinel{"access denied", ErrUnavailable}
	ErrUnsupported error = &sentinel{"unsupported database", ErrUnavailable}
	ErrKeyring     error = &sentinel{"keyring does not fit", ErrUnavailable}
)

// Mistake says why a transaction may wait for itself, and the way out.
const Mistake = "within InTx use the registry that it gives to its function, tx, because every other one waits for" +
	" the transaction to end"

// Missing returns the error for a reference to a missing row.
func Missing(what string, id uuid.UUID) error {
	if id == uuid.Nil {
		return fmt.Errorf("%w: no %s is given: its id is zero: %w", ErrForeignKey, what, ErrNotFound)
	}
	return fmt.Errorf("%w: %s %s: %w", ErrForeignKey, what, id, ErrNotFound)
}

// MaxAmount is the largest sum that a column takes.
const MaxAmount = rule.MaxAmount

// ErrOverflow is returned when a sum would be more than MaxAmount.
var ErrOverflow = fmt.Errorf("%w: a sum of usage does not fit", ErrInvalidData)

// OfAmount wraps an error of package money for an amount of an input.
func OfAmount(what string, err error) error { return &amountError{what, err} }

type amountError struct {
	what  string
	cause error
}

func (e *amountError) Error() string {
	return fmt.Sprintf("%s: %s: %s", ErrInvalidData, e.what, strings.TrimPrefix(e.cause.Error(), "money: "))
}

func (e *amountError) Unwrap() []error { return []error{ErrInvalidData, e.cause} }

// List collects the faults of an input.
type List []string

// Check notes a fault unless ok.
func (f *List) Check(ok bool, format string, args ...any) {
	if !ok {
		*f = append(*f, fmt.Sprintf(format, args...))
	}
}

// Field notes the faults that a rule found in a field.
func (f *List) Field(name string, err error) {
	faults, ok := errors.AsType[rule.ValueErrors](err)
	if !ok && err != nil {
		faults = rule.ValueErrors{err.Error()}
	}
	for _, one := range faults {
		f.Check(false, "%s %s", name, one)
	}
}

// Text notes a fault unless value can be a name that identifies something: see [rule.Text].
func (f *List) Text(field, value string, least, most int) {
	f.Field(field, rule.Text(least, most)(value))
}

// Label notes a fault unless value can be a name for people: see [rule.Label].
func (f *List) Label(field, value string, least, most int) {
	f.Field(field, rule.Label(least, most)(value))
}

// Time notes a fault unless t can be stored.
func (f *List) Time(field string, t time.Time) {
	f.Check(!t.Before(utc.Beginning) && !t.After(utc.End), "%s is not between 1970 and 9999", field)
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
func (f List) Err() error {
	if len(f) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrInvalidData, strings.Join(f, "; "))
}

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
