package meter_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
)

func TestStreamWrite(t *testing.T) {
	t.Parallel()

	for _, tt := range fixtures {
		for name, body := range map[string][]byte{
			"LF":   fixture(t, tt.file),
			"CRLF": bytes.ReplaceAll(fixture(t, tt.file), []byte("\n"), []byte("\r\n")),
		} {
			t.Run(tt.file+"/"+name, func(t *testing.T) {
				t.Parallel()

				// check wants the same as from Extract, and that asking has no effect.
				check := func(stream *meter.Stream, at int) {
					for range 2 {
						got, err := stream.Tokens()
						require.ErrorIs(t, err, tt.err, at)
						require.Equal(t, tt.want, got, at)
					}
				}
				for at := range len(body) + 1 {
					stream := meter.NewStream(tt.format)
					for _, part := range [][]byte{body[:at], nil, body[at:]} {
						part = bytes.Clone(part)
						n, err := stream.Write(part)
						require.NoError(t, err)
						require.Equal(t, len(part), n)
						clear(part) // it is the caller's
						_, _ = stream.Tokens()
					}
					check(stream, at)
				}

				stream := meter.NewStream(tt.format)
				read, err := io.ReadAll(io.TeeReader(iotest.OneByteReader(bytes.NewReader(body)), stream))
				require.NoError(t, err)
				require.Equal(t, body, read)
				check(stream, -1)
			})
		}
	}
}

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

