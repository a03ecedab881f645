package catalog

import (
	"math"
	"testing"

	"charm.land/catwalk/pkg/catwalk"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// These tests plant what the embedded catalogue does not have, or not in this version.

func TestFromCatwalkPrices(t *testing.T) {
	t.Parallel()

	const dollar = money.Dollar
	for name, tt := range map[string]struct {
		id                           string
		in, out, inCached, outCached float64
		want                         money.Rates
		note                         string // of the model; empty: none
	}{
		"OKInputOnly": {"m", 3, 0, 0, 0, money.Rates{"input": 3 * dollar, "output": 0}, ""}, // as of an embedding
		"OKConvention": {"m", 4, 20, 5, 1,
			money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_write": 5 * dollar,
				"cache_read": 1 * dollar}, ""},
		"OKSwapped": {"m", 4, 20, 1, 5,
			money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_write": 5 * dollar,
				"cache_read": 1 * dollar}, ""},
		"OKReadInCached": {"m", 4, 20, 1, 0,
			money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_read": 1 * dollar}, ""},
		"OKReadOutCached": {"m", 4, 20, 0, 1,
			money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_read": 1 * dollar}, ""},
		"OKWriteInCached": {"m", 4, 20, 5, 0,
			money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_write": 5 * dollar}, ""},
		"OKReadAboveInput": {"m", 4, 20, 0, 5, money.Rates{"input": 4 * dollar, "output": 20 * dollar}, ""},
		"OKBothEqual": {"m", 4, 20, 1, 1,
			money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_read": 1 * dollar}, ""},
		"OKBothEqualAbove": {"m", 4, 20, 5, 5,
			money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_write": 5 * dollar}, ""},
		"OKCopies": {"m", 4, 20, 4, 20, money.Rates{"input": 4 * dollar, "output": 20 * dollar}, ""},
		"OKCopyOfInput": {"m", 4, 20, 4, 1,
			money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_read": 1 * dollar}, ""},
		"OKCopyOfOutput": {"m", 4, 20, 1, 20,
			money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_read": 1 * dollar}, ""},
		"OKWriteBelowInput": {"m", 4, 20, 3, 1,
			money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_write": 3 * dollar,
				"cache_read": 1 * dollar}, ""},
		"OKFreeColon":       {"a/m:free", 0, 0, 0, 0, money.Rates{"input": 0, "output": 0}, ""},
		"OKFreeDash":        {"m-free", 0, 0, 0, 0, money.Rates{"input": 0, "output": 0}, ""},
		"OKFreeRouter":      {"router/free", 0, 0, 0, 0, money.Rates{"input": 0, "output": 0}, ""},
		"OKFreeButPriced":   {"m:free", 1, 2, 0, 0, money.Rates{"input": dollar, "output": 2 * dollar}, ""},
		"OKUnknown":         {"m", 0, 0, 0, 0, nil, ""},
		"OKUnknownFreely":   {"freely", 0, 0, 0, 0, nil, ""}, // the name has free in it but does not say it
		"OKUnknownCarefree": {"carefree", 0, 0, 0, 0, nil, ""},
		"OKUnknownFreeMid":  {"m:free:2", 0, 0, 0, 0, nil, ""},
		"OKMinusZero":       {"m", math.Copysign(0, -1), 0, 0, 0, nil, ""},
		"OKBelowANano":      {"m", 1e-11, 1e-11, 0, 0, nil, ""}, // all zero, once it is money
		"OKRoundedToANano":  {"m", 0.00000000251, 1, 0, 0, money.Rates{"input": 3, "output": dollar}, ""},

		"ErrNegativeInput":     {"m", -1, 2, 0, 0, nil, "-1 is negative"},
		"ErrNegativeOutput":    {"m", 1, -2, 0, 0, nil, "-2 is negative"},
		"ErrNegativeInCached":  {"m", 1, 2, -0.5, 0, nil, "-0.5 is negative"},
		"ErrNegativeOutCached": {"m", 1, 2, 0, -0.5, nil, "-0.5 is negative"},
		"ErrNegativeFree":      {"m:free", -1, -1, 0, 0, nil, "-1 is negative"}, // OpenRouter's "it depends"
		"ErrNaN":               {"m", math.NaN(), 2, 0, 0, nil, "NaN"},
		"ErrNaNCached":         {"m", 1, 2, 0, math.NaN(), nil, "NaN"},
		"ErrInf":               {"m", 1, math.Inf(1), 0, 0, nil, "Inf"},
		"ErrMinusInf":          {"m", 1, 2, math.Inf(-1), 0, nil, "Inf"},
		"ErrTooLarge":          {"m", 1, 1e10, 0, 0, nil, money.ErrRange.Error()},
		"ErrTooLargeFloat":     {"m", math.MaxFloat64, 2, 0, 0, nil, money.ErrRange.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := fromCatwalk([]catwalk.Provider{{ID: "p", APIEndpoint: "https://p.example", Models: []catwalk.Model{{
				ID: tt.id, CostPer1MIn: tt.in, CostPer1MOut: tt.out, CostPer1MInCached: tt.inCached,
				CostPer1MOutCached: tt.outCached,
			}}}})
			require.Len(t, s.Providers, 1)
			require.Len(t, s.Providers[0].Models, 1, "a model stays, whatever its price")
			require.Equal(t, tt.want, s.Providers[0].Models[0].Rates)

			var want []Note
			if tt.note != "" {
				require.NotEmpty(t, s.Notes)
				require.Equal(t, Note{"p", tt.id, s.Notes[0].Text}, s.Notes[0])
				require.Contains(t, s.Notes[0].Text, "the price is left out")
				require.Contains(t, s.Notes[0].Text, tt.note)
				want = append(want, s.Notes[0])
			}
			if tt.want == nil {
				want = append(want, Note{"p", "", "1 of 1 models have no known price"})
			}
			require.Equal(t, want, s.Notes)
		})
	}
}

func TestFromCatwalkModels(t *testing.T) {
	t.Parallel()

	t.Run("OK", func(t *testing.T) {
		t.Parallel()

		yes, no := true, false
		s := fromCatwalk([]catwalk.Provider{{
			ID: "p", Name: "P", Type: catwalk.TypeOpenAICompat, APIEndpoint: "https://p.example/v1",
			Models: []catwalk.Model{{
				ID: "vendor/m-2.5-mini", Name: "M", CostPer1MIn: 1, CostPer1MOut: 2,
				ContextWindow: 1000, DefaultMaxTokens: 100, CanReason: true,
			}},
		}})
		require.Equal(t, Snapshot{Source: "catwalk", Providers: []Provider{{
			Name: "p", DisplayName: "P", BaseURL: "https://p.example/v1", AuthMethod: "bearer",
			Models: []Model{{
				ModelID: "vendor/m-2.5-mini", Name: "M", Family: "m-2",
				Rates:         money.Rates{meter.Input: money.Dollar, meter.Output: 2 * money.Dollar},
				ContextWindow: 1000, MaxOutputTokens: 100, SupportsImages: &no, CanReason: &yes,
			}},
		}}}, s)
	})

	t.Run("OKNone", func(t *testing.T) {
		t.Parallel()

		require.Equal(t, Snapshot{Source: "catwalk"}, fromCatwalk(nil))
	})

	t.Run("NegativeSizesAreUnknown", func(t *testing.T) {
		t.Parallel()

		s := fromCatwalk([]catwalk.Provider{{ID: "p", APIEndpoint: "https://p.example", Models: []catwalk.Model{
			{ID: "m", ContextWindow: -1, DefaultMaxTokens: math.MinInt64},
		}}})
		require.Zero(t, s.Providers[0].Models[0].ContextWindow)
		require.Zero(t, s.Providers[0].Models[0].MaxOutputTokens)
	})

	t.Run("TheFirstOfADuplicateCounts", func(t *testing.T) {
		t.Parallel()

		s := fromCatwalk([]catwalk.Provider{
			{ID: "p", APIEndpoint: "https://p.example", Models: []catwalk.Model{
				{ID: "m", Name: "first", CostPer1MIn: 1},
				{ID: "n", CostPer1MIn: 1},
				{ID: "m", Name: "second"},
				{ID: "M", CostPer1MIn: 1}, // another model
			}},
			// of another provider
			{ID: "q", APIEndpoint: "https://q.example", Models: []catwalk.Model{{ID: "m", CostPer1MIn: 1}}},
		})
		require.Equal(t, 4, s.Models())
		require.Len(t, s.Providers[0].Models, 3)
		require.Equal(t, "first", s.Providers[0].Models[0].Name)
		// The second one has no price, but it is not counted as a model without one.
		require.Equal(t, []Note{{"p", "m", "a model without a name, or listed twice: left out"}}, s.Notes)
	})

	t.Run("OneBadPriceSpoilsNoOther", func(t *testing.T) {
		t.Parallel()

		s := fromCatwalk([]catwalk.Provider{{ID: "p", APIEndpoint: "https://p.example", Models: []catwalk.Model{
			{ID: "bad", CostPer1MIn: math.NaN()},
			{ID: "good", CostPer1MIn: 1},
			{ID: "unknown"},
		}}})
		require.Nil(t, s.Providers[0].Models[0].Rates)
		require.NotNil(t, s.Providers[0].Models[1].Rates)
		require.Nil(t, s.Providers[0].Models[2].Rates)
		require.Len(t, s.Notes, 2)
		require.Equal(t, "bad", s.Notes[0].Model)
		require.Equal(t, Note{"p", "", "2 of 3 models have no known price"}, s.Notes[1])
	})
}

func TestFromCatwalkBaseURL(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		id       catwalk.InferenceProvider
		endpoint string
		want     string
		noted    bool
	}{
		"OKListed":              {"p", "https://p.example/v1", "https://p.example/v1", false},
		"OKPlain":               {"p", "http://localhost:8080", "http://localhost:8080", false},
		"OKKnownVariable":       {"openai", "$OPENAI_API_ENDPOINT", "https://api.openai.com/v1", false},
		"OKKnownButEmpty":       {"anthropic", "", "https://api.anthropic.com", false},
		"OKKnownButListed":      {"gemini", "https://proxy.example", "https://proxy.example", false},
		"NotedVariable":         {"p", "$SOME_ENDPOINT", "", true},
		"NotedVariableInBraces": {"p", "${SOME_ENDPOINT}", "", true},
		"NotedVariableWithin":   {"p", "https://$REGION.p.example/v1", "", true},
		"NotedEmpty":            {"p", "", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := fromCatwalk([]catwalk.Provider{{ID: tt.id, APIEndpoint: tt.endpoint}})
			require.Equal(t, tt.want, s.Providers[0].BaseURL)
			if !tt.noted {
				require.Empty(t, s.Notes)
				return
			}
			require.Len(t, s.Notes, 1)
			require.Equal(t, string(tt.id), s.Notes[0].Provider)
			require.Empty(t, s.Notes[0].Model)
			require.Contains(t, s.Notes[0].Text, "base URL")
			require.Contains(t, s.Notes[0].Text, tt.endpoint, "it names what the catalogue had")
		})
	}
}

func TestFromCatwalkAuthMethod(t *testing.T) {
	t.Parallel()

	want := map[catwalk.Type]string{
		catwalk.TypeOpenAI:       "bearer",
		catwalk.TypeOpenAICompat: "bearer",
		catwalk.TypeOpenRouter:   "bearer",
		catwalk.TypeVercel:       "bearer",
		catwalk.TypeAnthropic:    "header",
		catwalk.TypeGoogle:       "header",
		catwalk.TypeAzure:        "header",
		catwalk.TypeBedrock:      "aws_sigv4",
		catwalk.TypeVertexAI:     "oauth",
	}
	for _, kind := range catwalk.KnownProviderTypes() {
		require.Contains(t, want, kind, "a new type: how does it carry the key?")
	}
	want[""], want["new"] = "bearer", "bearer"
	for kind, method := range want {
		s := fromCatwalk([]catwalk.Provider{{ID: "p", Type: kind}})
		require.Equal(t, method, s.Providers[0].AuthMethod, kind)
	}
}
