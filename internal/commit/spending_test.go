package commit

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/ent/budgetcrossing"
	entdimension "github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/ent/dimensionvalue"
	"github.com/jeffersonwarrior/modelscan/ent/schema"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/policy"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/money"
)

// spenders are an organisation and a user below it, and what refused them last.
type spenders struct {
	*database
	org, user *ent.Consumer
	refusal   Refusal
	closed    []budget.State
}

var (
	errForbidden = errors.New("forbidden")
	errBudget    = errors.New("over budget")
)

func newSpenders(t *testing.T, d *database) *spenders {
	t.Helper()
	s := &spenders{database: d}
	d.Forbidden = func(r Refusal) error {
		s.refusal = r
		return errForbidden
	}
	d.OverBudget = func(closed []budget.State) error {
		s.closed = closed
		return errBudget
	}
	s.client.Dimension.Create().SetID(dimension.ConsumerID).SetName(dimension.Consumer).
		SetKind(entdimension.KindConsumer).SetSince(s.since()).SetOpenFrom(s.since()).SetCreatedAt(noon).
		SetUpdatedAt(noon).SaveX(t.Context())
	s.value(t, dimension.UnassignedID, dimensionvalue.KindUnassigned)
	s.value(t, dimension.OtherID, dimensionvalue.KindOther)
	s.org = s.consumer(t, "org", nil)
	s.user = s.consumer(t, "user", s.org)
	return s
}

// since is when usage began to be summed by consumer.
func (s *spenders) since() time.Time { return noon.AddDate(0, -2, 0) }

func (s *spenders) value(t *testing.T, id uuid.UUID, kind dimensionvalue.Kind) {
	t.Helper()
	create := s.client.DimensionValue.Create().SetID(id).SetDimensionID(dimension.ConsumerID).SetKind(kind).
		SetSince(s.since()).SetName("")
	if kind == dimensionvalue.KindValue {
		create.SetName(id.String())
	}
	create.ExecX(t.Context())
}

func (s *spenders) consumer(t *testing.T, name string, parent *ent.Consumer) *ent.Consumer {
	t.Helper()
	id := uuid.New()
	s.value(t, id, dimensionvalue.KindValue)
	create := s.client.Consumer.Create().SetID(id).SetName(name).SetKind(name).SetCreatedAt(noon).SetUpdatedAt(noon)
	if parent == nil {
		return create.SetPath(id.String()).SaveX(t.Context())
	}
	return create.SetParentID(parent.ID).SetPath(parent.Path + "/" + id.String()).SaveX(t.Context())
}

// budget gives the organisation a budget of a month.
func (s *spenders) budget(t *testing.T, change func(*ent.BudgetCreate)) *ent.Budget {
	t.Helper()
	create := s.client.Budget.Create().SetConsumerID(s.org.ID).SetName(uuid.NewString()).SetAnchorDay(1).
		SetCountsFrom(noon.AddDate(0, -1, 0)).SetThresholds([]int{80, 100}).SetCreatedAt(noon).SetUpdatedAt(noon)
	change(create)
	row := create.SaveX(t.Context())
	s.changed(t)
	return row
}

// changed counts a change of what is remembered.
func (s *spenders) changed(t *testing.T) {
	t.Helper()
	if s.client.PolicyVersion.Update().AddVersion(1).SaveX(t.Context()) == 0 {
		s.client.PolicyVersion.Create().SetNumber(1).SetVersion(1).SaveX(t.Context())
	}
}

// ask asks for a key for the user, for a request of five tokens.
func (s *spenders) ask(t *testing.T, by For) (*Leased, error) {
	t.Helper()
	a := s.acquire(by)
	err := s.Do(t.Context(), Call{Now: s.now, Acquire: a})
	return a.Leased, err
}

func (s *spenders) acquire(by For) *Acquire {
	return &Acquire{
		ID: uuid.New(), Provider: s.provider, Model: s.model, TTL: time.Minute, For: by,
		Want: pool.Want{Amount: pool.Amount{Requests: 1, Tokens: 5, Cost: 5}},
	}
}

