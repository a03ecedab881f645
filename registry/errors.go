package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/migrate"
)

// Errors that operations return, for errors.Is: the ten that a caller meets. The others are kinds of these: each
// matches its group too. An error is wrapped with the operation and, if there is one, the driver's own error.
//
//	group              kinds                                   what to do
//	ErrNotFound        ErrNoSecret                             nothing is there: create it, or tell the user
//	ErrConflict        ErrLeaseEnded                           it was done already, by you or by somebody else
//	ErrInvalidData                                             correct the input: the text names each fault
//	ErrForeignKey                                              name a row that exists; purge what refers to it
//	ErrNoKeyAvailable                                          wait until OpensAt of the NoKeyError, or add keys
//	ErrBudget                                                  wait until OpensAt of the BudgetError, or grant more
//	ErrForbidden                                               refuse the caller: the ForbiddenError says why
//	ErrBusy                                                    nothing was done: try again
//	ErrUncertain                                               check whether it was done; or try again, with the
//	                                                           same request id
//	ErrUnavailable     ErrClosed, ErrSchema, ErrReadOnly,      nothing was done: have the database looked after,
//	                   ErrDiskFull, ErrCorrupt, ErrExhausted,  then try again
//	                   ErrDenied, ErrUnsupported, ErrKeyring
var (
	// ErrNotFound: there is no such row, or it is deleted. It also matches sql.ErrNoRows.
	ErrNotFound = fault.ErrNotFound
	// ErrConflict: the row to be created exists already, or its name is taken; or another request was recorded under
	// the request id.
	ErrConflict = fault.ErrConflict
	// ErrInvalidData: the input breaks a rule. The text names every fault at once and never holds an API key.
	ErrInvalidData = fault.ErrInvalidData
	// ErrForeignKey: a row that is referred to is missing, and the error matches ErrNotFound too; or the row to be
	// purged is still referred to.
	ErrForeignKey = fault.ErrForeignKey
	// ErrNoKeyAvailable: no API key of the provider may be used now, or the key of a lease has limits that admit no
	// renewal. The error is a [*NoKeyError].
	ErrNoKeyAvailable = fault.ErrNoKeyAvailable
	// ErrForbidden: a secret is of no access key, or the access key or its consumer may not be used. The error is a
	// [*ForbiddenError].
	ErrForbidden = fault.ErrForbidden
	// ErrBudget: a request does not fit into the budgets of its consumer and of those above it. The error is a
	// [*BudgetError].
	ErrBudget = fault.ErrBudget
	// ErrBusy: others, of this process or another one, held what was needed for longer than [WithBusyTimeout] says, or
	// transactions on PostgreSQL were in each other's way. Nothing was done. Within [Registry.InTx], every registry but
	// the transaction's gets it.
	ErrBusy = fault.ErrBusy
	// ErrUncertain: the connection was lost, or the context ended, while a commit was under way; or a SQLite file could
	// not be synced. The operation may have been done or not, and may turn up after a crash. A request is recorded
	// once, whatever happened, if it is recorded again under its id.
	ErrUncertain = fault.ErrUncertain
	// ErrUnavailable: the database cannot be used. Without a kind: the server cannot be reached, has no connection to
	// spare, or is starting or stopping, after half a minute of trying unless the context ended earlier; or a SQLite
	// file was removed or replaced while it is open, which is noticed within a second, or cannot be read or written.
	// Nothing was done.
	ErrUnavailable = fault.ErrUnavailable
)

