package catalog_test

import (
	"strings"
	"testing"

	"charm.land/catwalk/pkg/catwalk"
	"charm.land/catwalk/pkg/embedded"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// catwalkRates are the rates of models, each an example of how Catwalk writes them.
var catwalkRates = []struct {
	name, provider, model string
	want                  rates // nil: not known
}{
	// 5, 25, 6.25, 0.5
	{
		name: "Convention", provider: "anthropic", model: "claude-opus-5",
		want: rates{"input": "5", "output": "25", "cache_write": "6.25", "cache_read": "0.5"},
	},
	{
		name: "ConventionOfVertex", provider: "vertexai", model: "claude-haiku-4-5-20251001",
		want: rates{"input": "1", "output": "5", "cache_write": "1.25", "cache_read": "0.1"},
	},
	{
		name: "ConventionOfOpenAI", provider: "openai", model: "gpt-5.6-terra",
		want: rates{"input": "2.5", "output": "15", "cache_write": "3.125", "cache_read": "0.25"},
	},
	// 5, 25, 0.5, 6.25
	{
		name: "Swapped", provider: "opencode-zen", model: "claude-opus-5",
		want: rates{"input": "5", "output": "25", "cache_write": "6.25", "cache_read": "0.5"},
	},
	{
		name: "SwappedHaiku", provider: "opencode-zen", model: "claude-haiku-4-5",
		want: rates{"input": "1", "output": "5", "cache_write": "1.25", "cache_read": "0.1"},
	},
	{
		name: "SwappedMiniMax", provider: "minimax", model: "MiniMax-M2.7",
		want: rates{"input": "0.3", "output": "1.2", "cache_write": "0.375", "cache_read": "0.06"},
	},
	// 0.6, 2.4, 0.06, 0.375: swapped, and the write is below the input.
	{
		name: "SwappedBelowInput", provider: "minimax", model: "MiniMax-M2.7-highspeed",
		want: rates{"input": "0.6", "output": "2.4", "cache_write": "0.375", "cache_read": "0.06"},
	},
	// 0.14, 0.28, 0.0028, 0
	{
		name: "ReadInInCachedOnly", provider: "deepseek", model: "deepseek-v4-flash",
		want: rates{"input": "0.14", "output": "0.28", "cache_read": "0.0028"},
	},
	{
		name: "ReadInInCachedOnlyPro", provider: "deepseek", model: "deepseek-v4-pro",
		want: rates{"input": "0.435", "output": "0.87", "cache_read": "0.003625"},
	},
	{
		name: "ReadInInCachedOnlyOpenAI", provider: "openai", model: "gpt-5.5",
		want: rates{"input": "5", "output": "30", "cache_read": "0.5"},
	},
	// 2, 8, 0, 0.5
	{
		name: "ReadInOutCachedOnly", provider: "openai", model: "o3",
		want: rates{"input": "2", "output": "8", "cache_read": "0.5"},
	},
	{
		name: "ReadInOutCachedOnlyGemini", provider: "gemini", model: "gemini-2.5-pro",
		want: rates{"input": "1.25", "output": "10", "cache_read": "0.125"},
	},
	// 1.25, 10, 0.25, 0.25
	{
		name: "BothEqual", provider: "azure", model: "gpt-5",
		want: rates{"input": "1.25", "output": "10", "cache_read": "0.25"},
	},
	{
		name: "BothEqualNano", provider: "openai", model: "gpt-5-nano",
		want: rates{"input": "0.05", "output": "0.4", "cache_read": "0.005"},
	},
	// 0.56, 2.5, 0.56, 2.5
	{
		name: "CopiesOfInputAndOutput", provider: "qiniucloud", model: "z-ai/glm-5",
		want: rates{"input": "0.56", "output": "2.5"},
	},
	{
		name: "CopiesOfInputAndOutputKimi", provider: "qiniucloud", model: "moonshotai/kimi-k2-thinking",
		want: rates{"input": "0.56", "output": "2.22"},
	},
	// 30, 180, 30, 0
	{
		name: "CopyOfInputOnly", provider: "opencode-zen", model: "gpt-5.5-pro",
		want: rates{"input": "30", "output": "180"},
	},
	// 0.75, 3.75, 0.075, 3.75
	{
		name: "ReadAndCopyOfOutput", provider: "gemini", model: "gemini-3.7-flash",
		want: rates{"input": "0.75", "output": "3.75", "cache_read": "0.075"},
	},
	{
		name: "ReadAndCopyOfOutputLite", provider: "gemini", model: "gemini-3.5-flash-lite",
		want: rates{"input": "0.3", "output": "2.5", "cache_read": "0.03"},
	},
	// 0.3, 2.5, 0.08333, 0.03
	{
		name: "WriteBelowInput", provider: "openrouter", model: "google/gemini-2.5-flash",
		want: rates{"input": "0.3", "output": "2.5", "cache_write": "0.08333", "cache_read": "0.03"},
	},
	{
		name: "WriteBelowInputPro", provider: "openrouter", model: "google/gemini-2.5-pro",
		want: rates{"input": "1.25", "output": "10", "cache_write": "0.375", "cache_read": "0.125"},
	},
	// 1.5, 9, 0.08333, 0.15: the convention, with a read that is dearer than the write. The
	// other providers of the model have a read of 0.15 and no write.
	{
		name: "ReadAboveWrite", provider: "openrouter", model: "google/gemini-3.5-flash",
		want: rates{"input": "1.5", "output": "9", "cache_write": "0.08333", "cache_read": "0.15"},
	},
	{
		name: "ReadAboveWriteToo", provider: "openrouter", model: "google/gemini-3.7-flash",
		want: rates{"input": "0.75", "output": "3.75", "cache_write": "0.04167", "cache_read": "0.075"},
	},
	// 0.3, 1.8, 0.375, 0
	{
		name: "WriteOnly", provider: "openrouter", model: "qwen/qwen3.5-plus-20260420",
		want: rates{"input": "0.3", "output": "1.8", "cache_write": "0.375"},
	},
	// 0.75, 1, 0, 0.75
	{
		name: "ReadAsDearAsInput", provider: "openrouter", model: "google/gemma-4-31b-it",
		want: rates{"input": "0.75", "output": "1"},
	},
	// 30, 180, 0, 0
	{name: "NoCachedPrices", provider: "openai", model: "gpt-5.5-pro", want: rates{"input": "30", "output": "180"}},
	// 0.39999999999999997, 1.5999999999999999, 0, 0.09999999999999999
	{
		name: "FloatNoise", provider: "openai", model: "gpt-4.1-mini",
		want: rates{"input": "0.4", "output": "1.6", "cache_read": "0.1"},
	},
	{
		name: "FloatNoiseNano", provider: "azure", model: "gpt-4.1-nano",
		want: rates{"input": "0.1", "output": "0.4", "cache_read": "0.025"},
	},
	// 0, 0, 0, 0
	{
		name: "FreeByColon", provider: "openrouter", model: "openai/gpt-oss-20b:free",
		want: rates{"input": "0", "output": "0"},
	},
	{name: "FreeByDash", provider: "opencode-zen", model: "hy3-free", want: rates{"input": "0", "output": "0"}},
	{name: "UnknownBySubscription", provider: "copilot", model: "gpt-5.5"},
	{name: "Unknown", provider: "kimi-coding", model: "kimi-for-coding"},
	{name: "UnknownAmongPriced", provider: "zai", model: "glm-5.2"},
}

type rates map[string]string

// TestCatwalkRates has a real model of each way in which the cached prices are filled in. In
// the comments: input, output, cost_per_1m_in_cached, cost_per_1m_out_cached.
func TestCatwalkRates(t *testing.T) {
	t.Parallel()

	snapshot := catalog.Catwalk()
	for _, tt := range catwalkRates {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got := model(t, snapshot, tt.provider, tt.model).Rates
			if tt.want == nil {
				require.Nil(t, got)
				return
			}
			written := rates{}
			for name, rate := range got {
				written[name] = rate.String()
			}
			require.Equal(t, tt.want, written)
		})
	}

	each := func(check func(id string, from catwalk.Model, got money.Rates)) {
		for i, p := range embedded.GetAll() {
			for j, m := range p.Models {
				check(string(p.ID)+" "+m.ID, m, snapshot.Providers[i].Models[j].Rates)
			}
		}
	}

	t.Run("UnknownUnlessTheNameSaysFree", func(t *testing.T) {
		t.Parallel()

		free, unknown := 0, 0
		each(func(id string, from catwalk.Model, got money.Rates) {
			zero := from.CostPer1MIn == 0 && from.CostPer1MOut == 0 && from.CostPer1MInCached == 0 &&
				from.CostPer1MOutCached == 0
			switch {
			case !zero:
				require.NotNil(t, got, id)
			case strings.HasSuffix(id, "free"):
				free++
				require.Equal(t, money.Rates{meter.Input: 0, meter.Output: 0}, got, id)
			default:
				unknown++
				require.Nil(t, got, id)
			}
		})
		require.Positive(t, free)
		require.Positive(t, unknown)
	})

	t.Run("InputAndOutputAreAsListed", func(t *testing.T) {
		t.Parallel()

		each(func(id string, from catwalk.Model, got money.Rates) {
			if got == nil {
				return
			}
			require.InDelta(t, from.CostPer1MIn, got[meter.Input].Dollars(), 1e-9, id)
			require.InDelta(t, from.CostPer1MOut, got[meter.Output].Dollars(), 1e-9, id)
		})
	})

	t.Run("RatesAreSane", func(t *testing.T) {
		t.Parallel()

		each(func(id string, _ catwalk.Model, got money.Rates) {
			for name, rate := range got {
				require.True(t, meter.Known(name), "%s %s", id, name)
				require.GreaterOrEqual(t, rate, money.USD(0), "%s %s", id, name)
			}
			require.LessOrEqual(t, got[meter.CacheRead], got[meter.Input], id)
			if got != nil {
				require.Contains(t, got, meter.Input, id)
				require.Contains(t, got, meter.Output, id)
			}
		})
	})

	t.Run("CachedRatesAreListedPrices", func(t *testing.T) {
		t.Parallel()

		each(func(id string, from catwalk.Model, got money.Rates) {
			listed := []float64{from.CostPer1MInCached, from.CostPer1MOutCached}
			for _, name := range []string{meter.CacheRead, meter.CacheWrite} {
				if rate, ok := got[name]; ok {
					require.Positive(t, rate, "%s %s: 0 is not known, not free", id, name)
					require.Contains(t, []money.USD{fromFloat(t, listed[0]), fromFloat(t, listed[1])}, rate, "%s %s",
						id, name)
				}
			}
		})
	})
}

func fromFloat(t *testing.T, dollars float64) money.USD {
	t.Helper()

	usd, err := money.FromFloat(dollars)
	require.NoError(t, err)
	return usd
}
