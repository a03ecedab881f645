//go:build !cgo

package store

import (
	"context"
	"fmt"
)

// OpenSQLite returns [ErrUnsupported]: SQLite is written in C.
func OpenSQLite(context.Context, Config) (DB, error) {
	return nil, fmt.Errorf("%w: this program was built with CGO_ENABLED=0, and SQLite is written in C; build it with"+
		" CGO_ENABLED=1 and a C compiler, or use PostgreSQL", ErrUnsupported)
}

func sqliteKind(error) error { return nil }
