package meter_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
)

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
