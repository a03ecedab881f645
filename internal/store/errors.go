package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/jeffersonwarrior/modelscan/internal/busy"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// Errors for errors.Is.
var (
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("the database is closed")
	// ErrRolledBack is returned by every call in a transaction that the database has rolled back by itself: SQLite when
	// the disk is full or a statement is interrupted, PostgreSQL when any statement failed.
	ErrRolledBack = errors.New("the transaction was rolled back")
	// ErrUncertain is returned when the answer to a commit was lost, or the commit could not be synced.
	ErrUncertain = errors.New("a commit may have happened or not")
	// ErrStandby is returned when a server accepts no writes.
	ErrStandby = errors.New("the server is a standby or read-only")
	// ErrUnsupported is returned for a database that cannot be worked with.
	ErrUnsupported = errors.New("it cannot be used")
)

// ErrHeld is returned when others have held the connection that writes, or all connections, for too long.
var ErrHeld = errors.New("held by other transactions")

// ErrReplaced is returned when the name of the open file now means another file, or none. What is written would be
// lost.
var ErrReplaced = errors.New("the database file was removed or replaced while it was open: close the registry," +
	" put the file in its place, and open it again")

func heldFor(d time.Duration) error {
	return fmt.Errorf("%w for %s; %s", ErrHeld, d, fault.Mistake)
}

// errSilent is the error of a connection on which a transaction could not be begun in time.
var errSilent = errors.New("the server does not answer")

// Classify returns the kind of an error as one of package fault's, by the codes of the driver and of the operating
// system, never by its text. It is context.Canceled if any context has ended, and nil if a caller cannot act on it.
func Classify(err error) error {
	sqlite := sqliteKind(err)
	repeated, isRepeated := errors.AsType[*gaveUpError](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrUncertain):
		return fault.ErrUncertain
	case isRepeated:
		return Classify(repeated.last)
	case errors.Is(err, errSilent), errors.Is(err, ErrReplaced), isConnectTimeout(err):
		return fault.ErrUnavailable
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return context.Canceled
	case errors.Is(err, ErrClosed), errors.Is(err, ErrRolledBack),
		errors.Is(err, sql.ErrTxDone), errors.Is(err, sql.ErrConnDone):
		return fault.ErrClosed
	case errors.Is(err, ErrUnsupported):
		return fault.ErrUnsupported
	case errors.Is(err, ErrStandby):
		return fault.ErrReadOnly
	case busy.Is(err), errors.Is(err, ErrHeld):
		return fault.ErrBusy
	case sqlite != nil:
		return sqlite
	case has[*pgconn.PgError](err):
		return classifyPostgres(said(err))
	case isMisunderstood(err):
		return fault.ErrUnsupported
	case isConnectionLoss(err):
		return fault.ErrUnavailable
	}
	return classifyErrno(err)
}

// IsUnavailable reports whether the server or the file cannot be reached, or the connection was lost.
func IsUnavailable(err error) bool {
	return Classify(err) == fault.ErrUnavailable //nolint:errorlint // its kinds are other errors
}

// Text returns the text of an error without what Ent puts before it, on one line.
func Text(err error) string {
	for strings.HasPrefix(err.Error(), "ent: ") {
		inner := errors.Unwrap(err)
		if inner == nil {
			break
		}
		err = inner
	}
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\t' })
	return strings.Join(lines, " ")
}

// has reports whether an error is or wraps one of a type.
func has[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// said returns what PostgreSQL said of an error, empty for nothing.
func said(err error) *pgconn.PgError {
	e, _ := errors.AsType[*pgconn.PgError](err)
	return cmp.Or(e, new(pgconn.PgError))
}

// Hint returns what PostgreSQL advises to do about an error, or "".
func Hint(err error) string { return said(err).Hint }

// gaveUpError is the error of a call that was repeated until the context ended: the context's error and the last one
// before it.
type gaveUpError struct{ ended, last error }

func (e *gaveUpError) Error() string   { return fmt.Sprintf("%s: %s", e.ended, e.last) }
func (e *gaveUpError) Unwrap() []error { return []error{e.ended, e.last} }

// isConnectTimeout reports whether no server answered in time. The deadline can come from connect_timeout, without the
// end of any caller's context.
func isConnectTimeout(err error) bool {
	return has[*pgconn.ConnectError](err) && errors.Is(err, context.DeadlineExceeded) && !answered(err)
}

// isMisunderstood reports whether a server answers in another way than asked: without TLS, with another certificate, or
// unlike PostgreSQL.
func isMisunderstood(err error) bool {
	return has[*pgconn.ConnectError](err) && !answered(err) && !has[net.Error](err) && !has[syscall.Errno](err) &&
		!errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) &&
		!errors.Is(err, pgconn.ErrConnClosed)
}

