package meter_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
)

var allFormats = []meter.Format{
	meter.OpenAIChat, meter.OpenAIResponses, meter.AnthropicMessages, meter.GeminiGenerateContent,
	meter.BedrockConverse,
}

// fixtures are the responses in testdata. Their counts are chosen so that another convention
// gives other tokens.
var fixtures = []struct {
	file   string
	format meter.Format
	want   meter.Tokens
	err    error
}{
	{
		file: "openai_chat.json", format: meter.OpenAIChat,
		want: meter.Tokens{InputTokens: 200, CacheReadTokens: 2000, CacheWriteTokens: 400, OutputTokens: 51,
			ReasoningTokens: 320},
	},
	{file: "openai_chat_plain.json", format: meter.OpenAIChat, want: meter.Tokens{InputTokens: 12, OutputTokens: 3}},
	{
		file: "openai_chat_deepseek.json", format: meter.OpenAIChat,
		want: meter.Tokens{InputTokens: 26, CacheReadTokens: 1024, OutputTokens: 16, ReasoningTokens: 44},
	},
	{
		file: "openai_chat_xai.json", format: meter.OpenAIChat,
		want: meter.Tokens{InputTokens: 26, CacheReadTokens: 6, OutputTokens: 9, ReasoningTokens: 94},
	},
	{
		file: "openai_chat_stream.sse", format: meter.OpenAIChat,
		want: meter.Tokens{InputTokens: 40, CacheReadTokens: 1280, OutputTokens: 18, ReasoningTokens: 192},
	},
	{
		file: "openai_chat_stream_each.sse", format: meter.OpenAIChat,
		want: meter.Tokens{InputTokens: 12, OutputTokens: 3},
	},
	{file: "openai_chat_stream_no_usage.sse", format: meter.OpenAIChat, err: meter.ErrNoUsage},

	{
		file: "openai_responses.json", format: meter.OpenAIResponses,
		want: meter.Tokens{InputTokens: 3, CacheWriteTokens: 18011, OutputTokens: 13, ReasoningTokens: 1024},
	},
	{
		file: "openai_responses_stream.sse", format: meter.OpenAIResponses,
		want: meter.Tokens{InputTokens: 156, CacheReadTokens: 2944, OutputTokens: 12, ReasoningTokens: 128},
	},
	{
		file: "openai_responses_stream_incomplete.sse", format: meter.OpenAIResponses,
		want: meter.Tokens{InputTokens: 3100, ReasoningTokens: 64},
	},
	{file: "openai_responses_stream_failed.sse", format: meter.OpenAIResponses, err: meter.ErrNoUsage},

	{
		file: "anthropic_messages.json", format: meter.AnthropicMessages,
		want: meter.Tokens{InputTokens: 50, CacheReadTokens: 1800, CacheWriteTokens: 248, OutputTokens: 93,
			ReasoningTokens: 410},
	},
	{
		file: "anthropic_messages_plain.json", format: meter.AnthropicMessages,
		want: meter.Tokens{InputTokens: 2095, OutputTokens: 503},
	},
	{
		file: "anthropic_messages_nested.json", format: meter.AnthropicMessages,
		want: meter.Tokens{InputTokens: 7, CacheWriteTokens: 248, OutputTokens: 9},
	},
	{
		file: "anthropic_messages_compaction.json", format: meter.AnthropicMessages,
		want: meter.Tokens{InputTokens: 43000, CacheReadTokens: 160000, OutputTokens: 4300, ReasoningTokens: 200},
	},
	{
		file: "anthropic_messages_stream.sse", format: meter.AnthropicMessages,
		want: meter.Tokens{InputTokens: 25, CacheReadTokens: 900, CacheWriteTokens: 4425, OutputTokens: 15},
	},
	{
		file: "anthropic_messages_stream_repeated.sse", format: meter.AnthropicMessages,
		want: meter.Tokens{InputTokens: 10682, CacheReadTokens: 64, CacheWriteTokens: 120, OutputTokens: 210,
			ReasoningTokens: 300},
	},
	{
		file: "anthropic_messages_stream_cut.sse", format: meter.AnthropicMessages,
		want: meter.Tokens{InputTokens: 25, CacheReadTokens: 900, CacheWriteTokens: 4425, OutputTokens: 2},
		err:  meter.ErrPartial,
	},

	{
		file: "gemini.json", format: meter.GeminiGenerateContent,
		want: meter.Tokens{InputTokens: 72 + 10309, CacheReadTokens: 2048, OutputTokens: 198, ReasoningTokens: 405},
	},
	{file: "gemini_blocked.json", format: meter.GeminiGenerateContent, want: meter.Tokens{InputTokens: 31}},
	{
		file: "gemini_stream.sse", format: meter.GeminiGenerateContent,
		want: meter.Tokens{InputTokens: 20, OutputTokens: 198, ReasoningTokens: 405},
	},
	{
		file: "gemini_stream_array.json", format: meter.GeminiGenerateContent,
		want: meter.Tokens{InputTokens: 20, OutputTokens: 198, ReasoningTokens: 405},
	},
	{
		file: "gemini_stream_vertex.sse", format: meter.GeminiGenerateContent,
		want: meter.Tokens{InputTokens: 20, OutputTokens: 5},
	},
	{
		file: "gemini_stream_cut.sse", format: meter.GeminiGenerateContent,
		want: meter.Tokens{InputTokens: 20, OutputTokens: 2, ReasoningTokens: 405}, err: meter.ErrPartial,
	},

	{
		file: "bedrock.json", format: meter.BedrockConverse,
		want: meter.Tokens{InputTokens: 4, CacheReadTokens: 1024, CacheWriteTokens: 514, OutputTokens: 93},
	},
	{file: "bedrock_stream.sse", format: meter.BedrockConverse, want: meter.Tokens{InputTokens: 30, OutputTokens: 628}},
}

