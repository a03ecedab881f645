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
	"github.com/jeffersonwarrior/modelscan/ent/sdkversion"
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

func TestSDKVersions(t *testing.T) { eachEngine(t, testSDKVersions) }

func testSDKVersions(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "openai")
	_, err := reg.LatestSDKVersion(t.Context(), p.ID)
	require.ErrorIs(t, err, registry.ErrNotFound)

	first, err := reg.CreateSDKVersion(t.Context(), registry.SDKVersionInput{
		ProviderID: p.ID, Version: "1.0.0", SDKPath: "sdks/openai",
		CompilationStatus: sdkversion.CompilationStatusSuccess,
		TestResults:       "ok\t12", CodeHash: strings.Repeat("0a", 32),
	})
	require.NoError(t, err)
	require.Equal(t, clock.Now(), first.GeneratedAt)
	older, err := reg.CreateSDKVersion(t.Context(), registry.SDKVersionInput{
		ProviderID: p.ID, Version: "0.9.0", GeneratedAt: clock.Now().Add(-time.Hour + 1).In(time.FixedZone("", 3600)),
	})
	require.NoError(t, err)
	require.Equal(t, clock.Now().Add(-time.Hour), older.GeneratedAt, "as it is stored")
	require.Equal(t, sdkversion.CompilationStatusPending, older.CompilationStatus)

	latest, err := reg.LatestSDKVersion(t.Context(), p.ID)
	require.NoError(t, err)
	require.Equal(t, first.ID, latest.ID, "generated last, though not created last")
	all, err := reg.ListSDKVersions(t.Context(), registry.SDKVersionFilter{ProviderID: p.ID})
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, older.ID, all[1].ID)

	_, err = reg.CreateSDKVersion(t.Context(), registry.SDKVersionInput{ProviderID: p.ID, Version: "1.0.0"})
	require.ErrorIs(t, err, registry.ErrConflict)
	_, err = reg.CreateSDKVersion(t.Context(), registry.SDKVersionInput{ProviderID: uuid.New(), Version: "1"})
	require.ErrorIs(t, err, registry.ErrForeignKey)
	for name, in := range map[string]registry.SDKVersionInput{
		"status": {Version: "2", CompilationStatus: "no"}, "hash": {Version: "2", CodeHash: "ABC"},
		"year": {Version: "2", GeneratedAt: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"path": {Version: "2", SDKPath: "\x00"}, "results": {Version: "2", TestResults: "\xff"},
	} {
		in.ProviderID = p.ID
		_, err = reg.CreateSDKVersion(t.Context(), in)
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
	}
	for name, text := range badTexts {
		_, err = reg.CreateSDKVersion(t.Context(), registry.SDKVersionInput{ProviderID: p.ID, Version: text})
		require.ErrorIs(t, err, registry.ErrInvalidData, name)
	}
}

func TestSettings(t *testing.T) { eachEngine(t, testSettings) }

func testSettings(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	_, err := reg.GetSetting(t.Context(), "a")
	require.ErrorIs(t, err, registry.ErrNotFound)
	require.NoError(t, reg.SetSetting(t.Context(), "b", ""))
	require.NoError(t, reg.SetSetting(t.Context(), "a", "1"))
	clock.Advance(time.Second)
	require.NoError(t, reg.SetSetting(t.Context(), "a", "two\nlines"))
	value, err := reg.GetSetting(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, "two\nlines", value)
	all, err := reg.ListSettings(t.Context(), registry.SettingFilter{})
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, "a", all[0].ID)
	require.Equal(t, clock.Now(), all[0].UpdatedAt)
	require.NoError(t, reg.DeleteSetting(t.Context(), "a"))
	require.ErrorIs(t, reg.DeleteSetting(t.Context(), "a"), registry.ErrNotFound)

	for name, text := range badTexts {
		require.ErrorIs(t, reg.SetSetting(t.Context(), text, "v"), registry.ErrInvalidData, name)
	}
	require.ErrorIs(t, reg.SetSetting(t.Context(), "k", "a\x00"), registry.ErrInvalidData)
	require.ErrorIs(t, reg.SetSetting(t.Context(), "k", strings.Repeat("x", 1<<20+1)), registry.ErrInvalidData)
}

// TestInjection puts SQL into every text there is: it is stored as it is, or refused.
func TestInjection(t *testing.T) { eachEngine(t, testInjection) }

func testInjection(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	p := mustProvider(t, reg, "openai")
	for _, text := range []string{`'; DROP TABLE providers; --`, `" OR 1=1 --`, "`id`", `\'; SELECT 1`, "%_", "💥"} {
		require.NoError(t, reg.SetSetting(t.Context(), text, text))
		value, err := reg.GetSetting(t.Context(), text)
		require.NoError(t, err)
		require.Equal(t, text, value)
		m, err := reg.CreateModel(
			t.Context(), registry.ModelInput{ProviderID: p.ID, ModelID: text, Name: text, Description: text},
		)
		require.NoError(t, err)
		found, err := reg.FindModel(t.Context(), p.ID, text)
		require.NoError(t, err)
		require.Equal(t, m.ID, found.ID)
		list, err := reg.ListModels(t.Context(), registry.ModelFilter{Search: text})
		require.NoError(t, err)
		require.Len(t, list, 1)
		_, err = reg.CreateProvider(t.Context(), registry.ProviderInput{Name: text})
		require.ErrorIs(t, err, registry.ErrInvalidData)
	}
	_, err := reg.GetProvider(t.Context(), p.ID)
	require.NoError(t, err)
}
