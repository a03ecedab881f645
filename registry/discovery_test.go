package registry_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/registry"
)

func TestDiscoveryLogs(t *testing.T) { eachEngine(t, testDiscoveryLogs) }

func testDiscoveryLogs(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "openai")

	t.Run("OK", func(t *testing.T) {
		log, err := reg.CreateDiscoveryLog(t.Context(), registry.DiscoveryInput{
			Identifier: "openai", ProviderID: p.ID, Source: "models.dev", LLMModel: "gpt-4", CacheHit: true,
		})
		require.NoError(t, err)
		require.Equal(t, discoverylog.StatusPending, log.Status)
		require.Zero(t, log.AttemptCount)
		require.Equal(t, clock.Now(), log.StartedAt)
		require.True(t, log.CacheHit)

		clock.Advance(time.Second)
		failed, err := reg.UpdateDiscoveryResult(
			t.Context(), log.ID, errors.New("no such page"), discoverylog.StatusPending,
		)
		require.NoError(t, err)
		require.Equal(t, "no such page", failed.ErrorMessage)
		require.Nil(t, failed.CompletedAt)
		require.EqualValues(t, 1, failed.AttemptCount)

		data := map[string]any{"price": json.Number("12345678901234567890.10"), "models": []string{"a"}}
		done, err := reg.UpdateDiscoveryResult(t.Context(), log.ID, data, discoverylog.StatusSuccess)
		require.NoError(t, err)
		require.JSONEq(t, `{"price": 12345678901234567890.10, "models": ["a"]}`, string(done.DiscoveredData))
		require.Contains(t, string(done.DiscoveredData), "12345678901234567890.10", "digits are kept")
		require.Empty(t, done.ErrorMessage)
		require.Equal(t, clock.Now(), *done.CompletedAt)
		require.EqualValues(t, 2, done.AttemptCount)

		raw, err := reg.UpdateDiscoveryResult(t.Context(), log.ID, []byte(`{"a": 1}`), discoverylog.StatusSuccess)
		require.NoError(t, err)
		require.JSONEq(t, `{"a": 1}`, string(raw.DiscoveredData))
		loud, err := reg.UpdateDiscoveryResult(t.Context(), log.ID,
			errors.New("\x1b[31mred\x1b[0m\n\xff"+strings.Repeat("x", 5000)), discoverylog.StatusFailed)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(loud.ErrorMessage, "[31mred[0m\n\ufffdxxx"))
		require.Len(t, []rune(loud.ErrorMessage), 4096)

		none, err := reg.UpdateDiscoveryResult(t.Context(), log.ID, nil, discoverylog.StatusFailed)
		require.NoError(t, err)
		require.Nil(t, none.DiscoveredData)
	})
	t.Run("recent", func(t *testing.T) {
		for _, name := range []string{"a", "b", "c"} {
			_, err := reg.CreateDiscoveryLog(t.Context(), registry.DiscoveryInput{Identifier: name})
			require.NoError(t, err)
		}
		logs, err := reg.GetRecentDiscoveries(t.Context(), registry.DiscoveryFilter{Limit: 2})
		require.NoError(t, err)
		require.Len(t, logs, 2)
		require.Equal(t, "c", logs[0].Identifier)
		require.Equal(t, "b", logs[1].Identifier)
		logs, err = reg.GetRecentDiscoveries(t.Context(), registry.DiscoveryFilter{})
		require.NoError(t, err)
		require.Len(t, logs, 4)
	})
	t.Run("Err", func(t *testing.T) {
		for name, text := range badTexts {
			_, err := reg.CreateDiscoveryLog(t.Context(), registry.DiscoveryInput{Identifier: text})
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
		}
		_, err := reg.CreateDiscoveryLog(t.Context(), registry.DiscoveryInput{Identifier: "x", ProviderID: uuid.New()})
		require.ErrorIs(t, err, registry.ErrForeignKey)
		log, err := reg.CreateDiscoveryLog(t.Context(), registry.DiscoveryInput{Identifier: "x"})
		require.NoError(t, err)
		for name, data := range map[string]any{
			"NaN": math.NaN(), "a channel": make(chan int), "too large": strings.Repeat("x", 1<<20),
			"bad JSON": json.RawMessage("{"),
		} {
			_, err = reg.UpdateDiscoveryResult(t.Context(), log.ID, data, discoverylog.StatusSuccess)
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
		}
		_, err = reg.UpdateDiscoveryResult(t.Context(), log.ID, nil, "done")
		require.ErrorIs(t, err, registry.ErrInvalidData)
		_, err = reg.UpdateDiscoveryResult(t.Context(), uuid.New(), nil, discoverylog.StatusFailed)
		require.ErrorIs(t, err, registry.ErrNotFound)
		for _, limit := range []int{-1, registry.MaxLimit + 1} {
			_, err = reg.GetRecentDiscoveries(t.Context(), registry.DiscoveryFilter{Limit: limit})
			require.ErrorIs(t, err, registry.ErrInvalidData)
		}
	})
}