func fixture(tb testing.TB, file string) []byte {
	tb.Helper()

	body, err := os.ReadFile(filepath.Join("testdata", file))
	require.NoError(tb, err)
	return body
}

func TestExtract(t *testing.T) {
	t.Parallel()

	t.Run("EveryFixture", func(t *testing.T) {
		t.Parallel()

		files, err := os.ReadDir("testdata")
		require.NoError(t, err)
		known := map[string]bool{"fuzz": true}
		for _, tt := range fixtures {
			known[tt.file] = true
		}
		for _, file := range files {
			require.True(t, known[file.Name()], file.Name())
		}
	})

	for _, tt := range fixtures {
		t.Run(tt.file, func(t *testing.T) {
			t.Parallel()

			body := string(fixture(t, tt.file))
			for name, body := range map[string]string{
				"as it is":             body,
				"CRLF":                 strings.ReplaceAll(body, "\n", "\r\n"),
				"CR":                   strings.ReplaceAll(body, "\n", "\r"),
				"byte order mark":      "\uFEFF" + body,
				"no empty line at end": strings.TrimRight(body, "\r\n"),
				"white space around":   "\n \r\n" + body + "\n\n",
			} {
				got, err := meter.Extract(tt.format, []byte(body))
				require.ErrorIs(t, err, tt.err, name)
				require.Equal(t, tt.want, got, name)
			}
		})
	}
}

const (
	chat      = `{"choices": [], "usage": %s}`
	responses = `{"object": "response", "usage": %s}`
	anthropic = `{"type": "message", "usage": %s}`
	gemini    = `{"usageMetadata": %s}`
	bedrock   = `{"usage": %s}`
)

