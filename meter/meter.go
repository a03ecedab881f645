// Package meter counts what a request to a model used, and prices it.
//
// The meters are disjoint: a token is counted in exactly one of them. Providers differ in
// what their own numbers include; Tokens always means the same.
package meter

import (
	"errors"
	"fmt"

	"github.com/jeffersonwarrior/modelscan/money"
)

// The names of the meters, as they stand in [money.Rates].
const (
	Input      = "input"       // input tokens that were not served from or written to a cache
	Output     = "output"      // output tokens other than reasoning
	CacheRead  = "cache_read"  // input tokens read from the provider's cache
	CacheWrite = "cache_write" // input tokens written to the provider's cache
	Reasoning  = "reasoning"   // output tokens spent on reasoning
)

// Names lists the meters in their usual order.
func Names() []string { return []string{Input, Output, CacheRead, CacheWrite, Reasoning} }

// Known reports whether name is a meter.
func Known(name string) bool {
	switch name {
	case Input, Output, CacheRead, CacheWrite, Reasoning:
		return true
	}
	return false
}

// Tokens are the quantities that one request used, in tokens, each within 0 and [MaxTokens].
type Tokens struct {
	InputTokens      int64
	OutputTokens     int64
	CacheReadTokens  int64
	CacheWriteTokens int64
	ReasoningTokens  int64
}

// MaxTokens bounds each quantity of one request. It is far above what any provider serves,
// and low enough that an int64 holds the sum of nine million such requests.
const MaxTokens = 1_000_000_000_000

// Validate returns an error that names every quantity which is negative or above [MaxTokens].
func (t Tokens) Validate() error {
	var errs []error
	for _, q := range t.quantities() {
		if q.tokens < 0 || q.tokens > MaxTokens {
			errs = append(errs, fmt.Errorf("%s tokens %d: not between 0 and %d", q.name, q.tokens, int64(MaxTokens)))
		}
	}
	return errors.Join(errs...)
}

// TotalInput returns all tokens that were sent: input, cache_read and cache_write.
func (t Tokens) TotalInput() int64 { return t.InputTokens + t.CacheReadTokens + t.CacheWriteTokens }

// Total returns all tokens of all meters.
func (t Tokens) Total() int64 { return t.TotalInput() + t.OutputTokens + t.ReasoningTokens }

// ErrUnpriced is returned by [Tokens.Cost] when a meter was used that has no rate.
var ErrUnpriced = errors.New("meter: no rate for a meter that was used")

// Cost returns what the tokens cost at the given rates (USD per one million tokens): the sum
// over the meters in exact arithmetic, rounded once, half to even, to a nano-dollar.
//
// A missing rate falls back: cache_read and cache_write to input, reasoning to output. When a
// meter was used that has no rate even so, the cost is unknown and the error is [ErrUnpriced];
// rates without any entry price nothing, not even a request without tokens. A cost that does
// not fit, or a negative quantity, is a [money.ErrRange].
func (t Tokens) Cost(rates money.Rates) (money.USD, error) {
	if len(rates) == 0 {
		return 0, ErrUnpriced
	}
	usages := make([]money.Usage, 0, 5)
	for _, q := range t.quantities() {
		if q.tokens == 0 {
			continue
		}
		rate, ok := rates[q.name]
		if !ok && q.fallback != "" {
			rate, ok = rates[q.fallback]
		}
		if !ok {
			return 0, fmt.Errorf("%w: %s", ErrUnpriced, q.name)
		}
		usages = append(usages, money.Usage{Quantity: q.tokens, Rate: rate})
	}
	return money.Cost(usages...)
}

type quantity struct {
	name, fallback string
	tokens         int64
}

func (t Tokens) quantities() [5]quantity {
	return [5]quantity{
		{Input, "", t.InputTokens},
		{Output, "", t.OutputTokens},
		{CacheRead, Input, t.CacheReadTokens},
		{CacheWrite, Input, t.CacheWriteTokens},
		{Reasoning, Output, t.ReasoningTokens},
	}
}
