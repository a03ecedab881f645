package meter_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
)

// seeds are bodies of every kind, and some that are spoilt.
func seeds(f *testing.F) [][]byte {
	f.Helper()

	bodies := [][]byte{
		nil, []byte("data: [DONE]"), []byte("\uFEFF{}"), []byte("[]"), []byte("[{}"),
		[]byte(`[{"usageMetadata":{"promptTokenCount":1}}`),
		[]byte("data: {\"usage\":\r\ndata: {\"inputTokens\":5,\r\rdata:\n\n\"outputTokens\":7}}"),
		[]byte(`{"usage":{"prompt_tokens":1e3,"completion_tokens":-0}}`), []byte(`{"usage":[1]}`),
		[]byte(`{"type":"message","usage":{"input_tokens":1000000000000,"output_tokens":1,` +
			`"iterations":[{"type":"compaction","input_tokens":1000000000000,"output_tokens":1}]}}`),
	}
	for _, tt := range fixtures {
		body := fixture(f, tt.file)
		bodies = append(bodies, body, body[:len(body)/2], bytes.ReplaceAll(body, []byte("\n"), []byte("\r\n")))
	}
	return bodies
}

// FuzzExtract wants tokens that are valid, none along with an error other than ErrPartial, and
// no other error than the ones documented.
func FuzzExtract(f *testing.F) {
	for _, body := range seeds(f) {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		for _, format := range allFormats {
			tokens, err := meter.Extract(format, body)
			require.NoError(t, tokens.Validate())
			require.LessOrEqual(t, tokens.Total(), int64(5*meter.MaxTokens))
			switch {
			case err == nil, errors.Is(err, meter.ErrPartial):
			case errors.Is(err, meter.ErrNoUsage), errors.Is(err, meter.ErrBadUsage):
				require.Zero(t, tokens)
			default:
				require.NoError(t, err)
			}
		}
		require.Equal(t, before, body)
	})
}

// FuzzStream wants of a Stream what Extract returns, however the body is split and however
// often the tokens are asked for.
func FuzzStream(f *testing.F) {
	for n, body := range seeds(f) {
		f.Add(body, uint16(n*37), uint8(n))
	}
	f.Fuzz(func(t *testing.T, body []byte, at uint16, step uint8) {
		for _, format := range allFormats {
			want, wantErr := meter.Extract(format, body)
			for _, split := range []func(n int) int{
				func(int) int { return int(at) },
				func(int) int { return int(step) },
				func(n int) int { return n*int(step)%17 + 1 },
			} {
				stream := meter.NewStream(format)
				for n, rest := 0, bytes.Clone(body); len(rest) > 0; n++ {
					size := max(1, min(len(rest), split(n)))
					_, err := stream.Write(rest[:size])
					require.NoError(t, err)
					clear(rest[:size])
					rest = rest[size:]
					if n%7 == 3 {
						_, _ = stream.Tokens()
					}
				}
				got, err := stream.Tokens()
				require.Equal(t, want, got)
				require.Equal(t, wantErr, err)
			}
		}
	})
}
