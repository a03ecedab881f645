package registry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/auditentry"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestPruneKeyEvents removes what the key pool has noted, and nothing that people did to the same key.
func TestPruneKeyEvents(t *testing.T) { eachEngine(t, testPruneKeyEvents) }

func testPruneKeyEvents(t *testing.T, e engine) {
	t.Parallel()
	p := e.newPoolTest(t, make([]registry.KeyInput, 1))
	ctx, key := t.Context(), p.keys[0].ID
	require.NoError(t, p.DegradeKey(ctx, key, "by a person", time.Hour))
	require.NoError(t, p.RestoreKey(ctx, key))
	people := must(p.Client().AuditEntry.Query().Order(auditentry.ByID()).All(ctx))
	p.fail(t, 0, exhausted)
	p.clock.Advance(time.Hour)
	require.NoError(t, p.acquire(t, 1).Settle(ctx, used(1)))
	require.Equal(t, []string{"degrade", "restore", "degrade", "probe", "restore"}, p.actions(t))
	last := p.clock.Now()
	many := make([]*ent.AuditEntryCreate, 600) // more than are removed in one transaction
	for i := range many {
		many[i] = p.Past().AuditEntry.Create().SetAt(last.Add(-time.Minute)).SetAction(registry.ActionProbe).
			SetEntity(registry.EntityAPIKey).SetEntityID(key.String()).SetAutomatic(true)
	}
	require.NoError(t, p.Past().AuditEntry.CreateBulk(many...).Exec(ctx))

	prune := func(keep registry.PruneInput) (removed, left int64) {
		t.Helper()
		report, err := p.Prune(ctx, keep)
		require.NoError(t, err)
		return report.KeyEvents, report.KeyEventsLeft
	}
	expect := func(removed, left, wantRemoved, wantLeft int64) {
		t.Helper()
		require.Equal(t, []int64{wantRemoved, wantLeft}, []int64{removed, left})
	}
	p.clock.Set(last.Add(30 * day))
	removed, left := prune(registry.PruneInput{KeyEvents: 31 * day})
	expect(removed, left, 0, 0)
	removed, left = prune(registry.PruneInput{Budget: 1})
	expect(removed, left, 0, 601)
	removed, left = prune(registry.PruneInput{})
	expect(removed, left, 601, 0) // the probe and the restoring are 30 days old, and not older
	p.clock.Advance(time.Microsecond)
	removed, left = prune(registry.PruneInput{})
	expect(removed, left, 2, 0)
	p.clock.Advance(30_000 * day)
	removed, left = prune(registry.PruneInput{})
	expect(removed, left, 0, 0)
	kept := must(p.Client().AuditEntry.Query().Order(auditentry.ByID()).All(ctx))
	require.Len(t, kept, len(people))
	for i := range people {
		require.Equal(t, people[i].String(), kept[i].String())
	}
}

// TestPruneDiscoveries removes discovery logs.
func TestPruneDiscoveries(t *testing.T) { eachEngine(t, testPruneDiscoveries) }

func testPruneDiscoveries(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	rows := make([]*ent.DiscoveryLogCreate, 300)
	for i := range rows {
		rows[i] = reg.Past().DiscoveryLog.Create().SetIdentifier(fmt.Sprint(i)).SetStartedAt(clock.Now())
	}
	require.NoError(t, reg.Past().DiscoveryLog.CreateBulk(rows...).Exec(ctx))
	clock.Advance(time.Microsecond)
	log, err := reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "openai"})
	require.NoError(t, err)
	_, err = reg.UpdateDiscoveryResult(ctx, log.ID, nil, discoverylog.StatusSuccess)
	require.NoError(t, err)
	clock.Advance(90 * day)
	for _, want := range []int64{300, 0} {
		report, err := reg.Prune(ctx, registry.PruneInput{})
		require.NoError(t, err)
		require.Equal(t, want, report.Discoveries)
		require.Zero(t, report.DiscoveriesLeft)
	}
	report, err := reg.Prune(ctx, registry.PruneInput{Discoveries: day, Budget: 1})
	require.NoError(t, err)
	require.EqualValues(t, 1, report.DiscoveriesLeft)
	require.Len(t, must(reg.GetRecentDiscoveries(ctx, registry.DiscoveryFilter{})), 1)
}
