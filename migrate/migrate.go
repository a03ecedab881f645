// Package migrate brings a database to the schema of this program, and says where the database stands.
//
// The migrations are Atlas files, embedded here. Progress is kept in the table that the Atlas
// CLI uses, byte for byte, so that this package and `atlas migrate apply` can take turns on
// one database.
package migrate

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"time"

	atlas "ariga.io/atlas/sql/migrate"
)

//go:embed sqlite/*.sql sqlite/atlas.sum postgres/*.sql postgres/atlas.sum
var files embed.FS

// ApplicationID marks a SQLite file as one of ours, in the file's header ("MSrg").
const ApplicationID = 0x4d537267

// Dialect names a database engine.
type Dialect string

// The dialects. On PostgreSQL the migrations are of the first schema in the connection's
// search_path.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres"
)

// Revision is a migration that a database has applied.
type Revision struct {
	Version    string    // the digits a file's name begins with
	Name       string    // the rest of it, such as init
	ExecutedAt time.Time // when it was applied, UTC
}

// State is where a database stands.
type State struct {
	Applied []Revision // in order
	Pending []string   // names of the files to come, in order; empty: up to date
}

// Apply brings the database up to date and returns the names of the files it applied, none
// when there was nothing to do. Each file is one transaction: it is applied whole or not at
// all, and files before a failing one stay. Any number of processes may apply at once; one
// does the work, the others wait for it up to a minute.
//
// It returns the errors of [Verify], [ErrForeignKeys], or the driver's error with the failing
// file and statement.
func Apply(ctx context.Context, db *sql.DB, d Dialect) ([]string, error) {
	e, dir, err := engineOf(d)
	if err != nil {
		return nil, err
	}
	return apply(ctx, db, e, dir)
}

// Verify returns nil if the database has applied the first of this program's files, all of them, or none. Otherwise it
// returns [ErrForeign], [ErrNewer], [ErrEdited] or [ErrHistory], or [ErrChecksum] if the program's own files are not in
// order. It only reads.
func Verify(ctx context.Context, db *sql.DB, d Dialect) error {
	_, err := Status(ctx, db, d)
	return err
}

// Status returns which migrations are applied and which are pending. It only reads, and
// returns the errors of [Verify].
func Status(ctx context.Context, db *sql.DB, d Dialect) (State, error) {
	e, dir, err := engineOf(d)
	if err != nil {
		return State{}, err
	}
	return status(ctx, db, e, dir)
}

func status(ctx context.Context, q querier, e engine, dir atlas.Dir) (State, error) {
	h, err := e.read(ctx, q)
	if err != nil {
		return State{}, err
	}
	pending, err := h.pending(dir)
	if err != nil {
		return State{}, err
	}
	var s State
	for _, r := range h.revisions {
		if r.Applied == r.Total {
			s.Applied = append(s.Applied, Revision{r.Version, r.Description, r.ExecutedAt.UTC()})
		}
	}
	for _, f := range pending {
		s.Pending = append(s.Pending, f.Name())
	}
	return s, nil
}

// engineOf returns the engine of a dialect, and its embedded files, after comparing them with atlas.sum.
func engineOf(d Dialect) (engine, atlas.Dir, error) {
	switch d {
	case SQLite:
		dir, err := sqliteDir()
		return sqliteEngine{}, dir, err
	case Postgres:
		dir, err := postgresDir()
		return postgresEngine{}, dir, err
	default:
		return nil, nil, fmt.Errorf("migrate: dialect %q is not supported", d)
	}
}

var (
	sqliteDir   = sync.OnceValues(func() (atlas.Dir, error) { return load(files, "sqlite") })
	postgresDir = sync.OnceValues(func() (atlas.Dir, error) { return load(files, "postgres") })
)

// load copies a folder of fsys into an Atlas directory and validates it.
func load(fsys fs.FS, folder string) (atlas.Dir, error) {
	entries, err := fs.ReadDir(fsys, folder)
	if err != nil {
		return nil, err
	}
	dir := &atlas.MemDir{}
	for _, e := range entries {
		content, err := fs.ReadFile(fsys, path.Join(folder, e.Name()))
		if err != nil {
			return nil, err
		}
		if err := dir.WriteFile(e.Name(), content); err != nil {
			return nil, err
		}
	}
	if err := atlas.Validate(dir); err != nil {
		var sum *atlas.ChecksumError
		if errors.As(err, &sum) {
			return nil, fmt.Errorf("%w: %s was %s", ErrChecksum, sum.File, reason(sum.Reason))
		}
		return nil, fmt.Errorf("%w: %w", ErrChecksum, err)
	}
	d := validated{Dir: dir}
	if d.files, err = dir.Files(); err != nil {
		return nil, err
	}
	d.sums, err = dir.Checksum()
	return d, err
}

// validated is a directory that stays as it is, so that its files are read and hashed once, not for each database and
// each of its migrations.
type validated struct {
	atlas.Dir
	files []atlas.File
	sums  atlas.HashFile
}

// Files implements atlas.Dir.
func (d validated) Files() ([]atlas.File, error) { return d.files, nil }

// Checksum implements atlas.Dir.
func (d validated) Checksum() (atlas.HashFile, error) { return d.sums, nil }

func reason(r atlas.Reason) string {
	switch r {
	case atlas.ReasonAdded:
		return "added"
	case atlas.ReasonRemoved:
		return "removed"
	default:
		return "edited"
	}
}
