package commit

import (
	"context"

	"github.com/google/uuid"

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

// takeExpired takes leases of a provider's keys that have expired out of the table, those of keys that are deleted too,
// and releases what they have reserved. That they expired, and have not been ended, is remembered for a day. It takes some
// thousand, and notes when those are all: more would keep others waiting.
func (b *batch) takeExpired(ctx context.Context, p *pool.Pool) error {
	var expired []*pool.Lease
	groups := map[uuid.UUID]bool{}
	err := bulk.Scan(ctx, b.tx, takeExpiredSQL, []any{p.ID, b.now, b.Expired}, func(scan func(...any) error) error {
		l, err := scanLease(scan)
		expired = append(expired, l)
		if l.Group != nil {
			groups[*l.Group] = true
		}
		return err
	})
	b.looked[p.ID] = len(expired) < b.Expired
	if err == nil {
		err = b.loadGroups(ctx, b.tx, bulk.Unknown(groups, b.Groups))
	}
	if err != nil || len(expired) == 0 {
		return err
	}
	for _, l := range expired {
		b.release(l, pool.Amount{})
	}
	if err := insertExpired(ctx, b.tx, expired); err != nil {
		return err
	}
	_, err = b.tx.ExecContext(ctx, removeExpiredSQL, p.ID, b.now.Add(-keptExpired))
	return err
}

const takeExpiredSQL = "DELETE FROM " + keylease.Table + " WHERE id IN (SELECT id" + leasesOfSQL +
	" AND expires_at <= $2 ORDER BY expires_at LIMIT $3) RETURNING " + leaseColumns

// keptExpired is how long at least a lease that has expired can still be ended.
const keptExpired = utc.Day

var removeExpiredSQL = "DELETE FROM " + expiredlease.Table +
	" WHERE api_key_id IN (SELECT id FROM " + apikey.Table + " WHERE provider_id = $1) AND expires_at <= $2"
