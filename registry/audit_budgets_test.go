package registry_test

import (
	"testing"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// auditedBudgets are operations on budgets.
func auditedBudgets(t *testing.T, reg *registry.Registry) map[string]auditTest {
	t.Helper()
	ctx := t.Context()
	create := func(th thing) *ent.Budget {
		return must(reg.CreateBudget(ctx, registry.BudgetInput{
			ConsumerID: th.team.ID, Name: "b", Ceilings: registry.Ceilings{Tokens: 1},
		}))
	}
	return map[string]auditTest{
		"CreateBudget and DeleteBudget": {call: func(th thing) error {
			return reg.DeleteBudget(ctx, create(th).ID)
		}, want: []string{"create budget", "delete budget"}},
		"UpdateBudget": {call: func(th thing) error {
			b := create(th)
			must(reg.UpdateBudget(ctx, b.ID, registry.BudgetUpdate{Tokens: ptr(int64(1))}))
			return second(reg.UpdateBudget(ctx, b.ID, registry.BudgetUpdate{Tokens: ptr(int64(2))}))
		}, want: []string{"create budget", "update budget"}},
		"GrantBudget and RevokeGrant": {call: func(th thing) error {
			b := create(th)
			g := must(reg.GrantBudget(ctx, registry.GrantInput{BudgetID: b.ID, Tokens: 1}))
			must(reg.RevokeGrant(ctx, g.ID))
			return second(reg.RevokeGrant(ctx, g.ID))
		}, want: []string{"create budget", "create budget_grant", "update budget_grant"}},
	}
}