// Kinds of the errors above.
var (
	// ErrNoSecret, an [ErrNotFound]: the API key is kept nowhere, only its hash is stored.
	ErrNoSecret = fault.ErrNoSecret
	// ErrLeaseEnded, an [ErrConflict]: the lease has been settled, failed or released already, through any handle and
	// by any process; or it expired a day ago, or at any time before [Lease.Renew]. RecordUsage can still record its
	// request.
	ErrLeaseEnded = fault.ErrLeaseEnded
	// ErrClosed, an [ErrUnavailable]: the registry was closed, or its transaction has ended.
	ErrClosed = fault.ErrClosed
	// ErrSchema, an [ErrUnavailable]: this program cannot use the database's schema. The error also matches one of
	// package migrate that says why.
	ErrSchema = fault.ErrSchema
	// ErrReadOnly, an [ErrUnavailable]: the file, its folder or its file system cannot be written; or all servers of
	// the name are standbys. What would write through [Registry.Client] returns it too.
	ErrReadOnly = fault.ErrReadOnly
	// ErrDiskFull, an [ErrUnavailable]: the disk is full, or a quota is reached. Reads still work. In WAL mode even a
	// DELETE needs space: free some outside of the database.
	ErrDiskFull = fault.ErrDiskFull
	// ErrCorrupt, an [ErrUnavailable]: the file is damaged or is not a database. SQLite also takes some disks that
	// cannot read for damaged files.
	ErrCorrupt = fault.ErrCorrupt
	// ErrExhausted, an [ErrUnavailable]: the server has too few locks for the transaction beside those of others, or
	// too little memory. Tried again at once, it would ask for as much: raise the server's max_locks_per_transaction,
	// or its memory; or do less at once. The text has the server's advice.
	ErrExhausted = fault.ErrExhausted
	// ErrDenied, an [ErrUnavailable]: the server refuses the user, the password or a permission.
	ErrDenied = fault.ErrDenied
	// ErrUnsupported, an [ErrUnavailable]: the server cannot be worked with, because of its version, its encoding, or
	// settings by which it would lose what it has confirmed. Also for SQLite, in a program that was built without cgo.
	ErrUnsupported = fault.ErrUnsupported
	// ErrKeyring, an [ErrUnavailable]: API keys are sealed, and the keyring is missing, lacks the key that is needed,
	// or has another one of the same id.
	ErrKeyring = fault.ErrKeyring
)

// translate is the one place where errors from below become this package's. It puts the operation before the text and
// keeps the cause; an error that is ours already stays as it is. When the context has ended, the error matches the
// context's too. Without an operation, that of a caller is to come before it.
func translate(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	err = ours(ended(ctx, err))
	if op == "" {
		return err
	}
	return fmt.Errorf("%s: %w", op, err)
}

// ours returns an error from below as one of this package.
func ours(err error) error {
	switch {
	case fault.Is(err):
		return err
	case ent.IsNotFound(err):
		return ErrNotFound
	case ent.IsValidationError(err), errors.Is(err, store.ErrName):
		return fmt.Errorf("%w: %w", ErrInvalidData, err)
	}
	for _, schema := range []error{
		migrate.ErrChecksum, migrate.ErrEdited, migrate.ErrForeign,
		migrate.ErrForeignKeys, migrate.ErrHistory, migrate.ErrNewer,
	} {
		if errors.Is(err, schema) {
			return fmt.Errorf("%w: %w", ErrSchema, err)
		}
	}
	if store.IsPoolerTrouble(err) {
		return fmt.Errorf("%w: a pooler is in between: open the registry WithPooler: %w", ErrUnsupported, err)
	}
	if kind := store.Classify(err); fault.Is(kind) {
		return ofKind(kind, err)
	}
	return plain(err)
}

// driverError is an error from below. What Ent and this module's own packages put around the driver's text says nothing
// to a caller and is left out of the text; errors.As finds it.
type driverError struct {
	text   string
	causes []error
}

func (e *driverError) Error() string   { return e.text }
func (e *driverError) Unwrap() []error { return e.causes }

// plain returns an error with the driver's text alone, on one line.
func plain(cause error) error { return &driverError{store.Text(cause), []error{cause}} }

// ofKind returns an error of a kind, with the driver's text if that adds something to the operation and the kind.
func ofKind(kind, cause error) error {
	text := fmt.Sprintf("%s: %s", kind, store.Text(cause))
	switch hint := store.Hint(cause); {
	case errors.Is(kind, ErrConflict), errors.Is(kind, ErrClosed):
		text = kind.Error()
	case errors.Is(kind, ErrForeignKey):
		text = fmt.Sprintf("%s: usage or other rows refer to it, or a row that it refers to is gone", kind)
	case hint != "" && errors.Is(kind, ErrExhausted):
		text += ": " + hint
	}
	return &driverError{text, []error{kind, cause}}
}

// ended makes an error match the context's when the context has ended: a transaction that was
// rolled back for that reason says no more than that it is over.
func ended(ctx context.Context, err error) error {
	if cause := ctx.Err(); err != nil && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, plain(err))
	}
	return err
}

// taken makes the error of a unique index name what is taken. Any other error stays as it is.
func taken(err error, format string, args ...any) error {
	if !errors.Is(store.Classify(err), ErrConflict) {
		return err
	}
	text := fmt.Sprintf("%s: %s", ErrConflict, fmt.Sprintf(format, args...))
	return &driverError{text, []error{ErrConflict, err}}
}
