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
	{"openai_chat.json", meter.OpenAIChat,
		meter.Tokens{InputTokens: 200, CacheReadTokens: 2000, CacheWriteTokens: 400, OutputTokens: 51,
			ReasoningTokens: 320}, nil},
	{"openai_chat_plain.json", meter.OpenAIChat, meter.Tokens{InputTokens: 12, OutputTokens: 3}, nil},
	{"openai_chat_deepseek.json", meter.OpenAIChat,
		meter.Tokens{InputTokens: 26, CacheReadTokens: 1024, OutputTokens: 16, ReasoningTokens: 44}, nil},
	{"openai_chat_xai.json", meter.OpenAIChat,
		meter.Tokens{InputTokens: 26, CacheReadTokens: 6, OutputTokens: 9, ReasoningTokens: 94}, nil},
	{"openai_chat_stream.sse", meter.OpenAIChat,
		meter.Tokens{InputTokens: 40, CacheReadTokens: 1280, OutputTokens: 18, ReasoningTokens: 192}, nil},
	{"openai_chat_stream_each.sse", meter.OpenAIChat, meter.Tokens{InputTokens: 12, OutputTokens: 3}, nil},
	{"openai_chat_stream_no_usage.sse", meter.OpenAIChat, meter.Tokens{}, meter.ErrNoUsage},

	{"openai_responses.json", meter.OpenAIResponses,
		meter.Tokens{InputTokens: 3, CacheWriteTokens: 18011, OutputTokens: 13, ReasoningTokens: 1024}, nil},
	{"openai_responses_stream.sse", meter.OpenAIResponses,
		meter.Tokens{InputTokens: 156, CacheReadTokens: 2944, OutputTokens: 12, ReasoningTokens: 128}, nil},
	{"openai_responses_stream_incomplete.sse", meter.OpenAIResponses,
		meter.Tokens{InputTokens: 3100, ReasoningTokens: 64}, nil},
	{"openai_responses_stream_failed.sse", meter.OpenAIResponses, meter.Tokens{}, meter.ErrNoUsage},

	{"anthropic_messages.json", meter.AnthropicMessages,
		meter.Tokens{InputTokens: 50, CacheReadTokens: 1800, CacheWriteTokens: 248, OutputTokens: 93,
			ReasoningTokens: 410}, nil},
	{"anthropic_messages_plain.json", meter.AnthropicMessages, meter.Tokens{InputTokens: 2095, OutputTokens: 503}, nil},
	{"anthropic_messages_nested.json", meter.AnthropicMessages,
		meter.Tokens{InputTokens: 7, CacheWriteTokens: 248, OutputTokens: 9}, nil},
	{"anthropic_messages_compaction.json", meter.AnthropicMessages,
		meter.Tokens{InputTokens: 43000, CacheReadTokens: 160000, OutputTokens: 4300, ReasoningTokens: 200}, nil},
	{"anthropic_messages_stream.sse", meter.AnthropicMessages,
		meter.Tokens{InputTokens: 25, CacheReadTokens: 900, CacheWriteTokens: 4425, OutputTokens: 15}, nil},
	{"anthropic_messages_stream_repeated.sse", meter.AnthropicMessages,
		meter.Tokens{InputTokens: 10682, CacheReadTokens: 64, CacheWriteTokens: 120, OutputTokens: 210,
			ReasoningTokens: 300}, nil},
	{"anthropic_messages_stream_cut.sse", meter.AnthropicMessages,
		meter.Tokens{InputTokens: 25, CacheReadTokens: 900, CacheWriteTokens: 4425, OutputTokens: 2}, meter.ErrPartial},

	{"gemini.json", meter.GeminiGenerateContent,
		meter.Tokens{InputTokens: 72 + 10309, CacheReadTokens: 2048, OutputTokens: 198, ReasoningTokens: 405}, nil},
	{"gemini_blocked.json", meter.GeminiGenerateContent, meter.Tokens{InputTokens: 31}, nil},
	{"gemini_stream.sse", meter.GeminiGenerateContent,
		meter.Tokens{InputTokens: 20, OutputTokens: 198, ReasoningTokens: 405}, nil},
	{"gemini_stream_array.json", meter.GeminiGenerateContent,
		meter.Tokens{InputTokens: 20, OutputTokens: 198, ReasoningTokens: 405}, nil},
	{"gemini_stream_vertex.sse", meter.GeminiGenerateContent, meter.Tokens{InputTokens: 20, OutputTokens: 5}, nil},
	{"gemini_stream_cut.sse", meter.GeminiGenerateContent,
		meter.Tokens{InputTokens: 20, OutputTokens: 2, ReasoningTokens: 405}, meter.ErrPartial},

	{"bedrock.json", meter.BedrockConverse,
		meter.Tokens{InputTokens: 4, CacheReadTokens: 1024, CacheWriteTokens: 514, OutputTokens: 93}, nil},
	{"bedrock_stream.sse", meter.BedrockConverse, meter.Tokens{InputTokens: 30, OutputTokens: 628}, nil},
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
	"OKZero": {chat, `{"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}`, meter.Tokens{},
		nil, ""},
	"OKLargest": {chat, `{"prompt_tokens": 1000000000000, "completion_tokens": 1000000000000}`,
		meter.Tokens{InputTokens: meter.MaxTokens, OutputTokens: meter.MaxTokens}, nil, ""},
	"OKFraction": {chat, `{"prompt_tokens": 12.0, "completion_tokens": 3.000, "total_tokens": 15.0}`,
		meter.Tokens{InputTokens: 12, OutputTokens: 3}, nil, ""},
	"OKNulls": {chat, `{"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": null,` +
		` "prompt_tokens_details": null, "completion_tokens_details": {"reasoning_tokens": null}}`,
		meter.Tokens{InputTokens: 12, OutputTokens: 3}, nil, ""},
	"OKUnknownFields": {chat, `{"prompt_tokens": 12, "completion_tokens": 3, "cost": -1, "details":` +
		` [{"prompt_tokens": -1}]}`, meter.Tokens{InputTokens: 12, OutputTokens: 3}, nil, ""},
	"OKAllCached": {chat, `{"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details":` +
		` {"cached_tokens": 8, "cache_write_tokens": 4}}`,
		meter.Tokens{CacheReadTokens: 8, CacheWriteTokens: 4, OutputTokens: 3}, nil, ""},
	"OKAllReasoning": {responses,
		`{"input_tokens": 12, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 3}}`,
		meter.Tokens{InputTokens: 12, ReasoningTokens: 3}, nil, ""},
	"OKReasoningAside": {responses,
		`{"input_tokens": 12, "output_tokens": 3, "total_tokens": 17, "output_tokens_details":` +
			` {"reasoning_tokens": 2}}`, meter.Tokens{InputTokens: 12, OutputTokens: 3, ReasoningTokens: 2}, nil,
		""},
	"OKReasoningIn": {chat, `{"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15,` +
		` "completion_tokens_details": {"reasoning_tokens": 2}}`,
		meter.Tokens{InputTokens: 12, OutputTokens: 1, ReasoningTokens: 2}, nil, ""},
	"OKNoTotal": {chat, `{"prompt_tokens": 12, "completion_tokens": 3, "completion_tokens_details":` +
		` {"reasoning_tokens": 2}}`, meter.Tokens{InputTokens: 12, OutputTokens: 1, ReasoningTokens: 2}, nil, ""},
	"OKCachedOverHits": {chat, `{"prompt_tokens": 12, "completion_tokens": 3, "prompt_cache_hit_tokens": 5,` +
		` "prompt_cache_miss_tokens": 5, "prompt_tokens_details": {"cached_tokens": 8}}`,
		meter.Tokens{InputTokens: 4, CacheReadTokens: 8, OutputTokens: 3}, nil, ""},
	"OKNoHits": {chat, `{"prompt_tokens": 12, "completion_tokens": 3, "prompt_cache_hit_tokens": 0}`,
		meter.Tokens{InputTokens: 12, OutputTokens: 3}, nil, ""},
	"OKMoreCached": {anthropic, `{"input_tokens": 1, "cache_read_input_tokens": 8, "output_tokens": 3}`,
		meter.Tokens{InputTokens: 1, CacheReadTokens: 8, OutputTokens: 3}, nil, ""},
	"OKByIsEmpty": {anthropic, `{"input_tokens": 1, "cache_creation_input_tokens": 8, "cache_creation": {},` +
		` "output_tokens": 3}`, meter.Tokens{InputTokens: 1, CacheWriteTokens: 8, OutputTokens: 3}, nil, ""},
	"OKIterations": {anthropic, `{"input_tokens": 1, "output_tokens": 3, "iterations": [{"type": "message",` +
		` "input_tokens": 1, "output_tokens": 3}, {"type": "advisor_message"}]}`,
		meter.Tokens{InputTokens: 1, OutputTokens: 3}, nil, ""},
	"OKCompactions": {anthropic, `{"input_tokens": 1, "output_tokens": 2, "iterations": [{"type": "compaction",` +
		` "input_tokens": 4, "output_tokens": 40, "cache_read_input_tokens": 16, "cache_creation_input_tokens":` +
		` 32, "output_tokens_details": {"thinking_tokens": 8}}, {"type": "compaction", "input_tokens": 64,` +
		` "output_tokens": 128}]}`, meter.Tokens{InputTokens: 69, CacheReadTokens: 16, CacheWriteTokens: 32,
		OutputTokens: 2 + 32 + 128, ReasoningTokens: 8}, nil, ""},
	"OKNoTotalOfAll": {gemini, `{"promptTokenCount": 12, "candidatesTokenCount": 3, "thoughtsTokenCount": 5}`,
		meter.Tokens{InputTokens: 12, OutputTokens: 3, ReasoningTokens: 5}, nil, ""},
	"OKOnlyThoughts": {gemini, `{"promptTokenCount": 21, "thoughtsTokenCount": 60, "totalTokenCount": 81}`,
		meter.Tokens{InputTokens: 21, ReasoningTokens: 60}, nil, ""},
	"OKTotalIgnored": {bedrock, `{"inputTokens": 1, "outputTokens": 2, "totalTokens": 3, "cacheReadInputTokens":` +
		` 8}`, meter.Tokens{InputTokens: 1, OutputTokens: 2, CacheReadTokens: 8}, nil, ""},

	"ErrNoUsageNull":      {chat, `null`, meter.Tokens{}, meter.ErrNoUsage, ""},
	"ErrNoUsageEmpty":     {chat, `{}`, meter.Tokens{}, meter.ErrNoUsage, ""},
	"ErrNoUsageTotalOnly": {chat, `{"total_tokens": 5}`, meter.Tokens{}, meter.ErrNoUsage, ""},
	"ErrNoUsageNoPrompt": {chat, `{"completion_tokens": 5}`, meter.Tokens{}, meter.ErrNoUsage,
		"no prompt_tokens"},
	"ErrNoUsageNoOutput": {chat, `{"prompt_tokens": 5, "total_tokens": 5}`, meter.Tokens{}, meter.ErrNoUsage,
		"no completion_tokens"},
	"ErrNoUsageResponsesI": {responses, `{"output_tokens": 5}`, meter.Tokens{}, meter.ErrNoUsage,
		"no input_tokens"},
	"ErrNoUsageResponsesO": {responses, `{"input_tokens": 5}`, meter.Tokens{}, meter.ErrNoUsage,
		"no output_tokens"},
	"ErrNoUsageAnthropicI": {anthropic, `{"output_tokens": 5, "cache_read_input_tokens": 5}`, meter.Tokens{},
		meter.ErrNoUsage, "no input_tokens"},
	"ErrNoUsageAnthropicO": {anthropic, `{"input_tokens": 5}`, meter.Tokens{}, meter.ErrNoUsage,
		"no output_tokens"},
	"ErrNoUsageCompaction": {anthropic,
		`{"input_tokens": 5, "output_tokens": 5, "iterations": [{"type": "compaction", "input_tokens": 5}]}`,
		meter.Tokens{}, meter.ErrNoUsage, "compaction: "},
	"ErrNoUsageGeminiI": {gemini, `{"candidatesTokenCount": 5, "totalTokenCount": 5}`, meter.Tokens{},
		meter.ErrNoUsage, ""},
	"ErrNoUsageGeminiO": {gemini, `{"promptTokenCount": 5}`, meter.Tokens{}, meter.ErrNoUsage,
		"no candidatesTokenCount"},
	"ErrNoUsageUnproven": {gemini, `{"promptTokenCount": 5, "totalTokenCount": 9}`, meter.Tokens{},
		meter.ErrNoUsage, "no candidatesTokenCount"},
	"ErrNoUsageBedrockI": {bedrock, `{"outputTokens": 5}`, meter.Tokens{}, meter.ErrNoUsage, "no inputTokens"},
	"ErrNoUsageBedrockO": {bedrock, `{"inputTokens": 5}`, meter.Tokens{}, meter.ErrNoUsage, "no outputTokens"},

	"ErrNegative": {chat, `{"prompt_tokens": -5, "completion_tokens": 3}`, meter.Tokens{}, meter.ErrBadUsage,
		"prompt_tokens -5"},
	"ErrMinusZero": {chat, `{"prompt_tokens": -0, "completion_tokens": 3}`, meter.Tokens{}, meter.ErrBadUsage,
		"prompt_tokens -0"},
	"ErrExponent": {chat, `{"prompt_tokens": 1e3, "completion_tokens": 3}`, meter.Tokens{},
		meter.ErrBadUsage, "prompt_tokens 1e3"},
	"ErrExponentLater": {chat, `{"prompt_tokens": 1.0e3, "completion_tokens": 3}`, meter.Tokens{},
		meter.ErrBadUsage, "prompt_tokens 1.0e3"},
	"ErrHalf": {chat, `{"prompt_tokens": 12.5, "completion_tokens": 3}`, meter.Tokens{},
		meter.ErrBadUsage, "prompt_tokens 12.5"},
	"ErrText": {chat, `{"prompt_tokens": "12", "completion_tokens": 3}`, meter.Tokens{},
		meter.ErrBadUsage, `prompt_tokens "12"`},
	"ErrTrue": {chat, `{"prompt_tokens": 12, "completion_tokens": true}`, meter.Tokens{},
		meter.ErrBadUsage, "completion_tokens true"},
	"ErrObject": {chat, `{"prompt_tokens": 12, "completion_tokens": {"text": 3}}`, meter.Tokens{},
		meter.ErrBadUsage, `completion_tokens {"text": 3}`},
	"ErrLong": {chat, `{"prompt_tokens": 1` + strings.Repeat("0", 100) + `, "completion_tokens": 3}`,
		meter.Tokens{}, meter.ErrBadUsage, "prompt_tokens 1" + strings.Repeat("0", 39) + ":"},
	"ErrTooMany": {chat, `{"prompt_tokens": 1000000000001, "completion_tokens": 3}`, meter.Tokens{},
		meter.ErrBadUsage, "within 0 and 1000000000000"},
	"ErrPastInt64": {chat, `{"prompt_tokens": 9223372036854775808, "completion_tokens": 3}`, meter.Tokens{},
		meter.ErrBadUsage, ""},
	"ErrPastUint64": {chat, `{"prompt_tokens": 18446744073709551617, "completion_tokens": 3}`, meter.Tokens{},
		meter.ErrBadUsage, ""},
	"ErrBoth": {chat, `{"prompt_tokens": -5, "completion_tokens": -3}`, meter.Tokens{},
		meter.ErrBadUsage, "completion_tokens -3"},
	"ErrBadBeforeNone": {chat, `{"prompt_tokens": -5}`, meter.Tokens{}, meter.ErrBadUsage, ""},
	"ErrBadTotal": {chat, `{"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": -1}`, meter.Tokens{},
		meter.ErrBadUsage, "total_tokens -1"},
	"ErrCachedOverAll": {chat, `{"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details":` +
		` {"cached_tokens": 13}}`, meter.Tokens{}, meter.ErrBadUsage, "13 cached and 0 written of 12 input"},
	"ErrCachesOverAll": {responses,
		`{"input_tokens": 12, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 8,` +
			` "cache_write_tokens": 5}}`, meter.Tokens{}, meter.ErrBadUsage, "8 cached and 5 written of 12 input"},
	"ErrReasoningOver": {chat, `{"prompt_tokens": 12, "completion_tokens": 3, "completion_tokens_details":` +
		` {"reasoning_tokens": 4}}`, meter.Tokens{}, meter.ErrBadUsage, "4 reasoning of 3 output"},
	"ErrReasoningOverIn": {chat, `{"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15,` +
		` "completion_tokens_details": {"reasoning_tokens": 4}}`, meter.Tokens{}, meter.ErrBadUsage,
		"4 reasoning of 3 output"},
	"ErrTotalOver": {chat, `{"prompt_tokens": 20, "completion_tokens": 424, "total_tokens": 1016}`,
		meter.Tokens{}, meter.ErrBadUsage, "total_tokens 1016"},
	"ErrTotalBetween": {responses,
		`{"input_tokens": 12, "output_tokens": 3, "total_tokens": 16, "output_tokens_details":` +
			` {"reasoning_tokens": 2}}`, meter.Tokens{}, meter.ErrBadUsage, "total_tokens 16"},
	"ErrTotalUnder": {responses, `{"input_tokens": 12, "output_tokens": 3, "total_tokens": 0}`, meter.Tokens{},
		meter.ErrBadUsage, "total_tokens 0"},
	"ErrSumTooMany": {chat, `{"prompt_tokens": 0, "completion_tokens": 3, "total_tokens": 1000000000003,` +
		` "completion_tokens_details": {"reasoning_tokens": 1000000000000}}`, meter.Tokens{}, meter.ErrBadUsage,
		"total_tokens 1000000000003"},
	"ErrHitsUnproven": {chat, `{"prompt_tokens": 12, "completion_tokens": 3, "prompt_cache_hit_tokens": 5}`,
		meter.Tokens{}, meter.ErrBadUsage, "hits 5 and misses 0"},
	"ErrHitsBeside": {chat, `{"prompt_tokens": 7, "completion_tokens": 3, "prompt_cache_hit_tokens": 5,` +
		` "prompt_cache_miss_tokens": 7}`, meter.Tokens{}, meter.ErrBadUsage, "hits 5 and misses 7"},
	"ErrBadHits": {chat, `{"prompt_tokens": 7, "completion_tokens": 3, "prompt_cache_hit_tokens": -5}`,
		meter.Tokens{}, meter.ErrBadUsage, "prompt_cache_hit_tokens -5"},
	"ErrThinkingOver": {anthropic,
		`{"input_tokens": 1, "output_tokens": 3, "output_tokens_details": {"thinking_tokens": 4}}`, meter.Tokens{},
		meter.ErrBadUsage, "4 thinking of 3 output"},
	"ErrWrittenBy": {anthropic,
		`{"input_tokens": 1, "output_tokens": 3, "cache_creation_input_tokens": 8, "cache_creation":` +
			` {"ephemeral_1h_input_tokens": 9}}`, meter.Tokens{}, meter.ErrBadUsage,
		"cache_creation_input_tokens 8"},
	"ErrWrittenBySum": {anthropic,
		`{"input_tokens": 1, "output_tokens": 3, "cache_creation": {"ephemeral_5m_input_tokens": 1000000000000,` +
			` "ephemeral_1h_input_tokens": 9}}`, meter.Tokens{}, meter.ErrBadUsage,
		"cache_write tokens 1000000000009"},
	"ErrCompaction": {anthropic,
		`{"input_tokens": 1, "output_tokens": 3, "iterations": [{"type": "compaction", "input_tokens": -4,` +
			` "output_tokens": 1}]}`, meter.Tokens{}, meter.ErrBadUsage, "compaction: "},
	"ErrCompactionSum": {anthropic,
		`{"input_tokens": 1, "output_tokens": 3, "iterations": [{"type": "compaction", "input_tokens":` +
			` 1000000000000, "output_tokens": 1}]}`, meter.Tokens{}, meter.ErrBadUsage,
		"input tokens 1000000000001"},
	"ErrGeminiCached": {gemini,
		`{"promptTokenCount": 5, "cachedContentTokenCount": 6, "candidatesTokenCount": 1}`, meter.Tokens{},
		meter.ErrBadUsage, "6 cached of 5 prompt"},
	"ErrGeminiTotalOver": {gemini, `{"promptTokenCount": 5, "candidatesTokenCount": 1, "totalTokenCount": 7}`,
		meter.Tokens{}, meter.ErrBadUsage, "totalTokenCount 7"},
	"ErrGeminiThoughts": {gemini, `{"promptTokenCount": 5, "candidatesTokenCount": 4, "thoughtsTokenCount": 3,` +
		` "totalTokenCount": 9}`, meter.Tokens{}, meter.ErrBadUsage, "totalTokenCount 9"},
	"ErrGeminiSum": {gemini, `{"promptTokenCount": 1000000000000, "toolUsePromptTokenCount": 1,` +
		` "candidatesTokenCount": 1}`, meter.Tokens{}, meter.ErrBadUsage, "input tokens 1000000000001"},
	"ErrBedrock": {bedrock, `{"inputTokens": 5, "outputTokens": 3, "cacheWriteInputTokens": -1}`,
		meter.Tokens{}, meter.ErrBadUsage, "cacheWriteInputTokens -1"},
	"ErrLongText": {chat, `{"prompt_tokens": "` + strings.Repeat("é", 30) + `", "completion_tokens": 3}`,
		meter.Tokens{}, meter.ErrBadUsage, `prompt_tokens "` + strings.Repeat("é", 19) + ":"},
	"ErrNoObject":     {bedrock, `[5, 3]`, meter.Tokens{}, meter.ErrBadUsage, ""},
	"ErrNoObjectChat": {chat, `"none"`, meter.Tokens{}, meter.ErrBadUsage, ""},
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
	"ErrNoUsageEmpty": {"", meter.ErrNoUsage},
	"ErrNoUsageSpace": {" \r\n", meter.ErrNoUsage},
	"ErrNoUsageError": {`{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}`,
		meter.ErrNoUsage},
	"ErrNoUsageErrorSSE": {"event: error\ndata: {\"type\": \"error\", \"error\": {\"message\": \"no usage\"}}\n\n",
		meter.ErrNoUsage},
	"ErrNoUsageHTML":      {"<html><body>Bad Gateway: \"usage\"</body></html>", meter.ErrNoUsage},
	"ErrNoUsageDone":      {"data: [DONE]\n\n", meter.ErrNoUsage},
	"ErrNoUsageComment":   {": {\"usage\": {}}\n\n", meter.ErrNoUsage},
	"ErrNoUsageNoField":   {"usage\n\n", meter.ErrNoUsage},
	"ErrNoUsageCutOff":    {"data: {\"usage\": {\"prompt_tokens\": 5", meter.ErrNoUsage},
	"ErrBadUsageCutOff":   {`{"usage": {"prompt_tokens": 5`, meter.ErrBadUsage},
	"ErrBadUsageTwo":      {`{"usage": null} {"usage": null}`, meter.ErrBadUsage},
	"ErrBadUsageEvent":    {"data: {\"usage\",\"usageMetadata\"}\n\ndata: [DONE]\n\n", meter.ErrBadUsage},
	"ErrNoUsageSplitWord": {"data: {\"us\ndata: age\": 1}\n\n", meter.ErrNoUsage},
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
