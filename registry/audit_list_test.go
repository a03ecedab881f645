package registry_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// fillAudit changes settings, many at an instant.
func fillAudit(t *testing.T, reg *registry.Registry, clock *registrytest.Clock) {
	t.Helper()
	ctx := t.Context()
	for batch, n := range []int{1, 150, 200, 1, 99} { // each batch at one instant
		require.NoError(t, reg.InTx(ctx, func(tx *registry.Registry) error {
			for i := range n {
				actor := []string{"", "alice", "bob"}[i%3]
				if err := tx.As(actor).SetSetting(ctx, fmt.Sprint("k", i%40), fmt.Sprint(batch, "-", i)); err != nil {
					return err
				}
			}
			return nil
		}))
		clock.Advance(time.Microsecond)
	}
	clock.Advance(-time.Hour) // a clock that went back: the order is that of the times
	require.NoError(t, reg.DeleteSetting(ctx, "k0"))
}

// auditPages reads everything that a filter selects, in pages of a limit.
func auditPages(t *testing.T, reg *registry.Registry, filter registry.AuditFilter, limit int) (got []uuid.UUID) {
	t.Helper()
	filter.Limit = limit
	for {
		page, err := reg.ListAudit(t.Context(), filter)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), cmp.Or(limit, registry.DefaultLimit))
		if len(page) == 0 {
			return got
		}
		for _, e := range page {
			got = append(got, e.ID)
		}
		filter.After = got[len(got)-1]
	}
}

// TestListAudit pages through entries, many of which are of the same time, and filters them.
func TestListAudit(t *testing.T) { eachEngine(t, testListAudit) }

func testListAudit(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	require.Empty(t, must(reg.ListAudit(ctx, registry.AuditFilter{})))
	start := clock.Now()
	fillAudit(t, reg, clock)
	all := trail(t, reg)
	require.Len(t, all, 452)
	slices.SortFunc(all, func(a, b *ent.AuditEntry) int {
		if c := b.At.Compare(a.At); c != 0 {
			return c
		}
		return strings.Compare(b.ID.String(), a.ID.String())
	})
	require.Equal(t, registry.ActionDelete, all[451].Action)

	matching := func(keep func(*ent.AuditEntry) bool) (ids []uuid.UUID) {
		for _, e := range all {
			if keep(e) {
				ids = append(ids, e.ID)
			}
		}
		return ids
	}
	zone := time.FixedZone("", 3600)
	second := start.Add(time.Microsecond)
	for name, test := range map[string]struct {
		filter registry.AuditFilter
		keep   func(*ent.AuditEntry) bool
		count  int
	}{
		"all": {filter: registry.AuditFilter{}, keep: func(*ent.AuditEntry) bool { return true }, count: 452},
		"actor": {
			filter: registry.AuditFilter{Actor: "bob"}, keep: func(e *ent.AuditEntry) bool { return e.Actor == "bob" },
			count: 149,
		},
		"action": {
			filter: registry.AuditFilter{Action: registry.ActionCreate},
			keep:   func(e *ent.AuditEntry) bool { return e.Action == "create" }, count: 40,
		},
		"entity": {
			filter: registry.AuditFilter{Entity: registry.EntitySetting},
			keep:   func(*ent.AuditEntry) bool { return true }, count: 452,
		},
		"another entity": {
			filter: registry.AuditFilter{Entity: registry.EntityFamily},
			keep:   func(*ent.AuditEntry) bool { return false }, count: 0,
		},
		"one setting": {
			filter: registry.AuditFilter{Entity: registry.EntitySetting, EntityID: "k7"},
			keep:   func(e *ent.AuditEntry) bool { return e.EntityID == "k7" }, count: 12,
		},
		"from": {
			filter: registry.AuditFilter{Start: second.In(zone)},
			keep:   func(e *ent.AuditEntry) bool { return !e.At.Before(second) }, count: 450,
		},
		"until": {
			filter: registry.AuditFilter{End: second.In(zone)},
			keep:   func(e *ent.AuditEntry) bool { return e.At.Before(second) }, count: 2,
		},
		"one instant": {
			filter: registry.AuditFilter{Start: second, End: second.Add(time.Microsecond)},
			keep:   func(e *ent.AuditEntry) bool { return e.At.Equal(second) }, count: 150,
		},
		"everything": {
			filter: registry.AuditFilter{
				Actor: "alice", Action: registry.ActionUpdate, Entity: registry.EntitySetting, EntityID: "k4",
				Start: start.Add(-time.Hour), End: start.Add(time.Hour),
			},
			keep: func(e *ent.AuditEntry) bool {
				return e.Actor == "alice" && e.EntityID == "k4" && e.Action == "update"
			},
			count: -1,
		},
		"far times": {
			filter: registry.AuditFilter{
				Start: time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC), End: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC),
			},
			keep: func(*ent.AuditEntry) bool { return true }, count: 452,
		},
	} {
		want := matching(test.keep)
		if test.count >= 0 {
			require.Len(t, want, test.count, name)
		}
		require.True(t, len(want) > 0 || test.count == 0, name)
		for _, limit := range []int{0, 1, 7, 150, registry.MaxLimit} {
			if limit == 1 && len(want) > 200 {
				continue
			}
			got := auditPages(t, reg, test.filter, limit)
			require.Equal(t, want, got, "%s, %d a page", name, limit)
		}
	}
	require.Len(t, must(reg.ListAudit(ctx, registry.AuditFilter{})), registry.DefaultLimit)
}

// TestListAuditRefuses has filters that are no good, and one in a transaction.
func TestListAuditRefuses(t *testing.T) { eachEngine(t, testListAuditRefuses) }

func testListAuditRefuses(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx, start := t.Context(), clock.Now()
	for name, bad := range map[string]registry.AuditFilter{
		"limit":            {Limit: -1},
		"large limit":      {Limit: registry.MaxLimit + 1},
		"empty range":      {Start: start, End: start},
		"same microsecond": {Start: start, End: start.Add(999)},
		"wrong order":      {Start: start, End: start.Add(-1)},
		"actor":            {Actor: "a\x00"},
		"action":           {Action: "a\xff"},
		"entity":           {Entity: strings.Repeat("x", 65)},
		"entity id":        {EntityID: "a\nb"},
	} {
		_, err := reg.ListAudit(ctx, bad)
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
	}
	_, err := reg.ListAudit(ctx, registry.AuditFilter{After: uuid.New()})
	require.ErrorIs(t, err, registry.ErrNotFound)
	require.ErrorIs(t, reg.InTx(ctx, func(tx *registry.Registry) error {
		require.NoError(t, tx.SetSetting(ctx, "in", "tx"))
		page := must(tx.ListAudit(ctx, registry.AuditFilter{Entity: registry.EntitySetting, EntityID: "in"}))
		require.Len(t, page, 1, "a transaction sees its own")
		return errRollback
	}), errRollback)
}
