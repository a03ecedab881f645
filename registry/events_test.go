package registry_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// eventPages reads everything that a filter selects, in pages.
func eventPages(t *testing.T, reg *registry.Registry, filter registry.EventFilter, size int) (ids []string) {
	t.Helper()
	filter.Limit = size
	for {
		events, err := reg.ListUsageEvents(t.Context(), filter)
		require.NoError(t, err)
		require.LessOrEqual(t, len(events), size)
		for _, e := range events {
			ids = append(ids, e.RequestID)
		}
		if len(events) < size {
			return ids
		}
		filter.After = events[len(events)-1].ID
	}
}

// TestListUsageEvents pages through requests, many of which happened at the same instant.
func TestListUsageEvents(t *testing.T) { eachEngine(t, testListUsageEvents) }

func testListUsageEvents(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "p")
	models := []*ent.Model{mustModel(t, reg, p.ID, "a", gpt4()), mustModel(t, reg, p.ID, "b", nil)}
	keys := []*ent.APIKey{mustKey(t, reg, p.ID, 1), mustKey(t, reg, p.ID, 2)}
	start := clock.Now().Add(-72*time.Hour + 7*time.Minute) // within a quarter
	const requests = 120
	// ten at a time, over several days
	at := func(i int) time.Time { return start.Add(time.Duration(i/10) * 7 * time.Hour / 2) }
	var batch []registry.UsageInput
	for i := range requests {
		batch = append(batch, registry.UsageInput{
			RequestID: fmt.Sprint("r", i), ModelID: models[i%2].ID, APIKeyID: keys[i/2%2].ID, At: at(i),
			Failed: i%5 == 0,
			Tokens: meter.Tokens{InputTokens: int64(i)},
		})
	}
	require.NoError(t, reg.RecordUsageBatch(ctx, batch))
	for name, test := range map[string]struct {
		filter registry.EventFilter
		is     func(i int) bool
	}{
		"all":        {filter: registry.EventFilter{}, is: func(int) bool { return true }},
		"of a model": {filter: registry.EventFilter{ModelID: models[0].ID}, is: func(i int) bool { return i%2 == 0 }},
		"of a key":   {filter: registry.EventFilter{APIKeyID: keys[1].ID}, is: func(i int) bool { return i/2%2 == 1 }},
		"of both": {
			filter: registry.EventFilter{ModelID: models[1].ID, APIKeyID: keys[1].ID},
			is:     func(i int) bool { return i%4 == 3 },
		},
		"failed":      {filter: registry.EventFilter{Failed: true}, is: func(i int) bool { return i%5 == 0 }},
		"unpriced":    {filter: registry.EventFilter{Unpriced: true}, is: func(i int) bool { return i%2 == 1 }},
		"one request": {filter: registry.EventFilter{RequestID: "r7"}, is: func(i int) bool { return i == 7 }},
		"failed, of a key": {
			filter: registry.EventFilter{Failed: true, APIKeyID: keys[0].ID},
			is:     func(i int) bool { return i%5 == 0 && i/2%2 == 0 },
		},
		"unpriced, of a key": {
			filter: registry.EventFilter{Unpriced: true, APIKeyID: keys[1].ID},
			is:     func(i int) bool { return i%4 == 3 },
		},
		"one request of keys": {
			filter: registry.EventFilter{RequestID: "r7", APIKeyID: keys[1].ID}, is: func(i int) bool { return i == 7 },
		},
		"a range of a key": {
			filter: registry.EventFilter{Start: at(30), End: at(60).Add(time.Microsecond), APIKeyID: keys[0].ID},
			is:     func(i int) bool { return i >= 30 && i < 70 && i/2%2 == 0 },
		},
		"a range": {
			filter: registry.EventFilter{Start: at(30), End: at(60)}, is: func(i int) bool { return i >= 30 && i < 60 },
		},
		"nothing": {filter: registry.EventFilter{ModelID: uuid.New()}, is: func(int) bool { return false }},
	} {
		for _, size := range []int{1, 7, 1000} {
			ids := eventPages(t, reg, test.filter, size)
			var want []string
			for i := range requests {
				if test.is(i) {
					want = append(want, fmt.Sprint("r", i))
				}
			}
			require.ElementsMatch(t, want, ids, "%s by %d", name, size)
		}
	}
	all, err := reg.ListUsageEvents(ctx, registry.EventFilter{Limit: registry.MaxLimit})
	require.NoError(t, err)
	require.True(
		t, slices.IsSortedFunc(all, func(a, b *ent.UsageEvent) int { return b.At.Compare(a.At) }), "newest first",
	)

	// The event that a page ended with may be gone.
	require.Equal(t, 1, must(reg.Past().UsageEvent.Delete().Where(usageevent.ID(all[49].ID)).Exec(ctx)))
	rest, err := reg.ListUsageEvents(ctx, registry.EventFilter{After: all[49].ID, Limit: registry.MaxLimit})
	require.NoError(t, err)
	require.Equal(t, all[50].ID, rest[0].ID)
	require.Len(t, rest, requests-50)

	for name, filter := range map[string]registry.EventFilter{
		"end before start": {Start: at(60), End: at(30)},
		"negative limit":   {Limit: -1},
		"large limit":      {Limit: registry.MaxLimit + 1},
		"request id":       {RequestID: "a\x00b"},
	} {
		_, err := reg.ListUsageEvents(ctx, filter)
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
	}
}

// TestEventsOfKey finds the one request that is asked for in the oldest of many quarters in which there could be such.
func TestEventsOfKey(t *testing.T) { eachEngine(t, testEventsOfKey) }

func testEventsOfKey(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "p")
	m := mustModel(t, reg, p.ID, "m", money.Rates{meter.Input: money.Dollar})
	k := mustKey(t, reg, p.ID, 1)
	const quarters = 1001 // more than are read at once
	at := clock.Now().Add(-quarters * 15 * time.Minute)
	batch := []registry.UsageInput{{
		RequestID: "both", ModelID: m.ID, APIKeyID: k.ID, At: at, Failed: true, Tokens: meter.Tokens{OutputTokens: 1},
	}}
	for i := range quarters {
		at := at.Add(time.Duration(i+1) * 15 * time.Minute)
		batch = append(batch, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, At: at, Failed: true},
			registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, At: at, Tokens: meter.Tokens{OutputTokens: 1}})
	}
	for some := range slices.Chunk(batch, 500) {
		require.NoError(t, reg.RecordUsageBatch(t.Context(), some))
	}
	events, err := reg.ListUsageEvents(t.Context(), registry.EventFilter{APIKeyID: k.ID, Failed: true, Unpriced: true})
	require.NoError(t, err)
	require.Len(t, events, 1)
	require.Equal(t, "both", events[0].RequestID)
	var all int
	for filter := (registry.EventFilter{
		APIKeyID: k.ID, Limit: registry.MaxLimit,
	}); ; filter.After = events[len(events)-1].ID {
		events, err = reg.ListUsageEvents(t.Context(), filter)
		require.NoError(t, err)
		if all += len(events); len(events) < registry.MaxLimit {
			break
		}
	}
	require.Equal(t, 2*quarters+1, all)
	events, err = reg.ListUsageEvents(t.Context(), registry.EventFilter{APIKeyID: k.ID, After: uuid.Max})
	require.NoError(t, err)
	require.Len(t, events, registry.DefaultLimit)
}
