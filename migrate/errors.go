package migrate

import "errors"

// Errors of this package, for errors.Is. All but the last are found before anything is written.
var (
	// ErrChecksum is returned when the migration files do not match their atlas.sum: the
	// program was built from files that were edited, added or removed by hand.
	ErrChecksum = errors.New("migration files do not match atlas.sum")
	// ErrEdited is returned when a file has changed since the database applied it.
	ErrEdited = errors.New("an applied migration file was edited")
	// ErrHistory is returned when the database skipped a file of this program, or applied another one in between.
	ErrHistory = errors.New("the database's migrations are not a beginning of this program's")
	// ErrNewer is returned when the database has applied files that are newer than this program.
	ErrNewer = errors.New("the database is newer than this program")
	// ErrForeign is returned when the database belongs to another application.
	ErrForeign = errors.New("the database belongs to another application")
	// ErrForeignKeys is returned when a migration would leave rows that refer to missing rows.
	// It is rolled back.
	ErrForeignKeys = errors.New("the migration breaks foreign keys")
)
