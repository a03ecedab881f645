package commit

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/expiredlease"
	"github.com/jeffersonwarrior/modelscan/ent/keylease"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// A lease is open while it is in key_leases. When it has expired and its reservation is released, it moves to
// expired_leases, where it can still be ended. Whoever ends it removes its row, so that everybody else sees that it has
// ended.

const (
	plainColumns = "id, api_key_id, model_id, quota_group_id, reserved_tokens, reserved_cost, pass, probe," +
		" acquired_at, expires_at"
	sparseColumns = "reserved_output, attempt_group, attempt, consumer_id, consumer_path, access_key_id," +
		" COALESCE(tags, '')"
	leaseColumns = plainColumns + ", " + sparseColumns
)

// readOpen reads the open leases of providers and counts them in their pools, which have been read.
func (s *snapshot) readOpen(ctx context.Context, tx bulk.Querier, providers []uuid.UUID) error {
	for _, id := range providers {
		var all []*pool.Lease
		err := bulk.Scan(ctx, tx, "SELECT "+leaseColumns+leasesOfSQL, []any{id}, func(scan func(...any) error) error {
			l, err := scanLease(scan)
			all = append(all, l)
			return err
		})
		if err != nil {
			return err
		}
		s.pools[id].Open(all, s.groups, s.now)
		s.looked[id] = true
	}
	return nil
}

// takeLeases removes the leases that end from the tables, reads the leases that are renewed, or that an earlier
// attempt may have acquired, and reads the keys and groups of all.
func (s *snapshot) takeLeases(ctx context.Context, tx bulk.Querier, ending, asked []uuid.UUID) error {
	const (
		here      = " WHERE id IN %s"
		take      = "DELETE FROM " + keylease.Table + here + " RETURNING " + leaseColumns
		takeEnded = "DELETE FROM " + expiredlease.Table + here + " RETURNING " + expiredColumns
		read      = "SELECT " + leaseColumns + " FROM " + keylease.Table + here
	)
	if err := bulk.ScanIn(ctx, tx, take, ending, s.keepLease); err != nil {
		return err
	}
	isOpen := func(id uuid.UUID) bool { return s.leases[id] != nil }
	ended := slices.DeleteFunc(slices.Clone(ending), isOpen)
	if err := bulk.ScanIn(ctx, tx, takeEnded, ended, s.keepExpired); err != nil {
		return err
	}
	if err := bulk.ScanIn(ctx, tx, read, asked, s.keepLease); err != nil {
		return err
	}
	return s.readCounting(ctx, tx, maps.Values(s.leases))
}

// readCounting reads the keys and groups that leases count in, deleted keys included.
func (s *snapshot) readCounting(ctx context.Context, tx bulk.Querier, leases iter.Seq[*pool.Lease]) error {
	keys, groups := map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	for l := range leases {
		keys[l.Key] = true
		if l.Group != nil {
			groups[*l.Group] = true
		}
	}
	if err := s.readPools(ctx, tx, bulk.Unknown(keys, s.keys), nil); err != nil {
		return err
	}
	return s.loadGroups(ctx, tx, bulk.Unknown(groups, s.groups))
}

// keepLease reads a row of leaseColumns.
func (s *snapshot) keepLease(scan func(...any) error) error {
	l, err := scanLease(scan)
	if err == nil {
		s.leases[l.ID] = l
	}
	return err
}

func scanLease(scan func(...any) error) (*pool.Lease, error) {
	l := new(pool.Lease)
	return l, scan(
		&l.ID, &l.Key, &l.Model, &l.Group, &l.Tokens, (*int64)(&l.Cost), &l.Pass, &l.Probe, &l.Acquired, &l.Expires,
		&l.Output, &l.AttemptGroup, &l.Attempt, &l.For, &l.Path, &l.By, &l.Tags)
}

// leasesOfSQL selects the leases of all keys of a provider.
const leasesOfSQL = " FROM " + keylease.Table +
	" WHERE api_key_id IN (SELECT id FROM " + apikey.Table + " WHERE provider_id = $1)"

const expiredColumns = "id, api_key_id, expires_at"

// keepExpired reads a row of expiredColumns.
func (s *snapshot) keepExpired(scan func(...any) error) error {
	l := new(pool.Lease)
	err := scan(&l.ID, &l.Key, &l.Expires)
	if err == nil {
		s.expired[l.ID] = l
	}
	return err
}

