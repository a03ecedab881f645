package registry_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

func TestAddAPIKey(t *testing.T) { eachEngine(t, testAddAPIKey) }

func testAddAPIKey(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	p, other := mustProvider(t, reg, "openai"), mustProvider(t, reg, "other")

	t.Run("OK", func(t *testing.T) {
		k, err := reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: secret(1), Label: "first"})
		require.NoError(t, err)
		sum := sha256.Sum256([]byte(secret(1)))
		require.Equal(t, hex.EncodeToString(sum[:]), k.KeyHash)
		require.Equal(t, secret(1)[:8], k.KeyPrefix)
		require.Equal(t, "first", k.Label)
		require.Nil(t, k.LastUsedAt)
		require.NotContains(t, k.String(), k.KeyHash)

		got, err := reg.FindAPIKey(t.Context(), p.ID, secret(1))
		require.NoError(t, err)
		require.Equal(t, k.ID, got.ID)
	})
	t.Run("shortest and longest", func(t *testing.T) {
		for _, key := range []string{"a", strings.Repeat("~", 4096), "!';DROP-TABLE--\"x"} {
			_, err := reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: key})
			require.NoError(t, err)
		}
	})
	t.Run("keyless", func(t *testing.T) {
		k, err := reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, Keyless: true})
		require.NoError(t, err)
		require.Empty(t, k.KeyPrefix)
		_, err = reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, Keyless: true})
		require.ErrorIs(t, err, registry.ErrConflict)
		_, err = reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, Keyless: true, APIKey: secret(9)})
		require.ErrorIs(t, err, registry.ErrInvalidData)
	})
	t.Run("ErrConflict", func(t *testing.T) {
		_, err := reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: secret(1)})
		require.ErrorIs(t, err, registry.ErrConflict)
		require.NotContains(t, err.Error(), secret(1))
		mustKey(t, reg, other.ID, 1) // another provider may have the same
	})
	t.Run("ErrForeignKey", func(t *testing.T) {
		_, err := reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: uuid.New(), APIKey: secret(2)})
		require.ErrorIs(t, err, registry.ErrForeignKey)
	})
	t.Run("ErrInvalidData", func(t *testing.T) {
		const canary = "canary-of-16-chars"
		for name, key := range map[string]string{
			"empty": "", "4097": strings.Repeat("canary-", 600),
			"leading space": " " + canary, "trailing newline": canary + "\n", "space": "canary of 16 chars",
			"NUL": canary + "\x00", "BOM": "\ufeff" + canary, "emoji": canary + "🔑", "DEL": canary + "\x7f",
			"latin-1": canary + "\xe9",
		} {
			_, err := reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: key})
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
			require.NotContains(t, err.Error(), "canary", name)
			_, err = reg.FindAPIKey(t.Context(), p.ID, key)
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
			require.NotContains(t, err.Error(), "canary", name)
		}
		_, err := reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: secret(3), Label: "\x00"})
		require.ErrorIs(t, err, registry.ErrInvalidData)
	})
	t.Run("ErrNotFound", func(t *testing.T) {
		_, err := reg.FindAPIKey(t.Context(), p.ID, secret(404))
		require.ErrorIs(t, err, registry.ErrNotFound)
		require.NotContains(t, err.Error(), secret(404))
	})
}

func TestMaxKeysPerProvider(t *testing.T) { eachEngine(t, testMaxKeysPerProvider) }

func testMaxKeysPerProvider(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	p := mustProvider(t, reg, "openai")
	require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
		for i := range registry.MaxKeysPerProvider {
			mustKey(t, tx, p.ID, i)
		}
		return nil
	}))
	_, err := reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: secret(100)})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	all, err := reg.ListAPIKeys(t.Context(), registry.KeyFilter{ProviderID: p.ID})
	require.NoError(t, err)
	require.Len(t, all, registry.MaxKeysPerProvider)

	require.NoError(t, reg.DeleteAPIKey(t.Context(), all[0].ID))
	mustKey(t, reg, p.ID, 100) // deleted keys do not count
	mustKey(t, reg, mustProvider(t, reg, "other").ID, 100)
}

func TestUpdateAndDeleteAPIKey(t *testing.T) { eachEngine(t, testUpdateAndDeleteAPIKey) }

func testUpdateAndDeleteAPIKey(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "openai")
	k := mustKey(t, reg, p.ID, 1)
	clock.Advance(time.Minute)

	up, err := reg.UpdateAPIKey(t.Context(), k.ID, registry.KeyUpdate{Label: ptr("l"), Disabled: ptr(true)})
	require.NoError(t, err)
	require.Equal(t, "l", up.Label)
	require.True(t, up.Disabled)
	require.Equal(t, clock.Now(), up.UpdatedAt)
	up, err = reg.UpdateAPIKey(t.Context(), k.ID, registry.KeyUpdate{Disabled: ptr(false)})
	require.NoError(t, err)
	require.Equal(t, "l", up.Label)
	require.False(t, up.Disabled)
	_, err = reg.UpdateAPIKey(t.Context(), k.ID, registry.KeyUpdate{Label: ptr("\x00")})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	_, err = reg.UpdateAPIKey(t.Context(), uuid.New(), registry.KeyUpdate{})
	require.ErrorIs(t, err, registry.ErrNotFound)

	require.NoError(t, reg.DeleteAPIKey(t.Context(), k.ID))
	require.ErrorIs(t, reg.DeleteAPIKey(t.Context(), k.ID), registry.ErrNotFound)
	_, err = reg.UpdateAPIKey(t.Context(), k.ID, registry.KeyUpdate{})
	require.ErrorIs(t, err, registry.ErrNotFound)
	require.NotEqual(t, k.ID, mustKey(t, reg, p.ID, 1).ID, "it may be added again")
}

