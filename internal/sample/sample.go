// Package sample says how much of a long test a run takes, so that all tests together take minutes. Chance chooses the
// part, so other runs take the rest.
package sample

import (
	"math/rand/v2"
	"os"
	"testing"
)

// Whole is the environment variable that has long tests run whole, if it is not empty.
const Whole = "MODELSCAN_TEST_WHOLE"

// Of returns how many of n steps to take, at least one: a fifth, or all with [Whole]. It is a twelfth with -short, and
// with the race detector, which finds nothing in the one goroutine of such a test.
func Of(n int) int {
	switch {
	case os.Getenv(Whole) != "":
		return n
	case Race || testing.Short():
		return max(1, n/12)
	}
	return max(1, n/5)
}

// Chance reports whether to take one of many steps, so that about [Of] of them are taken.
func Chance() bool {
	const many = 1200
	return rand.IntN(many) < Of(many) //nolint:gosec // not for secrets
}

// OneGoroutine is for a test of one goroutine. With the race detector, which finds nothing in it, a run takes a quarter
// of such tests.
func OneGoroutine(tb testing.TB) {
	tb.Helper()
	if Race && rand.IntN(4) > 0 { //nolint:gosec // not for secrets
		tb.Skip("race detector: one goroutine, and a run takes a quarter of such tests")
	}
}
