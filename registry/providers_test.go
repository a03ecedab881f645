package registry_test

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

func TestCreateProvider(t *testing.T) { eachEngine(t, testCreateProvider) }

func testCreateProvider(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)

	t.Run("OK", func(t *testing.T) {
		p, err := reg.CreateProvider(t.Context(), registry.ProviderInput{
			Name: "openai", DisplayName: "OpenAI", BaseURL: "https://api.openai.com/v1",
			AuthMethod: provider.AuthMethodHeader, Description: "two\nlines",
		})
		require.NoError(t, err)
		require.Equal(t, uuid.Version(7), p.ID.Version())
		got, err := reg.GetProvider(t.Context(), p.ID)
		require.NoError(t, err)
		require.Equal(t, p.String(), got.String())
		require.Equal(t, "OpenAI", got.DisplayName)
		require.Equal(t, provider.AuthMethodHeader, got.AuthMethod)
		require.Equal(t, registrytest.Start, got.CreatedAt)
		require.Equal(t, registrytest.Start, got.UpdatedAt)
		require.Nil(t, got.DeletedAt)
	})
	var local *ent.Provider
	t.Run("Defaults", func(t *testing.T) {
		p, err := reg.CreateProvider(t.Context(), registry.ProviderInput{Name: "local"})
		require.NoError(t, err)
		local = p
		require.Equal(t, "local", p.DisplayName)
		require.Equal(t, provider.AuthMethodBearer, p.AuthMethod)
		require.Empty(t, p.BaseURL)
	})
	t.Run("base URLs", func(t *testing.T) {
		for _, url := range []string{
			"http://localhost:11434", "https://[::1]:8080/v1", "https://127.0.0.1/", "https://api.z.ai/api/paas/v4",
		} {
			_, err := reg.UpdateProvider(t.Context(), local.ID, registry.ProviderUpdate{BaseURL: &url})
			require.NoError(t, err, url)
		}
	})
	t.Run("ErrConflict", func(t *testing.T) {
		_, err := reg.CreateProvider(t.Context(), registry.ProviderInput{Name: "openai"})
		require.ErrorIs(t, err, registry.ErrConflict)
	})
	t.Run("ErrInvalidData", func(t *testing.T) {
		inputs := map[string]registry.ProviderInput{
			"not a slug":      {Name: "Open AI"},
			"auth method":     {Name: "x", AuthMethod: "basic"},
			"long display":    {Name: "x", DisplayName: strings.Repeat("x", 129)},
			"bad display":     {Name: "x", DisplayName: "a\x00"},
			"bad description": {Name: "x", Description: "a\x00"},
			"ftp":             {Name: "x", BaseURL: "ftp://example.com"},
			"no scheme":       {Name: "x", BaseURL: "example.com/v1"},
			"no host":         {Name: "x", BaseURL: "https:///v1"},
			"a variable":      {Name: "x", BaseURL: "$OPENAI_API_ENDPOINT"},
			"javascript":      {Name: "x", BaseURL: "javascript:alert(1)"},
			"malformed":       {Name: "x", BaseURL: "https://exa mple.com/%zz"},
			"credentials":     {Name: "x", BaseURL: "https://user:hunter2@example.com"},
			"a key":           {Name: "x", BaseURL: "https://example.com?api_key=hunter2"},
			"a fragment":      {Name: "x", BaseURL: "https://example.com/#hunter2"},
			"port alone":      {Name: "x", BaseURL: "https://:8080"},
			"bad port":        {Name: "x", BaseURL: "https://example.com:99999"},
			"bad host":        {Name: "x", BaseURL: "https://exa$mple"},
			"dots":            {Name: "x", BaseURL: "https://."},
			"a space":         {Name: "x", BaseURL: "https://example.com/a b"},
			"turned around":   {Name: "x", BaseURL: "https://example.com/\u202e"},
			"blank display":   {Name: "x", DisplayName: "  "},
		}
		for name, text := range badTexts {
			inputs["name "+name] = registry.ProviderInput{Name: text}
		}
		for name, in := range inputs {
			_, err := reg.CreateProvider(t.Context(), in)
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
			require.NotContains(t, err.Error(), "hunter2")
		}
		all, err := reg.ListProviders(t.Context(), registry.ProviderFilter{})
		require.NoError(t, err)
		require.Len(t, all, 2, "nothing was created")
	})
	t.Run("every fault at once", func(t *testing.T) {
		_, err := reg.CreateProvider(t.Context(), registry.ProviderInput{BaseURL: "x", AuthMethod: "y"})
		for _, field := range []string{"name", "base_url", "auth_method"} {
			require.ErrorContains(t, err, field)
		}
	})
}

