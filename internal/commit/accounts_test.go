package commit

import (
	"math/rand/v2"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/money"
)

// compareAccounts requires that what the next batch starts from is what a batch without memory reads. It returns how
// many windows were compared.
func (s *spenders) compareAccounts(t *testing.T) (compared int) {
	t.Helper()
	last := s.memory.last.Load()
	if last == nil || s.now.Before(last.now) { // the next batch forgets it
		return 0
	}
	bounds := map[accountID]bound{}
	for _, o := range s.remembered.owners {
		for _, b := range o.chain.bound {
			bounds[binding{bound: b}.account()] = b
		}
	}
	now, err := s.DB.Snapshot(t.Context()) // other statements than SELECT are the writer's, and end what is remembered
	require.NoError(t, err)
	defer func() { require.NoError(t, now.Close()) }()
	from := ent.NewClient(ent.Driver(now))
	anew := batch{env: &s.env, snapshot: newSnapshot(s.Strategy, s.now)}
	for id, a := range last.accounts {
		if !a.holds(s.now) {
			continue
		}
		var wanted []binding
		for begin := range a.windows {
			by := binding{bound: bounds[id]}
			by.begin, by.end = by.Window.Of(begin)
			wanted = append(wanted, by)
		}
		require.NoError(t, anew.readSpent(t.Context(), from, wanted))
		require.Equal(t, anew.accounts[id].running, a.running)
		for _, by := range wanted {
			is, want := *a.windows[by.begin], *anew.counterOf(by)
			is.Running = want.Running // is the account's
			require.Equal(t, want, is)
			compared++
		}
	}
	return compared
}

// TestAccounts does at random what changes accounts, and compares what is remembered with the database.
func TestAccounts(t *testing.T) {
	t.Parallel()
	s := newSpenders(t, onSQLite(t))
	other := s.another(t)
	s.client.APIKey.UpdateOneID(s.key).SetConcurrency(0).ExecX(t.Context())
	s.budget(t, func(b *ent.BudgetCreate) { b.SetRequests(1000).SetCost(1000 * money.Dollar).SetConcurrency(40) })
	s.budget(t, func(b *ent.BudgetCreate) {
		b.SetTokens(1e9).SetPer(entbudget.PerMinute).SetAnchorDay(0).SetEach(true)
	})
	second := s.consumer(t, "second", s.org)
	s.changed(t)
	var leases []*Leased
	compared, counted, stale := 0, 0, false
	random := rand.New(rand.NewPCG(1, 2))
	for range 1500 {
		of := []uuid.UUID{s.user.ID, second.ID, s.org.ID}[random.IntN(3)]
		by, one := s.Committer, random.IntN(max(1, len(leases)))
		if random.IntN(40) == 0 {
			by = other.Committer
		}
		do := func(c Call) error {
			stale = by != s.Committer
			return by.Do(t.Context(), c)
		}
		switch pick := random.IntN(12); {
		case pick < 4 || len(leases) == 0:
			a := s.acquire(For{Consumer: of})
			a.TTL = time.Duration(1+random.IntN(100)) * time.Second
			err := do(Call{Now: s.now, Acquire: a})
			if err == nil {
				leases = append(leases, a.Leased)
			} else {
				require.ErrorIs(t, err, errBudget)
			}
		case pick < 8:
			l := leases[one]
			leases = append(leases[:one], leases[one+1:]...)
			end := End{Lease: l.ID, Key: l.Key, Provider: s.provider, Acquired: l.Acquired, Outcome: Released}
			c := Call{Now: s.now, End: &end}
			if pick > 4 {
				c = s.call(uuid.NewString())
				c.Request.ID, c.Request.At, c.Request.Consumer = uuid.New(), l.Acquired, l.For
				end.Outcome, c.End = Succeeded, &end
			}
			if pick == 7 { // two calls end it
				verdicts, err := s.once(t.Context(), []Call{c, {Now: s.now, End: c.End}})
				require.NoError(t, err)
				require.NoError(t, verdicts[0])
				stale = false
				continue
			}
			require.NoError(t, do(c))
		case pick < 9:
			r := s.renewal(leases[one])
			r.Tokens = int64(5 + random.IntN(50))
			if err := do(Call{Now: s.now, Renew: r}); err != nil {
				require.ErrorIs(t, err, fault.ErrLeaseEnded)
			}
		case pick < 10: // a request that has no lease
			c := s.call(uuid.NewString())
			c.Request.Consumer = &of
			require.NoError(t, do(c))
		case pick < 11: // an end that is refused
			l := leases[one]
			c := s.call(uuid.NewString())
			c.Request.Model, c.Request.Consumer = uuid.New(), []*uuid.UUID{l.For, new(uuid.New())}[random.IntN(2)]
			c.End = &End{Lease: l.ID, Key: l.Key, Provider: s.provider, Acquired: l.Acquired, Outcome: Succeeded}
			a := s.acquire(For{Consumer: of})
			verdicts, err := s.once(t.Context(), []Call{c, {Now: s.now, Acquire: a}})
			require.NoError(t, err)
			require.ErrorIs(t, verdicts[0], fault.ErrForeignKey)
			if a.Leased != nil {
				leases = append(leases, a.Leased)
			}
			stale = false
		default:
			s.now = s.now.Add(time.Duration(random.IntN(20)-2) * time.Second) // the clock may go back
		}
		if last := s.memory.last.Load(); last != nil && !stale {
			compared += s.compareAccounts(t)
			counted += len(last.accounts)
		}
	}
	require.Greater(t, compared, 500)
	require.Greater(t, counted, 500)
}

// TestAccountsRemembered: on SQLite the second request for a consumer reads no counter.
func TestAccountsRemembered(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		s, me := newSpenders(t, d), For{}
		s.folds.close() // a fold is another transaction
		me.Consumer = s.user.ID
		s.budget(t, func(b *ent.BudgetCreate) { b.SetRequests(9) })
		l, err := s.ask(t, me)
		require.NoError(t, err)
		if d.engine == dialect.Postgres {
			require.Len(t, s.memory.last.Load().accounts, 1)
		}
		for _, a := range s.memory.last.Load().accounts {
			a.running = 1000 // nobody looks, but a batch that remembers it
		}
		s.settle(t, l, "first")
		_, err = s.ask(t, me)
		require.NoError(t, err)
		for _, a := range s.memory.last.Load().accounts {
			require.Equal(t, d.engine == dialect.SQLite, a.running == 1000)
			a.until = s.now
		}
		last, err := s.ask(t, me)
		require.NoError(t, err)
		for _, a := range s.memory.last.Load().accounts {
			require.EqualValues(t, 2, a.running, "it is read again when a lease has expired")
			for _, c := range a.windows {
				c.Open.Tokens = rule.MaxAmount
			}
		}
		require.NoError(t, s.end(t.Context(), last, End{Outcome: Released}, Call{}))
		if d.engine == dialect.SQLite {
			require.Empty(t, s.memory.last.Load().accounts, "a sum that was cut cannot be subtracted from")
		}
		last, err = s.ask(t, me)
		require.NoError(t, err)
		s.remembered.owners = nil // there were too many
		require.NoError(t, s.end(t.Context(), last, End{Outcome: Released}, Call{}))
		if d.engine == dialect.SQLite {
			require.Empty(t, s.memory.last.Load().accounts, "nobody knows which budgets the lease is in")
		}
	})
}
