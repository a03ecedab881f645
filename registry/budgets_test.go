package registry_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/ent/budgetcrossing"
	"github.com/jeffersonwarrior/modelscan/ent/schema"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// spenders are an organisation, a team and a user, each below the one before, with what they use.
type spenders struct {
	reg             *registry.Registry
	clock           *registrytest.Clock
	provider        *ent.Provider
	model           *ent.Model // a dollar for a token of input
	key             *ent.APIKey
	org, team, user *ent.Consumer
}

func newSpenders(t *testing.T, e engine) *spenders {
	t.Helper()
	return newSpendersAt(t, e, registrytest.NewClock(registrytest.Start))
}

func newSpendersAt(t *testing.T, e engine, clock *registrytest.Clock) *spenders {
	t.Helper()
	reg := e.new(t, registry.WithClock(clock.Now))
	s := &spenders{reg: reg, clock: clock, provider: mustProvider(t, reg, "openai")}
	s.model = mustModel(t, reg, s.provider.ID, "gpt-4", money.Rates{meter.Input: 1_000_000 * money.Dollar})
	s.key = mustKey(t, reg, s.provider.ID, 1)
	s.org = mustConsumer(t, reg, "org", uuid.Nil, "organisation")
	s.team = mustConsumer(t, reg, "team", s.org.ID, "team")
	s.user = mustConsumer(t, reg, "user", s.team.ID, "user")
	return s
}

func (s *spenders) budget(t *testing.T, in registry.BudgetInput) *ent.Budget {
	t.Helper()
	if in.ConsumerID == uuid.Nil {
		in.ConsumerID = s.org.ID
	}
	if in.Name == "" {
		in.Name = "b"
	}
	b, err := s.reg.CreateBudget(t.Context(), in)
	require.NoError(t, err)
	return b
}

// ask is a request of the user for dollars, as many as tokens.
func (s *spenders) ask(dollars int64) registry.AcquireInput {
	return registry.AcquireInput{
		ProviderID: s.provider.ID, ModelID: s.model.ID, ConsumerID: s.user.ID, TTL: time.Minute,
		EstimatedTokens: dollars, EstimatedCost: money.USD(dollars) * money.Dollar,
	}
}

func (s *spenders) acquire(t *testing.T, in registry.AcquireInput) *registry.Lease {
	t.Helper()
	l, err := s.reg.AcquireKey(t.Context(), in)
	require.NoError(t, err)
	return l
}

// refused requires that a request does not fit, and returns why.
func (s *spenders) refused(t *testing.T, in registry.AcquireInput) registry.BudgetError {
	t.Helper()
	_, err := s.reg.AcquireKey(t.Context(), in)
	require.ErrorIs(t, err, registry.ErrBudget)
	var over *registry.BudgetError
	require.ErrorAs(t, err, &over)
	require.NotEmpty(t, over.Closed)
	return *over
}

// What is open counts as it was estimated, what has ended as it was.
func TestBudgetOpenAndEnded(t *testing.T) { eachEngine(t, testBudgetOpenAndEnded) }

func testBudgetOpenAndEnded(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	b := s.budget(t, registry.BudgetInput{Ceilings: registry.Ceilings{Cost: 10 * money.Dollar}})
	first := s.acquire(t, s.ask(7))
	over := s.refused(t, s.ask(4))
	require.True(t, over.Sooner)
	require.Equal(t, time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC), over.OpensAt)
	state := over.Closed[0]
	require.Equal(t, []any{b.ID, s.org.ID, registry.BudgetCost, int64(10 * money.Dollar), int64(7 * money.Dollar)},
		[]any{state.BudgetID, state.SubjectID, state.Metric, state.Ceiling, state.Open})
	require.ErrorContains(t, &over, `over budget: "b": $3 of $10 cost left, $4 asked, opens at 2026-08-01T00:00:00Z`)
	second := s.acquire(t, s.ask(3))

	require.NoError(t, first.Settle(t.Context(), used(2)))
	s.refused(t, s.ask(6))
	third := s.acquire(t, s.ask(5))
	require.NoError(t, second.Release(t.Context()))
	_, err := third.Fail(t.Context(), registry.Failure{Status: 400, Usage: used(8)})
	require.NoError(t, err)
	require.False(t, s.refused(t, s.ask(1)).Sooner, "10 dollars have ended")

	states, err := s.reg.ExplainBudgets(t.Context(), s.ask(0))
	require.NoError(t, err)
	require.Len(t, states, 1)
	require.Equal(t, []any{int64(10 * money.Dollar), int64(0), int64(0), true, true},
		[]any{states[0].Ended, states[0].Open, states[0].Left, states[0].Closed, states[0].Binding})
	s.clock.Set(over.OpensAt)
	require.NoError(t, s.acquire(t, s.ask(10)).Release(t.Context()))
}

