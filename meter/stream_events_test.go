package meter_test

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
)

func TestStreamEvent(t *testing.T) {
	t.Parallel()

	for _, tt := range fixtures {
		t.Run(tt.file, func(t *testing.T) {
			t.Parallel()

			stream := meter.NewStream(tt.format)
			if body := fixture(t, tt.file); strings.HasSuffix(tt.file, ".sse") {
				for line := range strings.Lines(string(body)) {
					if data, ok := strings.CutPrefix(line, "data: "); ok {
						event := []byte(data)
						stream.Event(event)
						clear(event)
					}
				}
			} else if body[0] == '{' {
				stream.Event(body)
			} else {
				t.Skip("an array is no event")
			}
			got, err := stream.Tokens()
			require.ErrorIs(t, err, tt.err)
			require.Equal(t, tt.want, got)
		})
	}

	t.Run("OKBedrockPayload", func(t *testing.T) {
		t.Parallel()

		stream := meter.NewStream(meter.BedrockConverse)
		stream.Event([]byte(`{"usage":{"inputTokens":30,"outputTokens":628,"totalTokens":658},` +
			`"metrics":{"latencyMs":1275}}`))
		got, err := stream.Tokens()
		require.NoError(t, err)
		require.Equal(t, meter.Tokens{InputTokens: 30, OutputTokens: 628}, got)
	})
}

const (
	start = `{"type":"message_start","message":{"usage":{"input_tokens":50,"cache_read_input_tokens":2400,` +
		`"cache_creation_input_tokens":120,"cache_creation":{"ephemeral_5m_input_tokens":120},"output_tokens":1}}}`
	chatChunk = `{"choices":[{"finish_reason":null}],"usage":{"prompt_tokens":5,"completion_tokens":1}}`
)

