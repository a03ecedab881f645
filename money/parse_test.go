package money_test

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/money"
)

// parsed are texts, and what they say.
var parsed = []struct {
	name string
	text string
	want money.USD
}{
	{"OKWhole", "30", 30 * money.Dollar},
	{"OKFraction", "0.0375", 37_500_000},
	{"OKNineDecimals", "1234567890.123456789", 1_234_567_890_123_456_789},
	{"OKNoDigitBeforePoint", ".5", 50 * money.Cent},
	{"OKNoDigitAfterPoint", "5.", 5 * money.Dollar},
	{"OKMinus", "-0.0375", -37_500_000},
	{"OKPlus", "+2", 2 * money.Dollar},
	{"OKZero", "0", 0},
	{"OKMinusZero", "-0", 0},
	{"OKManyZeros", "-000.000", 0},
	{"OKLeadingZeros", "0007.50", 7_500_000_000},
	{"OKLeadingZerosPastTheRange", strings.Repeat("0", 300) + "1", money.Dollar},
	{"OKTrailingZerosBelowANano", "0.0000000010000000", 1},
	{"OKTenthOfACent", "0.001", 1_000_000},

	{"OKExponent", "7.5e-08", 75},
	{"OKExponentUpper", "1E+3", 1000 * money.Dollar},
	{"OKExponentZero", "1e0", money.Dollar},
	{"OKExponentMinusZero", "1e-0", money.Dollar},
	{"OKExponentLeadingZeros", "1e" + strings.Repeat("0", 100) + "2", 100 * money.Dollar},
	{"OKExponentOfAFraction", ".0075e+4", 75 * money.Dollar},
	{"OKExponentToANano", "1e-9", 1},
	{"OKExponentUndoesZeros", "0." + strings.Repeat("0", 99) + "1e100", money.Dollar},
	{"OKExponentUndoesDigits", "1" + strings.Repeat("0", 100) + "e-100", money.Dollar},
	{"OKExponentPast64Bits", "0e999999999999999999999", 0},
	{"OKExponentPast64BitsNegative", "0e-999999999999999999999", 0},

	{"OKMax", "9223372036.854775807", money.Max},
	{"OKMin", "-9223372036.854775808", money.Min},
	{"OKMaxInNanos", "9223372036854775807e-9", money.Max},
	{"OKMinInNanos", "-9223372036854775808E-09", money.Min},
	{"OKLongest", strings.Repeat("0", 398) + ".1", 10 * money.Cent}, // 400 characters
}

func TestParse(t *testing.T) {
	t.Parallel()

	for _, tt := range parsed {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got, err := money.Parse(tt.text)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)

			// An exact text means the same to the function that rounds.
			got, err = money.ParseRounded(tt.text)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

func TestParseErrSyntax(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		text string
	}{
		{"Empty", ""},
		{"SpaceBefore", " 1"},
		{"SpaceAfter", "1 "},
		{"SpaceWithin", "1 000"},
		{"NewlineAfter", "1\n"},
		{"Null", "null"},
		{"NUL", "1\x00"},
		{"Currency", "$1"},
		{"CurrencyName", "1USD"},
		{"Hexadecimal", "0x1"},
		{"Octal", "0o7"},
		{"HexadecimalExponent", "0x1p-2"},
		{"BinaryExponent", "1p3"},
		{"NaN", "NaN"},
		{"Inf", "Inf"},
		{"MinusInf", "-Inf"},
		{"Infinity", "infinity"},
		{"Underscore", "1_000"},
		{"Comma", "1,000"},
		{"DecimalComma", "0,5"},
		{"Ratio", "1/3"},
		{"OnlyPoint", "."},
		{"OnlySign", "-"},
		{"OnlyPlus", "+"},
		{"SignAndPoint", "-."},
		{"OnlyExponent", "e5"},
		{"PointAndExponent", ".e5"},
		{"TwoPoints", "1.2.3"},
		{"PointTwice", "1..2"},
		{"TwoSigns", "--1"},
		{"MixedSigns", "+-1"},
		{"SignWithin", "1-2"},
		{"SignAfterPoint", "1.-2"},
		{"NoExponent", "1e"},
		{"NoExponentDigits", "1e+"},
		{"ExponentTwoSigns", "1e+-5"},
		{"ExponentTwoSignsSwapped", "1e-+5"},
		{"ExponentSameSignTwice", "1e--5"},
		{"ExponentPlusTwice", "1e++5"},
		{"ExponentFraction", "1e0.5"},
		{"ExponentTwice", "1e2e3"},
		{"ExponentSpace", "1e 5"},
		{"ArabicDigits", "١٢"}, // digits in Unicode, but not here
		{"FullWidthDigits", "１"},
		{"InvalidUTF8", "\xff"},
		{"TooLong", strings.Repeat("0", 399) + ".1"}, // 401 characters, though it is ten cents
		{"MuchTooLong", strings.Repeat("9", 1<<20)},
	} {
		t.Run("ErrSyntax"+tt.name, func(t *testing.T) {
			t.Parallel()

			for _, parse := range parsers {
				got, err := parse(tt.text)
				require.ErrorIs(t, err, money.ErrSyntax)
				require.Zero(t, got)
				require.Less(t, len(err.Error()), 250, "a long text is not repeated whole")
			}
		})
	}
}

