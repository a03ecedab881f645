package commit

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/policy"
	"github.com/jeffersonwarrior/modelscan/money"
)

// TestRefusedBesideOthers: a batch has calls that too many ceilings bind, and calls by an access key that is deleted.
// They write nothing, and the others are done.
func TestRefusedBesideOthers(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		s, ctx := newSpenders(t, d), t.Context()
		d.client.APIKey.UpdateOneID(d.key).SetConcurrency(0).ExecX(ctx)
		crowded := s.consumer(t, "crowded", nil)
		key := s.client.AccessKey.Create().SetConsumerID(s.user.ID).SetKeyHash(strings.Repeat("0", 64)).
			SetKeyPrefix("msk-").SetCreatedAt(noon).SetUpdatedAt(noon).SaveX(ctx)
		s.budget(t, func(b *ent.BudgetCreate) { b.SetRequests(1_000_000) })
		me, them, gone := For{Consumer: s.user.ID}, For{Consumer: crowded.ID}, For{AccessKey: key.ID}
		leases := map[For]*Leased{}
		for _, by := range []For{me, them, gone} {
			l, err := s.ask(t, by)
			require.NoError(t, err)
			leases[by] = l
		}
		ends, err := s.ask(t, me)
		require.NoError(t, err)

		for range 17 { // 65 ceilings
			s.budget(t, func(b *ent.BudgetCreate) {
				b.SetConsumerID(crowded.ID).SetCost(money.Dollar)
				if n := s.client.Budget.Query().CountX(ctx); n > 1 {
					b.SetTokens(1_000_000).SetRequests(1_000_000).SetConcurrency(1000)
				}
			})
		}
		s.client.AccessKey.UpdateOneID(key.ID).SetDeletedAt(noon).ExecX(ctx)
		s.changed(t)

		renew := func(by For) Call {
			r := s.renewal(leases[by])
			r.Tokens, r.For.AccessKey = 9, by.AccessKey
			return Call{Now: s.now, Renew: r}
		}
		end, record := s.call("ends"), s.call("recorded")
		end.Request.Consumer, end.Request.At = ends.For, ends.Acquired
		end.End = &End{
			Lease: ends.ID, Key: ends.Key, Provider: s.provider, Acquired: ends.Acquired, Outcome: Succeeded,
		}
		record.Request.AccessKey = &key.ID // it has happened
		calls := []Call{
			{Now: s.now, Acquire: s.acquire(them)}, {Now: s.now, Acquire: s.acquire(me)},
			{Now: s.now, Acquire: s.acquire(gone)},
			renew(them), // it asks the ceilings of cost and tokens alone
			renew(me), renew(gone), end, record,
		}
		verdicts, err := s.once(ctx, calls)
		require.NoError(t, err)
		for i, want := range []error{
			fault.ErrInvalidData, nil, errForbidden, nil, nil, errForbidden, nil, nil,
		} {
			require.ErrorIs(t, verdicts[i], want, i)
		}
		require.ErrorContains(t, verdicts[0], "65 ceilings")
		require.Equal(t, policy.AccessKeyDeleted, s.refusal.Reason)

		reserved := map[uuid.UUID]int64{}
		for _, l := range s.client.KeyLease.Query().AllX(ctx) {
			reserved[l.ID] = l.ReservedTokens
		}
		require.Equal(t, map[uuid.UUID]int64{
			leases[me].ID: 9, leases[them].ID: 9, leases[gone].ID: 5, calls[1].Acquire.Leased.ID: 5,
		}, reserved)
		w := s.client.BudgetWindow.Query().OnlyX(ctx)
		require.Equal(t, []any{s.org.ID, int64(2)}, []any{w.SubjectID, w.Requests})
		require.Zero(t, s.client.BudgetCrossing.Query().CountX(ctx))
		require.Equal(t, 2, s.client.UsageEvent.Query().CountX(ctx))
	})
}
