package latency_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/latency"
)

// pair is a bucket as it is encoded, with its index instead of the distance.
type pair struct{ index, count uint64 }

func encode(pairs ...pair) []byte {
	var b []byte
	var before uint64
	for _, p := range pairs {
		b = binary.AppendUvarint(b, p.index-before)
		b = binary.AppendUvarint(b, p.count)
		before = p.index
	}
	return b
}

// decode reads buckets whatever their numbers and however long these are written; ok is false when
// that is not possible.
func decode(b []byte) (pairs []pair, ok bool) {
	var index uint64
	for len(b) > 0 {
		delta, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, false
		}
		count, m := binary.Uvarint(b[n:])
		if m <= 0 {
			return nil, false
		}
		b = b[n+m:]
		index += delta
		pairs = append(pairs, pair{index, count})
	}
	return pairs, true
}

func from(tb testing.TB, pairs ...pair) latency.Histogram {
	tb.Helper()
	var h latency.Histogram
	require.NoError(tb, h.MergeBinary(encode(pairs...)))
	return h
}

func TestMergeBinaryFormat(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"OK_empty", nil, true},
		{"OK_first_bucket", []byte{0, 1}, true},
		{"OK_long_count", []byte{5, 0x80, 1}, true},
		{"OK_last_bucket", encode(pair{431, 1}), true},
		{"OK_largest_count", encode(pair{431, maxCount}), true},
		{"Err_no_count", []byte{5}, false},
		{"Err_trailing_byte", []byte{5, 1, 3}, false},
		{"Err_zero_count", []byte{5, 0}, false},
		{"Err_zero_count_later", []byte{5, 1, 1, 0}, false},
		{"Err_same_bucket", []byte{5, 1, 0, 1}, false},
		{"Err_bucket_too_high", encode(pair{432, 1}), false},
		{"Err_later_bucket_too_high", encode(pair{431, 1}, pair{432, 1}), false},
		{"Err_bucket_wraps", encode(pair{5, 1}, pair{4, 1}), false},
		{"Err_count_too_large", encode(pair{5, maxCount + 1}), false},
		{"Err_count_of_64_bits", encode(pair{5, math.MaxUint64}), false},
		{"Err_count_beyond_64_bits", append([]byte{5}, append(bytes.Repeat([]byte{0xff}, 9), 2)...), false},
		{"Err_long_index", []byte{0x85, 0, 1}, false},
		{"Err_long_small_count", []byte{5, 0x81, 0}, false},
		{"Err_long_zero_count", []byte{5, 0x80, 0}, false},
		{"Err_unfinished_index", []byte{0x85}, false},
		{"Err_unfinished_count", []byte{5, 0x80}, false},
		{"Err_endless_count", append([]byte{5}, bytes.Repeat([]byte{0x80}, 20)...), false},
		{"Err_before_too_many", encode(pair{1, maxCount}, pair{2, maxCount}, pair{3, 0}), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var h latency.Histogram
			if tt.ok {
				require.NoError(t, h.MergeBinary(tt.b))
				require.Equal(t, tt.b, h.AppendBinary(nil))
				return
			}
			require.ErrorIs(t, h.MergeBinary(tt.b), latency.ErrFormat)
			require.Equal(t, latency.Histogram{}, h)
			h = of(1, 5, 90)
			require.ErrorIs(t, h.MergeBinary(tt.b), latency.ErrFormat)
			require.Equal(t, of(1, 5, 90), h)
		})
	}
}

func TestAppendBinary(t *testing.T) {
	t.Parallel()
	require.Empty(t, of().AppendBinary(nil))
	h := of(latency.Max, 3, 64, 3)
	want := []byte{
		3, 2, // 3 ms twice
		48 - 3, 1, // 64 ms
		0x80 | (418-48)&0x7f, (418 - 48) >> 7, 1, // 7 days
	}
	require.Equal(t, want, h.AppendBinary(nil))
	require.Equal(t, append([]byte("before"), want...), h.AppendBinary([]byte("before")))
}

// TestMergeBinaryAllocates is not parallel, because it counts what the whole program allocates.
func TestMergeBinaryAllocates(t *testing.T) {
	h := of(1, 5, 500, 90_000)
	b := h.AppendBinary(nil)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if err := h.MergeBinary(b); err != nil {
			t.Error(err)
		}
	}))
}
