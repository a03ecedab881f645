package latency_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/latency"
)

const (
	numBuckets = 432
	maxCount   = 9_000_000_000_000_000_000
)

func stored(tb testing.TB, h latency.Histogram) []pair {
	tb.Helper()
	pairs, ok := decode(h.AppendBinary(nil))
	require.True(tb, ok)
	return pairs
}

func of(values ...int64) latency.Histogram {
	var h latency.Histogram
	for _, v := range values {
		h.Add(v)
	}
	return h
}

// edges returns the least and the greatest value of a bucket.
func edges(index int) (low, high int64) {
	if index < 32 {
		return int64(index), int64(index)
	}
	power, part := int64(1)<<(5+(index-32)/16), int64((index-32)%16)
	return power + part*power/16, power + (part+1)*power/16 - 1
}

func TestAdd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		ms       int64
		index    uint64
		quantile int64
	}{
		{name: "OK_least", ms: 0, index: 0, quantile: 0},
		{name: "OK_one", ms: 1, index: 1, quantile: 1},
		{name: "OK_last_exact", ms: 31, index: 31, quantile: 31},
		{name: "OK_first_pair", ms: 32, index: 32, quantile: 32},
		{name: "OK_its_other", ms: 33, index: 32, quantile: 32},
		{name: "OK_second_pair", ms: 34, index: 33, quantile: 34},
		{name: "OK_last_pair", ms: 63, index: 47, quantile: 62},
		{name: "OK_first_four", ms: 64, index: 48, quantile: 65},
		{name: "OK_second", ms: 1000, index: 32 + 4*16 + 15, quantile: 1007},
		{name: "OK_power", ms: 1024, index: 32 + 5*16, quantile: 1055},
		{name: "OK_below_a_power", ms: 1023, index: 32 + 4*16 + 15, quantile: 1007},
		{name: "OK_hour", ms: 3_600_000, index: 32 + 16*16 + 11, quantile: 3_604_479},
		{name: "OK_longest", ms: latency.Max, index: 418, quantile: latency.Max},
		{name: "Clamped_negative", ms: -1, index: 0, quantile: 0},
		{name: "Clamped_most_negative", ms: math.MinInt64, index: 0, quantile: 0},
		{name: "Clamped_above", ms: latency.Max + 1, index: 418, quantile: latency.Max},
		{name: "Clamped_far_above", ms: math.MaxInt64, index: 418, quantile: latency.Max},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := of(tt.ms)
			require.Equal(t, []pair{{tt.index, 1}}, stored(t, h))
			require.Equal(t, int64(1), h.Count())
			require.Equal(t, tt.quantile, h.Quantile(0.5))
		})
	}
	t.Run("OK_full_stays", func(t *testing.T) {
		t.Parallel()
		h := from(t, pair{3, maxCount})
		h.Add(3)
		h.Add(4)
		require.Equal(t, []pair{{3, maxCount}}, stored(t, h))
		require.Equal(t, int64(maxCount), h.Count())
	})
	t.Run("OK_order_does_not_matter", func(t *testing.T) {
		t.Parallel()
		up, down := of(1, 50, 50, 700, 90_000), of(90_000, 50, 700, 1, 50)
		require.Equal(t, up.AppendBinary(nil), down.AppendBinary(nil))
	})
}

// TestBuckets looks at the edges of every bucket: between them the error is smaller.
func TestBuckets(t *testing.T) {
	t.Parallel()
	next := int64(0)
	for index := range numBuckets {
		low, high := edges(index)
		require.Equal(t, next, low, "bucket %d", index)
		next = high + 1
		told := from(t, pair{uint64(index), 1})
		if low > latency.Max { // no value is counted there
			require.Equal(t, int64(latency.Max), told.Quantile(1))
			continue
		}
		for _, v := range []int64{low, min(high, latency.Max)} {
			h := of(v)
			require.Equal(t, []pair{{uint64(index), 1}}, stored(t, h), "%d ms", v)
			got := h.Quantile(1)
			require.Equal(t, told.Quantile(1), got, "%d ms", v)
			requireNear(t, v, got)
		}
	}
	require.Equal(t, int64(1)<<30, next)
}

