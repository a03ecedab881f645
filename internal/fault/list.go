package fault

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

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
