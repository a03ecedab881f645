package money

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// MarshalJSON writes the amount as a JSON number of dollars with all its digits: 0.0375.
func (u USD) MarshalJSON() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalJSON reads a JSON number or string of dollars exactly, under the rules and with
// the errors of [Parse]. The number is read from its text, never through a float.
func (u *USD) UnmarshalJSON(data []byte) error {
	text := string(data)
	if text == "null" {
		return nil
	}
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
	}
	amount, err := Parse(text)
	if err != nil {
		return err
	}
	*u = amount
	return nil
}

// MarshalText writes the amount as [USD.String] does.
func (u USD) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads what [Parse] reads.
func (u *USD) UnmarshalText(text []byte) error {
	amount, err := Parse(string(text))
	if err != nil {
		return err
	}
	*u = amount
	return nil
}

// Rates are the prices of a model: meter name → USD per one million units. A meter that is
// absent has no known price; a rate of 0 is free. Package meter names the meters and says
// which rate stands in for an absent one.
//
// The JSON form, which is also how rates are stored, holds whole nano-dollars:
// {"input": 3000000000} is 3 USD per million.
type Rates map[string]USD

// MarshalJSON writes whole nano-dollars; nil rates are {}.
func (r Rates) MarshalJSON() ([]byte, error) {
	nanos := make(map[string]int64, len(r))
	for name, rate := range r {
		nanos[name] = int64(rate)
	}
	return json.Marshal(nanos)
}

// UnmarshalJSON reads whole nano-dollars. It returns [ErrRange] for a number that is none or
// does not fit.
func (r *Rates) UnmarshalJSON(data []byte) error {
	var nanos map[string]json.RawMessage
	if err := json.Unmarshal(data, &nanos); err != nil || nanos == nil {
		return err
	}
	rates := make(Rates, len(nanos))
	for name, n := range nanos {
		nano, err := strconv.ParseInt(string(n), 10, 64)
		if err != nil {
			return fmt.Errorf("%w: the rate of %q is not a whole number of nano-dollars", ErrRange, name)
		}
		rates[name] = USD(nano)
	}
	*r = rates
	return nil
}