func TestStreamLines(t *testing.T) {
	t.Parallel()

	want := meter.Tokens{InputTokens: 5, OutputTokens: 7}
	for name, body := range map[string]string{
		"OKNoSpace":   "data:{\"usage\":{\"inputTokens\":5,\"outputTokens\":7}}\n\n",
		"OKTwoSpaces": "data:  {\"usage\":{\"inputTokens\":5,\"outputTokens\":7}}\n\n",
		"OKManyLines": "data: {\"usage\":\ndata: {\"inputTokens\":5,\ndata:\ndata\ndata:" +
			" \"outputTokens\":7}}\n\n",
		"OKCommentsBetween": "data: {\"usage\":\n: keep-alive\nid: 7\nretry: 10\ndata:" +
			" {\"inputTokens\":5,\"outputTokens\":7}}\n\n",
		"OKOtherFields": "event: metadata\ndatab: x\nDATA: y\n data: z\ndata:" +
			" {\"usage\":{\"inputTokens\":5,\"outputTokens\":7}}\n\n",
		"OKMixedEnds": "event: metadata\r\ndata: {\"usage\":\rdata:" +
			" {\"inputTokens\":5,\"outputTokens\":7}}\n\r\n",
		"OKManyLinesCRLF": "data: {\"usage\":\r\ndata: {\"inputTokens\":5,\r\ndata: \"outputTokens\":7}}\r\n\r\n",
		"OKCRLFAndThenLF": "data: {\"usage\":{\"inputTokens\":1,\"outputTokens\":1}}\r\n\ndata:" +
			" {\"usage\":{\"inputTokens\":5,\"outputTokens\":7}}\n\n",
		"OKManyEmptyLines":   "\n\n\r\r\n\ndata: {\"usage\":{\"inputTokens\":5,\"outputTokens\":7}}\n\n\n\n",
		"OKNoEmptyLineAtEnd": "data: {\"usage\":{\"inputTokens\":5,\"outputTokens\":7}}\n",
		"OKNoLineEndAtEnd":   "data: {\"usage\":{\"inputTokens\":5,\"outputTokens\":7}}",
		"OKCutAfterwards":    "data: {\"usage\":{\"inputTokens\":5,\"outputTokens\":7}}\n\ndata: {\"usage\":{\"inp",
		"OKEventsEndApart": "data: {\"usage\":{\"inputTokens\":1,\"outputTokens\":1}}\n\ndata:" +
			" {\"usage\":{\"inputTokens\":5,\"outputTokens\":7}}\n\n",
		"OKLineOfMegabytes": "data: {\"pad\":\"" + strings.Repeat("x", 3<<20) +
			"\",\"usage\":{\"inputTokens\":5,\"outputTokens\":7}}\n\n",
		"OKDone": "data: {\"usage\":{\"inputTokens\":5,\"outputTokens\":7}}\n\ndata: [DONE]",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			stream := meter.NewStream(meter.BedrockConverse)
			random := rand.New(rand.NewPCG(1, 2))
			for rest := []byte(body); len(rest) > 0; {
				n := min(len(rest), 1+random.IntN(1+len(body)/5))
				_, err := stream.Write(rest[:n])
				require.NoError(t, err)
				rest = rest[n:]
			}
			got, err := stream.Tokens()
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}

	t.Run("OKDoneWithoutLineEnd", func(t *testing.T) {
		t.Parallel()

		const chunk = "data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}}\n\n"
		_, err := meter.Extract(meter.OpenAIChat, []byte(chunk+"data: [DON"))
		require.ErrorIs(t, err, meter.ErrPartial)
		got, err := meter.Extract(meter.OpenAIChat, []byte(chunk+"data: [DONE]"))
		require.NoError(t, err)
		require.Equal(t, want, got)
	})

	t.Run("OKContinuedAfterTokens", func(t *testing.T) {
		t.Parallel()

		// An end that is taken for the response's may turn out to be none.
		stream := meter.NewStream(meter.BedrockConverse)
		for _, part := range []string{
			"data: {\"usage\":{\"inputTokens\":1,\"outputTokens\":1}}",
			"\ndata: \n\ndata: {\"usage\":{\"inputTokens\":5,",
			"\"outputTokens\":7}}",
		} {
			_, err := io.WriteString(stream, part)
			require.NoError(t, err)
			_, err = stream.Tokens()
			require.NoError(t, err)
		}
		got, err := stream.Tokens()
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func TestStreamMaxEvent(t *testing.T) {
	t.Parallel()

	const (
		chunk = "data: {\"choices\":[{\"finish_reason\":null}],\"usage\":{\"prompt_tokens\":5," +
			"\"completion_tokens\":1}}\n\n"
		last = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}}\n\n"
	)
	pad := bytes.Repeat([]byte("x"), 1<<20)
	long := func(write func(p []byte)) { // writes more than MaxEvent
		for range meter.MaxEvent/len(pad) + 1 {
			write(pad)
		}
	}
	for name, tt := range map[string]struct {
		before, after string
		lines         bool
		want          meter.Tokens
		err           error
	}{
		"OKPassedOver": {
			before: chunk + "data: ", after: "\n\n" + last, want: meter.Tokens{InputTokens: 5, OutputTokens: 7},
		},
		"OKPassedOverInLines": {
			before: chunk + "data: ", after: "\n\n" + last, lines: true,
			want: meter.Tokens{InputTokens: 5, OutputTokens: 7},
		},
		"ErrPartial": {
			before: chunk + "data: ", after: "\n\ndata: [DONE]\n\n",
			want: meter.Tokens{InputTokens: 5, OutputTokens: 1}, err: meter.ErrPartial,
		},
		"ErrPartialInLines": {
			before: chunk + "data: ", after: "\n\ndata: [DONE]\n\n", lines: true,
			want: meter.Tokens{InputTokens: 5, OutputTokens: 1}, err: meter.ErrPartial,
		},
		"ErrNoUsage":          {before: "data: ", after: "\n\ndata: [DONE]\n\n", err: meter.ErrNoUsage},
		"ErrNoUsageAtEnd":     {before: "data: ", err: meter.ErrNoUsage},
		"ErrNoUsageInLines":   {before: "data: ", lines: true, err: meter.ErrNoUsage},
		"ErrNoUsageSameEvent": {before: "data: ", after: "\n" + last, err: meter.ErrNoUsage},
		"ErrNoUsageBody": {
			before: "{\"pad\": \"", after: "\", " + strings.TrimPrefix(strings.TrimSpace(last), "data: {"),
			err: meter.ErrNoUsage,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			stream := meter.NewStream(meter.OpenAIChat)
			write := func(p []byte) {
				n, err := stream.Write(p)
				require.NoError(t, err)
				require.Equal(t, len(p), n)
			}
			write([]byte(tt.before))
			long(func(p []byte) {
				write(p)
				if tt.lines {
					write([]byte("\ndata: "))
				}
			})
			write([]byte(tt.after))
			got, err := stream.Tokens()
			require.ErrorIs(t, err, tt.err)
			require.Equal(t, tt.want, got)
			if tt.want == (meter.Tokens{}) {
				require.ErrorContains(t, err, "longer than 33554432 bytes")
			}
		})
	}
}

// BenchmarkStream passes a stream on whose events are mostly words of the answer.
func BenchmarkStream(b *testing.B) {
	body := string(fixture(b, "openai_chat_stream.sse"))
	events := strings.SplitAfter(body, "\n\n")
	long := []byte(strings.Join(events[:3], "") + strings.Repeat(strings.ReplaceAll(events[2], `,"usage":null`, ""),
		1000) + strings.Join(events[3:], ""))
	b.SetBytes(int64(len(long)))
	b.ReportAllocs()
	for b.Loop() {
		stream := meter.NewStream(meter.OpenAIChat)
		for rest := long; len(rest) > 0; {
			n := min(len(rest), 4096)
			if _, err := stream.Write(rest[:n]); err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
		if _, err := stream.Tokens(); err != nil {
			b.Fatal(err)
		}
	}
}
