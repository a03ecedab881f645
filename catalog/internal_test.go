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

const dollar = money.Dollar

// catwalkPrices are prices as Catwalk may write them, and the rates that are made of them.
var catwalkPrices = map[string]struct {
	id                           string
	in, out, inCached, outCached float64
	want                         money.Rates
	note                         string // of the model; empty: none
}{
	"OKInputOnly": {id: "m", in: 3, want: money.Rates{"input": 3 * dollar, "output": 0}}, // as of an embedding
	"OKConvention": {
		id: "m", in: 4, out: 20, inCached: 5, outCached: 1,
		want: money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_write": 5 * dollar,
			"cache_read": 1 * dollar},
	},
	"OKSwapped": {
		id: "m", in: 4, out: 20, inCached: 1, outCached: 5,
		want: money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_write": 5 * dollar,
			"cache_read": 1 * dollar},
	},
	"OKReadInCached": {
		id: "m", in: 4, out: 20, inCached: 1,
		want: money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_read": 1 * dollar},
	},
	"OKReadOutCached": {
		id: "m", in: 4, out: 20, outCached: 1,
		want: money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_read": 1 * dollar},
	},
	"OKWriteInCached": {
		id: "m", in: 4, out: 20, inCached: 5,
		want: money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_write": 5 * dollar},
	},
	"OKReadAboveInput": {
		id: "m", in: 4, out: 20, outCached: 5, want: money.Rates{"input": 4 * dollar, "output": 20 * dollar},
	},
	"OKBothEqual": {
		id: "m", in: 4, out: 20, inCached: 1, outCached: 1,
		want: money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_read": 1 * dollar},
	},
	"OKBothEqualAbove": {
		id: "m", in: 4, out: 20, inCached: 5, outCached: 5,
		want: money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_write": 5 * dollar},
	},
	"OKCopies": {
		id: "m", in: 4, out: 20, inCached: 4, outCached: 20,
		want: money.Rates{"input": 4 * dollar, "output": 20 * dollar},
	},
	"OKCopyOfInput": {
		id: "m", in: 4, out: 20, inCached: 4, outCached: 1,
		want: money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_read": 1 * dollar},
	},
	"OKCopyOfOutput": {
		id: "m", in: 4, out: 20, inCached: 1, outCached: 20,
		want: money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_read": 1 * dollar},
	},
	"OKWriteBelowInput": {
		id: "m", in: 4, out: 20, inCached: 3, outCached: 1,
		want: money.Rates{"input": 4 * dollar, "output": 20 * dollar, "cache_write": 3 * dollar,
			"cache_read": 1 * dollar},
	},
	"OKFreeColon":       {id: "a/m:free", want: money.Rates{"input": 0, "output": 0}},
	"OKFreeDash":        {id: "m-free", want: money.Rates{"input": 0, "output": 0}},
	"OKFreeRouter":      {id: "router/free", want: money.Rates{"input": 0, "output": 0}},
	"OKFreeButPriced":   {id: "m:free", in: 1, out: 2, want: money.Rates{"input": dollar, "output": 2 * dollar}},
	"OKUnknown":         {id: "m"},
	"OKUnknownFreely":   {id: "freely"}, // the name has free in it but does not say it
	"OKUnknownCarefree": {id: "carefree"},
	"OKUnknownFreeMid":  {id: "m:free:2"},
	"OKMinusZero":       {id: "m", in: math.Copysign(0, -1)},
	"OKBelowANano":      {id: "m", in: 1e-11, out: 1e-11}, // all zero, once it is money
	"OKRoundedToANano":  {id: "m", in: 0.00000000251, out: 1, want: money.Rates{"input": 3, "output": dollar}},

	"ErrNegativeInput":     {id: "m", in: -1, out: 2, note: "-1 is negative"},
	"ErrNegativeOutput":    {id: "m", in: 1, out: -2, note: "-2 is negative"},
	"ErrNegativeInCached":  {id: "m", in: 1, out: 2, inCached: -0.5, note: "-0.5 is negative"},
	"ErrNegativeOutCached": {id: "m", in: 1, out: 2, outCached: -0.5, note: "-0.5 is negative"},
	"ErrNegativeFree":      {id: "m:free", in: -1, out: -1, note: "-1 is negative"}, // OpenRouter's "it depends"
	"ErrNaN":               {id: "m", in: math.NaN(), out: 2, note: "NaN"},
	"ErrNaNCached":         {id: "m", in: 1, out: 2, outCached: math.NaN(), note: "NaN"},
	"ErrInf":               {id: "m", in: 1, out: math.Inf(1), note: "Inf"},
	"ErrMinusInf":          {id: "m", in: 1, out: 2, inCached: math.Inf(-1), note: "Inf"},
	"ErrTooLarge":          {id: "m", in: 1, out: 1e10, note: money.ErrRange.Error()},
	"ErrTooLargeFloat":     {id: "m", in: math.MaxFloat64, out: 2, note: money.ErrRange.Error()},
}

func TestFromCatwalkPrices(t *testing.T) {
	t.Parallel()

	for name, tt := range catwalkPrices {
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
		"OKListed":              {id: "p", endpoint: "https://p.example/v1", want: "https://p.example/v1"},
		"OKPlain":               {id: "p", endpoint: "http://localhost:8080", want: "http://localhost:8080"},
		"OKKnownVariable":       {id: "openai", endpoint: "$OPENAI_API_ENDPOINT", want: "https://api.openai.com/v1"},
		"OKKnownButEmpty":       {id: "anthropic", want: "https://api.anthropic.com"},
		"OKKnownButListed":      {id: "gemini", endpoint: "https://proxy.example", want: "https://proxy.example"},
		"NotedVariable":         {id: "p", endpoint: "$SOME_ENDPOINT", noted: true},
		"NotedVariableInBraces": {id: "p", endpoint: "${SOME_ENDPOINT}", noted: true},
		"NotedVariableWithin":   {id: "p", endpoint: "https://$REGION.p.example/v1", noted: true},
		"NotedEmpty":            {id: "p", noted: true},
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
