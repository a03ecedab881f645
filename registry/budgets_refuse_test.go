package registry_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

func TestBudgetRefuses(t *testing.T) { eachEngine(t, testBudgetRefuses) }

func testBudgetRefuses(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	for name, test := range map[string]struct {
		change func(in *registry.BudgetInput)
		err    error
		text   string
	}{
		"no ceiling":        {func(in *registry.BudgetInput) { in.Ceilings = registry.Ceilings{} }, registry.ErrInvalidData, "no ceiling"},
		"a negative one":    {func(in *registry.BudgetInput) { in.Tokens = -1 }, registry.ErrInvalidData, "tokens"},
		"an unknown zone":   {func(in *registry.BudgetInput) { in.Zone = "Mars/Olympus" }, registry.ErrInvalidData, "Mars/Olympus"},
		"this machine's":    {func(in *registry.BudgetInput) { in.Zone = "Local" }, registry.ErrInvalidData, "Local"},
		"day 32":            {func(in *registry.BudgetInput) { in.AnchorDay = 32 }, registry.ErrInvalidData, "anchor day 32"},
		"day 8 of a week":   {func(in *registry.BudgetInput) { in.Per, in.AnchorDay = entbudget.PerWeek, 8 }, registry.ErrInvalidData, "between 1 and 7"},
		"a day of an hour":  {func(in *registry.BudgetInput) { in.Per, in.AnchorDay = entbudget.PerHour, 1 }, registry.ErrInvalidData, "between 0 and 0"},
		"hour 24":           {func(in *registry.BudgetInput) { in.AnchorHour = 24 }, registry.ErrInvalidData, "anchor hour 24"},
		"an unknown window": {func(in *registry.BudgetInput) { in.Per = "year" }, registry.ErrInvalidData, "per"},
		"no name":           {func(in *registry.BudgetInput) { in.Name = "" }, registry.ErrInvalidData, "name"},
		"threshold 0":       {func(in *registry.BudgetInput) { in.Thresholds = []int{0} }, registry.ErrInvalidData, "threshold 0"},
		"thresholds":        {func(in *registry.BudgetInput) { in.Thresholds = []int{80, 80} }, registry.ErrInvalidData, "ascend"},
		"11 thresholds": {func(in *registry.BudgetInput) {
			in.Thresholds = []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
		}, registry.ErrInvalidData, "more than 10"},
		"a kind of nothing": {func(in *registry.BudgetInput) { in.EachKind = "user" }, registry.ErrInvalidData, "EachKind"},
		"no consumer":       {func(in *registry.BudgetInput) { in.ConsumerID = uuid.New() }, registry.ErrForeignKey, "consumer"},
		"no provider":       {func(in *registry.BudgetInput) { in.ProviderID = uuid.New() }, registry.ErrForeignKey, "provider"},
	} {
		in := registry.BudgetInput{ConsumerID: s.org.ID, Name: "b", Ceilings: registry.Ceilings{Tokens: 1}}
		test.change(&in)
		_, err := s.reg.CreateBudget(t.Context(), in)
		require.ErrorIs(t, err, test.err, name)
		require.ErrorContains(t, err, test.text, name)
	}
	all, err := s.reg.ListBudgets(t.Context(), registry.BudgetFilter{})
	require.NoError(t, err)
	require.Empty(t, all)

	b := s.budget(t, registry.BudgetInput{Ceilings: registry.Ceilings{Tokens: 1}})
	_, err = s.reg.CreateBudget(t.Context(), registry.BudgetInput{
		ConsumerID: s.org.ID, Name: "b", Ceilings: registry.Ceilings{Tokens: 1},
	})
	require.ErrorIs(t, err, registry.ErrConflict)
	_, err = s.reg.UpdateBudget(t.Context(), b.ID, registry.BudgetUpdate{Tokens: new(int64(0))})
	require.ErrorIs(t, err, registry.ErrInvalidData, "the last ceiling")
	_, err = s.reg.UpdateBudget(t.Context(), uuid.New(), registry.BudgetUpdate{Tokens: new(int64(1))})
	require.ErrorIs(t, err, registry.ErrNotFound)
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
}

// 65 ceilings on one chain refuse the request that they would bind, and nobody else.
func TestBudgetTooMany(t *testing.T) { eachEngine(t, testBudgetTooMany) }

