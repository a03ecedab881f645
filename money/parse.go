package money

import (
	"fmt"
	"strconv"
	"strings"
)

// maxText bounds what Parse reads. The longest exact amount has 21 characters; the rest is
// room for zeros and exponents.
const maxText = 400

// Parse reads a decimal number of dollars, such as "30", "-0.0375" or "7.5e-08", exactly.
// It returns [ErrSyntax] for anything else (spaces, currency signs, NaN, Inf, hexadecimal),
// [ErrRange] for an amount that does not fit, and [ErrPrecision] when digits other than 0
// stand below one nano-dollar.
func Parse(text string) (USD, error) {
	amount, exact, err := parse(text)
	if err == nil && !exact {
		err = fmt.Errorf("%w: %q", ErrPrecision, text)
	}
	if err != nil {
		return 0, err
	}
	return amount, nil
}

// ParseRounded is [Parse] for sources that carry more digits than a nano-dollar: it rounds
// to the nearest nano-dollar, half to even, instead of returning [ErrPrecision].
func ParseRounded(text string) (USD, error) {
	amount, _, err := parse(text)
	return amount, err
}

// FromFloat returns the amount that the shortest decimal form of dollars names, rounded to
// the nearest nano-dollar: FromFloat(0.1) is ten cents. It is for foreign formats that have
// nothing but floats. It returns [ErrSyntax] for NaN and infinities and [ErrRange] for an
// amount that does not fit.
func FromFloat(dollars float64) (USD, error) {
	return ParseRounded(strconv.FormatFloat(dollars, 'g', -1, 64))
}

// parse returns the amount rounded half to even, and whether it is exact.
func parse(text string) (amount USD, exact bool, err error) {
	number, err := split(text)
	if err != nil {
		return 0, false, err
	}
	digits := strings.TrimLeft(number.digits, "0")
	if digits == "" {
		return 0, true, nil
	}
	// The value is 0.digits × 10^point dollars; keep is how many digits are whole nano-dollars.
	point := number.point - (len(number.digits) - len(digits))
	keep := point + decimals
	if keep > 19 { // 10^19 nano-dollars are past the range
		return 0, false, fmt.Errorf("%w: %q", ErrRange, text)
	}
	if keep < 0 { // below a tenth of a nano-dollar
		return 0, false, nil
	}
	whole, rest := digits, ""
	if len(digits) > keep {
		whole, rest = digits[:keep], digits[keep:]
	} else {
		whole += strings.Repeat("0", keep-len(digits))
	}
	var abs uint64
	if whole != "" {
		if abs, err = strconv.ParseUint(whole, 10, 64); err != nil {
			return 0, false, fmt.Errorf("%w: %q", ErrRange, text)
		}
	}
	rest = strings.TrimRight(rest, "0")
	half := -1 // what follows the last digit kept, against one half of it
	if rest != "" {
		half = strings.Compare(rest, "5")
	}
	amount, err = signed(number.negative, abs, half)
	if err != nil {
		return 0, false, fmt.Errorf("%w: %q", ErrRange, text)
	}
	return amount, rest == "", nil
}

// decimal is 0.digits × 10^point with a sign.
type decimal struct {
	negative bool
	digits   string
	point    int
}

// split takes a text of the form [sign] digits [. digits] [e [sign] digits] apart.
func split(text string) (decimal, error) {
	syntax := func() (decimal, error) {
		shown := text
		if len(shown) > 40 {
			shown = shown[:40]
		}
		return decimal{}, fmt.Errorf("%w: %q", ErrSyntax, shown)
	}
	if len(text) > maxText {
		return syntax()
	}
	var d decimal
	rest := text
	if rest != "" && (rest[0] == '-' || rest[0] == '+') {
		d.negative = rest[0] == '-'
		rest = rest[1:]
	}
	mantissa, exponent := rest, 0
	if e := strings.IndexAny(rest, "eE"); e >= 0 {
		mantissa = rest[:e]
		digits := strings.TrimPrefix(strings.TrimPrefix(rest[e+1:], "+"), "-")
		if !isDigits(digits) || len(rest[e+1:])-len(digits) > 1 {
			return syntax()
		}
		// An exponent past the range of int16 becomes that range's end: still out of range, or zero.
		n, _ := strconv.ParseInt(rest[e+1:], 10, 16)
		exponent = int(n)
	}
	whole, frac, _ := strings.Cut(mantissa, ".")
	if !isDigits(whole + frac) {
		return syntax()
	}
	d.digits = whole + frac
	d.point = len(whole) + exponent
	return d, nil
}

func isDigits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}