func (s *spenders) settle(t *testing.T, l *Leased, id string) {
	t.Helper()
	c := s.call(id)
	c.Request.At, c.Request.Consumer, c.Request.AccessKey = l.Acquired, l.For, l.By
	require.NoError(t, s.end(t.Context(), l, End{Outcome: Succeeded}, c))
}

func TestSpending(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		s, me := newSpenders(t, d), For{}
		me.Consumer = s.user.ID
		b := s.budget(t, func(b *ent.BudgetCreate) {
			b.SetRequests(2).SetCost(3 * money.Dollar).SetModels([]string{"m*"})
		})
		first, err := s.ask(t, me)
		require.NoError(t, err)
		require.Equal(t, s.user.Path, first.Path)
		second, err := s.ask(t, me)
		require.NoError(t, err)
		_, err = s.ask(t, me)
		require.ErrorIs(t, err, errBudget)
		require.Equal(t, []any{budget.Requests, int64(0), int64(2)},
			[]any{s.closed[0].Metric, s.closed[0].Ended, s.closed[0].Open})
		s.settle(t, first, "first")
		require.NoError(t, s.end(t.Context(), second, End{Outcome: Released}, Call{}))
		second, err = s.ask(t, me)
		require.NoError(t, err)
		s.settle(t, second, "second")

		w := s.client.BudgetWindow.Query().OnlyX(t.Context())
		require.Equal(t, []any{b.ID, s.org.ID, int64(2), int64(2_000_000), 2 * money.Dollar},
			[]any{w.BudgetID, w.SubjectID, w.Requests, w.Tokens, w.Cost})
		kinds := map[budgetcrossing.Kind]int{}
		for _, c := range s.client.BudgetCrossing.Query().AllX(t.Context()) {
			kinds[c.Kind]++
		}
		require.Equal(t,
			map[budgetcrossing.Kind]int{budgetcrossing.KindThreshold: 2, budgetcrossing.KindRefused: 1}, kinds)

		states, err := s.States(t.Context(), s.client, s.now, &Acquire{Provider: s.provider, Model: s.model, For: me})
		require.NoError(t, err)
		require.Len(t, states, 2)
		s.client.BudgetGrant.Create().SetBudgetID(b.ID).SetWindowsFrom(w.WindowStart).SetWindowsUntil(w.WindowEnd).
			SetRequests(1).SetCreatedAt(noon).SaveX(t.Context())
		s.changed(t)
		third, err := s.ask(t, me)
		require.NoError(t, err)
		// Its end is refused: the lease stays open, and counts for whoever asks in the same batch and later.
		c := s.call("third")
		c.Request.Model, c.Request.Consumer = uuid.New(), third.For
		c.End = &End{
			Lease: third.ID, Key: third.Key, Provider: s.provider, Acquired: third.Acquired, Outcome: Succeeded,
		}
		verdicts, err := s.once(t.Context(), []Call{c, {Now: s.now, Acquire: s.acquire(me)}})
		require.NoError(t, err)
		require.ErrorIs(t, verdicts[0], fault.ErrForeignKey)
		require.ErrorIs(t, verdicts[1], errBudget)
		_, err = s.ask(t, me)
		require.ErrorIs(t, err, errBudget)
	})
}