// usages are what a usage may be in whole responses.
var usages = map[string]struct {
	body, usage string
	want        meter.Tokens
	err         error
	text        string
}{
	"OKZero": {body: chat, usage: `{"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}`},
	"OKLargest": {
		body: chat, usage: `{"prompt_tokens": 1000000000000, "completion_tokens": 1000000000000}`,
		want: meter.Tokens{InputTokens: meter.MaxTokens, OutputTokens: meter.MaxTokens},
	},
	"OKFraction": {
		body: chat, usage: `{"prompt_tokens": 12.0, "completion_tokens": 3.000, "total_tokens": 15.0}`,
		want: meter.Tokens{InputTokens: 12, OutputTokens: 3},
	},
	"OKNulls": {
		body: chat,
		usage: `{"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": null,` +
			` "prompt_tokens_details": null, "completion_tokens_details": {"reasoning_tokens": null}}`,
		want: meter.Tokens{InputTokens: 12, OutputTokens: 3},
	},
	"OKUnknownFields": {
		body: chat,
		usage: `{"prompt_tokens": 12, "completion_tokens": 3, "cost": -1, "details":` +
			` [{"prompt_tokens": -1}]}`,
		want: meter.Tokens{InputTokens: 12, OutputTokens: 3},
	},
	"OKAllCached": {
		body: chat,
		usage: `{"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details":` +
			` {"cached_tokens": 8, "cache_write_tokens": 4}}`,
		want: meter.Tokens{CacheReadTokens: 8, CacheWriteTokens: 4, OutputTokens: 3},
	},
	"OKAllReasoning": {
		body:  responses,
		usage: `{"input_tokens": 12, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 3}}`,
		want:  meter.Tokens{InputTokens: 12, ReasoningTokens: 3},
	},
	"OKReasoningAside": {
		body: responses,
		usage: `{"input_tokens": 12, "output_tokens": 3, "total_tokens": 17, "output_tokens_details":` +
			` {"reasoning_tokens": 2}}`,
		want: meter.Tokens{InputTokens: 12, OutputTokens: 3, ReasoningTokens: 2},
	},
	"OKReasoningIn": {
		body: chat,
		usage: `{"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15,` +
			` "completion_tokens_details": {"reasoning_tokens": 2}}`,
		want: meter.Tokens{InputTokens: 12, OutputTokens: 1, ReasoningTokens: 2},
	},
	"OKNoTotal": {
		body: chat,
		usage: `{"prompt_tokens": 12, "completion_tokens": 3, "completion_tokens_details":` +
			` {"reasoning_tokens": 2}}`,
		want: meter.Tokens{InputTokens: 12, OutputTokens: 1, ReasoningTokens: 2},
	},
	"OKCachedOverHits": {
		body: chat,
		usage: `{"prompt_tokens": 12, "completion_tokens": 3, "prompt_cache_hit_tokens": 5,` +
			` "prompt_cache_miss_tokens": 5, "prompt_tokens_details": {"cached_tokens": 8}}`,
		want: meter.Tokens{InputTokens: 4, CacheReadTokens: 8, OutputTokens: 3},
	},
	"OKNoHits": {
		body: chat, usage: `{"prompt_tokens": 12, "completion_tokens": 3, "prompt_cache_hit_tokens": 0}`,
		want: meter.Tokens{InputTokens: 12, OutputTokens: 3},
	},
	"OKMoreCached": {
		body: anthropic, usage: `{"input_tokens": 1, "cache_read_input_tokens": 8, "output_tokens": 3}`,
		want: meter.Tokens{InputTokens: 1, CacheReadTokens: 8, OutputTokens: 3},
	},
	"OKByIsEmpty": {
		body: anthropic,
		usage: `{"input_tokens": 1, "cache_creation_input_tokens": 8, "cache_creation": {},` +
			` "output_tokens": 3}`,
		want: meter.Tokens{InputTokens: 1, CacheWriteTokens: 8, OutputTokens: 3},
	},
	"OKIterations": {
		body: anthropic,
		usage: `{"input_tokens": 1, "output_tokens": 3, "iterations": [{"type": "message",` +
			` "input_tokens": 1, "output_tokens": 3}, {"type": "advisor_message"}]}`,
		want: meter.Tokens{InputTokens: 1, OutputTokens: 3},
	},
	"OKCompactions": {
		body: anthropic,
		usage: `{"input_tokens": 1, "output_tokens": 2, "iterations": [{"type": "compaction",` +
			` "input_tokens": 4, "output_tokens": 40, "cache_read_input_tokens": 16, "cache_creation_input_tokens":` +
			` 32, "output_tokens_details": {"thinking_tokens": 8}}, {"type": "compaction", "input_tokens": 64,` +
			` "output_tokens": 128}]}`,
		want: meter.Tokens{InputTokens: 69, CacheReadTokens: 16, CacheWriteTokens: 32,
			OutputTokens: 2 + 32 + 128, ReasoningTokens: 8},
	},
	"OKNoTotalOfAll": {
		body: gemini, usage: `{"promptTokenCount": 12, "candidatesTokenCount": 3, "thoughtsTokenCount": 5}`,
		want: meter.Tokens{InputTokens: 12, OutputTokens: 3, ReasoningTokens: 5},
	},
	"OKOnlyThoughts": {
		body: gemini, usage: `{"promptTokenCount": 21, "thoughtsTokenCount": 60, "totalTokenCount": 81}`,
		want: meter.Tokens{InputTokens: 21, ReasoningTokens: 60},
	},
	"OKTotalIgnored": {
		body: bedrock,
		usage: `{"inputTokens": 1, "outputTokens": 2, "totalTokens": 3, "cacheReadInputTokens":` +
			` 8}`,
		want: meter.Tokens{InputTokens: 1, OutputTokens: 2, CacheReadTokens: 8},
	},

	"ErrNoUsageNull":      {body: chat, usage: `null`, err: meter.ErrNoUsage},
	"ErrNoUsageEmpty":     {body: chat, usage: `{}`, err: meter.ErrNoUsage},
	"ErrNoUsageTotalOnly": {body: chat, usage: `{"total_tokens": 5}`, err: meter.ErrNoUsage},
	"ErrNoUsageNoPrompt": {
		body: chat, usage: `{"completion_tokens": 5}`, err: meter.ErrNoUsage, text: "no prompt_tokens",
	},
	"ErrNoUsageNoOutput": {
		body: chat, usage: `{"prompt_tokens": 5, "total_tokens": 5}`, err: meter.ErrNoUsage,
		text: "no completion_tokens",
	},
	"ErrNoUsageResponsesI": {
		body: responses, usage: `{"output_tokens": 5}`, err: meter.ErrNoUsage, text: "no input_tokens",
	},
	"ErrNoUsageResponsesO": {
		body: responses, usage: `{"input_tokens": 5}`, err: meter.ErrNoUsage, text: "no output_tokens",
	},
	"ErrNoUsageAnthropicI": {
		body: anthropic, usage: `{"output_tokens": 5, "cache_read_input_tokens": 5}`, err: meter.ErrNoUsage,
		text: "no input_tokens",
	},
	"ErrNoUsageAnthropicO": {
		body: anthropic, usage: `{"input_tokens": 5}`, err: meter.ErrNoUsage, text: "no output_tokens",
	},
	"ErrNoUsageCompaction": {
		body:  anthropic,
		usage: `{"input_tokens": 5, "output_tokens": 5, "iterations": [{"type": "compaction", "input_tokens": 5}]}`,
		err:   meter.ErrNoUsage, text: "compaction: ",
	},
	"ErrNoUsageGeminiI": {
		body: gemini, usage: `{"candidatesTokenCount": 5, "totalTokenCount": 5}`, err: meter.ErrNoUsage,
	},
	"ErrNoUsageGeminiO": {
		body: gemini, usage: `{"promptTokenCount": 5}`, err: meter.ErrNoUsage, text: "no candidatesTokenCount",
	},
	"ErrNoUsageUnproven": {
		body: gemini, usage: `{"promptTokenCount": 5, "totalTokenCount": 9}`, err: meter.ErrNoUsage,
		text: "no candidatesTokenCount",
	},
	"ErrNoUsageBedrockI": {body: bedrock, usage: `{"outputTokens": 5}`, err: meter.ErrNoUsage, text: "no inputTokens"},
	"ErrNoUsageBedrockO": {body: bedrock, usage: `{"inputTokens": 5}`, err: meter.ErrNoUsage, text: "no outputTokens"},

	"ErrNegative": {
		body: chat, usage: `{"prompt_tokens": -5, "completion_tokens": 3}`, err: meter.ErrBadUsage,
		text: "prompt_tokens -5",
	},
	"ErrMinusZero": {
		body: chat, usage: `{"prompt_tokens": -0, "completion_tokens": 3}`, err: meter.ErrBadUsage,
		text: "prompt_tokens -0",
	},
	"ErrExponent": {
		body: chat, usage: `{"prompt_tokens": 1e3, "completion_tokens": 3}`, err: meter.ErrBadUsage,
		text: "prompt_tokens 1e3",
	},
	"ErrExponentLater": {
		body: chat, usage: `{"prompt_tokens": 1.0e3, "completion_tokens": 3}`, err: meter.ErrBadUsage,
		text: "prompt_tokens 1.0e3",
	},
	"ErrHalf": {
		body: chat, usage: `{"prompt_tokens": 12.5, "completion_tokens": 3}`, err: meter.ErrBadUsage,
		text: "prompt_tokens 12.5",
	},
	"ErrText": {
		body: chat, usage: `{"prompt_tokens": "12", "completion_tokens": 3}`, err: meter.ErrBadUsage,
		text: `prompt_tokens "12"`,
	},
	"ErrTrue": {
		body: chat, usage: `{"prompt_tokens": 12, "completion_tokens": true}`, err: meter.ErrBadUsage,
		text: "completion_tokens true",
	},
	"ErrObject": {
		body: chat, usage: `{"prompt_tokens": 12, "completion_tokens": {"text": 3}}`, err: meter.ErrBadUsage,
		text: `completion_tokens {"text": 3}`,
	},
	"ErrLong": {
		body: chat, usage: `{"prompt_tokens": 1` + strings.Repeat("0", 100) + `, "completion_tokens": 3}`,
		err: meter.ErrBadUsage, text: "prompt_tokens 1" + strings.Repeat("0", 39) + ":",
	},
	"ErrTooMany": {
		body: chat, usage: `{"prompt_tokens": 1000000000001, "completion_tokens": 3}`, err: meter.ErrBadUsage,
		text: "within 0 and 1000000000000",
	},
	"ErrPastInt64": {
		body: chat, usage: `{"prompt_tokens": 9223372036854775808, "completion_tokens": 3}`, err: meter.ErrBadUsage,
	},
	"ErrPastUint64": {
		body: chat, usage: `{"prompt_tokens": 18446744073709551617, "completion_tokens": 3}`, err: meter.ErrBadUsage,
	},
	"ErrBoth": {
		body: chat, usage: `{"prompt_tokens": -5, "completion_tokens": -3}`, err: meter.ErrBadUsage,
		text: "completion_tokens -3",
	},
	"ErrBadBeforeNone": {body: chat, usage: `{"prompt_tokens": -5}`, err: meter.ErrBadUsage},
	"ErrBadTotal": {
		body: chat, usage: `{"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": -1}`, err: meter.ErrBadUsage,
		text: "total_tokens -1",
	},
	"ErrCachedOverAll": {
		body: chat,
		usage: `{"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details":` +
			` {"cached_tokens": 13}}`,
		err: meter.ErrBadUsage, text: "13 cached and 0 written of 12 input",
	},
	"ErrCachesOverAll": {
		body: responses,
		usage: `{"input_tokens": 12, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 8,` +
			` "cache_write_tokens": 5}}`,
		err: meter.ErrBadUsage, text: "8 cached and 5 written of 12 input",
	},
	"ErrReasoningOver": {
		body: chat,
		usage: `{"prompt_tokens": 12, "completion_tokens": 3, "completion_tokens_details":` +
			` {"reasoning_tokens": 4}}`,
		err: meter.ErrBadUsage, text: "4 reasoning of 3 output",
	},
	"ErrReasoningOverIn": {
		body: chat,
		usage: `{"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15,` +
			` "completion_tokens_details": {"reasoning_tokens": 4}}`,
		err: meter.ErrBadUsage, text: "4 reasoning of 3 output",
	},
	"ErrTotalOver": {
		body: chat, usage: `{"prompt_tokens": 20, "completion_tokens": 424, "total_tokens": 1016}`,
		err: meter.ErrBadUsage, text: "total_tokens 1016",
	},
	"ErrTotalBetween": {
		body: responses,
		usage: `{"input_tokens": 12, "output_tokens": 3, "total_tokens": 16, "output_tokens_details":` +
			` {"reasoning_tokens": 2}}`,
		err: meter.ErrBadUsage, text: "total_tokens 16",
	},
	"ErrTotalUnder": {
		body: responses, usage: `{"input_tokens": 12, "output_tokens": 3, "total_tokens": 0}`, err: meter.ErrBadUsage,
		text: "total_tokens 0",
	},
	"ErrSumTooMany": {
		body: chat,
		usage: `{"prompt_tokens": 0, "completion_tokens": 3, "total_tokens": 1000000000003,` +
			` "completion_tokens_details": {"reasoning_tokens": 1000000000000}}`,
		err: meter.ErrBadUsage, text: "total_tokens 1000000000003",
	},
	"ErrHitsUnproven": {
		body: chat, usage: `{"prompt_tokens": 12, "completion_tokens": 3, "prompt_cache_hit_tokens": 5}`,
		err: meter.ErrBadUsage, text: "hits 5 and misses 0",
	},
	"ErrHitsBeside": {
		body: chat,
		usage: `{"prompt_tokens": 7, "completion_tokens": 3, "prompt_cache_hit_tokens": 5,` +
			` "prompt_cache_miss_tokens": 7}`,
		err: meter.ErrBadUsage, text: "hits 5 and misses 7",
	},
	"ErrBadHits": {
		body: chat, usage: `{"prompt_tokens": 7, "completion_tokens": 3, "prompt_cache_hit_tokens": -5}`,
		err: meter.ErrBadUsage, text: "prompt_cache_hit_tokens -5",
	},
	"ErrThinkingOver": {
		body:  anthropic,
		usage: `{"input_tokens": 1, "output_tokens": 3, "output_tokens_details": {"thinking_tokens": 4}}`,
		err:   meter.ErrBadUsage, text: "4 thinking of 3 output",
	},
	"ErrWrittenBy": {
		body: anthropic,
		usage: `{"input_tokens": 1, "output_tokens": 3, "cache_creation_input_tokens": 8, "cache_creation":` +
			` {"ephemeral_1h_input_tokens": 9}}`,
		err: meter.ErrBadUsage, text: "cache_creation_input_tokens 8",
	},
	"ErrWrittenBySum": {
		body: anthropic,
		usage: `{"input_tokens": 1, "output_tokens": 3, "cache_creation": {"ephemeral_5m_input_tokens":` +
			` 1000000000000,` +
			` "ephemeral_1h_input_tokens": 9}}`,
		err: meter.ErrBadUsage, text: "cache_write tokens 1000000000009",
	},
	"ErrCompaction": {
		body: anthropic,
		usage: `{"input_tokens": 1, "output_tokens": 3, "iterations": [{"type": "compaction", "input_tokens": -4,` +
			` "output_tokens": 1}]}`,
		err: meter.ErrBadUsage, text: "compaction: ",
	},
	"ErrCompactionSum": {
		body: anthropic,
		usage: `{"input_tokens": 1, "output_tokens": 3, "iterations": [{"type": "compaction", "input_tokens":` +
			` 1000000000000, "output_tokens": 1}]}`,
		err: meter.ErrBadUsage, text: "input tokens 1000000000001",
	},
	"ErrGeminiCached": {
		body: gemini, usage: `{"promptTokenCount": 5, "cachedContentTokenCount": 6, "candidatesTokenCount": 1}`,
		err: meter.ErrBadUsage, text: "6 cached of 5 prompt",
	},
	"ErrGeminiTotalOver": {
		body: gemini, usage: `{"promptTokenCount": 5, "candidatesTokenCount": 1, "totalTokenCount": 7}`,
		err: meter.ErrBadUsage, text: "totalTokenCount 7",
	},
	"ErrGeminiThoughts": {
		body: gemini,
		usage: `{"promptTokenCount": 5, "candidatesTokenCount": 4, "thoughtsTokenCount": 3,` +
			` "totalTokenCount": 9}`,
		err: meter.ErrBadUsage, text: "totalTokenCount 9",
	},
	"ErrGeminiSum": {
		body: gemini,
		usage: `{"promptTokenCount": 1000000000000, "toolUsePromptTokenCount": 1,` +
			` "candidatesTokenCount": 1}`,
		err: meter.ErrBadUsage, text: "input tokens 1000000000001",
	},
	"ErrBedrock": {
		body: bedrock, usage: `{"inputTokens": 5, "outputTokens": 3, "cacheWriteInputTokens": -1}`,
		err: meter.ErrBadUsage, text: "cacheWriteInputTokens -1",
	},
	"ErrLongText": {
		body: chat, usage: `{"prompt_tokens": "` + strings.Repeat("é", 30) + `", "completion_tokens": 3}`,
		err: meter.ErrBadUsage, text: `prompt_tokens "` + strings.Repeat("é", 19) + ":",
	},
	"ErrNoObject":     {body: bedrock, usage: `[5, 3]`, err: meter.ErrBadUsage},
	"ErrNoObjectChat": {body: chat, usage: `"none"`, err: meter.ErrBadUsage},
}

