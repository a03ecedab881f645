package ledger

import (
	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Estimate is how many tokens somebody thinks that a request uses.
type Estimate struct {
	Tokens int64
	Output int64 // how many of them are output; 0: it was not said
}

// TotalInput returns how many tokens are input at most: they choose the price.
func (e Estimate) TotalInput() int64 { return e.Tokens - e.Output }

// Meters returns the tokens of the meters that cost the most at a price: output is reasoning if that is dearer. If
// nobody has said what is output, all tokens are of the dearest meter.
func (e Estimate) Meters(p *ent.Price) (t meter.Tokens) {
	rates := RatesOf(p)
	if e.Output == 0 {
		columns := [len(meterNames)]int64{}
		columns[dearest(rates)] = e.Tokens
		return metersOf(columns)
	}
	t.InputTokens = e.TotalInput()
	output, known := rates[meter.Output]
	if known && rates[meter.Reasoning] > output {
		t.ReasoningTokens = e.Output
	} else {
		t.OutputTokens = e.Output
	}
	return t
}

// dearest returns the index of the dearest meter: of input, if that has no rate, because then nothing is priced.
func dearest(rates money.Rates) (index int) {
	if _, priced := rates[meter.Input]; !priced {
		return 0
	}
	for i, name := range meterNames {
		if rates[name] > rates[meterNames[index]] {
			index = i
		}
	}
	return index
}

// Cost returns what the estimate costs at a price: 0 if the price has no rate for it, and at most fault.MaxAmount.
func (e Estimate) Cost(p *ent.Price) money.USD {
	cost, err := CostAt(p, e.Meters(p))
	switch {
	case err != nil:
		return fault.MaxAmount
	case cost == nil:
		return 0
	}
	return min(*cost, fault.MaxAmount)
}

// Suppose makes the event one whose usage is estimated, at a price.
func (e *Event) Suppose(of Estimate, p *ent.Price) {
	e.Tokens = InColumns(of.Meters(p))
	for i := range e.Tokens {
		e.Tokens[i] = min(e.Tokens[i], meter.MaxTokens)
	}
	e.Status = usageevent.UsageStatusEstimated
}