// Every budget on the way to the root binds, in its own window.
func TestBudgetAncestors(t *testing.T) { eachEngine(t, testBudgetAncestors) }

func testBudgetAncestors(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	s.budget(t, registry.BudgetInput{Ceilings: registry.Ceilings{Requests: 3}})
	s.budget(t, registry.BudgetInput{
		ConsumerID: s.team.ID, Ceilings: registry.Ceilings{Tokens: 100}, Window: registry.Window{Per: entbudget.PerDay},
	})
	s.budget(t, registry.BudgetInput{
		ConsumerID: s.user.ID, Ceilings: registry.Ceilings{Concurrency: 1},
		Window: registry.Window{Per: entbudget.PerTotal},
	})
	other := mustConsumer(t, s.reg, "other", s.org.ID)
	l := s.acquire(t, s.ask(60))
	over := s.refused(t, s.ask(41))
	require.Len(t, over.Closed, 2, "tokens of the team, and concurrency of the user")
	require.True(t, over.OpensAt.IsZero())
	require.NoError(t, l.Settle(t.Context(), used(60)))
	require.NoError(t, s.acquire(t, s.ask(40)).Settle(t.Context(), used(40)))
	s.refused(t, s.ask(1))

	in := s.ask(1000)
	in.ConsumerID = other.ID // another team
	require.NoError(t, s.acquire(t, in).Settle(t.Context(), used(1)))
	require.Equal(t, registry.BudgetRequests, s.refused(t, in).Closed[0].Metric)
	in.ConsumerID = uuid.Nil
	require.NoError(t, s.acquire(t, in).Release(t.Context()), "for nobody")
}

func TestBudgetEach(t *testing.T) { eachEngine(t, testBudgetEach) }

func testBudgetEach(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	b := s.budget(t, registry.BudgetInput{Ceilings: registry.Ceilings{Requests: 1}, Each: true, EachKind: "user"})
	second := mustConsumer(t, s.reg, "second", s.team.ID, "user")
	require.NoError(t, s.acquire(t, s.ask(1)).Settle(t.Context(), used(1)))
	require.Equal(t, s.user.ID, s.refused(t, s.ask(1)).Closed[0].SubjectID)
	in := s.ask(1)
	in.ConsumerID = second.ID
	require.NoError(t, s.acquire(t, in).Settle(t.Context(), used(1)))
	in.ConsumerID = s.team.ID
	require.NoError(t, s.acquire(t, in).Settle(t.Context(), used(1)), "there is no user on the way")

	// A grant is for the consumer that it names.
	_, err := s.reg.GrantBudget(t.Context(), registry.GrantInput{BudgetID: b.ID, SubjectID: second.ID, Requests: 1})
	require.NoError(t, err)
	s.refused(t, s.ask(1))
	in.ConsumerID = second.ID
	require.NoError(t, s.acquire(t, in).Release(t.Context()))

	// The team becomes a user: what was spent below it, and by it, is its own now.
	_, err = s.reg.UpdateConsumer(t.Context(), s.team.ID, registry.ConsumerUpdate{Kind: ptr("user")})
	require.NoError(t, err)
	over := s.refused(t, in)
	require.Equal(t, []any{s.team.ID, int64(3)}, []any{over.Closed[0].SubjectID, over.Closed[0].Ended})
}