// TestExtractUsage has what a usage may be in whole responses.
func TestExtractUsage(t *testing.T) {
	t.Parallel()

	of := map[string]meter.Format{
		chat: meter.OpenAIChat, responses: meter.OpenAIResponses, anthropic: meter.AnthropicMessages,
		gemini: meter.GeminiGenerateContent, bedrock: meter.BedrockConverse,
	}
	for name, tt := range usages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			got, err := meter.Extract(of[tt.body], fmt.Appendf(nil, tt.body, tt.usage))
			require.ErrorIs(t, err, tt.err)
			require.Equal(t, tt.want, got)
			if tt.err != nil {
				require.ErrorContains(t, err, tt.text)
				require.NotErrorIs(t, err, meter.ErrPartial)
			}
		})
	}
}

// TestExtractEachCount spoils every count of every format.
func TestExtractEachCount(t *testing.T) {
	t.Parallel()

	for format, body := range map[meter.Format]string{
		meter.OpenAIChat: `{"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 1,
			"prompt_cache_hit_tokens": 1, "prompt_cache_miss_tokens": 1,
			"prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 1},
			"completion_tokens_details": {"reasoning_tokens": 1}}}`,
		meter.OpenAIResponses: `{"object": "response", "usage": {
			"input_tokens": 1, "output_tokens": 1, "total_tokens": 1,
			"input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 1},
			"output_tokens_details": {"reasoning_tokens": 1}}}`,
		meter.AnthropicMessages: `{"type": "message", "usage": {
			"input_tokens": 1, "cache_read_input_tokens": 1, "cache_creation_input_tokens": 1, "output_tokens": 1,
			"cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 1},
			"output_tokens_details": {"thinking_tokens": 1}}}`,
		meter.GeminiGenerateContent: `{"usageMetadata": {
			"promptTokenCount": 1, "cachedContentTokenCount": 1, "toolUsePromptTokenCount": 1,
			"candidatesTokenCount": 1, "thoughtsTokenCount": 1, "totalTokenCount": 1}}`,
		meter.BedrockConverse: `{"usage": {"inputTokens": 1, "outputTokens": 1, "cacheReadInputTokens": 1,` +
			` "cacheWriteInputTokens": 1}}`,
	} {
		for n := range strings.Count(body, ": 1") {
			parts := strings.SplitAfter(body, ": 1")
			parts[n] = strings.Replace(parts[n], ": 1", ": 1.5", 1)
			spoilt := strings.Join(parts, "")
			name := parts[n][strings.LastIndex(parts[n], `, "`)+1:]
			name = name[strings.LastIndex(name, "{")+1:]
			name = strings.Split(name, `"`)[1]

			got, err := meter.Extract(format, []byte(spoilt))
			require.ErrorIs(t, err, meter.ErrBadUsage, spoilt)
			require.ErrorContains(t, err, name+" 1.5")
			require.Zero(t, got)
		}
	}
}

