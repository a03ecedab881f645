package commit

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/ledger"
)

// TestNeeds: a batch reads what its calls refer to, and nothing else.
func TestNeeds(t *testing.T) {
	t.Parallel()
	var ids [12]uuid.UUID
	for i := range ids {
		ids[i][0] = byte(i + 1)
	}
	set := func(some ...uuid.UUID) map[uuid.UUID]bool {
		all := map[uuid.UUID]bool{}
		for _, id := range some {
			all[id] = true
		}
		return all
	}
	calls := []Call{
		{Now: noon, Request: Request{
			Event: ledger.Event{
				ID: uuid.New(), Model: ids[0], Key: ids[1], RequestID: "r", At: noon.Add(-time.Hour),
			}, Named: true,
		}},
		{Now: noon, Acquire: &Acquire{ID: ids[2], Provider: ids[3], Model: ids[4], repeated: true}},
		{Now: noon, End: &End{Lease: ids[5], Key: ids[6], Provider: ids[7], Outcome: Succeeded}},
		{Now: noon, End: &End{Key: ids[1], Outcome: Observed}},
		{Now: noon, Renew: &Renew{
			Lease: ids[8], Key: ids[9], Provider: ids[10], Model: ids[11], Acquired: noon.Add(-2 * time.Hour),
		}},
	}
	require.Equal(t, needs{
		models: set(ids[4], ids[11]), ledger: set(ids[0]), keys: set(ids[1], ids[6], ids[9]),
		pools: set(ids[3], ids[10]), providers: set(ids[7]),
		from: noon.Add(-2 * time.Hour), requests: []string{"r"}, ending: ids[5:6],
		asked: []uuid.UUID{ids[2], ids[8]}, acquires: []*Acquire{calls[1].Acquire}, renews: []*Renew{calls[4].Renew},
	}, needsOf(calls))
	calls[0].Request.AccessKey = &ids[5]
	calls[1].Acquire.For = For{Consumer: ids[6]}
	n := needsOf(calls)
	require.Equal(t, []any{set(ids[6]), set(ids[5]), []*Acquire{calls[1].Acquire}},
		[]any{n.owners, n.accessKeys, n.acquires})
	calls[2].End.Outcome = Failed // which other keys failed alike
	require.Equal(t, set(ids[3], ids[7], ids[10]), needsOf(calls).pools)
}

// TestRepeated: a call that may have been done says so when it is done again.
func TestRepeated(t *testing.T) {
	t.Parallel()
	acquire, end := Call{Acquire: &Acquire{}}, Call{End: &End{}}
	acquire.repeated()
	end.repeated()
	require.True(t, acquire.Acquire.repeated)
	require.True(t, end.End.Repeated)
	require.True(t, end.Request.Named)
}
