// Package fault has the errors that operations return, lists the faults of an input, and cleans texts that others
// wrote.
package fault

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
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
