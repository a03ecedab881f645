package commit

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// TestFolder: a model is folded when it is first seen, after many requests, after some time, and again after a failure.
func TestFolder(t *testing.T) {
	t.Parallel()
	failing, folded := true, make(chan []uuid.UUID)
	f := newFolder(func(_ context.Context, due dueModels) (failed []uuid.UUID) {
		if failing {
			failed = due.models
		}
		folded <- due.models
		return failed
	})
	id, now := uuid.New(), noon
	count := func(requests int, at time.Time) {
		some := make([]uuid.UUID, requests)
		for i := range some {
			some[i] = id
		}
		f.count(some, at)
	}
	due := func(at time.Time) bool {
		count(0, at)
		return len(f.due) > 0
	}
	rest := func() { // until the worker has ended what it does
		require.Eventually(t, func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.models[id].events > 0 == failing
		}, time.Minute, time.Millisecond)
	}
	count(1, now)
	require.Equal(t, []uuid.UUID{id}, <-folded, "it is new")
	rest()
	require.False(t, due(now.Add(foldAgain-time.Second)))
	failing = false
	count(0, now.Add(foldAgain))
	require.Equal(t, []uuid.UUID{id}, <-folded, "again")
	now = now.Add(foldAgain)
	require.False(t, due(now.Add(2*foldAge)), "nothing was recorded")
	count(foldEvents-1, now.Add(time.Minute))
	require.Empty(t, f.due)
	count(1, now.Add(time.Minute))
	require.Equal(t, []uuid.UUID{id}, <-folded, "many")
	count(1, now.Add(2*time.Minute))
	count(1, now.Add(time.Minute+foldAge))
	require.Equal(t, []uuid.UUID{id}, <-folded, "an hour")
	f.close()
	count(2*foldEvents, now.Add(9*foldAge))
	f.close()
}

// TestFoldAll: what could not be folded is told.
func TestFoldAll(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		d.client.Dimension.Create().SetName("feature").SetSince(noon).SetOpenFrom(noon).SetCreatedAt(noon).
			SetUpdatedAt(noon).ExecX(t.Context())
		due := dueModels{[]uuid.UUID{d.model}, noon}
		require.Empty(t, d.foldAll(t.Context(), due))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.Equal(t, due.models, d.foldAll(ctx, due))
	})
}
