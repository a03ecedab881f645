package commit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/expiredlease"
	"github.com/jeffersonwarrior/modelscan/ent/keylease"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/ent/quotagroup"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
)

// keyColumns are those of a pool.Key beside its quota.
var keyColumns = []string{
	"id", "provider_id", "quota_group_id", "key_prefix", "label",
	"usage_count", "token_count", "extra_requests", "extra_tokens", "last_used_at",
	"weight", "priority", "pass", "allowed_models", "denied_models", "deleted_at", "disabled", "expires_at",
	"degraded_until", "degraded_at", "degraded_reason", "degraded_by", "failures", "counted_class", "counted_at",
	"failure_class", "failed_at", "succeeded_at",
}

var readKeysSQL = "SELECT " + strings.Join(slices.Concat(keyColumns, pool.QuotaColumns), ", ") + " FROM " + apikey.Table + " WHERE "

// readPools reads keys, and pools as wholes, with their groups and providers.
func (s *Snapshot) readPools(ctx context.Context, tx bulk.Querier, keys, providers []uuid.UUID) error {
	if len(keys)+len(providers) == 0 {
		return nil
	}
	var (
		args  []any
		where []string
	)
	for _, in := range []struct {
		ids  []uuid.UUID
		text string
	}{{keys, "id IN %s"}, {providers, "provider_id IN %s AND deleted_at IS NULL"}} {
		if len(in.ids) > 0 {
			list, more := bulk.InFrom(len(args)+1, in.ids)
			where, args = append(where, fmt.Sprintf(in.text, list)), append(args, more...)
		}
	}
	found := make(map[uuid.UUID][]*pool.Key, len(providers))
	for _, id := range providers {
		found[id] = nil
	}
	err := bulk.Scan(ctx, tx, readKeysSQL+"("+strings.Join(where, " OR ")+")", args, func(scan func(...any) error) error {
		k, err := scanKey(scan)
		if err != nil {
			return err
		}
		if known, ok := s.Keys[k.ID]; ok {
			k = known // it may have been changed since
		}
		s.Keys[k.ID] = k
		if _, wanted := found[k.Provider]; wanted && !k.Deleted {
			found[k.Provider] = append(found[k.Provider], k)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.readGroups(ctx, tx); err != nil {
		return err
	}
	if err := s.readProviders(ctx, tx, providers); err != nil {
		return err
	}
	for id, keys := range found {
		slices.SortFunc(keys, func(a, b *pool.Key) int { return bytes.Compare(a.ID[:], b.ID[:]) })
		s.Pools[id] = &pool.Pool{Keys: keys, Provider: s.Providers[id], Strategy: s.strategy, Turns: map[int]int64{}}
	}
	return nil
}

// scanKey reads a row of readKeysSQL.
func scanKey(scan func(...any) error) (*pool.Key, error) {
	var (
		k                         pool.Key
		deleted                   *time.Time
		allowed, denied, observed []byte
	)
	err := scan(append([]any{
		&k.ID, &k.Provider, &k.Group, &k.Prefix, &k.Label, &k.Uses, &k.Tokens, &k.ExtraRequests, &k.ExtraTokens, &k.LastUsed,
		&k.Weight, &k.Priority, &k.Pass, &allowed, &denied, &deleted, &k.Disabled, &k.Expires,
		&k.DegradedUntil, &k.DegradedAt, &k.DegradedReason, (*string)(&k.DegradedBy), &k.Failures,
		(*string)(&k.CountedClass), &k.CountedAt, (*string)(&k.FailureClass), &k.FailedAt, &k.SucceededAt,
	}, k.Cells(&observed)...)...)
	if err != nil {
		return nil, err
	}
	k.Deleted = deleted != nil
	return &k, errors.Join(readNames(allowed, &k.Allowed), readNames(denied, &k.Denied), k.Read(observed))
}

// readGroups reads the groups of the keys, and ties both together.
func (s *Snapshot) readGroups(ctx context.Context, tx bulk.Querier) error {
	wanted := map[uuid.UUID]bool{}
	for _, k := range s.Keys {
		if k.Group != nil && k.Account == nil {
			wanted[*k.Group] = true
		}
	}
	if err := s.loadGroups(ctx, tx, bulk.Unknown(wanted, s.Groups)); err != nil {
		return err
	}
	for _, k := range s.Keys {
		if k.Group != nil {
			k.Account = s.Groups[*k.Group]
		}
	}
	return nil
}

// loadGroups reads groups by their ids.
func (s *Snapshot) loadGroups(ctx context.Context, tx bulk.Querier, ids []uuid.UUID) error {
	if len(ids) == 0 {
		return nil
	}
	list, args := bulk.In(ids)
	query := "SELECT id, provider_id, name, " + strings.Join(pool.QuotaColumns, ", ") +
		" FROM " + quotagroup.Table + " WHERE id IN " + list
	return bulk.Scan(ctx, tx, query, args, func(scan func(...any) error) error {
		var g pool.Group
		var observed []byte
		if err := scan(append([]any{&g.ID, &g.Provider, &g.Name}, g.Cells(&observed)...)...); err != nil {
			return err
		}
		s.Groups[g.ID] = &g
		return g.Read(observed)
	})
}

// readProviders reads the incidents of providers.
func (s *Snapshot) readProviders(ctx context.Context, tx bulk.Querier, ids []uuid.UUID) error {
	if len(ids) == 0 {
		return nil
	}
	for _, id := range ids {
		s.Providers[id] = &pool.Provider{ID: id} // also for an unknown provider
	}
	list, args := bulk.In(ids)
	query := "SELECT id, cooling_until, cooling_reason, incidents FROM " + provider.Table + " WHERE id IN " + list
	return bulk.Scan(ctx, tx, query, args, func(scan func(...any) error) error {
		var p pool.Provider
		if err := scan(&p.ID, &p.CoolingUntil, (*string)(&p.CoolingReason), &p.Incidents); err != nil {
			return err
		}
		*s.Providers[p.ID] = p
		return nil
	})
}

const leaseColumns = "id, api_key_id, model_id, quota_group_id, reserved_tokens, reserved_cost, pass, probe," +
	" acquired_at, expires_at"

// readOpen has leases count in the pools of providers, which have been read.
func (s *Snapshot) readOpen(ctx context.Context, tx bulk.Querier, providers []uuid.UUID) error {
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
		s.Pools[id].Open(all, s.Groups, s.now)
		s.looked[id] = true
	}
	return nil
}

// takeLeases takes leases that end out of the table, and reads those that are there already of the ones that are to be
// acquired; with their keys and groups.
func (s *Snapshot) takeLeases(ctx context.Context, tx bulk.Querier, ending, asked []uuid.UUID) error {
	read := func(ids []uuid.UUID, sql string, keep func(scan func(...any) error) error) error {
		return bulk.Chunks(ids, func(some []uuid.UUID) error {
			list, args := bulk.In(some)
			return bulk.Scan(ctx, tx, fmt.Sprintf(sql, list), args, keep)
		})
	}
	const take = "DELETE FROM %s WHERE id IN %%s RETURNING %s"
	if err := read(ending, fmt.Sprintf(take, keylease.Table, leaseColumns), s.keepLease); err != nil {
		return err
	}
	isOpen := func(id uuid.UUID) bool { return s.leases[id] != nil }
	ending = slices.DeleteFunc(ending, isOpen)
	if err := read(ending, fmt.Sprintf(take, expiredlease.Table, expiredColumns), s.keepExpired); err != nil {
		return err
	}
	if err := read(asked, "SELECT "+leaseColumns+" FROM "+keylease.Table+" WHERE id IN %s", s.keepLease); err != nil {
		return err
	}
	keys, groups := map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	for _, l := range s.leases {
		keys[l.Key] = true
		if l.Group != nil {
			groups[*l.Group] = true
		}
	}
	if err := s.readPools(ctx, tx, bulk.Unknown(keys, s.Keys), nil); err != nil {
		return err
	}
	return s.loadGroups(ctx, tx, bulk.Unknown(groups, s.Groups))
}

// keepLease reads a row of leaseColumns.
func (s *Snapshot) keepLease(scan func(...any) error) error {
	l, err := scanLease(scan)
	if err == nil {
		s.leases[l.ID] = l
	}
	return err
}

func scanLease(scan func(...any) error) (*pool.Lease, error) {
	l := new(pool.Lease)
	return l, scan(
		&l.ID, &l.Key, &l.Model, &l.Group, &l.Tokens, (*int64)(&l.Cost), &l.Pass, &l.Probe, &l.Acquired, &l.Expires)
}

// leasesOfSQL are those of all keys of a provider.
const leasesOfSQL = " FROM " + keylease.Table +
	" WHERE api_key_id IN (SELECT id FROM " + apikey.Table + " WHERE provider_id = $1)"

const expiredColumns = "id, api_key_id, expires_at"

// keepExpired reads a row of expiredColumns.
func (s *Snapshot) keepExpired(scan func(...any) error) error {
	l := new(pool.Lease)
	err := scan(&l.ID, &l.Key, &l.Expires)
	if err == nil {
		s.expired[l.ID] = l
	}
	return err
}

// readNames reads a list of models.
func readNames(text []byte, to *[]string) error {
	if len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("%w: models of a key: %w", fault.ErrCorrupt, err)
	}
	return nil
}
