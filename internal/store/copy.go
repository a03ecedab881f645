package store

import (
	"context"
	"database/sql"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// CopyFrom writes rows by PostgreSQL's COPY, within the transaction of the connection.
func CopyFrom(ctx context.Context, conn *sql.Conn, table string, columns []string, rows [][]any) error {
	return conn.Raw(func(c any) error {
		_, err := c.(*stdlib.Conn).Conn().CopyFrom(ctx, pgx.Identifier{table}, columns,
			pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
				for n, value := range rows[i] {
					if id, ok := value.(uuid.UUID); ok { // pgx would take it for its text
						rows[i][n] = [16]byte(id)
					}
				}
				return rows[i], nil
			}))
		return err
	})
}