func testBudgetTooMany(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	for i := range 33 {
		s.budget(t, registry.BudgetInput{
			Name: fmt.Sprint(i), ConsumerID: s.team.ID, Ceilings: registry.Ceilings{Tokens: 1000, Requests: 1000},
		})
	}
	_, err := s.reg.AcquireKey(t.Context(), s.ask(1))
	require.ErrorIs(t, err, registry.ErrInvalidData)
	require.ErrorContains(t, err, "66 ceilings")
	in := s.ask(1)
	in.ConsumerID = s.org.ID
	require.NoError(t, s.acquire(t, in).Settle(t.Context(), tokens(1)))
}

// Whoever names a consumer that is not there, or no model, or another's access key, is told so.
func TestConsumerOfRequest(t *testing.T) { eachEngine(t, testConsumerOfRequest) }

func testConsumerOfRequest(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	key, _, err := s.reg.CreateAccessKey(t.Context(), registry.AccessKeyInput{ConsumerID: s.user.ID})
	require.NoError(t, err)
	for name, test := range map[string]struct {
		change func(in *registry.AcquireInput)
		err    error
	}{
		"no such consumer":          {func(in *registry.AcquireInput) { in.ConsumerID = uuid.New() }, registry.ErrForeignKey},
		"no such access key":        {func(in *registry.AcquireInput) { in.AccessKeyID = uuid.New() }, registry.ErrForeignKey},
		"no model":                  {func(in *registry.AcquireInput) { in.ModelID = uuid.Nil }, registry.ErrInvalidData},
		"another's access key":      {func(in *registry.AcquireInput) { in.ConsumerID, in.AccessKeyID = s.team.ID, key.ID }, registry.ErrInvalidData},
		"an access key of nobody's": {func(in *registry.AcquireInput) { in.ConsumerID, in.AccessKeyID = uuid.Nil, uuid.New() }, registry.ErrForeignKey},
	} {
		in := s.ask(1)
		test.change(&in)
		_, err := s.reg.AcquireKey(t.Context(), in)
		require.ErrorIs(t, err, test.err, name)
	}
	l := s.acquire(t, s.ask(1))
	in := tokens(1)
	in.ConsumerID = s.org.ID
	require.ErrorIs(t, l.Settle(t.Context(), in), registry.ErrInvalidData, "another consumer than the lease's")
	found, err := s.reg.GetLease(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, s.user.ID, found.ConsumerID)
	require.NoError(t, found.Settle(t.Context(), tokens(1)))
	in = tokens(1)
	in.ModelID, in.APIKeyID, in.ConsumerID = s.model.ID, s.key.ID, uuid.New()
	require.ErrorIs(t, s.reg.RecordUsage(t.Context(), in), registry.ErrForeignKey)
	in.ConsumerID, in.AccessKeyID = uuid.Nil, key.ID
	require.NoError(t, s.reg.RecordUsage(t.Context(), in))
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
	other := consumerOf(t, s.reg, registry.ConsumerInput{Name: "other", ParentID: s.org.ID})
	s.budget(t, registry.BudgetInput{ConsumerID: other.ID, Ceilings: registry.Ceilings{Tokens: 10}})
	require.NoError(t, s.acquire(t, s.ask(6)).Settle(t.Context(), tokens(6)))
	open := s.acquire(t, s.ask(3))
	_, err := s.reg.MoveConsumer(t.Context(), s.user.ID, other.ID)
	require.NoError(t, err)
	over := s.refused(t, s.ask(2))
	require.Equal(t, []any{other.ID, int64(6), int64(3)},
		[]any{over.Closed[0].SubjectID, over.Closed[0].Ended, over.Closed[0].Open})
	in := s.ask(10)
	in.ConsumerID = s.team.ID
	require.NoError(t, s.acquire(t, in).Release(t.Context()), "the team has all of it again")
	require.NoError(t, open.Settle(t.Context(), tokens(4)))
	require.Equal(t, int64(10), s.refused(t, s.ask(1)).Closed[0].Ended)
}

// Minutes are removed when they are over, and other windows when quarters are.
func TestBudgetWindowsAge(t *testing.T) { eachEngine(t, testBudgetWindowsAge) }

func testBudgetWindowsAge(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	s.budget(t, registry.BudgetInput{Name: "minute", Ceilings: registry.Ceilings{Tokens: 10}, Window: registry.Window{Per: entbudget.PerMinute}})
	s.budget(t, registry.BudgetInput{Name: "month", Ceilings: registry.Ceilings{Tokens: 1000}})
	for range 30 {
		require.NoError(t, s.acquire(t, s.ask(1)).Settle(t.Context(), tokens(1)))
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
			err = l.Settle(t.Context(), tokens(1))
		}
		got <- err
	}()
	require.NoError(t, first.Settle(t.Context(), tokens(1)))
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
	s.clock.Advance(time.Second)
	require.NoError(t, <-got)
}
