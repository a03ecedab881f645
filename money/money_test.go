package money_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/money"
)

func TestUnits(t *testing.T) {
	t.Parallel()

	require.Equal(t, int64(1), int64(money.NanoDollar))
	require.Equal(t, int64(1_000), int64(money.MicroDollar))
	require.Equal(t, int64(10_000_000), int64(money.Cent))
	require.Equal(t, int64(1_000_000_000), int64(money.Dollar))
	require.Equal(t, int64(math.MinInt64), int64(money.Min))
	require.Equal(t, int64(math.MaxInt64), int64(money.Max))
}

// texts are amounts and the one way each is written.
var texts = []struct {
	amount money.USD
	text   string
}{
	{0, "0"},
	{money.NanoDollar, "0.000000001"},
	{-money.NanoDollar, "-0.000000001"},
	{10 * money.NanoDollar, "0.00000001"},
	{money.MicroDollar, "0.000001"},
	{money.Cent, "0.01"},
	{10 * money.Cent, "0.1"},
	{-10 * money.Cent, "-0.1"},
	{37_500_000, "0.0375"},
	{money.Dollar, "1"},
	{money.Dollar - 1, "0.999999999"},
	{money.Dollar + 1, "1.000000001"},
	{-12 * money.Dollar, "-12"},
	{30 * money.Dollar, "30"},
	{100 * money.Dollar, "100"}, // the zeros of whole dollars stay
	{1_234_567_890_123_456_789, "1234567890.123456789"},
	{money.Max, "9223372036.854775807"},
	{money.Max - 7, "9223372036.8547758"},
	{money.Min, "-9223372036.854775808"}, // has no positive counterpart
	{money.Min + 1, "-9223372036.854775807"},
}

func TestString(t *testing.T) {
	t.Parallel()

	for _, tt := range texts {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()

			require.Equal(t, tt.text, tt.amount.String())
			require.Equal(t, tt.text, fmt.Sprint(tt.amount), "prints as dollars, not as nano-dollars")
			back, err := money.Parse(tt.text)
			require.NoError(t, err)
			require.Equal(t, tt.amount, back)
		})
	}
}

func TestDollars(t *testing.T) {
	t.Parallel()

	require.Equal(t, 0.0375, money.USD(37_500_000).Dollars())
	require.Equal(t, -12.5, (-12*money.Dollar - 50*money.Cent).Dollars())
	require.Equal(t, 0.0, money.USD(0).Dollars())
	require.Equal(t, 9223372036.854775807, money.Max.Dollars())
}

func TestSum(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		amounts []money.USD
		want    money.USD
		err     error
	}{
		"OKNone":                {nil, 0, nil},
		"OKOne":                 {[]money.USD{-5}, -5, nil},
		"OKMixedSigns":          {[]money.USD{30 * money.Dollar, -money.Cent, 1}, 29_990_000_001, nil},
		"OKNegative":            {[]money.USD{1, -3}, -2, nil},
		"OKCancelsOut":          {[]money.USD{money.Max, -money.Max}, 0, nil},
		"OKMax":                 {[]money.USD{money.Max - 1, 1}, money.Max, nil},
		"OKMin":                 {[]money.USD{money.Min + 1, -1}, money.Min, nil},
		"OKPastMaxAndBack":      {[]money.USD{money.Max, money.Max, money.Min, money.Min}, -2, nil},
		"OKPastMinAndBack":      {[]money.USD{money.Min, money.Min, money.Max, money.Max, 2}, 0, nil},
		"OKBackToMinFromBelow":  {[]money.USD{money.Min, -1, 1}, money.Min, nil},
		"OKBackToMaxFromAbove":  {[]money.USD{money.Max, 1, -1}, money.Max, nil},
		"ErrRangeAboveMax":      {[]money.USD{money.Max, 1}, 0, money.ErrRange},
		"ErrRangeBelowMin":      {[]money.USD{money.Min, -1}, 0, money.ErrRange},
		"ErrRangePast64Bits":    {[]money.USD{money.Max, money.Max, 2}, 0, money.ErrRange}, // 2^64
		"ErrRangePast64BitsNeg": {[]money.USD{money.Min, money.Min}, 0, money.ErrRange},    // -2^64
		// wraps to a small amount in 64 bits
		"ErrRangeFarPast": {slices.Repeat([]money.USD{money.Max}, 9), 0, money.ErrRange},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			// Only the result has to fit, so no order may fail.
			for range tt.amounts {
				got, err := money.Sum(tt.amounts...)
				require.ErrorIs(t, err, tt.err)
				require.Equal(t, tt.want, got)
				tt.amounts = append(tt.amounts[1:], tt.amounts[0])
			}
			got, err := money.Sum(tt.amounts...)
			require.ErrorIs(t, err, tt.err)
			require.Equal(t, tt.want, got)
		})
	}
}

