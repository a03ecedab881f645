// Package money represents amounts of US dollars exactly.
//
// A [USD] counts nano-dollars in an int64 and is used like a [time.Duration]:
//
//	price := 30 * money.Dollar          // 30 USD
//	price, err := money.Parse("0.0375") // 37,500,000 nano-dollars
//
// The range is about ±9.22 billion dollars. Every operation that could leave it, or that
// would have to drop digits, returns an error; nothing wraps around and nothing is a float.
package money

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// USD is an amount of US dollars in nano-dollars (1e-9 USD).
type USD int64

// Common amounts. To count the units in a USD, divide; to make one, multiply: 30 * money.Dollar.
const (
	NanoDollar  USD = 1
	MicroDollar     = 1000 * NanoDollar
	Cent            = 10_000_000 * NanoDollar
	Dollar          = 100 * Cent
)

// The smallest and the largest amount.
const (
	Min USD = math.MinInt64
	Max USD = math.MaxInt64
)

// Errors of this package, for errors.Is.
var (
	// ErrSyntax is returned when a text is not a decimal number.
	ErrSyntax = errors.New("money: not a decimal number")
	// ErrRange is returned when a result does not fit into a USD.
	ErrRange = errors.New("money: amount out of range")
	// ErrPrecision is returned when a text has digits below one nano-dollar.
	ErrPrecision = errors.New("money: more digits than a nano-dollar")
)

const decimals = 9 // digits after the point that a USD holds

// String formats the amount as a plain decimal number of dollars without trailing zeros,
// such as "0.0375" or "-12". [Parse] reads it back to the same amount.
func (u USD) String() string {
	sign, abs := "", uint64(u)
	if u < 0 {
		sign, abs = "-", -uint64(u)
	}
	whole, frac := abs/uint64(Dollar), abs%uint64(Dollar)
	if frac == 0 {
		return sign + strconv.FormatUint(whole, 10)
	}
	digits := strings.TrimRight(fmt.Sprintf("%0*d", decimals, frac), "0")
	return sign + strconv.FormatUint(whole, 10) + "." + digits
}

// Dollars returns the amount as a floating-point number of dollars. It is for charts and
// estimates: above some millions of dollars the last digits are lost.
func (u USD) Dollars() float64 { return float64(u) / float64(Dollar) }

// Sum returns the sum of all amounts, or [ErrRange]. The order does not matter: only the
// final result has to fit. The sum of none is 0.
func Sum(amounts ...USD) (USD, error) {
	var t total
	for _, a := range amounts {
		t.add(1, a)
	}
	return t.usd(1)
}

// Usage is a quantity of units at a rate; see [Cost].
type Usage struct {
	Quantity int64 // in units; not negative
	Rate     USD   // per one million units
}

// Cost returns Σ quantity × rate / 1,000,000: what the usages cost together when rates are
// per million units. The sum is exact and is rounded once, half to even. It returns [ErrRange]
// for a negative quantity, a result that does not fit, or products that do not fit into 128
// bits together.
func Cost(usages ...Usage) (USD, error) {
	var t total
	for _, u := range usages {
		if u.Quantity < 0 {
			return 0, fmt.Errorf("%w: quantity %d is negative", ErrRange, u.Quantity)
		}
		t.add(uint64(u.Quantity), u.Rate)
	}
	return t.usd(1_000_000)
}

// total sums products in 128-bit integers, positive and negative ones apart, so that the sum
// can be divided and rounded once at its end.
type total struct {
	pos, neg wide
}

type wide struct {
	hi, lo   uint64
	overflow bool
}

func (w *wide) add(hi, lo uint64) {
	var carry uint64
	w.lo, carry = bits.Add64(w.lo, lo, 0)
	w.hi, carry = bits.Add64(w.hi, hi, carry)
	w.overflow = w.overflow || carry != 0
}

func (t *total) add(quantity uint64, rate USD) {
	if rate < 0 {
		t.neg.add(bits.Mul64(quantity, -uint64(rate)))
		return
	}
	t.pos.add(bits.Mul64(quantity, uint64(rate)))
}

// usd returns the total divided by div, rounded half to even.
func (t *total) usd(div uint64) (USD, error) {
	if t.pos.overflow || t.neg.overflow {
		return 0, ErrRange
	}
	lo, borrow := bits.Sub64(t.pos.lo, t.neg.lo, 0)
	hi, borrow := bits.Sub64(t.pos.hi, t.neg.hi, borrow)
	negative := borrow != 0
	if negative {
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
	}
	if hi >= div { // the quotient would need more than 64 bits
		return 0, ErrRange
	}
	quo, rem := bits.Div64(hi, lo, div)
	return signed(negative, quo, compareHalf(rem, div))
}

// compareHalf returns -1, 0 or 1 if rem is below, at or above one half of div. An exact result (rem 0) is below.
func compareHalf(rem, div uint64) int {
	rest := div - rem
	switch {
	case rem < rest:
		return -1
	case rem > rest:
		return 1
	default:
		return 0
	}
}

// signed rounds abs half to even, by what followed its last digit, and gives it its sign.
func signed(negative bool, abs uint64, half int) (USD, error) {
	if half > 0 || half == 0 && abs%2 == 1 {
		if abs == math.MaxUint64 {
			return 0, ErrRange
		}
		abs++
	}
	if negative {
		if abs > 1<<63 {
			return 0, ErrRange
		}
		return USD(-abs), nil
	}
	if abs > math.MaxInt64 {
		return 0, ErrRange
	}
	return USD(abs), nil
}
