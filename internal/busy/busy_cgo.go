//go:build cgo

package busy

import (
	"errors"

	"github.com/mattn/go-sqlite3"
)

// Is reports whether an error says that somebody else holds the database.
func Is(err error) bool {
	var sqliteErr sqlite3.Error
	return errors.As(err, &sqliteErr) && (sqliteErr.Code == sqlite3.ErrBusy || sqliteErr.Code == sqlite3.ErrLocked)
}
