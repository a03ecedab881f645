package registry_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// budgetLists are those of budgets, grants and crossings.
func budgetLists(t *testing.T, reg *registry.Registry) map[string]aList {
	t.Helper()
	ctx := t.Context()
	org := mustConsumer(t, reg, "with budgets", uuid.Nil)
	create := func(name string, tokens int64, thresholds []int) uuid.UUID {
		b, err := reg.CreateBudget(ctx, registry.BudgetInput{
			ConsumerID: org.ID, Name: name, Ceilings: registry.Ceilings{Tokens: tokens}, Thresholds: thresholds,
		})
		require.NoError(t, err)
		return b.ID
	}
	granted := create("granted", 1, []int{})
	p := mustProvider(t, reg, "of-budgets")
	use := registry.UsageInput{
		ModelID: mustModel(t, reg, p.ID, "m", money.Rates{}).ID, APIKeyID: mustKey(t, reg, p.ID, 1).ID,
		ConsumerID: org.ID, Tokens: meter.Tokens{InputTokens: 1},
	}
	return map[string]aList{
		"ListBudgets": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.ListBudgets(ctx, registry.BudgetFilter{Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.ListBudgets, registry.BudgetFilter{Limit: limit})))
			},
			more: func(n int) { create(fmt.Sprint("b", n), 1, []int{}) },
		},
		"ListGrants": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.ListGrants(ctx, registry.GrantFilter{Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.ListGrants, registry.GrantFilter{Limit: limit})))
			},
			more: func(int) {
				_, err := reg.GrantBudget(ctx, registry.GrantInput{BudgetID: granted, Tokens: 1})
				require.NoError(t, err)
			},
		},
		"ListBudgetCrossings": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.ListBudgetCrossings(ctx, registry.CrossingFilter{Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.ListBudgetCrossings, registry.CrossingFilter{Limit: limit})))
			},
			more: func(n int) {
				before, err := reg.GetConsumer(ctx, org.ID)
				require.NoError(t, err)
				create(fmt.Sprint("crossed", n, before.ID), 1, []int{100})
				require.NoError(t, reg.RecordUsage(ctx, use))
			},
		},
	}
}