func TestDailyCounters(t *testing.T) { eachEngine(t, testDailyCounters) }

func testDailyCounters(t *testing.T, e engine) {
	t.Parallel()
	clock := registrytest.NewClock(time.Date(2028, 2, 28, 23, 59, 59, 0, time.UTC)) // before a leap day
	reg := e.new(t, registry.WithClock(clock.Now))
	p := mustProvider(t, reg, "openai")
	m := mustModel(t, reg, p.ID, "m", gpt4())
	k := mustKey(t, reg, p.ID, 1)
	counters := func() string {
		t.Helper()
		got, err := reg.FindAPIKey(t.Context(), p.ID, secret(1))
		require.NoError(t, err)
		return fmt.Sprint(got.UsageCount, got.TokenCount, " today ", got.RequestsToday, got.TokensToday)
	}
	use := func() { require.NoError(t, reg.IncrementUsage(t.Context(), k.ID, 10, 5)) }
	use()
	use()
	require.Equal(t, "2 30 today 2 30", counters())
	clock.Advance(time.Second)
	require.Equal(t, "2 30 today 0 0", counters(), "the day has changed, nobody reset anything")
	use()
	require.Equal(t, "3 45 today 1 15", counters())

	// A record of yesterday belongs to yesterday.
	late := registry.UsageInput{
		ModelID: m.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: 100}, At: clock.Now().Add(-time.Second),
	}
	require.NoError(t, reg.RecordUsage(t.Context(), late))
	require.Equal(t, "4 145 today 1 15", counters())

	clock.Advance(-time.Hour) // a clock that is set back does not reset the day
	use()
	clock.Advance(time.Hour)
	require.Equal(t, "5 160 today 1 15", counters())

	n, err := reg.ResetDailyUsage(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, "5 160 today 0 0", counters())
	n, err = reg.ResetDailyUsage(t.Context())
	require.NoError(t, err)
	require.Zero(t, n)
	use()
	require.Equal(t, "6 175 today 1 15", counters())
	clock.Advance(24 * 365 * time.Hour)
	require.Equal(t, "6 175 today 0 0", counters())

	for _, tokens := range []int64{-1, 1 << 62} {
		require.ErrorIs(t, reg.IncrementUsage(t.Context(), k.ID, tokens, 0), registry.ErrInvalidData)
		require.ErrorIs(t, reg.IncrementUsage(t.Context(), k.ID, 0, tokens), registry.ErrInvalidData)
	}
	require.ErrorIs(t, reg.IncrementUsage(t.Context(), uuid.New(), 1, 1), registry.ErrNotFound)
	require.NoError(t, reg.DeleteAPIKey(t.Context(), k.ID))
	require.ErrorIs(t, reg.IncrementUsage(t.Context(), k.ID, 1, 1), registry.ErrNotFound)
}

// TestClockAhead records a request of a machine whose clock is ahead, across midnight: today's
// counters go on.
func TestClockAhead(t *testing.T) { eachEngine(t, testClockAhead) }

func testClockAhead(t *testing.T, e engine) {
	t.Parallel()
	clock := registrytest.NewClock(time.Date(2026, 7, 15, 23, 30, 0, 0, time.UTC))
	reg := e.new(t, registry.WithClock(clock.Now))
	p := mustProvider(t, reg, "openai")
	m, k := mustModel(t, reg, p.ID, "m", gpt4()), mustKey(t, reg, p.ID, 1)
	for _, ahead := range []time.Duration{0, 45 * time.Minute, 0} {
		require.NoError(t, reg.RecordUsage(t.Context(), registry.UsageInput{
			ModelID: m.ID, APIKeyID: k.ID, At: clock.Now().Add(ahead),
		}))
	}
	got, err := reg.FindAPIKey(t.Context(), p.ID, secret(1))
	require.NoError(t, err)
	require.EqualValues(t, 3, got.RequestsToday)
	require.Equal(t, clock.Now(), *got.LastUsedAt)
}

// TestLockOrder holds the older of two keys and lets a reset of all keys begin, which finds the newer one
// first: it has to wait for the older one before it locks the newer one, or each would wait for the other.
func TestLockOrder(t *testing.T) {
	t.Parallel()
	reg, _ := onPostgres.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "openai")
	older, newer := mustKey(t, reg, p.ID, 1), mustKey(t, reg, p.ID, 2)
	for _, k := range []*ent.APIKey{older, newer, older} { // which puts the older one's row behind the newer one's
		require.NoError(t, reg.IncrementUsage(ctx, k.ID, 1, 1))
	}
	reset := make(chan error, 1)
	require.NoError(t, reg.InTx(ctx, func(tx *registry.Registry) error {
		require.NoError(t, tx.IncrementUsage(ctx, older.ID, 1, 1))
		go func() {
			reset <- reg.InTx(ctx, func(tx *registry.Registry) error { // which is not repeated
				_, err := tx.ResetDailyUsage(ctx)
				return err
			})
		}()
		require.Eventually(t, func() bool {
			rows, err := reg.Client().QueryContext(
				ctx, "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
			)
			require.NoError(t, err)
			waits := rows.Next()
			require.NoError(t, errors.Join(rows.Err(), rows.Close()))
			return waits
		}, time.Minute, 5*time.Millisecond)
		return tx.IncrementUsage(ctx, newer.ID, 1, 1)
	}))
	require.NoError(t, <-reset)
}
