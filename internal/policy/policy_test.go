package policy_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/policy"
)

func TestRefused(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	org, user := policy.Consumer{ID: uuid.New(), Name: "org"}, policy.Consumer{ID: uuid.New(), Name: "user"}
	for name, test := range map[string]struct {
		change func(k *policy.AccessKey)
		reason policy.Reason
		of     string
	}{
		"good":      {func(*policy.AccessKey) {}, "", ""},
		"not yet":   {func(k *policy.AccessKey) { k.ExpiresAt = now.Add(1) }, "", ""},
		"expired":   {func(k *policy.AccessKey) { k.ExpiresAt = now }, policy.AccessKeyExpired, ""},
		"disabled":  {func(k *policy.AccessKey) { k.Disabled = true }, policy.AccessKeyDisabled, ""},
		"deleted":   {func(k *policy.AccessKey) { k.Deleted = true }, policy.AccessKeyDeleted, ""},
		"org off":   {func(k *policy.AccessKey) { k.Consumers[0].Disabled = true }, policy.ConsumerDisabled, "org"},
		"org gone":  {func(k *policy.AccessKey) { k.Consumers[0].Deleted = true }, policy.ConsumerDeleted, "org"},
		"user off":  {func(k *policy.AccessKey) { k.Consumers[1].Disabled = true }, policy.ConsumerDisabled, "user"},
		"user gone": {func(k *policy.AccessKey) { k.Consumers[1].Deleted = true }, policy.ConsumerDeleted, "user"},
	} {
		key := &policy.AccessKey{Consumers: []policy.Consumer{org, user}}
		test.change(key)
		reason, of := key.Refused(now)
		require.Equal(t, test.reason, reason, name)
		if test.of == "" {
			require.Nil(t, of, name)
		} else {
			require.Equal(t, test.of, of.Name, name)
		}
	}
}
