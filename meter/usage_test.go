package meter_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
)

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