func TestCost(t *testing.T) {
	t.Parallel()

	const million = 1_000_000
	type usages = []money.Usage
	for name, tt := range map[string]struct {
		usages usages
		want   money.USD
		err    error
	}{
		"OKNone":       {want: 0},
		"OKNoQuantity": {usages: usages{{0, money.Max}}, want: 0},
		"OKFree":       {usages: usages{{math.MaxInt64, 0}}, want: 0},
		"OKExact":      {usages: usages{{150, 30 * money.Dollar}, {80, 60 * money.Dollar}}, want: 9_300_000}, // 0.0093
		"OKOneMillion": {usages: usages{{million, 3 * money.Dollar}}, want: 3 * money.Dollar},
		"OKCredit": {
			usages: usages{{million, -3 * money.Dollar}, {million, money.Dollar}}, want: -2 * money.Dollar,
		},
		"OKLongProduct": {usages: usages{{math.MaxInt64, 7 * million}, {math.MaxInt64, -6 * million}}, want: money.Max},

		// Ties go to the even neighbour, on both sides of zero.
		"OKBelowHalf":    {usages: usages{{1, 499_999}}, want: 0},
		"OKHalfTo0":      {usages: usages{{1, 500_000}}, want: 0},
		"OKAboveHalf":    {usages: usages{{1, 500_001}}, want: 1},
		"OKHalfTo2":      {usages: usages{{1, 1_500_000}}, want: 2},
		"OKHalfTo2Down":  {usages: usages{{1, 2_500_000}}, want: 2},
		"OKNegBelowHalf": {usages: usages{{1, -499_999}}, want: 0},
		"OKNegHalfTo0":   {usages: usages{{1, -500_000}}, want: 0},
		"OKNegAboveHalf": {usages: usages{{1, -500_001}}, want: -1},
		"OKNegHalfTo2":   {usages: usages{{1, -1_500_000}}, want: -2},
		"OKNegHalfTo2Up": {usages: usages{{1, -2_500_000}}, want: -2},

		// Rounded line by line these would be 0, 3 and 0.
		"OKRoundedOnceUp":    {usages: usages{{1, 400_000}, {1, 400_000}, {1, 400_000}}, want: 1},
		"OKRoundedOnceDown":  {usages: usages{{1, 600_000}, {1, 600_000}, {1, 600_000}}, want: 2},
		"OKRoundedOnceSigns": {usages: usages{{1, 1_400_000}, {1, -600_000}}, want: 1},

		"OKMax":         {usages: usages{{million, money.Max}}, want: money.Max},
		"OKMin":         {usages: usages{{million, money.Min}}, want: money.Min},
		"OKRoundsToMax": {usages: usages{{million, money.Max}, {1, 499_999}}, want: money.Max},
		"OKTieToMin":    {usages: usages{{million, money.Min}, {1, -500_000}}, want: money.Min}, // Min is even
		"OKPastMaxAndBack": {
			usages: usages{{math.MaxInt64, money.Max}, {math.MaxInt64, -money.Max}, {million, 5}}, want: 5,
		},

		// Max is odd.
		"ErrRangeTieAboveMax": {usages: usages{{million, money.Max}, {1, 500_000}}, err: money.ErrRange},
		"ErrRangeAboveMax":    {usages: usages{{million, money.Max}, {million, 1}}, err: money.ErrRange},
		"ErrRangeBelowMin":    {usages: usages{{million, money.Min}, {1, -500_001}}, err: money.ErrRange},
		"ErrRangeLargest":     {usages: usages{{math.MaxInt64, money.Max}}, err: money.ErrRange},
		"ErrRangeLowest":      {usages: usages{{math.MaxInt64, money.Min}}, err: money.ErrRange},
		// 2^64 wraps to 0
		"ErrRangePast64Bits": {usages: usages{{2 * million, money.Max}, {million, 2}}, err: money.ErrRange},
		// rounds up to 2^64
		"ErrRangeRoundsTo64": {
			usages: usages{{2 * million, money.Max}, {1_999_999, 1}}, err: money.ErrRange,
		},
		"ErrRangeNegPast64Bits": {usages: usages{{2 * million, money.Min}}, err: money.ErrRange},

		// 2^128 + 8, which wraps to 8 in 128 bits, and the same below zero.
		"ErrRangePast128Bits": {
			usages: append(slices.Repeat(usages{{math.MaxInt64, money.Max}}, 4),
				usages{{math.MaxInt64, 8}, {12, 1}}...),
			want: 0, err: money.ErrRange,
		},
		"ErrRangeNegPast128Bits": {
			usages: append(slices.Repeat(usages{{math.MaxInt64, money.Min}}, 4),
				usages{{math.MaxInt64, -4}, {12, -1}}...),
			want: 0, err: money.ErrRange,
		},

		"ErrRangeNegativeQuantity": {usages: usages{{-1, money.Dollar}}, err: money.ErrRange},
		"ErrRangeNegativeLater": {
			usages: usages{{1, money.Dollar}, {-1, money.Dollar}}, err: money.ErrRange,
		},
		"ErrRangeNegativeFree": {usages: usages{{math.MinInt64, 0}}, err: money.ErrRange},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			got, err := money.Cost(tt.usages...)
			require.ErrorIs(t, err, tt.err)
			require.Equal(t, tt.want, got)

			slices.Reverse(tt.usages)
			got, err = money.Cost(tt.usages...)
			require.ErrorIs(t, err, tt.err)
			require.Equal(t, tt.want, got, "the order does not matter")
		})
	}

	t.Run("ErrNamesTheQuantity", func(t *testing.T) {
		t.Parallel()

		_, err := money.Cost(money.Usage{Quantity: -7, Rate: money.Dollar})
		require.ErrorContains(t, err, "-7")
	})
}