// bodies are what is no usage at all, or more than one.
var bodies = map[string]struct {
	body string
	err  error
}{
	"ErrNoUsageEmpty": {err: meter.ErrNoUsage},
	"ErrNoUsageSpace": {body: " \r\n", err: meter.ErrNoUsage},
	"ErrNoUsageError": {
		body: `{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}`,
		err:  meter.ErrNoUsage,
	},
	"ErrNoUsageErrorSSE": {
		body: "event: error\ndata: {\"type\": \"error\", \"error\": {\"message\": \"no usage\"}}\n\n",
		err:  meter.ErrNoUsage,
	},
	"ErrNoUsageHTML":      {body: "<html><body>Bad Gateway: \"usage\"</body></html>", err: meter.ErrNoUsage},
	"ErrNoUsageDone":      {body: "data: [DONE]\n\n", err: meter.ErrNoUsage},
	"ErrNoUsageComment":   {body: ": {\"usage\": {}}\n\n", err: meter.ErrNoUsage},
	"ErrNoUsageNoField":   {body: "usage\n\n", err: meter.ErrNoUsage},
	"ErrNoUsageCutOff":    {body: "data: {\"usage\": {\"prompt_tokens\": 5", err: meter.ErrNoUsage},
	"ErrBadUsageCutOff":   {body: `{"usage": {"prompt_tokens": 5`, err: meter.ErrBadUsage},
	"ErrBadUsageTwo":      {body: `{"usage": null} {"usage": null}`, err: meter.ErrBadUsage},
	"ErrBadUsageEvent":    {body: "data: {\"usage\",\"usageMetadata\"}\n\ndata: [DONE]\n\n", err: meter.ErrBadUsage},
	"ErrNoUsageSplitWord": {body: "data: {\"us\ndata: age\": 1}\n\n", err: meter.ErrNoUsage},
}