func TestBudgetFilterAndShadow(t *testing.T) { eachEngine(t, testBudgetFilterAndShadow) }

func testBudgetFilterAndShadow(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	s.budget(t, registry.BudgetInput{
		Name: "another model", Ceilings: registry.Ceilings{Requests: 1}, Models: []string{"gpt-4-*"},
	})
	s.budget(t, registry.BudgetInput{
		Name: "shadow", Ceilings: registry.Ceilings{Requests: 2}, Mode: entbudget.ModeShadow, ProviderID: s.provider.ID,
	})
	for range 4 {
		require.NoError(t, s.acquire(t, s.ask(1)).Settle(t.Context(), used(1)))
	}
	states, err := s.reg.ExplainBudgets(t.Context(), s.ask(1))
	require.NoError(t, err)
	require.Len(t, states, 1)
	require.Equal(t, []any{int64(4), true, true, false},
		[]any{states[0].Ended, states[0].Closed, states[0].Shadow, states[0].Binding})

	crossings, err := s.reg.ListBudgetCrossings(t.Context(), registry.CrossingFilter{})
	require.NoError(t, err)
	kinds := map[budgetcrossing.Kind]int{}
	for _, c := range crossings {
		kinds[c.Kind]++
	}
	require.Equal(t,
		map[budgetcrossing.Kind]int{budgetcrossing.KindThreshold: 2, budgetcrossing.KindWouldRefuse: 1}, kinds)
	require.NoError(t, s.reg.AckBudgetCrossings(t.Context(), crossings[0].ID, crossings[1].ID))
	left, err := s.reg.ListBudgetCrossings(t.Context(), registry.CrossingFilter{})
	require.NoError(t, err)
	require.Len(t, left, 1)
}

func TestBudgetGrants(t *testing.T) { eachEngine(t, testBudgetGrants) }

func testBudgetGrants(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	b := s.budget(t, registry.BudgetInput{
		Ceilings: registry.Ceilings{Requests: 1}, Window: registry.Window{Per: entbudget.PerDay, Zone: "Europe/Berlin"},
	})
	require.NoError(t, s.acquire(t, s.ask(1)).Settle(t.Context(), used(1)))
	s.refused(t, s.ask(1))
	g, err := s.reg.GrantBudget(t.Context(),
		registry.GrantInput{BudgetID: b.ID, Requests: 2, Windows: 2, Reason: "launch"})
	require.NoError(t, err)
	require.Equal(t, time.Date(2026, 7, 16, 22, 0, 0, 0, time.UTC), g.WindowsUntil)
	require.NoError(t, s.acquire(t, s.ask(1)).Settle(t.Context(), used(1)))
	_, err = s.reg.RevokeGrant(t.Context(), g.ID)
	require.NoError(t, err)
	require.Equal(t, int64(2), s.refused(t, s.ask(1)).Closed[0].Ended)

	total := s.budget(t, registry.BudgetInput{
		Name: "total", Ceilings: registry.Ceilings{Tokens: 1000}, Window: registry.Window{Per: entbudget.PerTotal},
	})
	g, err = s.reg.GrantBudget(t.Context(), registry.GrantInput{BudgetID: total.ID, Tokens: 1})
	require.NoError(t, err)
	require.Equal(t, 9999, g.WindowsUntil.Year(), "there is one window")

	// A change of limits changes no counter.
	_, err = s.reg.UpdateBudget(t.Context(), b.ID, registry.BudgetUpdate{Requests: new(int64(3))})
	require.NoError(t, err)
	require.NoError(t, s.acquire(t, s.ask(1)).Settle(t.Context(), used(1)))
	require.Equal(t, int64(3), s.refused(t, s.ask(1)).Closed[0].Ended)
	require.NoError(t, s.reg.DeleteBudget(t.Context(), b.ID))
	require.NoError(t, s.acquire(t, s.ask(1)).Release(t.Context()))
}

// A lease that nobody ends holds nothing when it has expired.
func TestBudgetExpired(t *testing.T) { eachEngine(t, testBudgetExpired) }

