package money_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/money"
)

func TestUSDJSON(t *testing.T) {
	t.Parallel()

	t.Run("OKRoundTrip", func(t *testing.T) {
		t.Parallel()

		for _, tt := range texts {
			data, err := json.Marshal(tt.amount)
			require.NoError(t, err)
			require.Equal(t, tt.text, string(data), "a number, with all its digits")
			var back money.USD
			require.NoError(t, json.Unmarshal(data, &back))
			require.Equal(t, tt.amount, back)
		}
	})

	for _, tt := range []struct {
		name string
		json string
		want money.USD
	}{
		{"Number", `0.0375`, 37_500_000},
		{"Negative", `-12`, -12 * money.Dollar},
		{"Exponent", `7.5e-08`, 75},
		{"ExponentUpper", `1E+3`, 1000 * money.Dollar},
		{"String", `"0.0375"`, 37_500_000},
		{"StringWithPlus", `"+1"`, money.Dollar},
		{"StringEscaped", `"\u0031.5"`, 1_500_000_000},
		{"SpaceAround", " 30\n", 30 * money.Dollar},
		// A float64 holds 15 to 17 digits; these have 19.
		{"MoreDigitsThanAFloat", `1234567890.123456789`, 1_234_567_890_123_456_789},
		{"MoreDigitsThanAFloatInAString", `"1234567890.123456789"`, 1_234_567_890_123_456_789},
		{"Max", `9223372036.854775807`, money.Max},
		{"Min", `-9223372036.854775808`, money.Min},
		{"NullKeepsTheAmount", `null`, 42},
	} {
		t.Run("OK"+tt.name, func(t *testing.T) {
			t.Parallel()

			got := money.USD(42)
			require.NoError(t, json.Unmarshal([]byte(tt.json), &got))
			require.Equal(t, tt.want, got)
		})
	}

	for _, tt := range []struct {
		name string
		json string
		err  error
	}{
		{"ErrSyntaxTrue", `true`, money.ErrSyntax},
		{"ErrSyntaxObject", `{}`, money.ErrSyntax},
		{"ErrSyntaxArray", `[1]`, money.ErrSyntax},
		{"ErrSyntaxEmptyString", `""`, money.ErrSyntax},
		{"ErrSyntaxNullInAString", `"null"`, money.ErrSyntax},
		{"ErrSyntaxSpaceInAString", `" 1"`, money.ErrSyntax},
		{"ErrSyntaxCurrency", `"$1"`, money.ErrSyntax},
		{"ErrSyntaxNaN", `"NaN"`, money.ErrSyntax},
		{"ErrSyntaxQuotedTwice", `"\"1\""`, money.ErrSyntax},
		{"ErrRange", `1e10`, money.ErrRange},
		{"ErrRangeNanoAboveMax", `9223372036.854775808`, money.ErrRange},
		{"ErrRangeNanoBelowMin", `"-9223372036.854775809"`, money.ErrRange},
		{"ErrPrecision", `0.00000000075`, money.ErrPrecision},
		{"ErrPrecisionString", `"1e-10"`, money.ErrPrecision},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got := money.USD(42)
			require.ErrorIs(t, json.Unmarshal([]byte(tt.json), &got), tt.err)
			require.Equal(t, money.USD(42), got, "a failure leaves the amount alone")
		})
	}

	t.Run("ErrBrokenString", func(t *testing.T) {
		t.Parallel()

		// json.Unmarshal never passes such data on, but a direct call can.
		got := money.USD(42)
		require.Error(t, got.UnmarshalJSON([]byte(`"1`)))
		require.ErrorIs(t, got.UnmarshalJSON(nil), money.ErrSyntax)
		require.Equal(t, money.USD(42), got)
	})
}

func TestUSDJSONWithin(t *testing.T) {
	t.Parallel()

	type invoice struct {
		Total    money.USD            `json:"total"`
		Discount *money.USD           `json:"discount"`
		Tax      *money.USD           `json:"tax,omitempty"`
		Tip      money.USD            `json:"tip,omitempty"`
		Lines    []money.USD          `json:"lines"`
		ByName   map[string]money.USD `json:"by_name"`
		Counts   map[money.USD]int    `json:"counts"`
	}
	const text = `{"total":1234567890.123456789,"discount":-0.5,"lines":[0,0.000000001],"by_name":{"a":3},` +
		`"counts":{"0.25":2}}`

	t.Run("OKMarshal", func(t *testing.T) {
		t.Parallel()

		discount := -50 * money.Cent
		data, err := json.Marshal(invoice{
			Total:    1_234_567_890_123_456_789,
			Discount: &discount,
			Lines:    []money.USD{0, 1},
			ByName:   map[string]money.USD{"a": 3 * money.Dollar},
			Counts:   map[money.USD]int{25 * money.Cent: 2},
		})
		require.NoError(t, err)
		require.Equal(t, text, string(data))
	})

	t.Run("OKUnmarshal", func(t *testing.T) {
		t.Parallel()

		var got invoice
		require.NoError(t, json.Unmarshal([]byte(text), &got))
		require.Equal(t, money.USD(1_234_567_890_123_456_789), got.Total)
		require.Equal(t, -50*money.Cent, *got.Discount)
		require.Nil(t, got.Tax)
		require.Equal(t, []money.USD{0, 1}, got.Lines)
		require.Equal(t, map[string]money.USD{"a": 3 * money.Dollar}, got.ByName)
		require.Equal(t, map[money.USD]int{25 * money.Cent: 2}, got.Counts)
	})

	t.Run("OKNullPointer", func(t *testing.T) {
		t.Parallel()

		discount := money.Cent
		got := invoice{Discount: &discount, Total: money.Dollar}
		require.NoError(t, json.Unmarshal([]byte(`{"discount":null,"total":null}`), &got))
		require.Nil(t, got.Discount)
		require.Equal(t, money.Dollar, got.Total)

		data, err := json.Marshal(struct{ Price *money.USD }{})
		require.NoError(t, err)
		require.Equal(t, `{"Price":null}`, string(data), "unknown is not free")
	})

	t.Run("ErrPrecisionOfAField", func(t *testing.T) {
		t.Parallel()

		var got invoice
		err := json.Unmarshal([]byte(`{"lines":[1,0.0000000001]}`), &got)
		require.ErrorIs(t, err, money.ErrPrecision)
	})
}

