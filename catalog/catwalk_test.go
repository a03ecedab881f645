package catalog_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"charm.land/catwalk/pkg/embedded"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/meter"
)

// These tests read the catalogue of the Catwalk that go.mod names. An update of it may change
// numbers here; look at what changed before you change them.

func TestCatwalk(t *testing.T) {
	t.Parallel()

	snapshot := catalog.Catwalk()
	require.Equal(t, "catwalk", snapshot.Source)
	require.Len(t, snapshot.Providers, 40)
	require.Equal(t, 1506, snapshot.Models())

	t.Run("TwoCallsAreEqualAndApart", func(t *testing.T) {
		t.Parallel()

		one, two := catalog.Catwalk(), catalog.Catwalk()
		require.Equal(t, one, two)

		*one.Providers[0].Models[0].CanReason = !*one.Providers[0].Models[0].CanReason
		one.Providers[0].Models[0].Rates[meter.Input] = -1
		require.Equal(t, snapshot, two, "a change of one reaches no other")
	})

	t.Run("NothingIsLost", func(t *testing.T) {
		t.Parallel()

		for i, from := range embedded.GetAll() {
			p := snapshot.Providers[i]
			require.Equal(t, string(from.ID), p.Name)
			require.Equal(t, from.Name, p.DisplayName)
			require.Len(t, p.Models, len(from.Models), p.Name)
			for j, m := range p.Models {
				require.Equal(t, from.Models[j].ID, m.ModelID)
				require.Equal(t, from.Models[j].Name, m.Name)
				require.Equal(t, from.Models[j].ContextWindow, m.ContextWindow)
				require.Equal(t, from.Models[j].DefaultMaxTokens, m.MaxOutputTokens)
				require.Equal(t, from.Models[j].SupportsImages, *m.SupportsImages)
				require.Equal(t, from.Models[j].CanReason, *m.CanReason)
				require.Nil(t, m.SupportsTools, "Catwalk does not say")
				require.Nil(t, m.CanStream, "Catwalk does not say")
			}
		}
	})

	t.Run("NamesAreUnique", func(t *testing.T) {
		t.Parallel()

		providers := map[string]bool{}
		for _, p := range snapshot.Providers {
			require.NotEmpty(t, p.Name)
			require.False(t, providers[p.Name], p.Name)
			providers[p.Name] = true
			models := map[string]bool{}
			for _, m := range p.Models {
				require.NotEmpty(t, m.ModelID)
				require.False(t, models[m.ModelID], "%s %s", p.Name, m.ModelID)
				models[m.ModelID] = true
			}
		}
	})

	t.Run("FamiliesAreSlugs", func(t *testing.T) {
		t.Parallel()

		for _, p := range snapshot.Providers {
			for _, m := range p.Models {
				require.Regexp(t, `^[a-z0-9]+(-[a-z0-9]+){0,2}$`, m.Family, "%s %s", p.Name, m.ModelID)
				require.Equal(t, catalog.Family(m.ModelID), m.Family)
			}
		}
	})
}

// TestCatwalkEndpoints shows where and how the providers are reached, and what the notes say of what is not known.
func TestCatwalkEndpoints(t *testing.T) {
	t.Parallel()

	snapshot := catalog.Catwalk()
	t.Run("BaseURLs", func(t *testing.T) {
		t.Parallel()

		var unknown []string
		for _, p := range snapshot.Providers {
			if p.BaseURL == "" {
				unknown = append(unknown, p.Name)
				require.True(t, hasNote(snapshot, p.Name, "base URL"), p.Name)
				continue
			}
			u, err := url.Parse(p.BaseURL)
			require.NoError(t, err)
			require.Contains(t, []string{"http", "https"}, u.Scheme, p.BaseURL)
			require.NotEmpty(t, u.Host, p.BaseURL)
			require.NotContains(t, p.BaseURL, "$")
			require.False(t, hasNote(snapshot, p.Name, "base URL"), p.Name)
		}
		// Those whose address has the user's own resource, region or project in it.
		require.ElementsMatch(t, []string{"azure", "bedrock", "bedrock-europe", "vertexai"}, unknown)

		require.Equal(t, "https://api.openai.com/v1", provider(t, snapshot, "openai").BaseURL)
		require.Equal(t, "https://api.anthropic.com", provider(t, snapshot, "anthropic").BaseURL)
		require.Equal(t, "https://generativelanguage.googleapis.com/v1beta", provider(t, snapshot, "gemini").BaseURL)
		require.Equal(t, "https://openrouter.ai/api/v1", provider(t, snapshot, "openrouter").BaseURL)
	})

	t.Run("AuthMethods", func(t *testing.T) {
		t.Parallel()

		for name, want := range map[string]string{
			"openai": "bearer", "openrouter": "bearer", "vercel": "bearer", "deepseek": "bearer", "cortecs": "bearer",
			"anthropic": "header", "kimi-coding": "header", "gemini": "header", "azure": "header",
			"bedrock": "aws_sigv4", "bedrock-europe": "aws_sigv4", "vertexai": "oauth",
		} {
			require.Equal(t, want, provider(t, snapshot, name).AuthMethod, name)
		}
		for _, p := range snapshot.Providers {
			require.Contains(t, []string{"bearer", "header", "aws_sigv4", "oauth"}, p.AuthMethod, p.Name)
		}
	})

	t.Run("NotesCountTheUnpriced", func(t *testing.T) {
		t.Parallel()

		notes := 1
		require.True(t, hasNote(snapshot, "", "the catalogue does not tell which models call tools or stream"))
		for _, p := range snapshot.Providers {
			unpriced := 0
			for _, m := range p.Models {
				if m.Rates == nil {
					unpriced++
				}
			}
			text := fmt.Sprintf("%d of %d models have no known price", unpriced, len(p.Models))
			require.Equal(t, unpriced > 0, hasNote(snapshot, p.Name, text), p.Name)
			if unpriced > 0 {
				notes++
			}
			if p.BaseURL == "" {
				notes++
			}
		}
		require.Len(t, snapshot.Notes, notes, "the catalogue has nothing else to tell of")
	})
}

func hasNote(s catalog.Snapshot, provider, text string) bool {
	for _, n := range s.Notes {
		if n.Provider == provider && n.Model == "" && strings.Contains(n.Text, text) {
			return true
		}
	}
	return false
}

func provider(t *testing.T, s catalog.Snapshot, name string) catalog.Provider {
	t.Helper()

	for _, p := range s.Providers {
		if p.Name == name {
			return p
		}
	}
	require.FailNow(t, "no such provider", name)
	return catalog.Provider{}
}

func model(t *testing.T, s catalog.Snapshot, providerName, id string) catalog.Model {
	t.Helper()

	for _, m := range provider(t, s, providerName).Models {
		if m.ModelID == id {
			return m
		}
	}
	require.FailNow(t, "no such model", "%s %s", providerName, id)
	return catalog.Model{}
}