// requireNear wants what is told of a value to be the value below 32 ms, and less than 1/32 away above.
func requireNear(tb testing.TB, v, got int64) {
	tb.Helper()
	if v < 32 {
		require.Equal(tb, v, got)
		return
	}
	require.Less(tb, max(v-got, got-v)*32, v, "%d ms told as %d", v, got)
	require.LessOrEqual(tb, got, int64(latency.Max))
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		h    latency.Histogram
		q    float64
		want int64
	}{
		{name: "OK_empty", h: of(), q: 0.5, want: 0},
		{name: "OK_empty_greatest", h: of(), q: 1, want: 0},
		{name: "OK_one", h: of(7), q: 0.99, want: 7},
		{name: "OK_least", h: of(3, 1, 2), q: 0, want: 1},
		{name: "OK_greatest", h: of(3, 1, 2), q: 1, want: 3},
		{name: "OK_lower_median", h: of(1, 2, 3, 4), q: 0.5, want: 2},
		{name: "OK_median", h: of(1, 2, 3, 4, 5), q: 0.5, want: 3},
		{name: "OK_just_above_a_rank", h: of(1, 2, 3, 4), q: 0.5001, want: 3},
		{name: "OK_heavy_bucket", h: of(1, 9, 9, 9, 9, 9, 9, 9, 9, 30), q: 0.9, want: 9},
		{name: "OK_tiny", h: of(1, 2), q: math.SmallestNonzeroFloat64, want: 1},
		{name: "Clamped_negative", h: of(1, 2), q: -0.5, want: 1},
		{name: "Clamped_minus_infinity", h: of(1, 2), q: math.Inf(-1), want: 1},
		{name: "Clamped_above", h: of(1, 2), q: 1.5, want: 2},
		{name: "Clamped_infinity", h: of(1, 2), q: math.Inf(1), want: 2},
		{name: "OK_not_a_number", h: of(1, 2), q: math.NaN(), want: 0},
		{name: "OK_last_of_most", h: from(t, pair{1, maxCount - 1}, pair{2, 1}), q: 1, want: 2},
		{name: "OK_below_last_of_most", h: from(t, pair{1, maxCount / 2}, pair{2, maxCount / 2}), q: 0.51, want: 2},
		{name: "OK_nearly_all_of_most", h: from(t, pair{1, maxCount}), q: math.Nextafter(1, 0), want: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, tt.h.Quantile(tt.q))
		})
	}
}

// TestQuantileRank wants the rank in the arithmetic of whole numbers, ⌈p×n/1000⌉, of every per mille,
// though hardly one of them is exact as a float.
func TestQuantileRank(t *testing.T) {
	t.Parallel()
	t.Run("OK_few", func(t *testing.T) {
		t.Parallel()
		var h latency.Histogram
		var told []int64 // by rank, from 1, a bucket each
		for n := range int64(400) {
			low, _ := edges(int(n))
			h.Add(low)
			one := of(low)
			told = append(told, one.Quantile(1))
			for p := range int64(1001) {
				want := told[max(1, (p*(n+1)+999)/1000)-1]
				if got := h.Quantile(float64(p) / 1000); got != want {
					require.Equal(t, want, got, "%d ‰ of %d", p, n+1)
				}
			}
		}
	})
	t.Run("OK_many", func(t *testing.T) {
		t.Parallel()
		for _, n := range []uint64{1_000, 1_000_000, 1_000_000_007, 999_999_999_999} {
			for p := uint64(2); p < 1000; p++ { // the rank is neither the first nor the last
				rank := (p*n + 999) / 1000
				require.Equal(
					t, int64(1), from(t, pair{1, rank}, pair{2, n - rank}).Quantile(float64(p)/1000), "%d ‰ of %d", p,
					n,
				)
				require.Equal(
					t, int64(2), from(t, pair{1, rank - 1}, pair{2, n - rank + 1}).Quantile(float64(p)/1000),
					"%d ‰ of %d", p, n,
				)
			}
		}
	})
}

