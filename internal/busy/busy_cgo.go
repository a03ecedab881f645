//go:build cgo

package busy

import (
	"errors"

	"github.com/mattn/go-sqlite3"
)

// Is reports whether an error says that somebody else holds the database.
func Is(err error) bool {
	e, _ := errors.AsType[sqlite3.Error](err)
	return e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrLocked
}
