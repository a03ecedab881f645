// Package latency counts how long requests took, in whole milliseconds, so that counts of many periods
// can be merged and asked for quantiles afterwards.
//
// Every [Histogram] has the same buckets, and merging is exact: in any order and any grouping, the same values give the
// same histogram and the same bytes. A value below 32 ms has a bucket of its own; above that, each power of two is
// divided into 16 buckets of equal width. The middle of a bucket stands for its values, and is less than 1/32 (3.2 %)
// away from each.
package latency

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"slices"
)

// Max is the longest latency, in milliseconds: 7 days.
const Max = 7 * 24 * 60 * 60 * 1000

// Errors of this package, for errors.Is.
var (
	// ErrRange is returned when a histogram would hold more than 9e18 values, or less than none.
	ErrRange = errors.New("too many latencies, or too few")
	// ErrFormat is returned for bytes that are no histogram, or one in another form than the canonical.
	ErrFormat = errors.New("not an encoded histogram of latencies")
)

const (
	exact      = 32  // values, from 0, that have a bucket of their own
	parts      = 16  // buckets of each power of two above those
	numBuckets = 432 // for values below 2^30; that of Max is number 418
	maxCount   = 9_000_000_000_000_000_000
)

// Histogram counts values by bucket. Its zero value is empty and ready for use. Only buckets that are
// not empty take space: 16 bytes each.
//
// It is used like a slice: a copy shares its buckets with the original, so that adding to or merging
// into either spoils the other. Before that, [Histogram.Clone] it. It may be read, but not changed, by
// several goroutines at once.
type Histogram struct {
	buckets []bucket // by index, none of them empty
	count   int64    // the sum of their counts, at most maxCount, so that no sum of them overflows
}

type bucket struct {
	index uint16
	count int64
}

// indexOf returns the bucket of a value between 0 and Max.
func indexOf(ms int64) uint16 {
	if ms < exact {
		return uint16(ms)
	}
	e := bits.Len64(uint64(ms)) - 1
	return uint16(exact + (e-5)*parts + int(ms>>(e-4))&(parts-1))
}

// middle returns the value that a bucket stands for: the middle of its values, the lower one of two.
func middle(index uint16) int64 {
	if index < exact {
		return int64(index)
	}
	shift := (index-exact)/parts + 1
	width := int64(1) << shift
	return (parts+int64(index-exact)%parts)*width + (width-1)/2
}

// Add counts one value, in milliseconds. Callers have checked it: one below 0 is counted as 0, one
// above [Max] as Max. A histogram that holds 9e18 values, which merging alone can bring about, stays as it is.
func (h *Histogram) Add(ms int64) {
	if h.count == maxCount {
		return
	}
	index := indexOf(min(max(ms, 0), Max))
	at, end := 0, len(h.buckets)
	for at < end {
		if mid := int(uint(at+end) / 2); h.buckets[mid].index < index {
			at = mid + 1
		} else {
			end = mid
		}
	}
	if at == len(h.buckets) || h.buckets[at].index != index {
		h.buckets = slices.Insert(h.buckets, at, bucket{index: index})
	}
	h.buckets[at].count++
	h.count++
}

// Merge adds the values of another histogram, which stays as it is. It returns [ErrRange], and changes
// nothing, if they are too many together.
func (h *Histogram) Merge(o Histogram) error {
	return h.merge(o.buckets, o.count)
}

// MergeBinary adds the values of a histogram that [Histogram.AppendBinary] has encoded. It changes
// nothing when it returns an error: [ErrFormat] for any other bytes, [ErrRange] if the values are too many.
func (h *Histogram) MergeBinary(b []byte) error {
	var space [numBuckets]bucket // on the stack
	n, count, ok := decode(b, &space)
	if !ok {
		return ErrFormat
	}
	return h.merge(space[:n], count)
}

// merge adds buckets, which ascend, and their count.
func (h *Histogram) merge(from []bucket, count int64) error {
	if count > maxCount-h.count {
		return ErrRange
	}
	h.count += count
	missing, at := 0, 0
	for _, b := range from {
		for at < len(h.buckets) && h.buckets[at].index < b.index {
			at++
		}
		if at < len(h.buckets) && h.buckets[at].index == b.index {
			h.buckets[at].count += b.count
		} else {
			missing++
		}
	}
	h.insert(from, missing)
	return nil
}

