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
