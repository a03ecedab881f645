//go:build cgo

package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// sqliteKind returns the kind of an error from SQLite; nil for any other error.
func sqliteKind(cause error) error {
	err, ok := errors.AsType[sqlite3.Error](cause)
	if !ok {
		return nil
	}
	switch err.ExtendedCode {
	case sqlite3.ErrConstraintUnique, sqlite3.ErrConstraintPrimaryKey, sqlite3.ErrConstraintRowID:
		return fault.ErrConflict
	case sqlite3.ErrConstraintForeignKey,
		sqlite3.ErrConstraintTrigger: // ON DELETE RESTRICT is a trigger inside SQLite, and we have no other
		return fault.ErrForeignKey
	case sqlite3.ErrIoErr.Extend(32), // a checksum is wrong
		sqlite3.ErrIoErr.Extend(33): // the file system is damaged
		return fault.ErrCorrupt
	}
	switch err.Code {
	case sqlite3.ErrConstraint, sqlite3.ErrTooBig, sqlite3.ErrMismatch:
		return fault.ErrInvalidData
	case sqlite3.ErrReadonly, sqlite3.ErrPerm, sqlite3.ErrAuth:
		return fault.ErrReadOnly
	case sqlite3.ErrFull:
		return fault.ErrDiskFull
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return fault.ErrCorrupt
	case sqlite3.ErrInterrupt:
		return context.Canceled
	}
	if kind := classifyErrno(err.SystemErrno); kind != nil {
		return kind
	}
	switch err.Code {
	case sqlite3.ErrIoErr, sqlite3.ErrCantOpen, sqlite3.ErrNomem:
		return fault.ErrUnavailable
	}
	return nil
}

// uncertainSync marks an error of a commit that could not be written or synced. Whatever reached the log may turn up
// after a crash. A full disk leaves no whole commit.
func uncertainSync(err error) error {
	e, ok := errors.AsType[sqlite3.Error](err)
	if ok && e.Code == sqlite3.ErrIoErr && !errors.Is(sqliteKind(err), fault.ErrDiskFull) {
		return fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	return err
}
