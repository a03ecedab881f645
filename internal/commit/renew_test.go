package commit

import (
	"context"
	"errors"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/money"
)

// TestRenew: a lost answer is repeated, and what another process has renewed is known.
func TestRenew(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx := t.Context()
		d.client.APIKey.UpdateOneID(d.key).SetTokensPerDay(100).ExecX(ctx)
		lost := 0
		d.Write = func(ctx context.Context, body func(tx *ent.Client) error) error {
			if err := d.write(ctx, body); err != nil || lost == 0 {
				return err
			}
			lost--
			return fault.ErrUncertain // it was committed, and the answer was lost
		}
		l, err := d.acquire(ctx)
		require.NoError(t, err)
		other := d.another(t)
		renew := func(by *database, tokens int64) error {
			r := d.renewal(l)
			r.Tokens, lost = tokens, 1
			return by.Do(ctx, Call{Now: d.now, Renew: r})
		}
		d.now = d.now.Add(30 * time.Second)
		require.NoError(t, renew(d, 60), "as much as it is refused to add once more")
		require.NoError(t, renew(other, 95))
		require.ErrorIs(t, renew(d, 101), errLimit)
		require.NoError(t, renew(d, 100))
		row := d.client.KeyLease.GetX(ctx, l.ID)
		require.EqualValues(t, 100, row.ReservedTokens)
		require.Equal(t, d.now.Add(time.Minute), row.ExpiresAt.UTC())
		lost = 0
		for _, by := range []*database{other, d} {
			_, err = by.acquire(ctx)
			require.ErrorIs(t, err, fault.ErrNoKeyAvailable)
		}
		require.True(t, d.compareMemory(t))

		// What reserves too much may have expired since.
		expired := d.client.KeyLease.Create().SetAPIKeyID(d.key).SetReservedTokens(50).SetAcquiredAt(d.now).
			SetExpiresAt(d.now.Add(time.Second)).SaveX(ctx)
		d.client.APIKey.UpdateOneID(d.key).SetTokensPerDay(110).ExecX(ctx)
		require.ErrorIs(t, renew(d, 101), errLimit)
		d.now = d.now.Add(time.Second)
		require.NoError(t, renew(d, 101))
		require.Equal(t, l.ID, d.client.KeyLease.Query().OnlyX(ctx).ID)
		require.Equal(t, expired.ID, d.client.ExpiredLease.Query().OnlyX(ctx).ID)
	})
}

// TestRenewRefusedEnd: if the end of a lease is refused, its renewal in the same batch counts for whoever asks next.
func TestRenewRefusedEnd(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		s, me := newSpenders(t, d), For{}
		me.Consumer = s.user.ID
		s.budget(t, func(b *ent.BudgetCreate) { b.SetTokens(100).SetCost(money.Dollar) })
		l, err := s.ask(t, me)
		require.NoError(t, err)
		c := s.call("refused")
		c.Request.Model, c.Request.Consumer = uuid.New(), l.For
		c.End = &End{Lease: l.ID, Key: l.Key, Provider: s.provider, Acquired: l.Acquired, Outcome: Succeeded}
		once, twice, over := s.renewal(l), s.renewal(l), s.renewal(l)
		once.Tokens, twice.Tokens, over.Tokens = 50, 96, 101
		all := []Call{{Now: s.now, Renew: once}, {Now: s.now, Renew: twice}, {Now: s.now, Renew: over}}
		verdicts, err := s.once(t.Context(), append(all, c, Call{Now: s.now, Acquire: s.acquire(me)}))
		require.NoError(t, err)
		require.NoError(t, errors.Join(verdicts[0], verdicts[1]))
		require.ErrorIs(t, verdicts[2], errBudget)
		require.ErrorIs(t, verdicts[3], fault.ErrForeignKey)
		require.ErrorIs(t, verdicts[4], errBudget)
		row := s.client.KeyLease.GetX(t.Context(), l.ID)
		require.EqualValues(t, []int64{96, 96_000}, []int64{row.ReservedTokens, int64(row.ReservedCost)})
		if s.engine == dialect.SQLite {
			require.True(t, s.compareMemory(t))
		}
		_, err = s.ask(t, me)
		require.ErrorIs(t, err, errBudget)

		// An end that is not refused comes first.
		end := &End{Lease: l.ID, Key: l.Key, Provider: s.provider, Acquired: l.Acquired, Outcome: Released}
		verdicts, err = s.once(t.Context(), []Call{{Now: s.now, Renew: once}, {Now: s.now, End: end}})
		require.NoError(t, err)
		require.ErrorIs(t, verdicts[0], fault.ErrLeaseEnded)
		require.NoError(t, verdicts[1])
	})
}
