package latency_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jeffersonwarrior/modelscan/internal/latency"
)

// drawn returns latencies around a second, as requests have them.
func drawn(n int) []int64 {
	random := rand.New(rand.NewPCG(1, 2))
	values := make([]int64, n)
	for i := range values {
		values[i] = int64(math.Exp(7 + 1.15*random.NormFloat64()))
	}
	return values
}

// BenchmarkMergeBinary merges what periods of 2,500 requests have stored, each of 150 buckets, into
// a histogram that has all of the buckets already, and into an empty one.
func BenchmarkMergeBinary(b *testing.B) {
	const requests = 2500
	values := drawn(256 * requests)
	var blobs [][]byte
	var full latency.Histogram
	var used int
	for len(values) > 0 {
		var h latency.Histogram
		for _, v := range values[:requests] {
			h.Add(v)
		}
		values = values[requests:]
		blobs = append(blobs, h.AppendBinary(nil))
		used += len(stored(b, h))
	}
	for index := range numBuckets {
		low, _ := edges(index)
		full.Add(low)
	}
	b.Run("full", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if err := full.MergeBinary(blobs[i%len(blobs)]); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(used)/float64(len(blobs)), "buckets/op")
	})
	b.Run("empty", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			var h latency.Histogram
			if err := h.MergeBinary(blobs[i%len(blobs)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	values := drawn(4096)
	var h latency.Histogram
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		h.Add(values[i%len(values)])
	}
}

func BenchmarkQuantile(b *testing.B) {
	var h latency.Histogram
	for _, v := range drawn(100_000) {
		h.Add(v)
	}
	b.ReportAllocs()
	for b.Loop() {
		h.Quantile(0.99)
	}
}
