package ledger

import (
	"cmp"
	"math/bits"
	"slices"
)

// Allot divides a total, which is not negative, in proportion to weights: each share is rounded down, and what is left
// goes to the largest fractions, one each; of equal ones to the first. Nothing is allotted if all weights are zero.
func Allot(total int64, weights []int64) []int64 {
	shares, fractions := make([]int64, len(weights)), make([]uint64, len(weights))
	var high, low uint64 // of the sum of the weights
	for _, w := range weights {
		var carry uint64
		low, carry = bits.Add64(low, uint64(w), 0) //nolint:gosec // an amount
		high += carry
	}
	if low == 0 || high > 0 { // sums of amounts overflow only if the ledger is damaged
		return shares
	}
	left := total
	order := make([]int, len(weights))
	for i, w := range weights {
		order[i] = i
		over, under := bits.Mul64(uint64(total), uint64(w)) //nolint:gosec // amounts
		share, fraction := bits.Div64(over, under, low)
		shares[i], fractions[i] = int64(share), fraction //nolint:gosec // at most the total
		left -= shares[i]
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(fractions[b], fractions[a]) })
	for _, i := range order[:left] {
		shares[i]++
	}
	return shares
}
