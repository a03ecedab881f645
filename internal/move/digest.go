package move

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	stdhash "hash"
	"strings"
)

// row is a row of a table, as both drivers take it.
type row = []any

// digestTable reads a table in the order of its keys.
func digestTable(ctx context.Context, conn *sql.Conn, t table, each func(row) error) (_ Copied, err error) {
	query := fmt.Sprintf("SELECT %s FROM %s ORDER BY %s", strings.Join(t.quoted(), ", "), t.name, t.key)
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return Copied{}, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var (
		moved  = Copied{Name: t.name}
		digest = newDigest(t)
		dest   = make([]any, len(t.columns))
		r      = make(row, len(t.columns))
	)
	for i, c := range t.columns {
		dest[i] = c.kind()
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return Copied{}, err
		}
		for i := range dest {
			r[i] = dest[i].(cell).write(digest.buffer)
		}
		digest.row()
		moved.Rows++
		if err := each(r); err != nil {
			return Copied{}, err
		}
	}
	moved.Digest = digest.sum()
	return moved, rows.Err()
}

// digest is SHA-256 over a table.
type digest struct {
	stdhash.Hash
	buffer *bytes.Buffer
}

// newDigest begins with what the columns are, so that tables of other versions differ.
func newDigest(t table) *digest {
	d := &digest{sha256.New(), new(bytes.Buffer)}
	for _, c := range t.columns {
		writeText(d.buffer, []byte(c.name))
	}
	d.row()
	return d
}

func (d *digest) row() {
	d.Write(d.buffer.Bytes()) // a hash returns no error
	d.buffer.Reset()
}

func (d *digest) sum() string { return hex.EncodeToString(d.Sum(nil)) }
