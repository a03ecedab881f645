package registry_test

// These operations are a part of those in operations_test.go.

import (
	"context"
	"maps"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// withBudgets adds operations on budgets to those of openOperations, with rows of their own.
func withBudgets(t *testing.T, reg *registry.Registry, of operated, operations map[string]operation,
) map[string]operation {
	t.Helper()
	owner := mustConsumer(t, reg, "with budgets", uuid.Nil)
	in := registry.BudgetInput{ConsumerID: owner.ID, Ceilings: registry.Ceilings{Requests: 1000}}
	budgets := map[string]uuid.UUID{}
	for _, name := range []string{"kept", "updated", "deleted"} {
		in.Name = name
		b, err := reg.CreateBudget(t.Context(), in)
		require.NoError(t, err)
		budgets[name] = b.ID
	}
	var grants []uuid.UUID
	for range 2 {
		g, err := reg.GrantBudget(t.Context(), registry.GrantInput{BudgetID: budgets["kept"], Requests: 1})
		require.NoError(t, err)
		grants = append(grants, g.ID)
	}
	acquire := of.acquire
	acquire.ConsumerID = owner.ID
	in.Name, in.Ceilings = "refuses", registry.Ceilings{Tokens: 1}
	_, err := reg.CreateBudget(t.Context(), in)
	require.NoError(t, err)
	acquire.EstimatedTokens = 2
	require.ErrorIs(t, openSecond(reg.AcquireKey(t.Context(), acquire)), registry.ErrBudget)
	// It is the last row, for which testReads waits: a replica may not have it yet.
	crossing, err := reg.Past().BudgetCrossing.Query().Only(t.Context())
	require.NoError(t, err)
	maps.Copy(operations, map[string]operation{
		"CreateBudget": func(ctx context.Context, reg *registry.Registry) error {
			in := in
			in.Name = "new"
			return openSecond(reg.CreateBudget(ctx, in))
		},
		"GetBudget": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetBudget(ctx, budgets["kept"]))
		},
		"FindBudget": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.FindBudget(ctx, owner.ID, "kept"))
		},
		"ListBudgets": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListBudgets(ctx, registry.BudgetFilter{ConsumerID: owner.ID}))
		},
		"UpdateBudget": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UpdateBudget(ctx, budgets["updated"], registry.BudgetUpdate{Requests: ptr(int64(7))}))
		},
		"DeleteBudget": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DeleteBudget(ctx, budgets["deleted"])
		},
		"GrantBudget": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GrantBudget(ctx, registry.GrantInput{BudgetID: budgets["kept"], Requests: 1}))
		},
		"RevokeGrant": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.RevokeGrant(ctx, grants[0]))
		},
		"GetGrant": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetGrant(ctx, grants[1]))
		},
		"ListGrants": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListGrants(ctx, registry.GrantFilter{BudgetID: budgets["kept"]}))
		},
		"ExplainBudgets": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ExplainBudgets(ctx, acquire))
		},
		"ListBudgetCrossings": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListBudgetCrossings(ctx, registry.CrossingFilter{}))
		},
		"AckBudgetCrossings": func(ctx context.Context, reg *registry.Registry) error {
			return reg.AckBudgetCrossings(ctx, crossing.ID)
		},
	})
	return operations
}
