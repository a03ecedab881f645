//go:build cgo

package store

import (
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"
)

// sqliteKind returns the kind of an error from SQLite; ok is false for any other error.
func sqliteKind(err error) (kind Kind, ok bool) {
	e, ok := errors.AsType[sqlite3.Error](err)
	if !ok {
		return Unknown, false
	}
	return classifySQLite(e), true
}

func classifySQLite(err sqlite3.Error) Kind {
	switch err.ExtendedCode {
	case sqlite3.ErrConstraintUnique, sqlite3.ErrConstraintPrimaryKey, sqlite3.ErrConstraintRowID:
		return Conflict
	case sqlite3.ErrConstraintForeignKey,
		sqlite3.ErrConstraintTrigger: // ON DELETE RESTRICT is a trigger inside SQLite, and we have no other
		return ForeignKey
	case sqlite3.ErrIoErr.Extend(32), // a checksum is wrong
		sqlite3.ErrIoErr.Extend(33): // the file system is damaged
		return Corrupt
	}
	switch err.Code {
	case sqlite3.ErrConstraint, sqlite3.ErrTooBig, sqlite3.ErrMismatch:
		return Invalid
	case sqlite3.ErrReadonly, sqlite3.ErrPerm, sqlite3.ErrAuth:
		return ReadOnly
	case sqlite3.ErrFull:
		return DiskFull
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return Corrupt
	case sqlite3.ErrInterrupt:
		return Canceled
	}
	if kind := classifyErrno(err.SystemErrno); kind != Unknown {
		return kind
	}
	switch err.Code {
	case sqlite3.ErrIoErr, sqlite3.ErrCantOpen, sqlite3.ErrNomem:
		return Unavailable
	}
	return Unknown
}

// uncertainSync marks an error of a commit that could not be written or synced. Whatever reached the log may turn up
// after a crash. A full disk leaves no whole commit.
func uncertainSync(err error) error {
	e, ok := errors.AsType[sqlite3.Error](err)
	if ok && e.Code == sqlite3.ErrIoErr && classifySQLite(e) != DiskFull {
		return fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	return err
}
