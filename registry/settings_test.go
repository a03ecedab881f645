package registry_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

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
