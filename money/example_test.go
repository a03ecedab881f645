package money_test

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jeffersonwarrior/modelscan/money"
)

func Example() {
	price := 30 * money.Dollar
	discount, err := money.Parse("0.0375")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(price, "-", discount, "=", price-discount)
	// Output: 30 - 0.0375 = 29.9625
}

func ExampleParse() {
	price, err := money.Parse("7.5e-08") // as some catalogues write the price of a token
	fmt.Println(price, err)

	// A digit below a nano-dollar is not dropped in silence.
	_, err = money.Parse("0.00000000075")
	fmt.Println(errors.Is(err, money.ErrPrecision))
	// Output:
	// 0.000000075 <nil>
	// true
}

func ExampleParseRounded() {
	price, err := money.ParseRounded("0.00000000075")
	fmt.Println(price, err)
	// Output: 0.000000001 <nil>
}

func ExampleFromFloat() {
	price, err := money.FromFloat(0.39999999999999997) // what is left of 0.4 after some arithmetic
	fmt.Println(price, err)
	// Output: 0.4 <nil>
}

func ExampleSum() {
	total, err := money.Sum(30*money.Dollar, 25*money.Cent, -5*money.Dollar)
	fmt.Println(total, err)

	_, err = money.Sum(money.Max, money.NanoDollar)
	fmt.Println(errors.Is(err, money.ErrRange))
	// Output:
	// 25.25 <nil>
	// true
}

func ExampleCost() {
	cost, err := money.Cost(
		money.Usage{Quantity: 150, Rate: 30 * money.Dollar}, // input tokens at 30 USD per million
		money.Usage{Quantity: 80, Rate: 60 * money.Dollar},  // output tokens at 60 USD per million
	)
	fmt.Println(cost, err)
	// Output: 0.0093 <nil>
}

func ExampleUSD_MarshalJSON() {
	data, err := json.Marshal(map[string]money.USD{"price": 37_500_000 * money.NanoDollar})
	fmt.Println(string(data), err)
	// Output: {"price":0.0375} <nil>
}

func ExampleRates() {
	rates := money.Rates{"input": 3 * money.Dollar, "output": 15 * money.Dollar}
	data, err := json.Marshal(rates)
	fmt.Println(string(data), err)
	// Output: {"input":3,"output":15} <nil>
}