func TestExtractBody(t *testing.T) {
	t.Parallel()

	for name, tt := range bodies {
		for _, format := range allFormats {
			t.Run(name+"/"+string(format), func(t *testing.T) {
				t.Parallel()

				got, err := meter.Extract(format, []byte(tt.body))
				require.ErrorIs(t, err, tt.err)
				require.Zero(t, got)
			})
		}
	}

	for _, format := range allFormats {
		t.Run("ErrBadUsageArray/"+string(format), func(t *testing.T) {
			t.Parallel()

			for _, body := range []string{`[{"usage"}]`, `[{} {}]`} {
				_, err := meter.Extract(format, []byte(body))
				require.ErrorIs(t, err, meter.ErrBadUsage)
			}
		})
	}

	t.Run("ErrNoUsageArrayCutOff", func(t *testing.T) {
		t.Parallel()

		for _, body := range []string{`[`, `[{`, `[{"candidates": []}`, `[{"candidates": []},`,
			`[{"candidates": []}, {"usageMetadata": {"promptTokenCount": 5`} {
			_, err := meter.Extract(meter.GeminiGenerateContent, []byte(body))
			require.ErrorIs(t, err, meter.ErrNoUsage, body)
		}
	})

	t.Run("ErrPartialArrayCutOff", func(t *testing.T) {
		t.Parallel()

		const chunk = `{"candidates": [{}], "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 7}}`
		for _, rest := range []string{"", ",", `, {"candidates": [{"finishReason": "STOP"}]`, "]"} {
			got, err := meter.Extract(meter.GeminiGenerateContent, []byte("["+chunk+rest))
			require.ErrorIs(t, err, meter.ErrPartial, rest)
			require.Equal(t, meter.Tokens{InputTokens: 5, OutputTokens: 7}, got)
		}
	})

	t.Run("OKLongerThanMaxEvent", func(t *testing.T) {
		t.Parallel()

		body := `{"pad": "` + strings.Repeat("x", meter.MaxEvent) + `", "usage": {"inputTokens": 5, "outputTokens": 7}}`
		got, err := meter.Extract(meter.BedrockConverse, []byte(body))
		require.NoError(t, err)
		require.Equal(t, meter.Tokens{InputTokens: 5, OutputTokens: 7}, got)
	})

	t.Run("ErrUnknownFormat", func(t *testing.T) {
		t.Parallel()

		for _, format := range []meter.Format{"", "openai"} {
			for _, body := range []string{"", `{"usage": 1}`, "[]", "data: {\"usage\": 1}\n\n"} {
				got, err := meter.Extract(format, []byte(body))
				require.ErrorIs(t, err, meter.ErrUnknownFormat)
				require.Zero(t, got)
			}
		}
	})

	t.Run("ErrOtherFormat", func(t *testing.T) {
		t.Parallel()

		// A response of one format says nothing in another. Reading it would be worse: some
		// names are the same, and the conventions differ.
		for _, tt := range fixtures {
			for _, format := range allFormats {
				if format == tt.format {
					continue
				}
				want := meter.ErrNoUsage
				if tt.file == "gemini_stream_array.json" {
					want = meter.ErrBadUsage // as every array
				}
				got, err := meter.Extract(format, fixture(t, tt.file))
				require.ErrorIs(t, err, want, "%s as %s", tt.file, format)
				require.Zero(t, got)
			}
		}
	})
}