// insert puts in those buckets, missing in number, whose index is not there yet. It works from the end,
// so that each of the present ones moves once.
func (h *Histogram) insert(from []bucket, missing int) {
	last := len(h.buckets) - 1
	h.buckets = slices.Grow(h.buckets, missing)[:len(h.buckets)+missing]
	for n := len(from) - 1; missing > 0; n-- {
		for last >= 0 && h.buckets[last].index > from[n].index {
			h.buckets[last+missing] = h.buckets[last]
			last--
		}
		if last < 0 || h.buckets[last].index != from[n].index {
			h.buckets[last+missing] = from[n]
			missing--
		}
	}
}

// Subtract takes the values of another histogram away. It returns [ErrRange], and changes nothing, unless all of
// them are there.
func (h *Histogram) Subtract(o Histogram) error {
	rest, at := make([]bucket, 0, len(h.buckets)), 0
	for _, b := range h.buckets {
		if at < len(o.buckets) && o.buckets[at].index == b.index {
			b.count -= o.buckets[at].count
			at++
		}
		switch {
		case b.count < 0:
			return ErrRange
		case b.count > 0:
			rest = append(rest, b)
		}
	}
	if at < len(o.buckets) {
		return ErrRange
	}
	h.buckets, h.count = rest, h.count-o.count
	return nil
}

// decode reads buckets and returns their number and their count, which is above maxCount if they
// hold more together; ok is false unless the bytes are canonical.
func decode(b []byte, into *[numBuckets]bucket) (n int, count int64, ok bool) {
	var index, sum uint64
	for len(b) > 0 {
		delta, c, size := uint64(b[0]), uint64(0), 2
		if len(b) >= 2 && b[0]|b[1] < 0x80 { // as most are
			c = uint64(b[1])
		} else {
			delta, c, size = pair(b)
		}
		if delta == 0 && n > 0 || delta >= numBuckets-index || c == 0 || c > maxCount {
			return 0, 0, false
		}
		b = b[size:]
		index += delta
		into[n] = bucket{index: uint16(index), count: int64(c)}
		n++
		sum = min(sum+c, maxCount+1) // which does not overflow
	}
	return n, int64(sum), true
}

// pair reads two numbers in their shortest forms. The second is 0 unless there are two.
func pair(b []byte) (first, second uint64, size int) {
	first, n := uvarint(b)
	second, m := uvarint(b[n:])
	return first, second, n + m
}

// uvarint reads a number in its shortest form. Both are 0 if the input has no number.
func uvarint(b []byte) (v uint64, size int) {
	v, size = binary.Uvarint(b)
	if size <= 0 || size > 1 && b[size-1] == 0 {
		return 0, 0
	}
	return v, size
}

// AppendBinary appends the histogram's encoding to b. An empty histogram has none; otherwise there are,
// for each bucket that is not empty, from the lowest to the highest, two numbers as in
// [binary.AppendUvarint]: how far its index is above that of the bucket before, or above 0, and its count.
func (h Histogram) AppendBinary(b []byte) []byte {
	var before uint16
	b = slices.Grow(b, 4*len(h.buckets)) // most are shorter
	for _, c := range h.buckets {
		b = binary.AppendUvarint(b, uint64(c.index-before))
		b = binary.AppendUvarint(b, uint64(c.count))
		before = c.index
	}
	return b
}

// Count returns the number of values.
func (h Histogram) Count() int64 { return h.count }

// Clone returns a copy that shares nothing with the original.
func (h Histogram) Clone() Histogram {
	h.buckets = slices.Clone(h.buckets)
	return h
}

// Quantile returns, in milliseconds, the value by nearest rank that a part q of the values does not
// exceed: 0.5 asks for the median, 0 for the least value and 1 for the greatest. It is less than 1/32
// away from that value, and exact below 32 ms. A q below 0 counts as 0 and one above 1 as 1. The
// result is 0 when there are no values or q is not a number.
func (h Histogram) Quantile(q float64) int64 {
	if math.IsNaN(q) {
		return 0
	}
	rest := rank(q, h.count)
	for _, b := range h.buckets {
		if rest -= b.count; rest <= 0 {
			return min(middle(b.index), Max) // Max is in the lower half of its bucket
		}
	}
	return 0
}

// rank returns ⌈q×n⌉, between 1 and n. A product that is a whole number but for the rounding of floats
// is that number: 0.07×100 is 7.000000000000001, and its rank 7.
func rank(q float64, n int64) int64 {
	if q >= 1 {
		return n
	}
	product := max(q, 0) * float64(n)
	return max(int64(math.Ceil(product-product*0x1p-52)), 1)
}
