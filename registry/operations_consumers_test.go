package registry_test

// These operations are a part of those in operations_test.go.

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// withConsumers adds operations on consumers and access keys to those of openOperations, with rows of their own.
func withConsumers(t *testing.T, reg *registry.Registry, operations map[string]operation) map[string]operation {
	t.Helper()
	kept, err := reg.EnsureConsumer(t.Context(), registry.ConsumerInput{Name: "kept", ExternalID: "kept"})
	require.NoError(t, err)
	of := map[string]uuid.UUID{} // what each operation changes
	for _, name := range []string{"updated", "moved", "deleted", "undeleted", "purged"} {
		of[name] = mustConsumer(t, reg, name, kept.ID).ID
	}
	require.NoError(t, reg.DeleteConsumer(t.Context(), of["undeleted"]))
	key, secret := mustAccessKey(t, reg, kept.ID)
	for _, name := range []string{"key updated", "key rotated", "key deleted"} {
		row, _ := mustAccessKey(t, reg, kept.ID)
		of[name] = row.ID
	}
	maps.Copy(operations, map[string]operation{
		"Authenticate": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.Authenticate(ctx, secret))
		},
		"CreateConsumer": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.CreateConsumer(ctx, registry.ConsumerInput{Name: "new", ParentID: kept.ID}))
		},
		"EnsureConsumer": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.EnsureConsumer(ctx, registry.ConsumerInput{Name: "ensured", ExternalID: "ensured"}))
		},
		"GetConsumer": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetConsumer(ctx, kept.ID))
		},
		"FindConsumer": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.FindConsumer(ctx, "kept"))
		},
		"ListConsumers": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListConsumers(ctx, registry.ConsumerFilter{Subtree: kept.ID}))
		},
		"UpdateConsumer": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UpdateConsumer(ctx, of["updated"], registry.ConsumerUpdate{Kind: ptr("team")}))
		},
		"MoveConsumer": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.MoveConsumer(ctx, of["moved"], uuid.Nil))
		},
		"DeleteConsumer": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DeleteConsumer(ctx, of["deleted"])
		},
		"UndeleteConsumer": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UndeleteConsumer(ctx, of["undeleted"]))
		},
		"PurgeConsumer": func(ctx context.Context, reg *registry.Registry) error {
			return reg.PurgeConsumer(ctx, of["purged"])
		},
		"CreateAccessKey": func(ctx context.Context, reg *registry.Registry) error {
			row, _, err := reg.CreateAccessKey(ctx, registry.AccessKeyInput{ConsumerID: kept.ID})
			return openSecond(row, err)
		},
		"GetAccessKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetAccessKey(ctx, key.ID))
		},
		"ListAccessKeys": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListAccessKeys(ctx, registry.AccessKeyFilter{ConsumerID: kept.ID}))
		},
		"UpdateAccessKey": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.UpdateAccessKey(ctx, of["key updated"], registry.AccessKeyUpdate{Label: ptr("new")}))
		},
		"RotateAccessKey": func(ctx context.Context, reg *registry.Registry) error {
			row, _, err := reg.RotateAccessKey(ctx, of["key rotated"], registry.AccessKeyRotation{Overlap: time.Hour})
			return openSecond(row, err)
		},
		"DeleteAccessKey": func(ctx context.Context, reg *registry.Registry) error {
			return reg.DeleteAccessKey(ctx, of["key deleted"])
		},
	})
	return operations
}
