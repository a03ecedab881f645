package registry_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/sdkversion"
	"github.com/jeffersonwarrior/modelscan/registry"
)

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