// eventSequences are events of streams: what counts in the end, and whether that is final.
var eventSequences = map[string]struct {
	format meter.Format
	events []string
	want   meter.Tokens
	err    error
}{
	// Anthropic: the later count, never a sum.
	"OKStartAndDelta": {
		format: meter.AnthropicMessages,
		events: []string{
			start,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}`,
		},
		want: meter.Tokens{InputTokens: 50, CacheReadTokens: 2400, CacheWriteTokens: 120, OutputTokens: 15},
	},
	"OKDeltas": {
		format: meter.AnthropicMessages,
		events: []string{
			start,
			`{"type":"message_delta","delta":{"stop_reason":null},"usage":{"output_tokens":15}}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":20,` +
				`"output_tokens_details":{"thinking_tokens":4}}}`,
		},
		want: meter.Tokens{InputTokens: 50, CacheReadTokens: 2400, CacheWriteTokens: 120, OutputTokens: 16,
			ReasoningTokens: 4},
	},
	"OKStopTells": {
		format: meter.AnthropicMessages,
		events: []string{
			start, `{"type":"message_delta","delta":{},"usage":{"output_tokens":15}}`, `{"type":"message_stop"}`,
		},
		want: meter.Tokens{InputTokens: 50, CacheReadTokens: 2400, CacheWriteTokens: 120, OutputTokens: 15},
	},
	"OKDoneTells": {
		format: meter.AnthropicMessages,
		events: []string{
			start, `{"type":"message_delta","delta":{},"usage":{"output_tokens":15}}`, `[DONE]`,
		},
		want: meter.Tokens{InputTokens: 50, CacheReadTokens: 2400, CacheWriteTokens: 120, OutputTokens: 15},
	},
	"OKDeltaOnly": {
		format: meter.AnthropicMessages,
		events: []string{
			`{"type":"message_start","message":{}}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":9,"output_tokens":15}}`,
		},
		want: meter.Tokens{InputTokens: 9, OutputTokens: 15},
	},
	"OKZerosInStart": {
		format: meter.AnthropicMessages,
		events: []string{
			`{"type":"message_start","message":{"usage":{"input_tokens":0,"output_tokens":0}}}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":9,` +
				`"cache_read_input_tokens":8,"output_tokens":15}}`,
		},
		want: meter.Tokens{InputTokens: 9, CacheReadTokens: 8, OutputTokens: 15},
	},
	"OKZerosInDelta": {
		format: meter.AnthropicMessages,
		events: []string{
			start,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":0,` +
				`"cache_read_input_tokens":0,"cache_creation_input_tokens":0,"output_tokens":15}}`,
		},
		want: meter.Tokens{InputTokens: 50, CacheReadTokens: 2400, CacheWriteTokens: 120, OutputTokens: 15},
	},
	"OKEstimateInStart": {
		format: meter.AnthropicMessages,
		events: []string{
			`{"type":"message_start","message":{"usage":{"input_tokens":4000,"output_tokens":1}}}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":0,` +
				`"cache_read_input_tokens":3900,"output_tokens":15}}`,
		},
		want: meter.Tokens{CacheReadTokens: 3900, OutputTokens: 15},
	},
	"OKZeroInput": {
		format: meter.AnthropicMessages,
		events: []string{
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":0,"output_tokens":15}}`,
		},
		want: meter.Tokens{OutputTokens: 15},
	},
	"OKMoreWritten": {
		format: meter.AnthropicMessages,
		events: []string{
			start,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":60,` +
				`"cache_creation_input_tokens":150,"output_tokens":15}}`,
		},
		want: meter.Tokens{InputTokens: 60, CacheReadTokens: 2400, CacheWriteTokens: 150, OutputTokens: 15},
	},
	"OKOnlyCacheReadInDelta": {
		format: meter.AnthropicMessages,
		events: []string{
			start,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"cache_read_input_tokens":2500,` +
				`"output_tokens":15}}`,
		},
		want: meter.Tokens{InputTokens: 50, CacheReadTokens: 2500, CacheWriteTokens: 120, OutputTokens: 15},
	},
	"OKCompactionInDelta": {
		format: meter.AnthropicMessages,
		events: []string{
			start,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15,` +
				`"iterations":[{"type":"compaction","input_tokens":1000,"output_tokens":100}]}}`,
		},
		want: meter.Tokens{InputTokens: 1050, CacheReadTokens: 2400, CacheWriteTokens: 120, OutputTokens: 115},
	},
	"OKBadCountReplaced": {
		format: meter.AnthropicMessages,
		events: []string{
			`{"type":"message_start","message":{"usage":{"input_tokens":-1,"output_tokens":1}}}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":9,"output_tokens":15}}`,
		},
		want: meter.Tokens{InputTokens: 9, OutputTokens: 15},
	},
	"ErrBadCountInDelta": {
		format: meter.AnthropicMessages,
		events: []string{
			start, `{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"cache_read_input_tokens":-9,` +
				`"output_tokens":15}}`,
		},
		err: meter.ErrBadUsage,
	},
	"ErrBadInputInDelta": {
		format: meter.AnthropicMessages,
		events: []string{
			start, `{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":-9,` +
				`"output_tokens":15}}`,
		},
		err: meter.ErrBadUsage,
	},
	"ErrBadWriteInDelta": {
		format: meter.AnthropicMessages,
		events: []string{
			start, `{"type":"message_delta","delta":{"stop_reason":"end_turn"},` +
				`"usage":{"cache_creation_input_tokens":-9,"output_tokens":15}}`,
		},
		err: meter.ErrBadUsage,
	},
	"ErrPartialDeltaWithoutReason": {
		format: meter.AnthropicMessages,
		events: []string{
			start, `{"type":"message_delta","delta":{"stop_reason":null},"usage":{"output_tokens":15}}`,
		},
		want: meter.Tokens{InputTokens: 50, CacheReadTokens: 2400, CacheWriteTokens: 120, OutputTokens: 15},
		err:  meter.ErrPartial,
	},
	"ErrPartialStopWithoutDelta": {
		format: meter.AnthropicMessages,
		events: []string{
			start, `{"type":"message_stop"}`,
		},
		want: meter.Tokens{InputTokens: 50, CacheReadTokens: 2400, CacheWriteTokens: 120, OutputTokens: 1},
		err:  meter.ErrPartial,
	},
	"ErrPartialDeltaWithoutOutput": {
		format: meter.AnthropicMessages,
		events: []string{
			start, `{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":60}}`,
			`{"type":"message_stop"}`,
		},
		want: meter.Tokens{InputTokens: 50, CacheReadTokens: 2400, CacheWriteTokens: 120, OutputTokens: 1},
		err:  meter.ErrPartial,
	},
	"ErrPartialError": {
		format: meter.AnthropicMessages,
		events: []string{
			start, `{"type":"error","error":{"type":"overloaded_error"},"usage":{"input_tokens":1,"output_tokens":1}}`,
		},
		want: meter.Tokens{InputTokens: 50, CacheReadTokens: 2400, CacheWriteTokens: 120, OutputTokens: 1},
		err:  meter.ErrPartial,
	},
	"ErrNoUsageWithoutStart": {
		format: meter.AnthropicMessages,
		events: []string{
			`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}`,
			`{"type":"message_stop"}`,
		},
		err: meter.ErrNoUsage,
	},

	// OpenAI: the last usage, which is final without choices, with finished ones, or at the end.
	"OKLastChunk": {
		format: meter.OpenAIChat,
		events: []string{
			chatChunk, `{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":7}}`,
		},
		want: meter.Tokens{InputTokens: 5, OutputTokens: 7},
	},
	"OKNoChoices": {
		format: meter.OpenAIChat, events: []string{chatChunk, `{"usage":{"prompt_tokens":5,"completion_tokens":7}}`},
		want: meter.Tokens{InputTokens: 5, OutputTokens: 7},
	},
	"OKEnd": {
		format: meter.OpenAIChat, events: []string{chatChunk, "[DONE]\n"},
		want: meter.Tokens{InputTokens: 5, OutputTokens: 1},
	},
	"OKBadReplaced": {
		format: meter.OpenAIChat,
		events: []string{
			`{"choices":[],"usage":{"prompt_tokens":-5,"completion_tokens":7}}`,
			`{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}`,
		},
		want: meter.Tokens{InputTokens: 5, OutputTokens: 7},
	},
	"OKUnreadableReplaced": {
		format: meter.OpenAIChat,
		events: []string{
			`{"usage":[]}`, `{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}`,
		},
		want: meter.Tokens{InputTokens: 5, OutputTokens: 7},
	},
	"OKNullsAfterwards": {
		format: meter.OpenAIChat,
		events: []string{
			`{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}`, `{"choices":[],"usage":null}`,
			`{"choices":[],"usage":{}}`,
		},
		want: meter.Tokens{InputTokens: 5, OutputTokens: 7},
	},
	"ErrPartialChunk": {
		format: meter.OpenAIChat, events: []string{chatChunk}, want: meter.Tokens{InputTokens: 5, OutputTokens: 1},
		err: meter.ErrPartial,
	},
	"ErrPartialOneOfTwoChoices": {
		format: meter.OpenAIChat,
		events: []string{
			`{"choices":[{"finish_reason":"stop"},{"finish_reason":null}],"usage":{"prompt_tokens":5,` +
				`"completion_tokens":7}}`,
		},
		want: meter.Tokens{InputTokens: 5, OutputTokens: 7}, err: meter.ErrPartial,
	},
	"ErrPartialOutdated": {
		format: meter.OpenAIChat, events: []string{chatChunk, `{"usage":[]}`, `[DONE]`},
		want: meter.Tokens{InputTokens: 5, OutputTokens: 1}, err: meter.ErrPartial,
	},
	"ErrBadUsageLast": {
		format: meter.OpenAIChat,
		events: []string{chatChunk, `{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":-7}}`},
		err:    meter.ErrBadUsage,
	},
	"ErrBadUsagePartial": {
		format: meter.OpenAIChat,
		events: []string{`{"choices":[{}],"usage":{"prompt_tokens":5,"completion_tokens":-7}}`}, err: meter.ErrBadUsage,
	},
	"ErrNoUsageInProgress": {
		format: meter.OpenAIResponses,
		events: []string{`{"type":"response.in_progress","response":{"usage":{"input_tokens":5,"output_tokens":0}}}`},
		err:    meter.ErrNoUsage,
	},
	"OKFailedWithUsage": {
		format: meter.OpenAIResponses,
		events: []string{`{"type":"response.failed","response":{"usage":{"input_tokens":5,"output_tokens":2}}}`},
		want:   meter.Tokens{InputTokens: 5, OutputTokens: 2},
	},

	// Gemini: the last usage, which is final once the answer is finished.
	"OKBlocked": {
		format: meter.GeminiGenerateContent,
		events: []string{`{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":5,` +
			`"totalTokenCount":5}}`},
		want: meter.Tokens{InputTokens: 5},
	},
	"OKUsageAfterFinish": {
		format: meter.GeminiGenerateContent,
		events: []string{`{"candidates":[{"finishReason":"STOP"}]}`,
			`{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":7}}`},
		want: meter.Tokens{InputTokens: 5, OutputTokens: 7},
	},
	"OKChunkAfterFinish": {
		format: meter.GeminiGenerateContent,
		events: []string{
			`{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":6}}`,
			`{"candidates":[{}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":7}}`,
		},
		want: meter.Tokens{InputTokens: 5, OutputTokens: 7},
	},
	"OKOtherMetadata": {
		format: meter.GeminiGenerateContent,
		events: []string{
			`{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":7}}`,
			`{"usageMetadata":{"trafficType":"ON_DEMAND"}}`,
		},
		want: meter.Tokens{InputTokens: 5, OutputTokens: 7},
	},
	"ErrPartialFinishWithoutUsage": {
		format: meter.GeminiGenerateContent,
		events: []string{
			`{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":7}}`,
			`{"candidates":[{"finishReason":"STOP"}]}`,
		},
		want: meter.Tokens{InputTokens: 5, OutputTokens: 7}, err: meter.ErrPartial,
	},
}

// TestStreamEvents has sequences of events: what counts in the end, and whether that is final.
func TestStreamEvents(t *testing.T) {
	t.Parallel()

	for name, tt := range eventSequences {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			byEvent, byWrite := meter.NewStream(tt.format), meter.NewStream(tt.format)
			for _, event := range tt.events {
				byEvent.Event([]byte(event))
				_, err := io.WriteString(byWrite, "id: 1\ndata:"+event+"\n\n")
				require.NoError(t, err)
			}
			for _, stream := range []*meter.Stream{byEvent, byWrite} {
				got, err := stream.Tokens()
				require.ErrorIs(t, err, tt.err)
				require.Equal(t, tt.want, got)
			}
		})
	}
}