var (
	insertLease = bulk.NewSparse(keylease.Table, strings.Split(plainColumns, ", "),
		bulk.Sparse{Column: keylease.FieldReservedOutput, Default: keylease.DefaultReservedOutput},
		bulk.Sparse{Column: keylease.FieldConsumerID, Default: (*uuid.UUID)(nil)},
		bulk.Sparse{Column: keylease.FieldConsumerPath, Default: keylease.DefaultConsumerPath},
		bulk.Sparse{Column: keylease.FieldAccessKeyID, Default: (*uuid.UUID)(nil)},
		bulk.Sparse{Column: keylease.FieldTags, Default: (*string)(nil)},
		bulk.Sparse{Column: keylease.FieldAttemptGroup, Default: keylease.DefaultAttemptGroup},
		bulk.Sparse{Column: keylease.FieldAttempt, Default: keylease.DefaultAttempt})
	insertExpired = bulk.NewInsert(expiredlease.Table, strings.Split(expiredColumns, ", "), "")
)

// leaseRows returns the values of leaseColumns.
func leaseRows(leases []*pool.Lease) (rows [][]any) {
	for _, l := range leases {
		rows = append(rows, []any{
			l.ID, l.Key, l.Model, l.Group, l.Tokens, int64(l.Cost), l.Pass, l.Probe, l.Acquired, l.Expires,
			l.Output, l.For, l.Path, l.By, ledger.TagsCell(l.Tags), l.AttemptGroup, l.Attempt,
		})
	}
	return rows
}

var writeRenewed = bulk.NewUpdate(keylease.Table, bulk.ByID, keylease.FieldReservedTokens, keylease.FieldReservedOutput,
	keylease.FieldReservedCost, keylease.FieldExpiresAt)

// renewedRows returns the values of writeRenewed.
func renewedRows(leases []*pool.Lease) (rows [][]any) {
	for _, l := range leases {
		rows = append(rows, []any{l.Tokens, l.Output, int64(l.Cost), l.Expires, l.ID})
	}
	return rows
}

// expiredRows returns the values of expiredColumns.
func expiredRows(leases []*pool.Lease) (rows [][]any) {
	for _, l := range leases {
		rows = append(rows, []any{l.ID, l.Key, l.Expires})
	}
	return rows
}

// expiries notes when each pool was last searched for leases that have expired.
type expiries struct {
	mu   sync.Mutex
	last map[uuid.UUID]time.Time
}

// due reports whether it is time to search a pool, and notes that it is searched now.
func (x *expiries) due(provider uuid.UUID, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if last, ok := x.last[provider]; ok && now.Sub(last) < time.Second && !now.Before(last) {
		return false
	}
	if x.last == nil || len(x.last) > maxRemembered {
		x.last = map[uuid.UUID]time.Time{}
	}
	x.last[provider] = now
	return true
}

// takeExpired releases the expired leases of a provider, including those of deleted keys, and moves them to
// expired_leases for a day. It takes some thousand at a time, because more would keep others waiting, and notes when
// none is left.
func (b *batch) takeExpired(ctx context.Context, p *pool.Pool) error {
	var expired []*pool.Lease
	err := bulk.Scan(ctx, b.tx, takeExpiredSQL, []any{p.ID, b.now, b.Expired}, func(scan func(...any) error) error {
		l, err := scanLease(scan)
		expired = append(expired, l)
		return err
	})
	b.looked[p.ID] = len(expired) < b.Expired
	if err != nil || len(expired) == 0 {
		return err
	}
	if err := b.readCounting(ctx, b.tx, slices.Values(expired)); err != nil {
		return err
	}
	for _, l := range expired {
		b.release(l, pool.Amount{})
	}
	if err := insertExpired.Run(ctx, b.tx, b.engine, expiredRows(expired)); err != nil {
		return err
	}
	_, err = b.tx.ExecContext(ctx, removeExpiredSQL, p.ID, b.now.Add(-keptExpired))
	return err
}

const takeExpiredSQL = "DELETE FROM " + keylease.Table + " WHERE id IN (SELECT id" + leasesOfSQL +
	" AND expires_at <= $2 ORDER BY expires_at LIMIT $3) RETURNING " + leaseColumns

// keptExpired is how long, at least, an expired lease can still be ended.
const keptExpired = utc.Day

var removeExpiredSQL = "DELETE FROM " + expiredlease.Table +
	" WHERE api_key_id IN (SELECT id FROM " + apikey.Table + " WHERE provider_id = $1) AND expires_at <= $2"