// TestGrantsRead: grants that are revoked, or that are long over, are neither read nor remembered.
func TestGrantsRead(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		s := newSpenders(t, d)
		b := s.budget(t, func(b *ent.BudgetCreate) { b.SetTokens(1_000_000) })
		grant := func(tokens int64, until time.Time) *ent.BudgetGrantCreate {
			return s.client.BudgetGrant.Create().SetBudgetID(b.ID).SetWindowsFrom(noon.AddDate(0, -2, 0)).
				SetWindowsUntil(until).SetTokens(tokens).SetCreatedAt(noon)
		}
		grant(1, noon.Add(-keptGrants)).ExecX(t.Context())
		grant(2, noon.Add(-keptGrants+time.Second)).ExecX(t.Context())
		grant(4, noon.AddDate(0, 1, 0)).ExecX(t.Context())
		grant(8, noon.AddDate(0, 1, 0)).SetRevokedAt(noon).ExecX(t.Context())
		_, err := s.ask(t, For{Consumer: s.user.ID})
		require.NoError(t, err)
		var read []int64
		for _, g := range s.remembered.owners[s.org.ID].Budgets[0].Grants {
			read = append(read, g.Ceilings.Tokens)
		}
		require.ElementsMatch(t, []int64{2, 4}, read)
	})
}

func TestForbids(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		s := newSpenders(t, d)
		key := s.client.AccessKey.Create().SetConsumerID(s.user.ID).SetKeyHash(strings.Repeat("0", 64)).
			SetKeyPrefix("msk-").SetLabel("laptop").
			SetCreatedAt(noon).SetUpdatedAt(noon).SaveX(t.Context())
		by := For{AccessKey: key.ID}
		l, err := s.ask(t, by)
		require.NoError(t, err)
		require.Equal(t, s.user.ID, *l.For)
		s.settle(t, l, "by an access key")
		c := s.call("by an access key alone")
		c.Request.AccessKey = &key.ID
		require.NoError(t, s.Do(t.Context(), c))

		forbidden := func(reason policy.Reason) {
			t.Helper()
			s.changed(t)
			_, err := s.ask(t, by)
			require.ErrorIs(t, err, errForbidden)
			require.Equal(t, reason, s.refusal.Reason)
		}
		permit := func(list ...schema.Permission) {
			s.client.Consumer.UpdateOneID(s.org.ID).SetPermissions(list).ExecX(t.Context())
		}
		permit(schema.Permission{ProviderID: uuid.New()})
		forbidden(policy.ModelDenied)
		permit(schema.Permission{ProviderID: s.provider, Models: []string{"m"}, Deny: true})
		forbidden(policy.ModelDenied)
		permit()
		s.client.Consumer.UpdateOneID(s.org.ID).SetDisabled(true).ExecX(t.Context())
		forbidden(policy.ConsumerDisabled)
		s.client.Consumer.UpdateOneID(s.org.ID).SetDisabled(false).SetDeletedAt(noon).ExecX(t.Context())
		forbidden(policy.ConsumerDeleted)
		s.client.Consumer.UpdateOneID(s.org.ID).ClearDeletedAt().ExecX(t.Context())
		s.client.AccessKey.UpdateOneID(key.ID).SetDisabled(true).ExecX(t.Context())
		forbidden(policy.AccessKeyDisabled)
		s.client.AccessKey.UpdateOneID(key.ID).SetDisabled(false).SetExpiresAt(noon).ExecX(t.Context())
		forbidden(policy.AccessKeyExpired)
		s.client.AccessKey.UpdateOneID(key.ID).SetDeletedAt(noon).ExecX(t.Context())
		forbidden(policy.AccessKeyDeleted)

		for _, unknown := range []For{{Consumer: uuid.New()}, {AccessKey: uuid.New()}} {
			_, err := s.ask(t, unknown)
			require.ErrorIs(t, err, fault.ErrForeignKey)
		}
		_, err = s.ask(t, For{Consumer: s.org.ID, AccessKey: key.ID})
		require.ErrorIs(t, err, fault.ErrInvalidData)
		c = s.call("for an unknown one")
		c.Request.Consumer = new(uuid.New())
		require.ErrorIs(t, s.Do(t.Context(), c), fault.ErrForeignKey)
		c.Request.Consumer, c.Request.AccessKey = nil, new(uuid.New())
		require.ErrorIs(t, s.Do(t.Context(), c), fault.ErrForeignKey)
	})
}