func TestUSDText(t *testing.T) {
	t.Parallel()

	t.Run("OKRoundTrip", func(t *testing.T) {
		t.Parallel()

		for _, tt := range texts {
			text, err := tt.amount.MarshalText()
			require.NoError(t, err)
			require.Equal(t, tt.text, string(text))
			var back money.USD
			require.NoError(t, back.UnmarshalText(text))
			require.Equal(t, tt.amount, back)
		}
	})

	for name, tt := range map[string]struct {
		text string
		err  error
	}{
		"ErrSyntax":      {"$1", money.ErrSyntax},
		"ErrSyntaxEmpty": {"", money.ErrSyntax},
		"ErrSyntaxNull":  {"null", money.ErrSyntax}, // null is of JSON alone
		"ErrRange":       {"1e10", money.ErrRange},
		"ErrPrecision":   {"1e-10", money.ErrPrecision},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			got := money.USD(42)
			require.ErrorIs(t, got.UnmarshalText([]byte(tt.text)), tt.err)
			require.Equal(t, money.USD(42), got)
		})
	}
}

func TestRatesJSON(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		rates money.Rates
		json  string
	}{
		{name: "Nil", json: `{}`},
		{name: "Empty", rates: money.Rates{}, json: `{}`},
		{
			name: "Dollars", rates: money.Rates{"input": 3 * money.Dollar, "output": 37_500_000},
			json: `{"input":3,"output":0.0375}`,
		},
		{name: "FreeIsNotUnknown", rates: money.Rates{"input": 0}, json: `{"input":0}`},
		{name: "UnknownMeter", rates: money.Rates{"images": 1}, json: `{"images":0.000000001}`},
		{name: "Negative", rates: money.Rates{"input": -1}, json: `{"input":-0.000000001}`},
		{
			name: "MoreDigitsThanAFloat", rates: money.Rates{"a": math.MaxInt64 - 1, "b": math.MinInt64},
			json: `{"a":9223372036.854775806,"b":-9223372036.854775808}`,
		},
	} {
		t.Run("OKMarshal"+tt.name, func(t *testing.T) {
			t.Parallel()

			data, err := json.Marshal(tt.rates)
			require.NoError(t, err)
			require.Equal(t, tt.json, string(data))

			// The same where the rates are a field, as in an input.
			data, err = json.Marshal(struct {
				Rates money.Rates `json:"rates"`
			}{tt.rates})
			require.NoError(t, err)
			require.Equal(t, `{"rates":`+tt.json+`}`, string(data))
		})
		t.Run("OKUnmarshal"+tt.name, func(t *testing.T) {
			t.Parallel()

			var got money.Rates
			require.NoError(t, json.Unmarshal([]byte(tt.json), &got))
			require.Len(t, got, len(tt.rates))
			for name, rate := range tt.rates {
				require.Contains(t, got, name)
				require.Equal(t, rate, got[name])
			}
		})
	}

	t.Run("OKReplacesWhatWasThere", func(t *testing.T) {
		t.Parallel()

		// A map keeps its other keys in plain JSON; an old price must not survive a new one.
		got := money.Rates{"output": 1}
		require.NoError(t, json.Unmarshal([]byte(`{"input":"2"}`), &got))
		require.Equal(t, money.Rates{"input": 2 * money.Dollar}, got)
	})

	for _, tt := range []struct {
		name string
		json string
	}{
		{"BelowANano", `{"input":0.0000000005}`},
		{"AboveMax", `{"input":9223372036.854775808}`},
		{"BelowMin", `{"input":-9223372036.854775809}`},
		{"Null", `{"input":null}`}, // a rate that is not known is absent
		{"True", `{"input":true}`},
		{"EmptyString", `{"input":""}`},
		{"Nested", `{"input":{"nanos":1}}`},
		{"Array", `[1]`},
		{"Number", `1`},
		{"String", `"input"`},
	} {
		t.Run("Err"+tt.name, func(t *testing.T) {
			t.Parallel()

			got := money.Rates{"output": 1}
			require.Error(t, json.Unmarshal([]byte(tt.json), &got))
			require.Equal(t, money.Rates{"output": 1}, got, "a failure leaves the rates alone")
		})
	}

	t.Run("ErrNamesTheMeter", func(t *testing.T) {
		t.Parallel()

		var got money.Rates
		err := json.Unmarshal([]byte(`{"input":1,"output":1e10}`), &got)
		require.ErrorContains(t, err, `"output"`)
		require.ErrorIs(t, err, money.ErrRange)
	})
}