func TestFindProvider(t *testing.T) { eachEngine(t, testFindProvider) }

func testFindProvider(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	for _, name := range []string{"b", "a", "c"} {
		mustProvider(t, reg, name)
	}

	p, err := reg.FindProvider(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, "b", p.Name)

	_, err = reg.FindProvider(t.Context(), "d")
	require.ErrorIs(t, err, registry.ErrNotFound)
	require.ErrorIs(t, err, sql.ErrNoRows)
	_, err = reg.GetProvider(t.Context(), uuid.New())
	require.ErrorIs(t, err, registry.ErrNotFound)

	all, err := reg.ListProviders(t.Context(), registry.ProviderFilter{})
	require.NoError(t, err)
	var names []string
	for _, p := range all {
		names = append(names, p.Name)
	}
	require.Equal(t, []string{"a", "b", "c"}, names)
}

func TestUpdateProvider(t *testing.T) { eachEngine(t, testUpdateProvider) }

func testUpdateProvider(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "openai")
	mustProvider(t, reg, "taken")
	clock.Advance(time.Minute)

	t.Run("OK", func(t *testing.T) {
		up, err := reg.UpdateProvider(t.Context(), p.ID, registry.ProviderUpdate{
			Name: ptr("openai2"), AuthMethod: ptr(provider.AuthMethodQuery), Description: ptr("d"),
		})
		require.NoError(t, err)
		require.Equal(t, "openai2", up.Name)
		require.Equal(t, provider.AuthMethodQuery, up.AuthMethod)
		require.Equal(t, p.BaseURL, up.BaseURL, "what is nil stays")
		require.Equal(t, registrytest.Start, up.CreatedAt)
		require.Equal(t, clock.Now(), up.UpdatedAt)
	})
	t.Run("ErrConflict", func(t *testing.T) {
		_, err := reg.UpdateProvider(t.Context(), p.ID, registry.ProviderUpdate{Name: ptr("taken")})
		require.ErrorIs(t, err, registry.ErrConflict)
	})
	t.Run("ErrInvalidData", func(t *testing.T) {
		for _, up := range []registry.ProviderUpdate{
			{Name: ptr("")}, {BaseURL: ptr("gopher://x")},
			{AuthMethod: ptr(provider.AuthMethod("no"))}, {DisplayName: ptr("\x00")}, {DisplayName: ptr("")},
		} {
			_, err := reg.UpdateProvider(t.Context(), p.ID, up)
			require.ErrorIs(t, err, registry.ErrInvalidData)
		}
		got, err := reg.GetProvider(t.Context(), p.ID)
		require.NoError(t, err)
		require.Equal(t, "openai2", got.Name)
	})
	t.Run("ErrNotFound", func(t *testing.T) {
		_, err := reg.UpdateProvider(t.Context(), uuid.New(), registry.ProviderUpdate{Name: ptr("x")})
		require.ErrorIs(t, err, registry.ErrNotFound)
	})
}

func TestDeleteProvider(t *testing.T) { eachEngine(t, testDeleteProvider) }

func testDeleteProvider(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	p := mustProvider(t, reg, "openai")
	m := mustModel(t, reg, p.ID, "gpt-4", gpt4())
	k := mustKey(t, reg, p.ID, 1)
	record(t, reg, m, k, 1000, 1000)

	_, err := reg.CreateFamily(t.Context(), registry.FamilyInput{ProviderID: p.ID, Name: "gpt-4"})
	require.NoError(t, err)
	_, err = reg.CreateSDKVersion(t.Context(), registry.SDKVersionInput{ProviderID: p.ID, Version: "1"})
	require.NoError(t, err)

	require.NoError(t, reg.DeleteProvider(t.Context(), p.ID))
	require.ErrorIs(t, reg.DeleteProvider(t.Context(), p.ID), registry.ErrNotFound, "it is gone already")

	deleted, err := reg.GetProvider(t.Context(), p.ID)
	require.NoError(t, err)
	require.NotNil(t, deleted.DeletedAt, "it can be read by its id")
	_, err = reg.FindProvider(t.Context(), "openai")
	require.ErrorIs(t, err, registry.ErrNotFound)
	families, err := reg.ListFamilies(t.Context(), registry.FamilyFilter{ProviderID: p.ID})
	require.NoError(t, err)
	require.Empty(t, families)
	sdks, err := reg.ListSDKVersions(t.Context(), registry.SDKVersionFilter{ProviderID: p.ID})
	require.NoError(t, err)
	require.Empty(t, sdks)
	_, err = reg.LatestSDKVersion(t.Context(), p.ID)
	require.ErrorIs(t, err, registry.ErrNotFound)
	_, err = reg.FindModel(t.Context(), p.ID, "gpt-4")
	require.ErrorIs(t, err, registry.ErrNotFound, "its models go with it")
	_, err = reg.FindAPIKey(t.Context(), p.ID, secret(1))
	require.ErrorIs(t, err, registry.ErrNotFound, "and its keys")
	_, err = reg.GetLeastUsedKey(t.Context(), p.ID)
	require.ErrorIs(t, err, registry.ErrNoKeyAvailable)
	_, err = reg.CreateModel(t.Context(), registry.ModelInput{ProviderID: p.ID, ModelID: "x"})
	require.ErrorIs(t, err, registry.ErrForeignKey)

	again := mustProvider(t, reg, "openai")
	require.NotEqual(t, p.ID, again.ID, "the name is free")

	costs, err := reg.GetCostBreakdown(t.Context(), p.ID)
	require.NoError(t, err)
	require.Equal(t, "0.09", costs["gpt-4"].String(), "the ledger is whole")
	record(t, reg, m, k, 1, 1) // a call that was under way
}

