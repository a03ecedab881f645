package registry_test

import (
	"context"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

var consumerTexts = []textInput{
	{column: "consumers.name", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.CreateConsumer(ctx, registry.ConsumerInput{Name: text})
		return "", err
	}},
	{column: "consumers.name", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.UpdateConsumer(ctx, x.consumer.ID, registry.ConsumerUpdate{Name: &text})
		return "", err
	}},
	{column: "consumers.kind", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.CreateConsumer(ctx, registry.ConsumerInput{Name: x.unique(), Kind: text})
		return "", err
	}},
	{column: "consumers.external_id", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.EnsureConsumer(ctx, registry.ConsumerInput{Name: x.unique(), ExternalID: text})
		return "", err
	}},
	{column: "consumers.permissions", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.UpdateConsumer(ctx, x.consumer.ID, registry.ConsumerUpdate{
			Permissions: &[]registry.Permission{{ProviderID: x.provider.ID, Models: []string{text + "*"}}},
		})
		return "", err
	}},
	{column: "access_keys.label", prose: true, write: func(ctx context.Context, x *texts, text string) (string, error) {
		k, _, err := x.CreateAccessKey(ctx, registry.AccessKeyInput{ConsumerID: x.consumer.ID, Label: text})
		return of(k, err, func(k *ent.AccessKey) string { return k.Label })
	}},
	{column: "access_keys.label", prose: true, write: func(ctx context.Context, x *texts, text string) (string, error) {
		k, _, err := x.CreateAccessKey(ctx, registry.AccessKeyInput{ConsumerID: x.consumer.ID})
		if err != nil {
			return "", err
		}
		k, err = x.UpdateAccessKey(ctx, k.ID, registry.AccessKeyUpdate{Label: &text})
		return of(k, err, func(k *ent.AccessKey) string { return k.Label })
	}},
	{column: "access_keys.key_prefix", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, _, err := x.CreateAccessKey(ctx, registry.AccessKeyInput{
			ConsumerID: x.consumer.ID, Secret: registry.NewSecret("sixteen-letters-" + text),
		})
		return "", err
	}},
}
