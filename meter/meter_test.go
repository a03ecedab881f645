package meter_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

func TestNames(t *testing.T) {
	t.Parallel()

	// The names are stored in databases, so they are spelled out here.
	require.Equal(t, []string{"input", "output", "cache_read", "cache_write", "reasoning"}, meter.Names())

	t.Run("IsTheCallersOwn", func(t *testing.T) {
		t.Parallel()

		names := meter.Names()
		names[0] = "changed"
		require.Equal(t, meter.Input, meter.Names()[0])
	})
}

func TestKnown(t *testing.T) {
	t.Parallel()

	for _, name := range meter.Names() {
		require.True(t, meter.Known(name), name)
	}
	for _, name := range []string{"", "Input", "input ", "images", "cacheread", "cache_"} {
		require.False(t, meter.Known(name), "%q", name)
	}
}

func TestTokensValidate(t *testing.T) {
	t.Parallel()

	t.Run("OK", func(t *testing.T) {
		t.Parallel()

		require.NoError(t, meter.Tokens{}.Validate())
		require.NoError(t, meter.Tokens{
			InputTokens:      meter.MaxTokens,
			OutputTokens:     meter.MaxTokens,
			CacheReadTokens:  meter.MaxTokens,
			CacheWriteTokens: meter.MaxTokens,
			ReasoningTokens:  meter.MaxTokens,
		}.Validate())
	})

	for _, name := range meter.Names() {
		for _, bad := range []int64{-1, math.MinInt64, meter.MaxTokens + 1, math.MaxInt64} {
			t.Run(fmt.Sprintf("Err/%s/%d", name, bad), func(t *testing.T) {
				t.Parallel()

				err := tokens(t, map[string]int64{name: bad}).Validate()
				require.ErrorContains(t, err, fmt.Sprintf("%s tokens %d", name, bad))
				for _, other := range meter.Names() {
					if other != name {
						require.NotContains(t, err.Error(), other+" tokens")
					}
				}
			})
		}
	}

	t.Run("ErrNamesEveryFault", func(t *testing.T) {
		t.Parallel()

		err := meter.Tokens{
			InputTokens:      -1,
			OutputTokens:     meter.MaxTokens + 1,
			CacheReadTokens:  -3,
			CacheWriteTokens: 4,
			ReasoningTokens:  math.MinInt64,
		}.Validate()
		require.ErrorContains(t, err, "input tokens -1")
		require.ErrorContains(t, err, "output tokens 1000000000001")
		require.ErrorContains(t, err, "cache_read tokens -3")
		require.ErrorContains(t, err, "reasoning tokens -9223372036854775808")
		require.NotContains(t, err.Error(), "cache_write", "it is no fault")
	})
}

func TestTokensTotal(t *testing.T) {
	t.Parallel()

	const most = math.MaxInt64
	for name, tt := range map[string]struct {
		tokens       meter.Tokens
		input, total int64
	}{
		"OKNone": {input: 0, total: 0},
		// Powers of two: each subset has a sum of its own.
		"OKEach": {
			tokens: meter.Tokens{InputTokens: 1, OutputTokens: 2, CacheReadTokens: 4, CacheWriteTokens: 8,
				ReasoningTokens: 16},
			input: 13, total: 31,
		},
		"OKJustFits": {
			tokens: meter.Tokens{InputTokens: most - 3, OutputTokens: 1, CacheReadTokens: 1, ReasoningTokens: 1},
			input:  most - 2, total: most,
		},
		"OKLargestOfARequest": {
			tokens: meter.Tokens{InputTokens: meter.MaxTokens, OutputTokens: meter.MaxTokens}, input: meter.MaxTokens,
			total: 2 * meter.MaxTokens,
		},
		"OKOutputIsNotInput": {tokens: meter.Tokens{OutputTokens: 5, ReasoningTokens: 6}, input: 0, total: 11},
		"OKEveryInputIsSent": {
			tokens: meter.Tokens{InputTokens: 5, CacheReadTokens: 6, CacheWriteTokens: 7}, input: 18, total: 18,
		},
		"OKReasoningIsCounted": {tokens: meter.Tokens{ReasoningTokens: 6}, input: 0, total: 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			require.Equal(t, tt.input, tt.tokens.TotalInput())
			require.Equal(t, tt.total, tt.tokens.Total())
		})
	}
}