func TestPurgeProvider(t *testing.T) { eachEngine(t, testPurgeProvider) }

func testPurgeProvider(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	p := mustProvider(t, reg, "openai")
	family, err := reg.CreateFamily(t.Context(), registry.FamilyInput{ProviderID: p.ID, Name: "gpt-4"})
	require.NoError(t, err)
	m, err := reg.CreateModel(t.Context(), registry.ModelInput{ProviderID: p.ID, FamilyID: family.ID, ModelID: "gpt-4"})
	require.NoError(t, err)
	k := mustKey(t, reg, p.ID, 1)
	_, err = reg.CreateSDKVersion(t.Context(), registry.SDKVersionInput{ProviderID: p.ID, Version: "1"})
	require.NoError(t, err)
	log, err := reg.CreateDiscoveryLog(t.Context(), registry.DiscoveryInput{Identifier: "openai", ProviderID: p.ID})
	require.NoError(t, err)

	t.Run("OK", func(t *testing.T) {
		// Undone in the end, for the next subtest.
		require.ErrorIs(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			require.NoError(t, tx.PurgeProvider(t.Context(), p.ID))
			for name, count := range map[string]func() (int, error){
				"families": func() (int, error) { return tx.Client().ModelFamily.Query().Count(t.Context()) },
				"models":   func() (int, error) { return tx.Client().Model.Query().Count(t.Context()) },
				"prices":   func() (int, error) { return tx.Client().Price.Query().Count(t.Context()) },
				"keys":     func() (int, error) { return tx.Client().APIKey.Query().Count(t.Context()) },
				"sdks":     func() (int, error) { return tx.Client().SDKVersion.Query().Count(t.Context()) },
			} {
				n, err := count()
				require.NoError(t, err)
				require.Zero(t, n, name)
			}
			kept, err := tx.Client().DiscoveryLog.Get(t.Context(), log.ID)
			require.NoError(t, err)
			require.Nil(t, kept.ProviderID)
			return errRollback
		}), errRollback)
	})
	t.Run("ErrForeignKey", func(t *testing.T) {
		record(t, reg, m, k, 1, 1)
		require.ErrorIs(t, reg.PurgeProvider(t.Context(), p.ID), registry.ErrForeignKey)
		require.ErrorIs(t, reg.PurgeModel(t.Context(), m.ID), registry.ErrForeignKey)
		require.ErrorIs(t, reg.PurgeAPIKey(t.Context(), k.ID), registry.ErrForeignKey)
		_, err := reg.GetModel(t.Context(), m.ID)
		require.NoError(t, err)
	})
	t.Run("ErrNotFound", func(t *testing.T) {
		require.ErrorIs(t, reg.PurgeProvider(t.Context(), uuid.New()), registry.ErrNotFound)
		require.ErrorIs(t, reg.PurgeModel(t.Context(), uuid.New()), registry.ErrNotFound)
		require.ErrorIs(t, reg.PurgeAPIKey(t.Context(), uuid.New()), registry.ErrNotFound)
	})
	t.Run("unused models and keys", func(t *testing.T) {
		unused := mustModel(t, reg, p.ID, "unused", gpt4())
		require.NoError(t, reg.PurgeModel(t.Context(), unused.ID))
		require.NoError(t, reg.PurgeAPIKey(t.Context(), mustKey(t, reg, p.ID, 2).ID))
		_, err := reg.GetModel(t.Context(), unused.ID)
		require.ErrorIs(t, err, registry.ErrNotFound)
	})
}
