package migrate

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	atlas "ariga.io/atlas/sql/migrate"
)

// querier is implemented by *sql.DB, *sql.Conn and *sql.Tx.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

const revisionsTable = "atlas_schema_revisions"

// cloudIdentifier is a row that the CLI keeps among the revisions, but that is not a revision.
const cloudIdentifier = ".atlas_cloud_identifier"

// history is what a database says about itself.
type history struct {
	applicationID int64 // always 0 on PostgreSQL
	tables        int   // besides the revisions table
	revisions     []*atlas.Revision
}

// pending returns the files of dir that the database lacks, or why the database must not be touched.
func (h history) pending(dir atlas.Dir) ([]atlas.File, error) {
	if h.applicationID != 0 && h.applicationID != ApplicationID {
		return nil, fmt.Errorf("%w: its application_id is %#x", ErrForeign, h.applicationID)
	}
	if h.tables > 0 && len(h.revisions) == 0 {
		return nil, fmt.Errorf("%w: it has tables, but no migration was ever applied to it", ErrForeign)
	}
	files, err := dir.Files()
	if err != nil {
		return nil, err
	}
	sums, err := dir.Checksum()
	if err != nil {
		return nil, err
	}
	known := 0 // revisions that are files of ours
	for _, r := range h.revisions {
		i := slices.IndexFunc(files, func(f atlas.File) bool { return f.Version() == r.Version })
		if i >= 0 && known == 0 && r.Type == atlas.RevisionTypeBaseline {
			known = i // one row stands for all files up to it
		}
		switch {
		case i < 0 && known == 0 && h.applicationID == 0:
			return nil, fmt.Errorf("%w: its first migration is %s_%s", ErrForeign, r.Version, r.Description)
		case i < 0 && len(files) > 0 && r.Version < files[len(files)-1].Version():
			return nil, fmt.Errorf("%w: it applied %s_%s in between", ErrHistory, r.Version, r.Description)
		case i < 0:
			return nil, fmt.Errorf("%w: it applied %s_%s", ErrNewer, r.Version, r.Description)
		case i != known:
			return nil, fmt.Errorf("%w: it applied %s without %s", ErrHistory, files[i].Name(), files[known].Name())
		}
		sum, err := sums.SumByName(files[i].Name())
		if err != nil {
			return nil, err
		}
		if r.Hash != "" && r.Hash != sum { // a baseline has no hash
			return nil, fmt.Errorf("%w: %s", ErrEdited, files[i].Name())
		}
		known++
	}
	if n := len(h.revisions); n > 0 && h.revisions[n-1].Applied < h.revisions[n-1].Total {
		known-- // the CLI's --tx-mode none stopped in the middle of it
	}
	return files[known:], nil
}

// revisions keeps the revisions table as the Atlas CLI does.
type revisions struct {
	querier
	// jsonText reports whether JSON is bound as text, not as bytes.
	jsonText bool
}

var _ atlas.RevisionReadWriter = revisions{}

// Ident implements atlas.RevisionReadWriter.
func (revisions) Ident() *atlas.TableIdent { return &atlas.TableIdent{Name: revisionsTable} }

const revisionColumns = "version, description, type, applied, total, executed_at, execution_time," +
	" error, error_stmt, hash, partial_hashes, operator_version"

// ReadRevisions implements atlas.RevisionReadWriter.
func (r revisions) ReadRevisions(ctx context.Context) (_ []*atlas.Revision, err error) {
	rows, err := r.QueryContext(ctx, "SELECT "+revisionColumns+" FROM "+revisionsTable+
		" WHERE version <> $1 ORDER BY version", cloudIdentifier)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", revisionsTable, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var all []*atlas.Revision
	for rows.Next() {
		rev, err := scanRevision(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, rev)
	}
	return all, rows.Err()
}

// ReadRevision implements atlas.RevisionReadWriter.
func (r revisions) ReadRevision(ctx context.Context, version string) (*atlas.Revision, error) {
	rev, err := scanRevision(r.QueryRowContext(ctx,
		"SELECT "+revisionColumns+" FROM "+revisionsTable+" WHERE version = $1", version))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, atlas.ErrRevisionNotExist
	}
	return rev, err
}

func scanRevision(row interface{ Scan(dest ...any) error }) (*atlas.Revision, error) {
	var (
		rev           atlas.Revision
		message, stmt sql.NullString
		partial       []byte
	)
	err := row.Scan(&rev.Version, &rev.Description, &rev.Type, &rev.Applied, &rev.Total, &rev.ExecutedAt,
		&rev.ExecutionTime, &message, &stmt, &rev.Hash, &partial, &rev.OperatorVersion)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", revisionsTable, err)
	}
	rev.Error, rev.ErrorStmt = message.String, stmt.String
	if len(partial) > 0 {
		if err := json.Unmarshal(partial, &rev.PartialHashes); err != nil {
			return nil, fmt.Errorf("read %s: partial_hashes of %s: %w", revisionsTable, rev.Version, err)
		}
	}
	return &rev, nil
}

// WriteRevision implements atlas.RevisionReadWriter. Like the CLI, it never changes the description and the time of an
// existing row.
func (r revisions) WriteRevision(ctx context.Context, rev *atlas.Revision) error {
	partial, err := json.Marshal(rev.PartialHashes)
	if err != nil {
		return err
	}
	var hashes any = partial
	if r.jsonText {
		hashes = string(partial)
	}
	_, err = r.ExecContext(ctx, "INSERT INTO "+revisionsTable+" ("+revisionColumns+") VALUES ("+
		"$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (version) DO UPDATE SET type = excluded.type,"+
		" applied = excluded.applied, total = excluded.total, execution_time = excluded.execution_time,"+
		" error = excluded.error, error_stmt = excluded.error_stmt, hash = excluded.hash,"+
		" partial_hashes = excluded.partial_hashes, operator_version = excluded.operator_version",
		rev.Version, rev.Description, int64(rev.Type), rev.Applied, rev.Total, rev.ExecutedAt, int64(rev.ExecutionTime),
		rev.Error, rev.ErrorStmt, rev.Hash, hashes, rev.OperatorVersion)
	return err
}

// DeleteRevision implements atlas.RevisionReadWriter.
func (r revisions) DeleteRevision(ctx context.Context, version string) error {
	_, err := r.ExecContext(ctx, "DELETE FROM "+revisionsTable+" WHERE version = $1", version)
	return err
}
