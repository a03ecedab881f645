//go:build cgo

package store

import (
	"errors"

	"github.com/mattn/go-sqlite3"
)

// sqliteKind returns the kind of an error of SQLite's; ok is false for any other one.
func sqliteKind(err error) (kind Kind, ok bool) {
	var sqliteErr sqlite3.Error
	if !errors.As(err, &sqliteErr) {
		return Unknown, false
	}
	return classifySQLite(sqliteErr), true
}

func classifySQLite(err sqlite3.Error) Kind {
	switch err.ExtendedCode {
	case sqlite3.ErrConstraintUnique, sqlite3.ErrConstraintPrimaryKey, sqlite3.ErrConstraintRowID:
		return Conflict
	case sqlite3.ErrConstraintForeignKey,
		sqlite3.ErrConstraintTrigger: // ON DELETE RESTRICT is a trigger inside SQLite, and we have no other
		return ForeignKey
	}
	switch err.Code {
	case sqlite3.ErrConstraint, sqlite3.ErrTooBig, sqlite3.ErrMismatch:
		return Invalid
	case sqlite3.ErrReadonly:
		return ReadOnly
	case sqlite3.ErrFull:
		return DiskFull
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return Corrupt
	case sqlite3.ErrInterrupt:
		return Canceled
	case sqlite3.ErrPerm, sqlite3.ErrAuth:
		return ReadOnly
	}
	if err.SystemErrno != 0 {
		return classifyErrno(err.SystemErrno)
	}
	return Unknown
}
