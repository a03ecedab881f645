package latency_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/latency"
)

// canonical says whether bytes are an encoded histogram, which is what encoding their buckets again
// gives the same bytes, and how many values that has.
func canonical(b []byte) (count uint64, ok bool) {
	pairs, ok := decode(b)
	if !ok || !bytes.Equal(b, encode(pairs...)) {
		return 0, false
	}
	for i, p := range pairs {
		if p.index >= numBuckets || p.count == 0 || p.count > maxCount || i > 0 && p.index <= pairs[i-1].index {
			return 0, false
		}
		count = min(count+p.count, maxCount+1)
	}
	return count, true
}

// FuzzMergeBinary wants canonical bytes to be taken and to be written as they were, and all others to
// change nothing.
func FuzzMergeBinary(f *testing.F) {
	for _, b := range [][]byte{
		nil, {0, 1}, {5}, {5, 0}, {5, 1, 0, 1}, {5, 1, 1, 0x80, 1}, {0x85, 0, 1}, {5, 0x81, 0},
		encode(pair{431, maxCount}), encode(pair{432, 1}), encode(pair{1, maxCount}, pair{2, maxCount}),
		encode(pair{5, 1}, pair{4, 1}), encode(pair{5, maxCount + 1}), encode(pair{1, maxCount - 3}),
		of(0, 1, 31, 32, 33, 500, 500, 1000, latency.Max).AppendBinary(nil),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		input := bytes.Clone(b)
		count, ok := canonical(b)
		for _, start := range []latency.Histogram{of(), of(1, 5, 32, 1000)} {
			h := start.Clone()
			err := h.MergeBinary(b)
			switch {
			case !ok:
				require.ErrorIs(t, err, latency.ErrFormat)
				require.Equal(t, start, h)
			case count > maxCount-uint64(start.Count()):
				require.ErrorIs(t, err, latency.ErrRange)
				require.Equal(t, start, h)
			case start.Count() == 0:
				require.NoError(t, err)
				require.Equal(t, count, uint64(h.Count()))
				require.True(t, bytes.Equal(b, h.AppendBinary(nil)))
			default:
				require.NoError(t, err)
				var other latency.Histogram
				require.NoError(t, other.MergeBinary(b))
				require.NoError(t, other.Merge(start))
				require.Equal(t, other.AppendBinary(nil), h.AppendBinary(nil))
				require.Equal(t, count+uint64(start.Count()), uint64(h.Count()))
			}
		}
		require.True(t, bytes.Equal(input, b))
	})
}
