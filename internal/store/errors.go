package store

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"syscall"

	"github.com/mattn/go-sqlite3"

	"github.com/jeffersonwarrior/modelscan/internal/busy"
)

// Kind is what went wrong in a database, as far as a caller can act on it.
type Kind int

// The kinds of errors.
const (
	Unknown    Kind = iota
	Conflict        // a unique constraint: the row exists already
	ForeignKey      // a referenced row is missing, or the row is referenced
	Invalid         // a check, a NOT NULL or a type
	Busy            // another process held the lock for too long
	ReadOnly        // the file, its folder or its file system cannot be written
	DiskFull        // no space is left, or a quota or a file-size limit is reached
	Corrupt         // the file is damaged or is not a database
	Closed          // the database was closed
	Canceled        // the context ended
)

// ErrClosed is returned by every call after [DB.Close].
var ErrClosed = errors.New("store: the database is closed")

// Classify returns the kind of an error by the codes of the driver and of the operating
// system, never by its text.
func Classify(err error) Kind {
	var sqliteErr sqlite3.Error
	switch {
	case err == nil:
		return Unknown
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Canceled
	case errors.Is(err, ErrClosed), errors.Is(err, ErrRolledBack),
		errors.Is(err, sql.ErrTxDone), errors.Is(err, sql.ErrConnDone):
		return Closed
	case busy.Is(err):
		return Busy
	case errors.As(err, &sqliteErr):
		return classifySQLite(sqliteErr)
	}
	return classifyErrno(err)
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

func classifyErrno(err error) Kind {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return DiskFull
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return ReadOnly
	case errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrNotExist),
		errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ELOOP):
		return Invalid
	}
	return Unknown
}