// TestQuantileError compares with the quantiles of the values themselves.
func TestQuantileError(t *testing.T) {
	t.Parallel()
	for name, draw := range map[string]func(random *rand.Rand) int64{
		"OK_uniform":   func(random *rand.Rand) int64 { return random.Int64N(latency.Max + 1) },
		"OK_short":     func(random *rand.Rand) int64 { return random.Int64N(200) },
		"OK_magnitude": func(random *rand.Rand) int64 { return int64(math.Exp2(random.Float64() * 29.17)) },
		"OK_requests": func(random *rand.Rand) int64 {
			return min(int64(math.Exp(7+1.15*random.NormFloat64())), latency.Max)
		},
		"OK_two_peaks": func(random *rand.Rand) int64 { return 120 + random.Int64N(30) + 30_000*random.Int64N(2) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(3, 4))
			for range 40 {
				values := make([]int64, 1+random.IntN(3000))
				for i := range values {
					values[i] = draw(random)
				}
				h := of(values...)
				require.Equal(t, int64(len(values)), h.Count())
				slices.Sort(values)
				for p := 0; p <= 1000; p++ {
					rank := max(1, (p*len(values)+999)/1000)
					requireNear(t, values[rank-1], h.Quantile(float64(p)/1000))
				}
			}
		})
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		a, b latency.Histogram
		want []pair
	}{
		{name: "OK_both_empty", a: of(), b: of()},
		{name: "OK_into_empty", a: of(), b: of(1, 2, 2), want: []pair{{1, 1}, {2, 2}}},
		{name: "OK_empty", a: of(1, 2, 2), b: of(), want: []pair{{1, 1}, {2, 2}}},
		{name: "OK_same", a: of(1, 2), b: of(1, 2), want: []pair{{1, 2}, {2, 2}}},
		{name: "OK_between", a: of(1, 5), b: of(3, 5), want: []pair{{1, 1}, {3, 1}, {5, 2}}},
		{name: "OK_before", a: of(5), b: of(1, 2), want: []pair{{1, 1}, {2, 1}, {5, 1}}},
		{name: "OK_after", a: of(1), b: of(1, 5, 9), want: []pair{{1, 2}, {5, 1}, {9, 1}}},
		{
			name: "OK_in_turns", a: of(0, 2, 4, 6), b: of(1, 3, 4, 7),
			want: []pair{{0, 1}, {1, 1}, {2, 1}, {3, 1}, {4, 2}, {6, 1}, {7, 1}},
		},
		{
			name: "OK_as_many_as_fit", a: from(t, pair{1, maxCount - 2}), b: of(1, 5),
			want: []pair{{1, maxCount - 1}, {5, 1}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			before := tt.b.AppendBinary(nil)
			merged, binary := tt.a.Clone(), tt.a.Clone()
			require.NoError(t, merged.Merge(tt.b))
			require.Equal(t, tt.want, stored(t, merged))
			require.NoError(t, binary.MergeBinary(before))
			require.Equal(t, merged, binary)
			require.Equal(t, tt.a.Count()+tt.b.Count(), merged.Count())
			require.Equal(t, before, tt.b.AppendBinary(nil))
		})
	}
	t.Run("OK_itself", func(t *testing.T) {
		t.Parallel()
		h := of(1, 40, 40)
		require.NoError(t, h.Merge(h))
		require.Equal(t, []pair{{1, 2}, {36, 4}}, stored(t, h))
		require.Equal(t, int64(6), h.Count())
	})
}

func TestMergeRange(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		a, b latency.Histogram
	}{
		{"Err_one_bucket", from(t, pair{1, maxCount}), of(1)},
		{"Err_two_buckets", from(t, pair{1, maxCount}), of(2)},
		{"Err_by_one", from(t, pair{1, 5}, pair{2, maxCount - 5 - 2}), of(1, 2, 3)},
		{"Err_two_full_ones", from(t, pair{1, maxCount}), from(t, pair{1, maxCount})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			before := tt.a.Clone()
			require.ErrorIs(t, tt.a.Merge(tt.b), latency.ErrRange)
			require.Equal(t, before, tt.a)
			require.ErrorIs(t, tt.a.MergeBinary(tt.b.AppendBinary(nil)), latency.ErrRange)
			require.Equal(t, before, tt.a)
		})
	}
	t.Run("Err_too_many_by_themselves", func(t *testing.T) {
		t.Parallel()
		all := make([]pair, numBuckets)
		for i := range all {
			all[i] = pair{uint64(i), maxCount}
		}
		for _, n := range []int{2, 3, numBuckets} {
			h := of(1)
			require.ErrorIs(t, h.MergeBinary(encode(all[:n]...)), latency.ErrRange)
			require.Equal(t, of(1), h)
		}
	})
}

// TestNothingIsShared changes each of two histograms that come of one another and looks at the other.
func TestNothingIsShared(t *testing.T) {
	t.Parallel()
	original := of(1, 500, 500)
	want := original.AppendBinary(nil)
	clone := original.Clone()
	var merged latency.Histogram
	require.NoError(t, merged.Merge(original))
	for _, other := range []*latency.Histogram{&clone, &merged} {
		for _, v := range []int64{1, 500, 0, 90_000} { // in both, and in one of them alone
			other.Add(v)
			require.Equal(t, want, original.AppendBinary(nil))
		}
		require.NoError(t, other.Merge(original))
		require.Equal(t, want, original.AppendBinary(nil))
	}
	want = clone.AppendBinary(nil)
	original.Add(1)
	original.Add(700)
	require.Equal(t, want, clone.AppendBinary(nil))
	require.Equal(t, want, merged.AppendBinary(nil))
}
