package catalog

import (
	"fmt"
	"slices"
	"strings"

	"charm.land/catwalk/pkg/catwalk"
	"charm.land/catwalk/pkg/embedded"

	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// CatwalkSource is the [Snapshot.Source] of Catwalk's catalogue.
const CatwalkSource = "catwalk"

// Catwalk returns the catalogue that is embedded in charm.land/catwalk. It is read offline.
//
// Its prices are per 1M tokens, in floats, and are taken at their shortest decimal form. The
// fields of the two cached prices are filled in unlike ways and are repaired. Prices that are all
// zero are not known, unless the model's name says that it is free. Families are derived from the
// models' names by [Family].
func Catwalk() Snapshot {
	s := fromCatwalk(embedded.GetAll())
	s.note("", "", "the catalogue does not tell which models call tools or stream")
	return s
}

// endpoints are the addresses for which Catwalk has an environment variable.
var endpoints = map[catwalk.InferenceProvider]string{
	catwalk.InferenceProviderOpenAI:    "https://api.openai.com/v1",
	catwalk.InferenceProviderAnthropic: "https://api.anthropic.com",
	catwalk.InferenceProviderGemini:    "https://generativelanguage.googleapis.com/v1beta",
}

var authMethods = map[catwalk.Type]string{
	catwalk.TypeAnthropic: "header", // x-api-key
	catwalk.TypeGoogle:    "header", // x-goog-api-key
	catwalk.TypeAzure:     "header", // api-key
	catwalk.TypeBedrock:   "aws_sigv4",
	catwalk.TypeVertexAI:  "oauth",
}

func fromCatwalk(providers []catwalk.Provider) Snapshot {
	s := Snapshot{Source: CatwalkSource}
	seen := map[catwalk.InferenceProvider]bool{}
	for _, from := range providers {
		if from.ID == "" || seen[from.ID] {
			s.note(string(from.ID), "", "a provider without a name, or listed twice: left out")
			continue
		}
		seen[from.ID] = true
		p := Provider{
			Name:        string(from.ID),
			DisplayName: from.Name,
			BaseURL:     from.APIEndpoint,
			AuthMethod:  authMethods[from.Type],
		}
		if p.AuthMethod == "" {
			p.AuthMethod = "bearer"
		}
		if !strings.HasPrefix(p.BaseURL, "http") || strings.Contains(p.BaseURL, "$") {
			p.BaseURL = endpoints[from.ID]
			if p.BaseURL == "" {
				s.note(p.Name, "", "the catalogue names no base URL (%q): set it by hand", from.APIEndpoint)
			}
		}
		p.Models = s.catwalkModels(p.Name, from.Models)
		s.Providers = append(s.Providers, p)
	}
	return s
}

func (s *Snapshot) catwalkModels(provider string, from []catwalk.Model) []Model {
	var models []Model
	seen, unpriced, swap := map[string]bool{}, 0, swapped(from)
	for _, m := range from {
		if m.ID == "" || seen[m.ID] {
			s.note(provider, m.ID, "a model without a name, or listed twice: left out")
			continue
		}
		seen[m.ID] = true
		models = append(models, s.catwalkModel(provider, m, swap))
		if models[len(models)-1].Rates == nil {
			unpriced++
		}
	}
	if unpriced > 0 {
		s.note(provider, "", "%d of %d models have no known price", unpriced, len(models))
	}
	return models
}

func (s *Snapshot) note(provider, model, format string, args ...any) {
	s.Notes = append(s.Notes, Note{provider, model, fmt.Sprintf(format, args...)})
}

func (s *Snapshot) catwalkModel(provider string, from catwalk.Model, swap bool) Model {
	m := Model{
		ModelID:         from.ID,
		Name:            from.Name,
		Family:          Family(from.ID),
		ContextWindow:   max(from.ContextWindow, 0),
		MaxOutputTokens: max(from.DefaultMaxTokens, 0),
		SupportsImages:  &from.SupportsImages,
		CanReason:       &from.CanReason,
	}
	rates, err := catwalkRates(from, swap)
	if err != nil {
		s.note(provider, from.ID, "the price is left out: %s", err)
	}
	m.Rates = rates
	return m
}

// catwalkRates returns the rates of a model, nil if they are unknown. Swap says that the provider has the cached prices
// the wrong way round.
func catwalkRates(from catwalk.Model, swap bool) (money.Rates, error) {
	var prices [4]money.USD
	for i, dollars := range []float64{
		from.CostPer1MIn, from.CostPer1MOut, from.CostPer1MInCached, from.CostPer1MOutCached,
	} {
		usd, err := money.FromFloat(dollars)
		if err == nil && usd < 0 {
			err = fmt.Errorf("%w: %s is negative", money.ErrRange, usd)
		}
		if err != nil {
			return nil, err
		}
		prices[i] = usd
	}
	input, output := prices[0], prices[1]
	if prices == [4]money.USD{} {
		if isFree(from.ID) {
			return money.Rates{meter.Input: 0, meter.Output: 0}, nil
		}
		return nil, nil
	}
	rates := money.Rates{meter.Input: input, meter.Output: output}
	cached := cachedPrices{write: prices[2], read: prices[3]}
	if swap {
		cached = cachedPrices{write: cached.read, read: cached.write}
	}
	cached = cached.repaired(input, output)
	if cached.read > 0 {
		rates[meter.CacheRead] = cached.read
	}
	if cached.write > 0 {
		rates[meter.CacheWrite] = cached.write
	}
	return rates, nil
}

// isFree reports whether a model's name says that it costs nothing.
func isFree(modelID string) bool {
	return strings.HasSuffix(modelID, ":free") || strings.HasSuffix(modelID, "-free") ||
		strings.HasSuffix(modelID, "/free")
}

// cachedPrices are the two cached prices of a model, 0 for none.
type cachedPrices struct{ read, write money.USD }

// swapped reports whether a provider's entries have the two cached prices the wrong way round. By Catwalk's convention
// cost_per_1m_in_cached is the price of a cache write, and cost_per_1m_out_cached the price of a read. A read is never
// dearer than the input, but a write may be. So one entry with the dear price in the read's place is proof.
func swapped(models []catwalk.Model) bool {
	return slices.ContainsFunc(models, func(m catwalk.Model) bool {
		read, write := m.CostPer1MOutCached, m.CostPer1MInCached
		return 0 < write && write <= m.CostPer1MIn && m.CostPer1MIn < read && read != m.CostPer1MOut
	})
}

// repaired returns what an entry's cached prices mean; 0 is unknown. Some entries repeat the uncached prices, and some
// have the price of a read in the place of the write, or in both places.
func (c cachedPrices) repaired(input, output money.USD) cachedPrices {
	if c.read >= input {
		c.read = 0 // a read is not dearer than the input, and the input is the fallback anyway
	}
	if c.write == input || c.write == output {
		c.write = 0 // a copy, or the fallback
	}
	if c.read == 0 && c.write < input {
		c.read = c.write // nobody sells writes below the input price and no reads
	}
	if c.read == c.write {
		c.write = 0
	}
	return c
}
