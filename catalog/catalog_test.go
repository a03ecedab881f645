package catalog_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
)

// families are names of models, and their families.
var families = []struct{ id, want string }{
	// The examples of the documentation.
	{"anthropic/claude-opus-4.5", "claude-opus-4"},
	{"us.anthropic.claude-3-5-haiku", "claude-3"},
	{"Qwen/Qwen3-32B:free", "qwen3"},
	{"openai/gpt-oss-120b", "gpt-oss"},

	// Where the version stands, and how it is written.
	{"o3", "o3"},
	{"o4-mini", "o4"},
	{"gpt-4", "gpt-4"},
	{"gpt-4o", "gpt-4o"},
	{"gpt-4o-mini-2024-07-18", "gpt-4o"},
	{"gpt-3.5-turbo", "gpt-3"},
	{"gpt-5.1-codex-max", "gpt-5"},
	{"gpt-4-0125-preview", "gpt-4"},
	{"claude-opus-5", "claude-opus-5"},
	{"claude-opus-4-20250514", "claude-opus-4"},
	{"claude-3-7-sonnet", "claude-3"},
	{"claude-haiku-4-5-20251001", "claude-haiku-4"},
	{"gemini-2.5-flash-lite-preview-09-2025", "gemini-2"},
	{"mistral-large-3", "mistral-large-3"},
	{"amazon/nova-lite-v1", "nova-lite-v1"},
	{"deepseek/deepseek-v3.1-terminus", "deepseek-v3"},
	{"deepseek/deepseek-r1-0528", "deepseek-r1"},
	{"deepseek/deepseek-chat-v3-0324", "deepseek-chat-v3"},
	{"moonshotai/kimi-k2-thinking", "kimi-k2"},
	{"moonshot-v1-128k", "moonshot-v1"},
	{"minimax/minimax-m2.5", "minimax-m2"},
	{"z-ai/glm-4.6v", "glm-4"},
	{"glm-5v-turbo", "glm-5"},
	{"grok-4-1-fast-non-reasoning", "grok-4"},
	{"ernie-x1-turbo", "ernie-x1"},
	{"meta-llama/llama-3.3-70b-instruct", "llama-3"},
	{"alibaba/qwen-3-235b", "qwen-3"},
	{"alibaba/qwen3.5-plus", "qwen3"},
	{"hy3", "hy3"},

	// Vendors before the name.
	{"accounts/fireworks/models/kimi-k2p6", "kimi-k2"},
	{"@cf/meta/llama-3-8b-instruct", "llama-3"},
	{"hf:zai-org/GLM-4.7-Flash", "glm-4"},
	{"eu.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4"},
	{"us.amazon.nova-2-lite-v1:0", "nova-2"},
	{"moonshotai/Kimi-K2.6:fireworks-ai", "kimi-k2"},

	// What follows the name.
	{"google/gemma-4-31b-it:free", "gemma-4"},
	{"syn:large:text", "syn"},
	{"claude-3-5-sonnet@20240620", "claude-3"},
	{"claude-opus-4@default:beta", "claude-opus-4"},

	// Dates and sizes are no versions.
	{"codestral-2508", "codestral"},
	{"devstral-2512", "devstral"},
	{"mistralai/ministral-14b-2512", "ministral"},
	{"mistralai/mixtral-8x22b-instruct", "mixtral"},
	{"apertus-70b", "apertus"},
	{"openai/gpt-oss-20b", "gpt-oss"},
	{"phi-0.5b", "phi"},
	{"smol-135m", "smol"},

	// No version at all, or one that comes too late to be one.
	{"inkling", "inkling"},
	{"auto", "auto"},
	{"qwen-plus", "qwen-plus"},
	{"qwen-plus-2025-07-28", "qwen-plus"},
	{"mistral-large-latest", "mistral-large"},
	{"e2ee-glm-5-2-p", "e2ee-glm-5"},
	{"120b", "120b"},
	{"big-pickle", "big-pickle"},
	{"kimi-for-coding", "kimi-for"},
	{"kwaipilot/kat-coder-pro-v2", "kat-coder"},
	{"deepseek/deepseek-chat", "deepseek-chat"},

	// Other ways to separate words.
	{"phi_3_mini", "phi-3"},
	{"Llama 4 Scout", "llama-4"},
	{"a--b---7", "a-b-7"},
	{" gpt-4 ", "gpt-4"},
	{"-gpt-4-", "gpt-4"},

	{"", ""},
	{"/", ""},
	{"///", ""},
	{"anthropic/", ""},
	{":free", ""},
	{"@cf", ""},
	{"- _ -", ""},

	{"模型-3", "模型-3"},
	{"Модель-7.5-Мини", "модель-7"},
	{"智谱/GLM-4", "glm-4"},
}

func TestFamily(t *testing.T) {
	t.Parallel()

	for _, tt := range families {
		t.Run(tt.id, func(t *testing.T) {
			t.Parallel()

			require.Equal(t, tt.want, catalog.Family(tt.id))
		})
	}

	t.Run("VeryLong", func(t *testing.T) {
		t.Parallel()

		word := strings.Repeat("a", 1<<16)
		require.Equal(t, word+"-3", catalog.Family(word+"-3.5-mini"))
		require.Equal(t, "b-2", catalog.Family(strings.Repeat("v/", 1<<16)+"b-2"))
		require.Equal(t, "b-2", catalog.Family(strings.Repeat("v.", 1<<16)+"b-2"))
		require.Equal(t, "b-b", catalog.Family(strings.Repeat("b-", 1<<16)))
		require.Equal(t, "b-2", catalog.Family("b-2"+strings.Repeat(":free", 1<<16)))
	})

	t.Run("InvalidUTF8", func(t *testing.T) {
		t.Parallel()

		require.NotPanics(t, func() { catalog.Family("\xff\xfe-3") })
	})
}

func TestSnapshotModels(t *testing.T) {
	t.Parallel()

	require.Zero(t, catalog.Snapshot{}.Models())
	require.Equal(t, 3, catalog.Snapshot{Providers: []catalog.Provider{
		{Models: make([]catalog.Model, 2)},
		{},
		{Models: make([]catalog.Model, 1)},
	}}.Models())
}
