package commit

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/expiredlease"
	"github.com/jeffersonwarrior/modelscan/ent/keylease"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/ent/quotagroup"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
)

var insertLeasesSQL = bulk.Statements(func(n int) string {
	return "INSERT INTO " + keylease.Table + " (" + leaseColumns + ") VALUES " +
		bulk.Placeholders(n, slices.Repeat([]string{"$%d"}, 10)...)
})

func insertLeases(ctx context.Context, tx bulk.Execer, leases []*pool.Lease) error {
	return bulk.Chunks(leases, func(some []*pool.Lease) error {
		args := make([]any, 0, 10*len(some))
		for _, l := range some {
			args = append(args, l.ID, l.Key, l.Model, l.Group, l.Tokens, int64(l.Cost), l.Pass, l.Probe)
			args = append(args, l.Acquired, l.Expires)
		}
		_, err := tx.ExecContext(ctx, insertLeasesSQL(len(some)), args...)
		return err
	})
}

var (
	// counterColumns are those of Quota.Counters.
	counterColumns = slices.Concat(
		bulk.Columns("timestamptz", "minute"),
		bulk.Columns("bigint", "requests_this_minute", "tokens_this_minute", "requests_today", "tokens_today", "cost_today"),
		bulk.Columns("timestamptz", "last_reset"), bulk.Columns("json", "observed"),
	)
	passColumn  = bulk.Columns("bigint", "pass")
	lastColumns = bulk.Columns("timestamptz", "updated_at")
	useColumns  = slices.Concat(
		bulk.Columns("bigint", "usage_count", "token_count", "extra_requests", "extra_tokens"),
		bulk.Columns("timestamptz", "last_used_at", "succeeded_at"),
	)
	stateColumns = slices.Concat(
		bulk.Columns("boolean", "degraded"), bulk.Columns("timestamptz", "degraded_until", "degraded_at"),
		bulk.Columns("text", "degraded_reason", "degraded_by"), bulk.Columns("bigint", "failures"),
		bulk.Columns("text", "counted_class"), bulk.Columns("timestamptz", "counted_at"),
		bulk.Columns("text", "failure_class"), bulk.Columns("timestamptz", "failed_at"),
	)
	coolingColumns = slices.Concat(
		bulk.Columns("timestamptz", "cooling_until"), bulk.Columns("text", "cooling_reason"),
		bulk.Columns("bigint", "incidents"),
	)

	// What changes no index is written apart from what does.
	writeCounters  = updateByID(apikey.Table, counterColumns, passColumn)
	writeUses      = updateByID(apikey.Table, counterColumns, passColumn, useColumns)
	writeStates    = updateByID(apikey.Table, stateColumns)
	writeGroups    = updateByID(quotagroup.Table, counterColumns)
	writeProviders = updateByID(provider.Table, coolingColumns)
)

// updateByID writes columns, and updated_at after them.
func updateByID(table string, columns ...[]bulk.Column) bulk.Update {
	return bulk.NewUpdate(table, bulk.ByID, slices.Concat(append(columns, lastColumns)...)...)
}

// writePools writes the rows that the batch has changed, in the order of their ids. To is tx, or what executes
// statements together: one of those cannot change a row that another one changes.
func (s *Snapshot) writePools(ctx context.Context, tx, to bulk.Execer, engine string) error {
	var counters, uses, states, groups, providers [][]any
	for _, k := range changedRows(s.Keys, func(k *pool.Key) bool { return k.Changed != 0 }) {
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
				k.DegradedUntil != nil, k.DegradedUntil, k.DegradedAt, k.DegradedReason, string(k.DegradedBy), k.Failures,
				string(k.CountedClass), k.CountedAt, string(k.FailureClass), k.FailedAt, s.now, k.ID,
			})
		}
		k.Changed = 0
	}
	for _, g := range changedRows(s.Groups, func(g *pool.Group) bool { return g.Changed != 0 }) {
		row, err := g.Counters()
		if err != nil {
			return err
		}
		groups = append(groups, append(row, s.now, g.ID))
		g.Changed = 0
	}
	for _, p := range changedRows(s.Providers, func(p *pool.Provider) bool { return p.Changed }) {
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

// changedRows returns those of some rows that are to be written, in the order of their ids.
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

var insertExpiredSQL = bulk.Statements(func(n int) string {
	return "INSERT INTO " + expiredlease.Table + " (" + expiredColumns + ") VALUES " +
		bulk.Placeholders(n, slices.Repeat([]string{"$%d"}, 3)...)
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
