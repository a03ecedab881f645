package money

import (
	"encoding/json"
	"fmt"
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
// The JSON form holds dollars, as that of [USD] does: {"input": 3} is 3 USD per million.
type Rates map[string]USD

// MarshalJSON writes dollars with all their digits; nil rates are {}.
func (r Rates) MarshalJSON() ([]byte, error) {
	if r == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(map[string]USD(r))
}

// UnmarshalJSON reads dollars as [USD.UnmarshalJSON] does. A rate that is null is an error: an unknown rate is absent.
func (r *Rates) UnmarshalJSON(data []byte) error {
	var dollars map[string]json.RawMessage
	if err := json.Unmarshal(data, &dollars); err != nil || dollars == nil {
		return err
	}
	rates := make(Rates, len(dollars))
	for name, text := range dollars {
		if string(text) == "null" {
			return fmt.Errorf("%w: the rate of %q is null", ErrSyntax, name)
		}
		var rate USD
		if err := rate.UnmarshalJSON(text); err != nil {
			return fmt.Errorf("the rate of %q: %w", name, err)
		}
		rates[name] = rate
	}
	*r = rates
	return nil
}
