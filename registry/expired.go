package registry

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/expiredlease"
	"github.com/jeffersonwarrior/modelscan/ent/keylease"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// A lease is open while it is in key_leases. When it has expired, and its reservation is given to others, it moves to
// expired_leases, from which it can still be ended. Whoever ends it removes its row, so that all others see that it has
// ended.

const expiredColumns = "id, api_key_id, expires_at"

// takeExpired takes leases of a provider's keys that have expired out of the table, those of keys that are deleted too,
// and frees what they have reserved. That they expired, and have not been ended, is remembered for a day. It takes some
// thousand, and notes when those are all: more would keep others waiting.
func (r *Registry) takeExpired(ctx context.Context, tx *ent.Client, s *snapshot, p *pool.Pool) error {
	var expired []*pool.Lease
	groups := map[uuid.UUID]bool{}
	err := bulk.Scan(ctx, tx, takeExpiredSQL, []any{p.ID, s.now, r.pieceRows}, func(scan func(...any) error) error {
		l, err := scanLease(scan)
		expired = append(expired, l)
		if l.Group != nil {
			groups[*l.Group] = true
		}
		return err
	})
	s.looked[p.ID] = len(expired) < r.pieceRows
	if err == nil {
		err = s.loadGroups(ctx, tx, bulk.Unknown(groups, s.groups))
	}
	if err != nil || len(expired) == 0 {
		return err
	}
	for _, l := range expired {
		s.release(l, pool.Amount{})
	}
	if err := insertExpired(ctx, tx, expired); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, removeExpiredSQL, p.ID, s.now.Add(-keptExpired))
	return err
}

const takeExpiredSQL = "DELETE FROM " + keylease.Table + " WHERE id IN (SELECT id" + leasesOfSQL +
	" AND expires_at <= $2 ORDER BY expires_at LIMIT $3) RETURNING " + leaseColumns

// keptExpired is how long at least a lease that has expired can still be ended.
const keptExpired = utc.Day

var removeExpiredSQL = "DELETE FROM " + expiredlease.Table +
	" WHERE api_key_id IN (SELECT id FROM " + apikey.Table + " WHERE provider_id = $1) AND expires_at <= $2"

// keepExpired reads a row of expiredColumns.
func (s *snapshot) keepExpired(scan func(...any) error) error {
	l := new(pool.Lease)
	err := scan(&l.ID, &l.Key, &l.Expires)
	if err == nil {
		s.expired[l.ID] = l
	}
	return err
}

var insertExpiredSQL = bulk.Statements(func(n int) string {
	return "INSERT INTO " + expiredlease.Table + " (" + expiredColumns + ") VALUES " + bulk.Placeholders(n, slices.Repeat([]string{"$%d"}, 3)...)
})

func insertExpired(ctx context.Context, tx bulk.Execer, leases []*pool.Lease) error {
	return bulk.Chunks(leases, func(some []*pool.Lease) error {
		args := make([]any, 0, 3*len(some))
		for _, l := range some {
			args = append(args, l.ID, l.Key, l.Expires)
		}
		_, err := tx.ExecContext(ctx, insertExpiredSQL(len(some)), args...)
		return err
	})
}
