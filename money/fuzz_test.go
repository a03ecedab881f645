package money_test

import (
	"encoding/json"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/money"
)

var (
	// big.Rat reads more than this: fractions, underscores, hexadecimal and binary exponents.
	grammar = regexp.MustCompile(`^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?$`)
	// written is the one form of an amount: no leading and no trailing zeros.
	written = regexp.MustCompile(`^(?:0|-?[1-9][0-9]*|-?(?:0|[1-9][0-9]*)\.[0-9]{0,8}[1-9])$`)
)

const longest = 400 // characters that Parse reads

// refParse is Parse and ParseRounded in the arithmetic of math/big: the rounded amount, whether
// it is exact, and nil, ErrSyntax or ErrRange.
func refParse(text string) (amount money.USD, exact bool, err error) {
	match := grammar.FindStringSubmatchIndex(text)
	if match == nil || len(text) > longest {
		return 0, false, money.ErrSyntax
	}
	if match[2] >= 0 {
		// big.Rat would spend gigabytes on a huge exponent. Against at most 400 digits, one of
		// ±2000 is as good as infinite: out of range or far below a nano, or zero in any case.
		exponent, ok := new(big.Int).SetString(text[match[2]:match[3]], 10)
		if !ok {
			return 0, false, money.ErrSyntax
		}
		if limit := big.NewInt(2000); exponent.CmpAbs(limit) > 0 {
			if exponent.Sign() < 0 {
				limit.Neg(limit)
			}
			exponent = limit
		}
		text = text[:match[2]] + exponent.String()
	}
	value, ok := new(big.Rat).SetString(text)
	if !ok {
		return 0, false, money.ErrSyntax
	}
	value.Mul(value, big.NewRat(int64(money.Dollar), 1))
	nanos := refRound(value)
	if !nanos.IsInt64() {
		return 0, false, money.ErrRange
	}
	return money.USD(nanos.Int64()), value.IsInt(), nil
}

// refRound rounds half to even, by floor(value + 1/2) and a step back from odd ties.
func refRound(value *big.Rat) *big.Int {
	shifted := new(big.Rat).Add(value, big.NewRat(1, 2))
	floor := new(big.Int).Div(shifted.Num(), shifted.Denom()) // Euclidean: floor for a positive divisor
	if shifted.IsInt() && floor.Bit(0) == 1 {
		floor.Sub(floor, big.NewInt(1))
	}
	return floor
}

func FuzzParse(f *testing.F) {
	for _, tt := range texts {
		f.Add(tt.text)
	}
	for _, text := range []string{
		"", " 1", "1 ", "$1", "0x1", "0x1p-2", "0b11", "0o7", "1p3", "NaN", "Inf", "-Inf", ".", "-", "+", "1_000",
		"1/3",
		"1e", "1e+", "1e+-5", "1e-+5", "1e--5", "1e1e1", ".e1", "1..2", "5.", ".5", "+5", "-0", "00.10", "١",
		"7.5e-08", "1E+3", "1e999999999999", "-1e999999999999999999999", "1e-999999999999", "0e99999", "1e32767",
		"1e-32768",
		"0.0000000005", "0.00000000050000001", "0.0000000015", "-0.0000000025", "1e-10", "9e-11", "5e-10", "15e-10",
		"9223372036.854775808", "9223372036.8547758075", "9223372036.85477580749", "-9223372036.854775809",
		"-9223372036.8547758085", "-9223372036.85477580850001", "18446744073.709551616", "10000000000", "1e19",
		strings.Repeat("0", longest-1) + "1", strings.Repeat("0", longest) + "1", strings.Repeat("9", longest),
		"0." + strings.Repeat("0", 300) + "1e301", strings.Repeat("9", 300) + "e-300",
		"1e" + strings.Repeat("0", 300) + "1",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want, exact, wantErr := refParse(text)

		got, err := money.ParseRounded(text)
		require.ErrorIs(t, err, wantErr)
		require.Equal(t, want, got)

		if wantErr == nil && !exact {
			want, wantErr = 0, money.ErrPrecision
		}
		got, err = money.Parse(text)
		require.ErrorIs(t, err, wantErr)
		require.Equal(t, want, got)
	})
}

func FuzzFromFloat(f *testing.F) {
	for _, dollars := range []float64{
		0, 0.1, -0.1, 0.39999999999999997, 7.5e-08, 2.5e-9, 3.5e-9, 1e-9, 1e9, 9223372036.854774, 9223372036.854776,
		1e300, 5e-324, math.NaN(), math.Inf(1), math.Inf(-1),
	} {
		f.Add(dollars)
	}
	f.Fuzz(func(t *testing.T, dollars float64) {
		got, err := money.FromFloat(dollars)
		if math.IsNaN(dollars) || math.IsInf(dollars, 0) {
			require.ErrorIs(t, err, money.ErrSyntax)
			return
		}
		if err != nil {
			require.ErrorIs(t, err, money.ErrRange)
			require.GreaterOrEqual(t, math.Abs(dollars), 9223372036.854775)
			return
		}
		// The shortest form is within half a step of the float, so the amount is within half a
		// nano and half a step of the float's exact value.
		exact := new(big.Rat).SetFloat64(dollars)
		exact.Mul(exact, big.NewRat(int64(money.Dollar), 1))
		step := new(big.Rat).SetFloat64(math.Nextafter(math.Abs(dollars), math.Inf(1)) - math.Abs(dollars))
		step.Mul(step, big.NewRat(int64(money.Dollar), 2))
		bound := step.Add(step, big.NewRat(1, 2))
		off := exact.Sub(exact, new(big.Rat).SetInt64(int64(got)))
		require.LessOrEqual(t, off.Abs(off).Cmp(bound), 0, "%v became %s", dollars, got)
	})
}