// TestRecount: a budget starts from what was spent, and what a subtree spent moves with it.
func TestRecount(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		s := newSpenders(t, d)
		use := func(id string, at time.Time) {
			t.Helper()
			c := s.call(id)
			c.Request.Consumer, c.Request.At, c.Request.ID = &s.user.ID, at, ledger.NewEventID(at)
			require.NoError(t, s.Do(t.Context(), c))
		}
		use("before", noon.AddDate(0, -1, 0))
		use("now", noon)
		use("ahead", noon.Add(time.Hour))
		month := s.budget(t, func(b *ent.BudgetCreate) { b.SetTokens(1) })
		hour := s.budget(t, func(b *ent.BudgetCreate) {
			b.SetTokens(1).SetPer(entbudget.PerHour).SetAnchorDay(0).SetEach(true)
		})
		count := func(call func(tx *ent.Client) error) []int64 {
			t.Helper()
			require.NoError(t, s.write(t.Context(), call))
			var tokens []int64
			for _, w := range s.client.BudgetWindow.Query().Order(ent.Asc("window_start")).AllX(t.Context()) {
				tokens = append(tokens, w.Tokens)
			}
			return tokens
		}
		recount := func(row *ent.Budget) func(tx *ent.Client) error {
			return func(tx *ent.Client) error {
				_, err := s.Recount(t.Context(), tx, noon, row)
				return err
			}
		}
		require.Equal(t, []int64{2_000_000}, count(recount(month)))
		require.Equal(t, []int64{2_000_000, 1_000_000, 1_000_000}, count(recount(hour)))
		rows := []*ent.Budget{month, hour}
		require.Equal(t, []int64{0, 0, 0}, count(func(tx *ent.Client) error {
			return s.Leave(t.Context(), tx, noon, s.user.Path, rows)
		}))
		require.Equal(t, []int64{2_000_000, 1_000_000, 1_000_000}, count(func(tx *ent.Client) error {
			return s.Enter(t.Context(), tx, noon, s.user.Path, rows)
		}))
		month.Zone = "Mars/Olympus"
		require.ErrorIs(t, s.write(t.Context(), recount(month)), fault.ErrUnsupported)
		month.Zone, month.ConsumerID = "UTC", uuid.New()
		require.ErrorIs(t, s.write(t.Context(), recount(month)), fault.ErrForeignKey)
	})
}

// TestMinutes: a window of a minute goes when a later one begins.
func TestMinutes(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		s := newSpenders(t, d)
		s.budget(t, func(b *ent.BudgetCreate) { b.SetTokens(1).SetPer(entbudget.PerMinute).SetAnchorDay(0) })
		for i := range 15 {
			c := s.call(uuid.NewString())
			c.Request.Consumer = &s.user.ID
			require.NoError(t, s.Do(t.Context(), c))
			s.now = noon.Add(time.Duration(i+1) * time.Minute)
		}
		require.Equal(t, 11, s.client.BudgetWindow.Query().CountX(t.Context()))
	})
}

// TestClocksOfBudgets: a lease that begins later than now, because a process whose clock is ahead has begun its key's
// minute, is judged in the window of then.
func TestClocksOfBudgets(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		s, me := newSpenders(t, d), For{}
		me.Consumer = s.user.ID
		d.client.APIKey.UpdateOneID(d.key).SetConcurrency(0).ExecX(t.Context())
		s.budget(t, func(b *ent.BudgetCreate) { b.SetRequests(3).SetPer(entbudget.PerMinute).SetAnchorDay(0) })
		behind := s.now
		s.now = behind.Add(time.Minute) // the other process
		first, err := s.ask(t, me)
		require.NoError(t, err)
		s.now = behind
		var leases []*Leased
		for range 2 {
			l, err := s.ask(t, me)
			require.NoError(t, err)
			require.Equal(t, first.Acquired, l.Acquired)
			leases = append(leases, l)
		}
		_, err = s.ask(t, me)
		require.ErrorIs(t, err, errBudget)
		s.settle(t, leases[0], "one")
		_, err = s.ask(t, me)
		require.ErrorIs(t, err, errBudget)
	})
}
