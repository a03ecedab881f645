package registry_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// unknownID is of no row.
var unknownID = uuid.MustParse("0f0f0f0f-0000-7000-8000-000000000000")

func TestBudgetRefuses(t *testing.T) { eachEngine(t, testBudgetRefuses) }

func testBudgetRefuses(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	type input = registry.BudgetInput
	before := dump(t, s.reg)
	for text, change := range map[string]func(in *input){
		"there is no ceiling":                       func(in *input) { in.Ceilings = registry.Ceilings{} },
		"tokens is not between":                     func(in *input) { in.Tokens = -1 },
		"zone \"Mars/Olympus\" is not known":        func(in *input) { in.Zone = "Mars/Olympus" },
		"zone \"Local\" is not known":               func(in *input) { in.Zone = "Local" },
		"anchor day 32 is not between 1 and 31":     func(in *input) { in.AnchorDay = 32 },
		"anchor day 8 is not between 1 and 7":       func(in *input) { in.Per, in.AnchorDay = entbudget.PerWeek, 8 },
		"anchor day 1 is not between 0 and 0":       func(in *input) { in.Per, in.AnchorDay = entbudget.PerHour, 1 },
		"anchor hour 24 is not between 0 and 23":    func(in *input) { in.AnchorHour = 24 },
		"per is not one of minute, hour, day":       func(in *input) { in.Per = "year" },
		"name is empty":                             func(in *input) { in.Name = "" },
		"threshold 0 is not between 1 and 1000":     func(in *input) { in.Thresholds = []int{0} },
		"thresholds do not ascend":                  func(in *input) { in.Thresholds = []int{80, 80} },
		"11 thresholds are more than 10":            func(in *input) { in.Thresholds = make([]int, 11) },
		"EachKind is given without Each":            func(in *input) { in.EachKind = "user" },
		"foreign key violation: consumer 0f0f0f0f-": func(in *input) { in.ConsumerID = unknownID },
		"foreign key violation: provider 0f0f0f0f-": func(in *input) { in.ProviderID = unknownID },
	} {
		in := registry.BudgetInput{ConsumerID: s.org.ID, Name: "b", Ceilings: registry.Ceilings{Tokens: 1}}
		change(&in)
		_, err := s.reg.CreateBudget(t.Context(), in)
		require.ErrorContains(t, err, text)
		if in.ConsumerID != unknownID && in.ProviderID != unknownID {
			require.ErrorIs(t, err, registry.ErrInvalidData)
		} else {
			require.ErrorIs(t, err, registry.ErrForeignKey)
		}
	}
	require.Equal(t, before, dump(t, s.reg))

	b := s.budget(t, registry.BudgetInput{Ceilings: registry.Ceilings{Tokens: 1}})
	s.budget(t, registry.BudgetInput{Name: "taken", Ceilings: registry.Ceilings{Tokens: 1}})
	before = dump(t, s.reg)
	_, err := s.reg.CreateBudget(t.Context(), registry.BudgetInput{
		ConsumerID: s.org.ID, Name: "b", Ceilings: registry.Ceilings{Tokens: 1},
	})
	require.ErrorIs(t, err, registry.ErrConflict)
	_, err = s.reg.UpdateBudget(t.Context(), b.ID, registry.BudgetUpdate{Tokens: new(int64(0))})
	require.ErrorIs(t, err, registry.ErrInvalidData, "the last ceiling")
	_, err = s.reg.UpdateBudget(t.Context(), uuid.New(), registry.BudgetUpdate{Tokens: new(int64(1))})
	require.ErrorIs(t, err, registry.ErrNotFound)
	_, err = s.reg.UpdateBudget(t.Context(), b.ID, registry.BudgetUpdate{Name: ptr("taken"), Tokens: ptr(int64(2))})
	require.ErrorIs(t, err, registry.ErrConflict)
	require.ErrorIs(t, s.reg.DeleteBudget(t.Context(), uuid.New()), registry.ErrNotFound)
	for _, in := range []registry.GrantInput{
		{BudgetID: b.ID}, {BudgetID: b.ID, Tokens: 1, Windows: 1001}, {BudgetID: b.ID, Tokens: -1},
		{BudgetID: b.ID, Tokens: 1, From: time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		_, err := s.reg.GrantBudget(t.Context(), in)
		require.ErrorIs(t, err, registry.ErrInvalidData)
	}
	_, err = s.reg.GrantBudget(t.Context(), registry.GrantInput{BudgetID: uuid.New(), Tokens: 1})
	require.ErrorIs(t, err, registry.ErrForeignKey)
	_, err = s.reg.RevokeGrant(t.Context(), uuid.New())
	require.ErrorIs(t, err, registry.ErrNotFound)
	require.Equal(t, before, dump(t, s.reg))
	requireNoEffect(t, s, b)
}

// requireNoEffect grants what would raise no ceiling of a budget of the organisation, which has one of tokens alone.
func requireNoEffect(t *testing.T, s *spenders, shared *ent.Budget) {
	t.Helper()
	users := s.budget(t, registry.BudgetInput{
		Name: "users", Ceilings: registry.Ceilings{Concurrency: 1, Tokens: 1}, Each: true, EachKind: "user",
	})
	stranger := mustConsumer(t, s.reg, "stranger", uuid.Nil)
	before := dump(t, s.reg)
	for says, in := range map[string]registry.GrantInput{
		"no ceiling of cost":     {BudgetID: shared.ID, Cost: 1},
		"no ceiling of requests": {BudgetID: users.ID, Tokens: 1, Requests: 1},
		"are over":               {BudgetID: shared.ID, Tokens: 1, From: registrytest.Start.AddDate(-1, 0, 0)},
		s.user.ID.String():       {BudgetID: shared.ID, SubjectID: s.user.ID, Tokens: 1}, // they share it
		s.org.ID.String():        {BudgetID: users.ID, SubjectID: s.org.ID, Tokens: 1},
		s.team.ID.String():       {BudgetID: users.ID, SubjectID: s.team.ID, Tokens: 1},
		stranger.ID.String():     {BudgetID: users.ID, SubjectID: stranger.ID, Tokens: 1},
	} {
		_, err := s.reg.GrantBudget(t.Context(), in)
		require.ErrorIs(t, err, registry.ErrInvalidData, says)
		require.ErrorContains(t, err, says)
	}
	_, err := s.reg.GrantBudget(t.Context(), registry.GrantInput{BudgetID: users.ID, SubjectID: uuid.New(), Tokens: 1})
	require.ErrorIs(t, err, registry.ErrForeignKey)
	require.Equal(t, before, dump(t, s.reg))
	for _, in := range []registry.GrantInput{
		{BudgetID: shared.ID, SubjectID: s.org.ID, Tokens: 1}, {BudgetID: users.ID, SubjectID: s.user.ID, Tokens: 1},
	} {
		_, err := s.reg.GrantBudget(t.Context(), in)
		require.NoError(t, err)
	}
}

// 64 ceilings may bind a request. The 65th refuses it, wherever it comes from, and nobody whom it does not bind.
func TestBudgetTooMany(t *testing.T) { eachEngine(t, testBudgetTooMany) }

func testBudgetTooMany(t *testing.T, e engine) {
	t.Parallel()
	s, ctx := newSpenders(t, e), t.Context()
	var budgets []*ent.Budget
	for i := range 32 {
		budgets = append(budgets, s.budget(t, registry.BudgetInput{
			Name: fmt.Sprint(i), ConsumerID: s.team.ID, Ceilings: registry.Ceilings{Tokens: 1000, Requests: 1000},
		}))
	}
	guest := mustConsumer(t, s.reg, "guest", uuid.Nil)
	s.budget(t, registry.BudgetInput{ConsumerID: guest.ID, Ceilings: registry.Ceilings{Concurrency: 9}})
	s.budget(t, registry.BudgetInput{
		Name: "other", Ceilings: registry.Ceilings{Tokens: 1}, Models: []string{"other"}, // it does not bind
	})
	of := func(c *ent.Consumer) registry.AcquireInput {
		in := s.ask(1)
		in.ConsumerID = c.ID
		return in
	}
	admitted := func(c *ent.Consumer) {
		t.Helper()
		l := s.acquire(t, of(c))
		require.NoError(t, l.Renew(ctx, renewal(2)))
		require.NoError(t, l.Settle(ctx, used(1)))
	}
	tooMany := func(c *ent.Consumer) {
		t.Helper()
		before := dump(t, s.reg)
		_, err := s.reg.AcquireKey(ctx, of(c))
		require.ErrorIs(t, err, registry.ErrInvalidData)
		require.ErrorContains(t, err, "65 ceilings bind consumer "+c.ID.String())
		require.Equal(t, before, dump(t, s.reg))
		admitted(s.org)
	}
	admitted(s.user)
	admitted(guest)

	more := s.budget(t, registry.BudgetInput{ConsumerID: s.user.ID, Ceilings: registry.Ceilings{Tokens: 1000}})
	tooMany(s.user)
	admitted(s.team)
	require.NoError(t, s.reg.DeleteBudget(ctx, more.ID))
	admitted(s.user)

	cost := func(usd money.USD) {
		t.Helper()
		require.NoError(t, second(s.reg.UpdateBudget(ctx, budgets[0].ID, registry.BudgetUpdate{Cost: &usd})))
	}
	cost(1000 * money.Dollar)
	tooMany(s.user)
	cost(0)
	admitted(s.user)

	require.NoError(t, second(s.reg.MoveConsumer(ctx, guest.ID, s.team.ID)))
	tooMany(guest)
	admitted(s.user)
	require.NoError(t, second(s.reg.MoveConsumer(ctx, guest.ID, uuid.Nil)))
	admitted(guest)
}

// Whoever names a consumer that is not there, or no model, or another's access key, is told so.
func TestConsumerOfRequest(t *testing.T) { eachEngine(t, testConsumerOfRequest) }

func testConsumerOfRequest(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	key, _, err := s.reg.CreateAccessKey(t.Context(), registry.AccessKeyInput{ConsumerID: s.user.ID})
	require.NoError(t, err)
	for name, test := range map[string]struct {
		consumer, accessKey, model uuid.UUID
		err                        error
	}{
		"no such consumer":          {unknownID, uuid.Nil, s.model.ID, registry.ErrForeignKey},
		"no such access key":        {s.user.ID, unknownID, s.model.ID, registry.ErrForeignKey},
		"no model":                  {s.user.ID, uuid.Nil, uuid.Nil, registry.ErrInvalidData},
		"another's access key":      {s.team.ID, key.ID, s.model.ID, registry.ErrInvalidData},
		"an access key of nobody's": {uuid.Nil, unknownID, s.model.ID, registry.ErrForeignKey},
	} {
		in := s.ask(1)
		in.ConsumerID, in.AccessKeyID, in.ModelID = test.consumer, test.accessKey, test.model
		_, err := s.reg.AcquireKey(t.Context(), in)
		require.ErrorIs(t, err, test.err, name)
	}
	l := s.acquire(t, s.ask(1))
	in := used(1)
	in.ConsumerID = s.org.ID
	require.ErrorIs(t, l.Settle(t.Context(), in), registry.ErrInvalidData, "another consumer than the lease's")
	found, err := s.reg.GetLease(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, s.user.ID, found.ConsumerID)
	require.NoError(t, found.Settle(t.Context(), used(1)))
	in = used(1)
	in.ModelID, in.APIKeyID, in.ConsumerID = s.model.ID, s.key.ID, uuid.New()
	require.ErrorIs(t, s.reg.RecordUsage(t.Context(), in), registry.ErrForeignKey)
	in.ConsumerID, in.AccessKeyID = s.user.ID, unknownID
	require.ErrorIs(t, s.reg.RecordUsage(t.Context(), in), registry.ErrForeignKey)
	in.ConsumerID, in.AccessKeyID = s.team.ID, key.ID
	require.ErrorIs(t, s.reg.RecordUsage(t.Context(), in), registry.ErrInvalidData)
	_, err = s.reg.ExplainBudgets(t.Context(), registry.AcquireInput{
		ProviderID: s.provider.ID, ModelID: s.model.ID, ConsumerID: s.team.ID, AccessKeyID: key.ID,
	})
	require.ErrorIs(t, err, registry.ErrInvalidData)

	// By its access key or by its name, it is the same consumer's request; by another's key it is another.
	in.ConsumerID, in.AccessKeyID, in.RequestID = uuid.Nil, key.ID, "one"
	require.NoError(t, s.reg.RecordUsage(t.Context(), in))
	in.ConsumerID = s.user.ID
	require.NoError(t, s.reg.RecordUsage(t.Context(), in))
	other, _, err := s.reg.CreateAccessKey(t.Context(), registry.AccessKeyInput{ConsumerID: s.team.ID})
	require.NoError(t, err)
	in.ConsumerID, in.AccessKeyID = uuid.Nil, other.ID
	require.ErrorIs(t, s.reg.RecordUsage(t.Context(), in), registry.ErrConflict)
}

func TestRequiredConsumer(t *testing.T) { eachEngine(t, testRequiredConsumer) }

func testRequiredConsumer(t *testing.T, e engine) {
	t.Parallel()
	reg := e.new(t, registry.WithRequiredConsumer())
	_, err := reg.AcquireKey(t.Context(), registry.AcquireInput{TTL: time.Minute})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	require.ErrorContains(t, err, "WithRequiredConsumer")
	require.ErrorContains(t, reg.RecordUsage(t.Context(), registry.UsageInput{}), "WithRequiredConsumer")
	err = reg.RecordUsageBatch(t.Context(), []registry.UsageInput{{ConsumerID: uuid.New()}, {}})
	require.ErrorContains(t, err, "request 1: neither a consumer")
}

// A consumer who moves takes with it what it has open and what it spent in the present window.
func TestBudgetMove(t *testing.T) { eachEngine(t, testBudgetMove) }

func testBudgetMove(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	s.budget(t, registry.BudgetInput{ConsumerID: s.team.ID, Ceilings: registry.Ceilings{Tokens: 10}})
	other := mustConsumer(t, s.reg, "other", s.org.ID)
	s.budget(t, registry.BudgetInput{ConsumerID: other.ID, Ceilings: registry.Ceilings{Tokens: 10}})
	require.NoError(t, s.acquire(t, s.ask(6)).Settle(t.Context(), used(6)))
	open := s.acquire(t, s.ask(3))
	_, err := s.reg.MoveConsumer(t.Context(), s.user.ID, other.ID)
	require.NoError(t, err)
	over := s.refused(t, s.ask(2))
	require.Equal(t, []any{other.ID, int64(6), int64(3)},
		[]any{over.Closed[0].SubjectID, over.Closed[0].Ended, over.Closed[0].Open})
	in := s.ask(10)
	in.ConsumerID = s.team.ID
	require.NoError(t, s.acquire(t, in).Release(t.Context()), "the team has all of it again")
	require.NoError(t, open.Settle(t.Context(), used(4)))
	require.Equal(t, int64(10), s.refused(t, s.ask(1)).Closed[0].Ended)
}

// Minutes are removed when they are over, and other windows when quarters are.
func TestBudgetWindowsAge(t *testing.T) { eachEngine(t, testBudgetWindowsAge) }

func testBudgetWindowsAge(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	s.budget(t, registry.BudgetInput{
		Name: "minute", Ceilings: registry.Ceilings{Tokens: 10}, Window: registry.Window{Per: entbudget.PerMinute},
	})
	s.budget(t, registry.BudgetInput{Name: "month", Ceilings: registry.Ceilings{Tokens: 1000}})
	for range 30 {
		require.NoError(t, s.acquire(t, s.ask(1)).Settle(t.Context(), used(1)))
		s.clock.Advance(time.Minute)
	}
	count := func() int {
		n, err := s.reg.Client().BudgetWindow.Query().Count(t.Context())
		require.NoError(t, err)
		return n
	}
	require.Equal(t, 12, count(), "eleven minutes and a month")
	s.clock.Advance(60 * 24 * time.Hour)
	report, err := s.reg.Prune(t.Context(), registry.PruneInput{})
	require.NoError(t, err)
	require.Equal(t, int64(12), report.BudgetWindows)
	require.Zero(t, count())
}

// A caller waits for a minute to pass, and for others to end, but not for a month.
func TestBudgetWait(t *testing.T) { eachEngineAtOnce(t, testBudgetWait) }

func testBudgetWait(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	b := s.budget(t, registry.BudgetInput{Ceilings: registry.Ceilings{Cost: 2 * money.Dollar, Concurrency: 1}})
	in := s.ask(1)
	in.Wait = true
	first := s.acquire(t, in)
	got := make(chan error, 1)
	go func() {
		l, err := s.reg.AcquireKey(t.Context(), in)
		if err == nil {
			err = l.Settle(t.Context(), used(1))
		}
		got <- err
	}()
	requireWaits(t, s.reg)
	require.NoError(t, first.Settle(t.Context(), used(1)))
	require.NoError(t, <-got)
	_, err := s.reg.AcquireKey(t.Context(), in)
	require.ErrorIs(t, err, registry.ErrBudget, "for a month")

	require.NoError(t, s.reg.DeleteBudget(t.Context(), b.ID))
	s.budget(t, registry.BudgetInput{
		Name: "minute", Ceilings: registry.Ceilings{Tokens: 2}, Window: registry.Window{Per: entbudget.PerMinute},
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s.clock.Set(registrytest.Start.Add(59*time.Second + 900*time.Millisecond))
	go func() {
		_, err := s.reg.AcquireKey(ctx, in)
		got <- err
	}()
	requireWaits(t, s.reg)
	s.clock.Advance(time.Second)
	require.NoError(t, <-got)
}

// requireWaits returns when a caller waits for a key.
func requireWaits(t *testing.T, reg *registry.Registry) {
	t.Helper()
	require.Eventually(t, func() bool { return registry.Waiting(reg) > 0 }, time.Minute, time.Millisecond)
}
