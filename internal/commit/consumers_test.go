package commit

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// TestBadOwner: what is wrong with one consumer's rows is told to those who name it, and to nobody else of their batch.
func TestBadOwner(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		s := newSpenders(t, d)
		other := s.consumer(t, "other", nil)
		s.budget(t, func(b *ent.BudgetCreate) { b.SetTokens(1_000_000).SetZone("Mars/Olympus") })
		bad, good := s.acquire(For{Consumer: s.user.ID}), s.acquire(For{Consumer: other.ID})
		verdicts, err := s.once(t.Context(), []Call{{Now: s.now, Acquire: bad}, {Now: s.now, Acquire: good}})
		require.NoError(t, err)
		require.ErrorIs(t, verdicts[0], fault.ErrUnsupported)
		require.NoError(t, verdicts[1])

		zone := func(name string) {
			_, err := s.client.ExecContext(t.Context(), "UPDATE budgets SET zone = $1", name)
			require.NoError(t, err)
			s.changed(t)
		}
		zone("UTC")
		l, err := s.ask(t, For{Consumer: s.user.ID})
		require.NoError(t, err)
		zone("Mars/Olympus")
		end := s.call("of a bad one")
		end.Request.Consumer, end.End = l.For, &End{
			Lease: l.ID, Key: l.Key, Provider: s.provider, Acquired: l.Acquired, Outcome: Succeeded,
		}
		verdicts, err = s.once(t.Context(), []Call{end, s.call("for nobody")})
		require.NoError(t, err)
		require.ErrorIs(t, verdicts[0], fault.ErrUnsupported)
		require.NoError(t, verdicts[1])
		zone("UTC")
		require.NoError(t, s.Do(t.Context(), end), "it is open still")
	})
}
