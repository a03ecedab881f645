package latency_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/jeffersonwarrior/modelscan/internal/latency"
)

func TestMain(m *testing.M) {
	if err := flag.Set("rapid.nofailfile", "true"); err != nil { // a failure tells its seed
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// values draws latencies of all magnitudes, so that some share a bucket.
func values(limit int) *rapid.Generator[[]int64] {
	return rapid.SliceOfN(rapid.OneOf(
		rapid.Int64Range(0, 40),
		rapid.Int64Range(0, latency.Max),
		rapid.Map(rapid.IntRange(0, 29), func(e int) int64 { return 1<<e - 1 }),
	), 0, limit)
}

// TestPropertyMerge divides values into parts and merges those in a random tree: whatever it is, and
// in whichever of the two ways, the result is that of adding all of the values in another order.
func TestPropertyMerge(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(values(60), 1, 8).Draw(t, "parts")
		var all []int64
		var trees []latency.Histogram
		for _, part := range parts {
			all = append(all, part...)
			trees = append(trees, of(part...))
		}
		for len(trees) > 1 {
			i := rapid.IntRange(0, len(trees)-1).Draw(t, "into")
			j := rapid.IntRange(0, len(trees)-2).Draw(t, "from")
			if j >= i {
				j++
			}
			from := trees[j]
			before := from.AppendBinary(nil)
			if rapid.Bool().Draw(t, "binary") {
				require.NoError(t, trees[i].MergeBinary(before))
			} else {
				require.NoError(t, trees[i].Merge(from))
			}
			require.Equal(t, before, from.AppendBinary(nil))
			trees[j] = trees[len(trees)-1]
			trees = trees[:len(trees)-1]
		}
		want := of(rapid.Permutation(all).Draw(t, "order")...)
		require.Equal(t, want.AppendBinary(nil), trees[0].AppendBinary(nil))
		require.Equal(t, int64(len(all)), trees[0].Count())
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		require.Equal(t, want.Quantile(q), trees[0].Quantile(q))
	})
}

// TestPropertyBinary wants the encoding to be that of the counts by bucket, to be read back to the
// same histogram, and to be appended to what is there.
func TestPropertyBinary(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := values(300).Draw(t, "values")
		h := of(all...)
		counts := map[uint64]uint64{}
		for _, v := range all {
			for index := range uint64(numBuckets) {
				if low, high := edges(int(index)); low <= v && v <= high {
					counts[index]++
				}
			}
		}
		var pairs []pair
		for index := range uint64(numBuckets) {
			if counts[index] > 0 {
				pairs = append(pairs, pair{index, counts[index]})
			}
		}
		b := h.AppendBinary(nil)
		require.Equal(t, encode(pairs...), b)
		var back latency.Histogram
		require.NoError(t, back.MergeBinary(b))
		require.Equal(t, b, back.AppendBinary(nil))
		require.Equal(t, h.Count(), back.Count())
		prefix := rapid.SliceOf(rapid.Byte()).Draw(t, "prefix")
		require.Equal(t, append(prefix[:len(prefix):len(prefix)], b...), h.AppendBinary(prefix))
	})
}
