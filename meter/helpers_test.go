package meter_test

import (
	"os"
	"path/filepath"
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
