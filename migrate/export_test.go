package migrate

import (
	"context"
	"database/sql"

	atlas "ariga.io/atlas/sql/migrate"
)

// What the tests reach to work with other files than the embedded ones.
var (
	Files = files
	Load  = load
)

// ApplyDir is [Apply] with other files.
func ApplyDir(ctx context.Context, db *sql.DB, d Dialect, dir atlas.Dir) ([]string, error) {
	e, _, err := engineOf(d)
	if err != nil {
		return nil, err
	}
	return apply(ctx, db, e, dir)
}

// StatusDir is [Status] with other files.
func StatusDir(ctx context.Context, db *sql.DB, d Dialect, dir atlas.Dir) (State, error) {
	e, _, err := engineOf(d)
	if err != nil {
		return State{}, err
	}
	return status(ctx, db, e, dir)
}
