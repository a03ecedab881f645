package latency_test

import (
	"fmt"

	"github.com/jeffersonwarrior/modelscan/internal/latency"
)

func Example() {
	// Two periods are recorded and stored apart.
	var morning, evening latency.Histogram
	for ms := range int64(900) {
		morning.Add(ms)
	}
	for range 100 {
		evening.Add(30_000)
	}
	stored := [][]byte{morning.AppendBinary(nil), evening.AppendBinary(nil)}

	// A report merges them. Above 31 ms it tells the middle of a bucket: the median is 499 ms.
	var day latency.Histogram
	for _, b := range stored {
		if err := day.MergeBinary(b); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(day.Count(), "requests")
	fmt.Println("median", day.Quantile(0.5), "ms")
	fmt.Println("95 %  ", day.Quantile(0.95), "ms")
	// Output:
	// 1000 requests
	// median 503 ms
	// 95 %   30207 ms
}
