package registry_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/schema"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// admitted is a user below an organisation, whom a process has let in by an access key.
type admitted struct {
	org, user *ent.Consumer
	key       *ent.AccessKey
	budget    *ent.Budget      // of the organisation
	grant     *ent.BudgetGrant // of tokens
}

// TestLeaseElsewhere changes consumers, access keys and budgets in one process. Another one, which has let their users
// in, refuses them at once: the clock stands still.
func TestLeaseElsewhere(t *testing.T) { eachEngine(t, testLeaseElsewhere) }

func testLeaseElsewhere(t *testing.T, e engine) {
	t.Parallel()
	one, two, _ := e.openTwo(t)
	ctx := t.Context()
	p := mustProvider(t, one, "openai")
	m := mustModel(t, one, p.ID, "gpt-4", money.Rates{meter.Input: money.Dollar})
	mustKey(t, one, p.ID, 1)
	closed := mustConsumer(t, one, "closed", uuid.Nil)
	must(one.UpdateConsumer(ctx, closed.ID, registry.ConsumerUpdate{Disabled: ptr(true)}))
	for name, test := range map[string]struct {
		end  func(a admitted) error
		want registry.ForbiddenReason // empty: a budget refuses
	}{
		"DeleteAccessKey": {func(a admitted) error {
			return one.DeleteAccessKey(ctx, a.key.ID)
		}, registry.AccessKeyDeleted},
		"UpdateAccessKey": {func(a admitted) error {
			return second(one.UpdateAccessKey(ctx, a.key.ID, registry.AccessKeyUpdate{Disabled: ptr(true)}))
		}, registry.AccessKeyDisabled},
		"RotateAccessKey": {func(a admitted) error {
			_, _, err := one.RotateAccessKey(ctx, a.key.ID, registry.AccessKeyRotation{})
			return err
		}, registry.AccessKeyExpired},
		"UpdateConsumer": {func(a admitted) error {
			return second(one.UpdateConsumer(ctx, a.org.ID, registry.ConsumerUpdate{Disabled: ptr(true)}))
		}, registry.ConsumerDisabled},
		"UpdateConsumer, a model": {func(a admitted) error {
			denied := []schema.Permission{{ProviderID: p.ID, Deny: true}}
			return second(one.UpdateConsumer(ctx, a.org.ID, registry.ConsumerUpdate{Permissions: &denied}))
		}, registry.ModelDenied},
		"MoveConsumer": {func(a admitted) error {
			return second(one.MoveConsumer(ctx, a.user.ID, closed.ID))
		}, registry.ConsumerDisabled},
		"DeleteConsumer": {func(a admitted) error {
			return one.DeleteConsumer(ctx, a.org.ID)
		}, registry.AccessKeyDeleted},
		"UpdateBudget": {func(a admitted) error {
			return second(one.UpdateBudget(ctx, a.budget.ID, registry.BudgetUpdate{Cost: ptr(money.NanoDollar)}))
		}, ""},
		"RevokeGrant": {func(a admitted) error {
			return second(one.RevokeGrant(ctx, a.grant.ID))
		}, ""},
		"CreateBudget": {func(a admitted) error {
			return second(one.CreateBudget(ctx, registry.BudgetInput{
				ConsumerID: a.user.ID, Name: "of the user", Ceilings: registry.Ceilings{Tokens: 2},
			}))
		}, ""},
	} {
		a := admitted{org: mustConsumer(t, one, name, uuid.Nil)}
		a.user = mustConsumer(t, one, "user", a.org.ID)
		a.budget = must(one.CreateBudget(ctx, registry.BudgetInput{
			ConsumerID: a.org.ID, Name: "b", Ceilings: registry.Ceilings{Tokens: 2, Cost: money.Dollar},
		}))
		a.grant = must(one.GrantBudget(ctx, registry.GrantInput{BudgetID: a.budget.ID, Tokens: 8}))
		var secret string
		a.key, secret = mustAccessKey(t, one, a.user.ID)
		must(two.Authenticate(ctx, secret))
		ask := registry.AcquireInput{
			ProviderID: p.ID, ModelID: m.ID, AccessKeyID: a.key.ID, EstimatedTokens: 1, TTL: time.Hour,
		}
		var leases []*registry.Lease
		for range 2 { // read, and remembered
			lease, err := two.AcquireKey(ctx, ask)
			require.NoError(t, err, name)
			leases = append(leases, lease)
		}
		require.NoError(t, test.end(a), name)
		_, err := two.AcquireKey(ctx, ask)
		requireNotAdmitted(t, err, test.want)
		requireNotAdmitted(t, leases[0].Renew(ctx, renewal(2)), test.want)
		for _, lease := range leases {
			require.NoError(t, lease.Settle(ctx, used(1)), name)
		}
	}
}

// requireNotAdmitted requires that a request is refused for a reason; without one, by a budget.
func requireNotAdmitted(t *testing.T, err error, want registry.ForbiddenReason) {
	t.Helper()
	if want == "" {
		require.ErrorIs(t, err, registry.ErrBudget)
		return
	}
	require.ErrorIs(t, err, registry.ErrForbidden)
	var why *registry.ForbiddenError
	require.ErrorAs(t, err, &why)
	require.Equal(t, want, why.Reason)
}