const million = 1_000_000

// eachMeter has some of each meter.
var eachMeter = meter.Tokens{
	InputTokens:      1 * million,
	OutputTokens:     10 * million,
	CacheReadTokens:  100 * million,
	CacheWriteTokens: 1_000 * million,
	ReasoningTokens:  10_000 * million,
}

// costs are tokens, their rates and what they cost.
var costs = map[string]struct {
	tokens meter.Tokens
	rates  money.Rates
	want   money.USD
	err    error
}{
	"OKExact": {
		tokens: meter.Tokens{InputTokens: 150, OutputTokens: 80},
		rates:  money.Rates{"input": 30 * money.Dollar, "output": 60 * money.Dollar},
		want:   9_300_000, // 0.0093
	},
	"OKEveryMeterHasItsRate": {
		tokens: eachMeter,
		rates:  money.Rates{"input": 5, "output": 4, "cache_read": 3, "cache_write": 2, "reasoning": 1},
		want:   1*5 + 10*4 + 100*3 + 1_000*2 + 10_000*1,
	},
	"OKCachesFallBackToInputAndReasoningToOutput": {
		tokens: eachMeter, rates: money.Rates{"input": 3, "output": 7}, want: (1+100+1_000)*3 + (10+10_000)*7,
	},
	"OKCacheReadFallsBackAlone": {
		tokens: eachMeter, rates: money.Rates{"input": 3, "output": 7, "cache_write": 2, "reasoning": 1},
		want: (1+100)*3 + 10*7 + 1_000*2 + 10_000*1,
	},
	"OKCacheWriteDoesNotFallBackToCacheRead": {
		tokens: meter.Tokens{CacheWriteTokens: million}, rates: money.Rates{"input": 3, "cache_read": 2}, want: 3,
	},
	"OKReasoningFallsBackAlone": {
		tokens: meter.Tokens{ReasoningTokens: million}, rates: money.Rates{"output": 7}, want: 7,
	},
	"OKAFreeRateIsNoMissingOne": {
		// A fallback would charge these.
		tokens: meter.Tokens{CacheReadTokens: million, ReasoningTokens: million},
		rates:  money.Rates{"input": 3, "output": 7, "cache_read": 0, "reasoning": 0},
		want:   0,
	},
	"OKFree":              {tokens: eachMeter, rates: money.Rates{"input": 0, "output": 0}, want: 0},
	"OKNoTokens":          {rates: money.Rates{"input": 3}, want: 0},
	"OKUnusedNeedsNoRate": {tokens: meter.Tokens{InputTokens: million}, rates: money.Rates{"input": 3}, want: 3},
	"OKOtherRatesIgnored": {
		tokens: meter.Tokens{InputTokens: million}, rates: money.Rates{"input": 3, "images": 1000}, want: 3,
	},
	"OKRoundedOnce": {
		tokens: meter.Tokens{InputTokens: 1, OutputTokens: 1, CacheReadTokens: 1},
		rates:  money.Rates{"input": 400_000, "output": 400_000}, want: 1,
	},
	"OKHalfToEven":     {tokens: meter.Tokens{InputTokens: 5}, rates: money.Rates{"input": 500_000}, want: 2},
	"OKBelowHalfANano": {tokens: meter.Tokens{InputTokens: 1}, rates: money.Rates{"input": 499_999}, want: 0},
	"OKLargestRequest": {
		tokens: meter.Tokens{InputTokens: meter.MaxTokens}, rates: money.Rates{"input": 9_223 * money.Dollar},
		want: 9_223_000_000 * money.Dollar,
	},
	"OKExactPastAFloat": {
		tokens: meter.Tokens{InputTokens: meter.MaxTokens, OutputTokens: million},
		rates:  money.Rates{"input": 9_223 * money.Dollar, "output": 1}, want: 9_223_000_000*money.Dollar + 1,
	},
	"ErrUnpricedNil":      {tokens: meter.Tokens{InputTokens: 1}, want: 0, err: meter.ErrUnpriced},
	"ErrUnpricedNoTokens": {want: 0, err: meter.ErrUnpriced},
	"ErrUnpricedEmpty":    {rates: money.Rates{}, want: 0, err: meter.ErrUnpriced},
	"ErrUnpricedInput": {
		tokens: meter.Tokens{InputTokens: 1}, rates: money.Rates{"output": 3}, want: 0, err: meter.ErrUnpriced,
	},
	"ErrUnpricedOutput": {
		tokens: meter.Tokens{OutputTokens: 1}, rates: money.Rates{"input": 3}, want: 0, err: meter.ErrUnpriced,
	},
	"ErrUnpricedCacheRead": {
		tokens: meter.Tokens{CacheReadTokens: 1}, rates: money.Rates{"output": 3, "cache_write": 1}, want: 0,
		err: meter.ErrUnpriced,
	},
	"ErrUnpricedWrite": {
		tokens: meter.Tokens{CacheWriteTokens: 1}, rates: money.Rates{"output": 3, "cache_read": 1}, want: 0,
		err: meter.ErrUnpriced,
	},
	"ErrUnpricedReasoning": {
		tokens: meter.Tokens{ReasoningTokens: 1}, rates: money.Rates{"input": 3}, want: 0, err: meter.ErrUnpriced,
	},
	"ErrUnpricedOneOfTwo": {
		tokens: meter.Tokens{InputTokens: 1, OutputTokens: 1}, rates: money.Rates{"input": 3}, want: 0,
		err: meter.ErrUnpriced,
	},
	// The fallback goes one way: reasoning's or a cache's rate prices nothing else.
	"ErrUnpricedNoWayBack": {
		tokens: meter.Tokens{InputTokens: 1}, rates: money.Rates{"cache_read": 1, "cache_write": 1, "reasoning": 1},
		want: 0, err: meter.ErrUnpriced,
	},
	// No rate has an empty name, so it must not stand in for one.
	"ErrUnpricedEmptyName": {
		tokens: meter.Tokens{InputTokens: million}, rates: money.Rates{"": 3}, want: 0, err: meter.ErrUnpriced,
	},

	"ErrRange": {
		tokens: meter.Tokens{InputTokens: meter.MaxTokens}, rates: money.Rates{"input": 9_224 * money.Dollar},
		want: 0, err: money.ErrRange,
	},
	"ErrRangeOfASum": {
		tokens: meter.Tokens{InputTokens: million, OutputTokens: million},
		rates:  money.Rates{"input": money.Max, "output": 1}, want: 0, err: money.ErrRange,
	},
	"ErrRangeLargest": {
		tokens: meter.Tokens{InputTokens: math.MaxInt64, ReasoningTokens: math.MaxInt64},
		rates:  money.Rates{"input": money.Max, "output": money.Max}, want: 0, err: money.ErrRange,
	},
	"ErrRangeNegative": {
		tokens: meter.Tokens{InputTokens: -1}, rates: money.Rates{"input": 3}, want: 0, err: money.ErrRange,
	},
	"ErrRangeNegativeFree": {
		tokens: meter.Tokens{InputTokens: 5, ReasoningTokens: -1}, rates: money.Rates{"input": 0, "output": 0},
		want: 0, err: money.ErrRange,
	},
}

func TestTokensCost(t *testing.T) {
	t.Parallel()

	for name, tt := range costs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			got, err := tt.tokens.Cost(tt.rates)
			require.ErrorIs(t, err, tt.err)
			require.Equal(t, tt.want, got)
		})
	}

	t.Run("ErrUnpricedNamesTheMeter", func(t *testing.T) {
		t.Parallel()

		_, err := meter.Tokens{CacheWriteTokens: 1}.Cost(money.Rates{"output": 3})
		require.ErrorContains(t, err, meter.CacheWrite)
	})
}

// tokens returns Tokens with the quantities named by meter.
func tokens(t *testing.T, quantities map[string]int64) meter.Tokens {
	t.Helper()

	var got meter.Tokens
	for name, n := range quantities {
		switch name {
		case meter.Input:
			got.InputTokens = n
		case meter.Output:
			got.OutputTokens = n
		case meter.CacheRead:
			got.CacheReadTokens = n
		case meter.CacheWrite:
			got.CacheWriteTokens = n
		case meter.Reasoning:
			got.ReasoningTokens = n
		default:
			require.Fail(t, "no such meter", name)
		}
	}
	return got
}