// answered reports whether a server has said why it cannot be used.
func answered(err error) bool {
	return has[*pgconn.PgError](err) || errors.Is(err, ErrStandby)
}

// IsPoolerTrouble reports whether a statement was prepared on another connection than the one it is used on.
func IsPoolerTrouble(err error) bool {
	code := said(err).Code
	return code == "42P05" || code == "26000"
}

// statementCompletionUnknown is the code of a commit whose outcome the server itself does not know.
const statementCompletionUnknown = "40003"

// IsNoPartition reports whether PostgreSQL refused a row because no partition takes it. A violated CHECK has the same
// code, and a name.
func IsNoPartition(err error) bool {
	e := said(err)
	return e.Code == "23514" && e.ConstraintName == ""
}

// DuplicateOf returns the name of the unique index that refused a row on PostgreSQL, or "".
func DuplicateOf(err error) string {
	if e := said(err); e.Code == "23505" {
		return e.ConstraintName
	}
	return ""
}

// IsLockTimeout reports whether PostgreSQL stopped waiting for a lock because of lock_timeout.
func IsLockTimeout(err error) bool { return said(err).Code == "55P03" }

// providerOfPool is the foreign key of a pool's lock. It refuses the lock when the provider was purged during the wait;
// another attempt no longer sees the provider.
const providerOfPool = "pool_states_providers_pool_state"

// classifyPostgres goes by the codes of postgresql.org/docs/current/errcodes-appendix.html.
func classifyPostgres(err *pgconn.PgError) error {
	switch err.Code {
	case "23505", "23P01":
		return fault.ErrConflict
	case "23503", "23001":
		if err.ConstraintName == providerOfPool {
			return fault.ErrBusy
		}
		return fault.ErrForeignKey
	case "25006":
		return fault.ErrReadOnly
	case "25P02":
		return fault.ErrClosed // an earlier statement has failed
	case "40001", "40P01", "55P03", "42P07":
		return fault.ErrBusy // serialization failure, deadlock, lock timeout; a partition that another process made
	case statementCompletionUnknown:
		return fault.ErrUncertain
	case "42501":
		return fault.ErrDenied // a permission
	case "3D000", "42704":
		return fault.ErrInvalidData // no such database, or no such parameter, as of the URL
	case "42P05", "26000":
		return fault.ErrUnsupported // a prepared statement is of another connection: a pooler is in between
	case "53100":
		return fault.ErrDiskFull
	case "53200":
		return fault.ErrExhausted // most often of locks; a repeated statement needs as many again
	case "57014":
		return context.Canceled
	case "XX001", "XX002":
		return fault.ErrCorrupt
	}
	switch err.Code[:min(2, len(err.Code))] {
	case "22", "23", "54":
		return fault.ErrInvalidData // data, constraints, limits such as the length of an index entry
	case "28":
		return fault.ErrDenied
	case "08", "53", "57":
		return fault.ErrUnavailable // connections, resources such as too many connections, shutdown and start-up
	}
	return nil
}

// isConnectionLoss reports whether a server could not be reached or a connection broke.
func isConnectionLoss(err error) bool {
	return has[*pgconn.ConnectError](err) || has[*net.OpError](err) || pgconn.SafeToRetry(err) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed)
}

func classifyErrno(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return fault.ErrDiskFull
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fault.ErrReadOnly
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE),
		errors.Is(err, syscall.ENOMEM):
		return fault.ErrUnavailable // the device, or what this process and this machine may have open
	case errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrNotExist),
		errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ELOOP):
		return fault.ErrInvalidData
	}
	return nil
}

// isUnknownHost reports whether the only reason is a host name that does not exist.
func isUnknownHost(err error) bool {
	lookup, ok := errors.AsType[*net.DNSError](err)
	return ok && lookup.IsNotFound && !has[*net.OpError](err) && !has[*pgconn.PgError](err)
}
