package commit

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/ent/quotagroup"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
)

// keyColumns are the columns of a pool.Key, except those of its quota.
var keyColumns = []string{
	"id", "provider_id", "quota_group_id", "key_prefix", "label",
	"usage_count", "token_count", "extra_requests", "extra_tokens", "last_used_at",
	"weight", "priority", "pass", "allowed_models", "denied_models", "deleted_at", "disabled", "expires_at",
	"degraded_until", "degraded_at", "degraded_reason", "degraded_by", "failures", "counted_class", "counted_at",
	"failure_class", "failed_at", "succeeded_at",
}

var readKeysSQL = "SELECT " + strings.Join(slices.Concat(keyColumns, pool.QuotaColumns), ", ") + " FROM " +
	apikey.Table + " WHERE "

// readPools reads single keys and whole pools, with their groups and providers.
func (s *snapshot) readPools(ctx context.Context, tx bulk.Querier, keys, providers []uuid.UUID) error {
	if len(keys)+len(providers) == 0 {
		return nil
	}
	err := bulk.ScanIn(ctx, tx, readKeysSQL+"id IN %s", keys, func(scan func(...any) error) error {
		_, err := s.keepKey(scan)
		return err
	})
	if err != nil {
		return err
	}
	live := make(map[uuid.UUID][]*pool.Key, len(providers))
	query := readKeysSQL + "provider_id IN %s AND deleted_at IS NULL"
	err = bulk.ScanIn(ctx, tx, query, providers, func(scan func(...any) error) error {
		k, err := s.keepKey(scan)
		if err == nil {
			live[k.Provider] = append(live[k.Provider], k)
		}
		return err
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
	for _, id := range providers {
		keys := live[id]
		slices.SortFunc(keys, func(a, b *pool.Key) int { return bytes.Compare(a.ID[:], b.ID[:]) })
		s.pools[id] = &pool.Pool{Keys: keys, Provider: s.providers[id], Strategy: s.strategy, Turns: map[int]int64{}}
	}
	return nil
}

// keepKey reads a row of readKeysSQL, unless the key has been read: it may have been changed since.
func (s *snapshot) keepKey(scan func(...any) error) (*pool.Key, error) {
	var (
		k                         pool.Key
		deleted                   *time.Time
		allowed, denied, observed []byte
	)
	err := scan(append([]any{
		&k.ID, &k.Provider, &k.Group, &k.Prefix, &k.Label, &k.Uses, &k.Tokens, &k.ExtraRequests, &k.ExtraTokens,
		&k.LastUsed,
		&k.Weight, &k.Priority, &k.Pass, &allowed, &denied, &deleted, &k.Disabled, &k.Expires,
		&k.DegradedUntil, &k.DegradedAt, &k.DegradedReason, (*string)(&k.DegradedBy), &k.Failures,
		(*string)(&k.CountedClass), &k.CountedAt, (*string)(&k.FailureClass), &k.FailedAt, &k.SucceededAt,
	}, k.Cells(&observed)...)...)
	if err != nil {
		return nil, err
	}
	if known, ok := s.keys[k.ID]; ok {
		return known, nil
	}
	k.Deleted = deleted != nil
	s.keys[k.ID] = &k
	const models = "models of a key"
	return &k, errors.Join(
		pool.Decode(models, allowed, &k.Allowed), pool.Decode(models, denied, &k.Denied), k.Read(observed))
}

// readGroups reads the groups of the keys and links the keys to them.
func (s *snapshot) readGroups(ctx context.Context, tx bulk.Querier) error {
	wanted := map[uuid.UUID]bool{}
	for _, k := range s.keys {
		if k.Group != nil && k.Account == nil {
			wanted[*k.Group] = true
		}
	}
	if err := s.loadGroups(ctx, tx, bulk.Unknown(wanted, s.groups)); err != nil {
		return err
	}
	for _, k := range s.keys {
		if k.Group != nil {
			k.Account = s.groups[*k.Group]
		}
	}
	return nil
}

var readGroupsSQL = "SELECT id, provider_id, name, " + strings.Join(pool.QuotaColumns, ", ") +
	" FROM " + quotagroup.Table + " WHERE id IN %s"

// loadGroups reads groups by their ids.
func (s *snapshot) loadGroups(ctx context.Context, tx bulk.Querier, ids []uuid.UUID) error {
	return bulk.ScanIn(ctx, tx, readGroupsSQL, ids, func(scan func(...any) error) error {
		var g pool.Group
		var observed []byte
		if err := scan(append([]any{&g.ID, &g.Provider, &g.Name}, g.Cells(&observed)...)...); err != nil {
			return err
		}
		s.groups[g.ID] = &g
		return g.Read(observed)
	})
}

// readProviders reads the incidents of providers.
func (s *snapshot) readProviders(ctx context.Context, tx bulk.Querier, ids []uuid.UUID) error {
	for _, id := range ids {
		s.providers[id] = &pool.Provider{ID: id} // also for an unknown provider
	}
	const query = "SELECT id, cooling_until, cooling_reason, incidents FROM " + provider.Table + " WHERE id IN %s"
	return bulk.ScanIn(ctx, tx, query, ids, func(scan func(...any) error) error {
		var p pool.Provider
		if err := scan(&p.ID, &p.CoolingUntil, (*string)(&p.CoolingReason), &p.Incidents); err != nil {
			return err
		}
		*s.providers[p.ID] = p
		return nil
	})
}

var (
	// counterColumns are those of Quota.Counters.
	counterColumns = []string{
		"minute", "requests_this_minute", "tokens_this_minute", "requests_today", "tokens_today", "cost_today",
		"last_reset", "observed",
	}
	keyCounterColumns = append(slices.Clip(counterColumns), "pass")
	useColumns        = []string{
		"usage_count", "token_count", "extra_requests", "extra_tokens", "last_used_at", "succeeded_at",
	}
	stateColumns = []string{
		"degraded", "degraded_until", "degraded_at", "degraded_reason", "degraded_by", "failures", "counted_class",
		"counted_at", "failure_class", "failed_at",
	}
	coolingColumns = []string{"cooling_until", "cooling_reason", "incidents"}

	// Columns without an index are written apart from indexed ones.
	writeCounters  = updateByID(apikey.Table, keyCounterColumns)
	writeUses      = updateByID(apikey.Table, keyCounterColumns, useColumns)
	writeStates    = updateByID(apikey.Table, stateColumns)
	writeGroups    = updateByID(quotagroup.Table, counterColumns)
	writeProviders = updateByID(provider.Table, coolingColumns)
)

// updateByID writes columns, and updated_at after them.
func updateByID(table string, columns ...[]string) bulk.Update {
	return bulk.NewUpdate(table, bulk.ByID, append(slices.Concat(columns...), "updated_at")...)
}

// writePools writes the rows that the batch has changed, in the order of their ids. To is tx, or collects statements to
// be executed together, none of which may change a row of another.
func (s *snapshot) writePools(ctx context.Context, tx, to bulk.Execer, engine string) error {
	var counters, uses, states, groups, providers [][]any
	for _, k := range changedRows(s.keys, func(k *pool.Key) bool { return k.Changed != 0 }) {
		row, err := k.Counters()
		if err != nil {
			return err
		}
		row = append(row, k.Pass)
		switch {
		case k.Changed&pool.ChangedUses != 0:
			row = append(row, k.Uses, k.Tokens, k.ExtraRequests, k.ExtraTokens, k.LastUsed, k.SucceededAt)
			uses = append(uses, append(row, s.now, k.ID))
		case k.Changed&pool.ChangedCounters != 0:
			counters = append(counters, append(row, s.now, k.ID))
		}
		if k.Changed&pool.ChangedState != 0 {
			states = append(states, []any{
				k.DegradedUntil != nil, k.DegradedUntil, k.DegradedAt, k.DegradedReason, string(k.DegradedBy),
				k.Failures,
				string(k.CountedClass), k.CountedAt, string(k.FailureClass), k.FailedAt, s.now, k.ID,
			})
		}
		k.Changed = 0
	}
	for _, g := range changedRows(s.groups, func(g *pool.Group) bool { return g.Changed != 0 }) {
		row, err := g.Counters()
		if err != nil {
			return err
		}
		groups = append(groups, append(row, s.now, g.ID))
		g.Changed = 0
	}
	for _, p := range changedRows(s.providers, func(p *pool.Provider) bool { return p.Changed }) {
		providers = append(providers, []any{p.CoolingUntil, string(p.CoolingReason), p.Incidents, s.now, p.ID})
		p.Changed = false
	}
	for _, w := range []struct {
		bulk.Update
		rows [][]any
		to   bulk.Execer
	}{
		{writeStates, states, tx}, {writeCounters, counters, to}, {writeUses, uses, to}, {writeGroups, groups, to},
		{writeProviders, providers, to},
	} {
		if err := w.Run(ctx, w.to, engine, w.rows); err != nil {
			return err
		}
	}
	return nil
}

// changedRows returns the rows to be written, in the order of their ids.
func changedRows[T any](rows map[uuid.UUID]T, changed func(T) bool) (some []T) {
	var ids []uuid.UUID
	for id, row := range rows {
		if changed(row) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	for _, id := range ids {
		some = append(some, rows[id])
	}
	return some
}
