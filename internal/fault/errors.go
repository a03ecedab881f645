// Package fault has the errors that operations return, what is wrong with an input, and texts that others wrote.
package fault

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// sentinel is an error for errors.Is that matches a second one too.
type sentinel struct {
	text string
	also error
}

func (s *sentinel) Error() string        { return s.text }
func (s *sentinel) Is(target error) bool { return s.also != nil && target == s.also }

// Is reports whether err is, or wraps, one of the errors below.
func Is(err error) bool {
	var s *sentinel
	return errors.As(err, &s)
}

// The errors of package registry, which says what each of them means.
var (
	ErrNotFound       error = &sentinel{"not found", sql.ErrNoRows}
	ErrConflict       error = &sentinel{text: "already exists"}
	ErrInvalidData    error = &sentinel{text: "invalid data"}
	ErrForeignKey     error = &sentinel{text: "foreign key violation"}
	ErrNoKeyAvailable error = &sentinel{text: "no API key available"}
	ErrLeaseEnded     error = &sentinel{text: "lease ended already"}
	ErrClosed         error = &sentinel{text: "registry closed"}
	ErrSchema         error = &sentinel{text: "unusable schema"}
	ErrBusy           error = &sentinel{text: "database busy"}
	ErrReadOnly       error = &sentinel{text: "read-only"}
	ErrDiskFull       error = &sentinel{text: "disk full"}
	ErrCorrupt        error = &sentinel{text: "corrupt database"}
	ErrUnavailable    error = &sentinel{text: "database unavailable"}
	ErrExhausted      error = &sentinel{text: "server out of locks or memory"}
	ErrDenied         error = &sentinel{text: "access denied"}
	ErrUnsupported    error = &sentinel{text: "unsupported database"}
	ErrUncertain      error = &sentinel{text: "uncertain whether it was committed"}
	ErrKeyring        error = &sentinel{text: "keyring does not fit"}
	ErrNoSecret       error = &sentinel{text: "API key not kept"}
)

// Missing is the error for a reference to a row that is not there.
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

// OfAmount is the error of package money for an amount of an input.
func OfAmount(what string, err error) error { return &amountError{what, err} }

type amountError struct {
	what  string
	cause error
}

func (e *amountError) Error() string {
	return fmt.Sprintf("%s: %s: %s", ErrInvalidData, e.what, strings.TrimPrefix(e.cause.Error(), "money: "))
}

func (e *amountError) Unwrap() []error { return []error{ErrInvalidData, e.cause} }