func TestParseErrRange(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		text string
	}{
		{"NanoAboveMax", "9223372036.854775808"},
		{"NanoBelowMin", "-9223372036.854775809"},
		{"DollarAboveMax", "9223372037"},
		{"20Digits", "18446744073.709551616"}, // 2^64 nano-dollars wraps to 0
		{"TenBillion", "10000000000"},
		{"Exponent", "1e10"},
		{"HugeExponent", "1e999999999999"},
		{"HugeExponentNegativeAmount", "-1E+999999999999999999999999999999"},
		{"HugeExponentOfATinyNumber", "0." + strings.Repeat("0", 300) + "1e40000"},
		{"ManyDigits", strings.Repeat("9", 400)},
		// The range is checked on the rounded amount, and Max is odd.
		{"TieAboveMax", "9223372036.8547758075"},
	} {
		t.Run("ErrRange"+tt.name, func(t *testing.T) {
			t.Parallel()

			for _, parse := range parsers {
				got, err := parse(tt.text)
				require.ErrorIs(t, err, money.ErrRange)
				require.Zero(t, got)
			}
		})
	}
}

var parsers = []func(string) (money.USD, error){money.Parse, money.ParseRounded}

func TestParseRounded(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		text string
		want money.USD
	}{
		{"DigitBelowANano", "0.0000000011", 1},
		{"BelowHalf", "0.00000000049999", 0},
		{"TieTo0", "0.0000000005", 0},
		{"TieTo0TrailingZeros", "0.000000000500000", 0},
		{"AboveHalf", "0.00000000050000001", 1},
		{"TieTo2", "0.0000000015", 2},
		{"TieTo2Down", "0.0000000025", 2},
		{"TieTo4", "0.0000000035", 4},
		{"AboveTie", "0.00000000250000000000000000001", 3},
		{"CarriesOver", "0.9999999999", money.Dollar},
		{"TieWithExponent", "2.5e-9", 2},
		{"ManyDigits", "0." + strings.Repeat("3", 390), 333_333_333},
		{"TenthOfANano", "1e-10", 0},
		{"HundredthOfANano", "9e-11", 0}, // not a tie, though it begins with a digit above 5
		{"JustBelowATenth", "0.000000000099999999", 0},
		{"TinyExponent", "9e-999999999999", 0},
		{"TinyExponentOfManyDigits", strings.Repeat("9", 300) + "e-40000", 0},

		{"NegativeBelowHalf", "-0.00000000049999", 0},
		{"NegativeTieTo0", "-0.0000000005", 0},
		{"NegativeAboveHalf", "-0.00000000051", -1},
		{"NegativeTieTo2", "-0.0000000015", -2},
		{"NegativeTieTo2Up", "-0.0000000025", -2},
		{"NegativeCarriesOver", "-0.9999999999", -money.Dollar},

		{"DownToMax", "9223372036.85477580749999", money.Max},
		{"UpToMax", "9223372036.8547758065", money.Max - 1}, // the even one
		{"UpToMin", "-9223372036.85477580849999", money.Min},
		{"TieToMin", "-9223372036.8547758085", money.Min}, // Min is even
	} {
		t.Run("OK"+tt.name, func(t *testing.T) {
			t.Parallel()

			got, err := money.ParseRounded(tt.text)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
		t.Run("ErrPrecision"+tt.name, func(t *testing.T) {
			t.Parallel()

			// Every one of them drops digits, which Parse must not do.
			got, err := money.Parse(tt.text)
			require.ErrorIs(t, err, money.ErrPrecision)
			require.Zero(t, got)
		})
	}

	t.Run("ErrRangeBelowMin", func(t *testing.T) {
		t.Parallel()

		_, err := money.ParseRounded("-9223372036.85477580850001")
		require.ErrorIs(t, err, money.ErrRange)
	})
}

func TestFromFloat(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name    string
		dollars float64
		want    money.USD
	}{
		{"Zero", 0, 0},
		{"MinusZero", math.Copysign(0, -1), 0},
		{"TenCents", 0.1, 10 * money.Cent}, // the float is a little more than 0.1
		{"Whole", 30, 30 * money.Dollar},
		{"Negative", -0.0375, -37_500_000},
		{"PerToken", 7.5e-08, 75},
		{"Nano", 1e-9, 1},
		{"FloatNoise", 0.39999999999999997, 40 * money.Cent},
		{"FloatNoiseAbove", 0.30000000000000004, 30 * money.Cent}, // 0.1 + 0.2 in floats
		{"TieTo2", 2.5e-9, 2},
		{"TieTo4", 3.5e-9, 4},
		{"NegativeTie", -2.5e-9, -2},
		{"Subnormal", math.SmallestNonzeroFloat64, 0},
		{"Large", 9e9, 9_000_000_000 * money.Dollar},
		{"Largest", math.Nextafter(9223372036.854775807, 0), 9_223_372_036_854_774_000},
	} {
		t.Run("OK"+tt.name, func(t *testing.T) {
			t.Parallel()

			got, err := money.FromFloat(tt.dollars)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}

	for _, tt := range []struct {
		name    string
		dollars float64
		err     error
	}{
		{"ErrSyntaxNaN", math.NaN(), money.ErrSyntax},
		{"ErrSyntaxInf", math.Inf(1), money.ErrSyntax},
		{"ErrSyntaxMinusInf", math.Inf(-1), money.ErrSyntax},
		{"ErrRange", 1e10, money.ErrRange},
		{"ErrRangeNegative", -1e10, money.ErrRange},
		{"ErrRangeLargestFloat", math.MaxFloat64, money.ErrRange},
		{"ErrRangeJustAboveMax", 9223372036.854776, money.ErrRange},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got, err := money.FromFloat(tt.dollars)
			require.ErrorIs(t, err, tt.err)
			require.Zero(t, got)
		})
	}
}