// refCost is Cost in the arithmetic of math/big. Each side of the sum has 128 bits.
func refCost(usages []money.Usage) (money.USD, error) {
	total, pos, neg := new(big.Int), new(big.Int), new(big.Int)
	for _, u := range usages {
		if u.Quantity < 0 {
			return 0, money.ErrRange
		}
		line := new(big.Int).Mul(big.NewInt(u.Quantity), big.NewInt(int64(u.Rate)))
		total.Add(total, line)
		if line.Sign() < 0 {
			neg.Add(neg, line)
		} else {
			pos.Add(pos, line)
		}
	}
	cost := refRound(new(big.Rat).SetFrac(total, big.NewInt(1_000_000)))
	if pos.BitLen() > 128 || neg.BitLen() > 128 || !cost.IsInt64() {
		return 0, money.ErrRange
	}
	return money.USD(cost.Int64()), nil
}

func FuzzCost(f *testing.F) {
	const (
		million = 1_000_000
		dollar  = int64(money.Dollar)
		minimum = int64(money.Min)
		maximum = int64(money.Max)
	)
	for _, seed := range []struct {
		q1, r1, q2, r2, q3, r3 int64
		times                  uint8
	}{
		{times: 1},
		{q1: 150, r1: 30 * dollar, q2: 80, r2: 60 * dollar, times: 1},
		{q1: 1, r1: 499_999, times: 1},
		{q1: 1, r1: 500_000, times: 1},
		{q1: 1, r1: 500_001, times: 1},
		{q1: 1, r1: 1_500_000, times: 1},
		{q1: 1, r1: -500_000, times: 1},
		{q1: 1, r1: -1_500_000, times: 1},
		{q1: 1, r1: 400_000, times: 3},
		{q1: million, r1: maximum, times: 1},
		{q1: million, r1: minimum, times: 1},
		{q1: million, r1: maximum, q2: 1, r2: 500_000, times: 1},
		{q1: million, r1: minimum, q2: 1, r2: -500_001, times: 1},
		{q1: 2 * million, r1: maximum, q2: million, r2: 2, times: 1},
		{q1: 2 * million, r1: maximum, q2: 1_999_999, r2: 1, times: 1},
		{q1: math.MaxInt64, r1: maximum, q2: math.MaxInt64, r2: -maximum, q3: million, r3: 5, times: 1},
		{q1: math.MaxInt64, r1: maximum, q2: math.MaxInt64, r2: -maximum, q3: million, r3: 5, times: 4},
		{q1: math.MaxInt64, r1: maximum, q2: math.MaxInt64, r2: -maximum, q3: million, r3: 5, times: 5},
		{q1: math.MaxInt64, r1: 7 * million, q2: math.MaxInt64, r2: -6 * million, times: 1},
		{q1: -1, r1: dollar, times: 1},
		{q1: 1, r1: dollar, q2: math.MinInt64, times: 1},
	} {
		f.Add(seed.q1, seed.r1, seed.q2, seed.r2, seed.q3, seed.r3, seed.times)
	}
	f.Fuzz(func(t *testing.T, q1, r1, q2, r2, q3, r3 int64, times uint8) {
		usages := slices.Repeat([]money.Usage{
			{Quantity: q1, Rate: money.USD(r1)},
			{Quantity: q2, Rate: money.USD(r2)},
			{Quantity: q3, Rate: money.USD(r3)},
		}, int(times))
		want, wantErr := refCost(usages)

		got, err := money.Cost(usages...)
		require.ErrorIs(t, err, wantErr)
		require.Equal(t, want, got)

		slices.Reverse(usages)
		got, err = money.Cost(usages...)
		require.ErrorIs(t, err, wantErr)
		require.Equal(t, want, got, "the order does not matter")
	})
}

func FuzzRoundTrip(f *testing.F) {
	for _, tt := range texts {
		f.Add(int64(tt.amount))
	}
	f.Fuzz(func(t *testing.T, nanos int64) {
		amount := money.USD(nanos)
		text := amount.String()
		require.Regexp(t, written, text)

		back, err := money.Parse(text)
		require.NoError(t, err)
		require.Equal(t, amount, back)

		data, err := json.Marshal(amount)
		require.NoError(t, err)
		require.Equal(t, text, string(data))
		for _, data := range [][]byte{data, []byte(`"` + text + `"`)} {
			back = 0
			require.NoError(t, json.Unmarshal(data, &back))
			require.Equal(t, amount, back)
		}

		plain, err := amount.MarshalText()
		require.NoError(t, err)
		back = 0
		require.NoError(t, back.UnmarshalText(plain))
		require.Equal(t, amount, back)

		data, err = json.Marshal(money.Rates{"input": amount})
		require.NoError(t, err)
		var rates money.Rates
		require.NoError(t, json.Unmarshal(data, &rates))
		require.Equal(t, money.Rates{"input": amount}, rates)
	})
}