func testBudgetExpired(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	s.budget(t, registry.BudgetInput{Ceilings: registry.Ceilings{Requests: 1, Concurrency: 1}})
	l := s.acquire(t, s.ask(1))
	s.refused(t, s.ask(1))
	s.clock.Advance(time.Minute)
	require.NoError(t, s.acquire(t, s.ask(1)).Release(t.Context()))
	require.NoError(t, l.Settle(t.Context(), used(1)), "it can still be settled, and counts")
	s.refused(t, s.ask(1))
}

// A new budget starts from what was spent.
func TestBudgetRecounts(t *testing.T) { eachEngine(t, testBudgetRecounts) }

func testBudgetRecounts(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	in := used(4)
	in.ModelID, in.APIKeyID, in.ConsumerID = s.model.ID, s.key.ID, s.user.ID
	require.NoError(t, s.reg.RecordUsage(t.Context(), in))
	in.At = s.clock.Now().AddDate(0, -1, 0)
	require.NoError(t, s.reg.RecordUsage(t.Context(), in), "in an earlier window")
	open := s.acquire(t, s.ask(3))
	b := s.budget(t, registry.BudgetInput{Ceilings: registry.Ceilings{Cost: 10 * money.Dollar}})
	require.Equal(t, s.clock.Now(), b.CountsFrom.UTC(), "the first consumer is from then")
	over := s.refused(t, s.ask(4))
	require.Equal(t, []int64{int64(4 * money.Dollar), int64(3 * money.Dollar)},
		[]int64{over.Closed[0].Ended, over.Closed[0].Open})
	require.NoError(t, open.Settle(t.Context(), used(3)))
	over = s.refused(t, s.ask(4))
	require.Equal(t, int64(7*money.Dollar), over.Closed[0].Ended)
}

func TestForbidden(t *testing.T) { eachEngine(t, testForbidden) }

func testForbidden(t *testing.T, e engine) {
	t.Parallel()
	s := newSpenders(t, e)
	key, _, err := s.reg.CreateAccessKey(t.Context(), registry.AccessKeyInput{ConsumerID: s.user.ID, Label: "laptop"})
	require.NoError(t, err)
	in := s.ask(1)
	in.ConsumerID, in.AccessKeyID = uuid.Nil, key.ID
	l := s.acquire(t, in)
	require.Equal(t, s.user.ID, l.ConsumerID)
	require.NoError(t, l.Settle(t.Context(), used(1)))
	events, err := s.reg.ListUsageEvents(t.Context(), registry.EventFilter{ModelID: s.model.ID})
	require.NoError(t, err)
	require.Equal(t, s.user.ID, *events[0].ConsumerID)
	require.Equal(t, key.ID, *events[0].AccessKeyID)

	forbidden := func(reason registry.ForbiddenReason) {
		t.Helper()
		_, err := s.reg.AcquireKey(t.Context(), in)
		require.ErrorIs(t, err, registry.ErrForbidden)
		var why *registry.ForbiddenError
		require.ErrorAs(t, err, &why)
		require.Equal(t, reason, why.Reason)
	}
	change := func(id uuid.UUID, up registry.ConsumerUpdate) {
		t.Helper()
		_, err := s.reg.UpdateConsumer(t.Context(), id, up)
		require.NoError(t, err)
	}
	change(s.org.ID, registry.ConsumerUpdate{Permissions: &[]schema.Permission{
		{ProviderID: s.provider.ID}, {ProviderID: s.provider.ID, Models: []string{"gpt-4"}, Deny: true},
	}})
	forbidden(registry.ModelDenied)
	change(s.org.ID, registry.ConsumerUpdate{Permissions: &[]schema.Permission{}})
	change(s.team.ID, registry.ConsumerUpdate{Disabled: new(true)})
	forbidden(registry.ConsumerDisabled)
	change(s.team.ID, registry.ConsumerUpdate{Disabled: new(false)})
	require.NoError(t, s.acquire(t, in).Release(t.Context()))
	require.NoError(t, s.reg.DeleteAccessKey(t.Context(), key.ID))
	forbidden(registry.AccessKeyDeleted)
}
