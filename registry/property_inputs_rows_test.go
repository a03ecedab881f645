package registry_test

import (
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// urls are base URLs, and whether they are valid.
var urls = map[string]bool{
	"": true, "https://api.example.com/v1": true, "http://localhost:11434": true, "http://[::1]:8080/v1": true,
	"ftp://example.com": false, "https://user:secret@example.com": false, "https://example.com?key=1": false,
	"https://example.com:0": false, "example.com": false, "https:///v1": false,
}

func (in inputs) newProvider() registry.ProviderInput {
	p := registry.ProviderInput{
		Name: in.slug(), DisplayName: in.text(), Description: in.prose(), BaseURL: "https://api.example.com/v1",
		AuthMethod: draw[provider.AuthMethod](in.T, "auth method", "", "bearer", "header", "query", "oauth",
			"aws_sigv4", "none"),
	}
	if in.rarely("other URL") {
		p.BaseURL = draw(in.T, "URL", slices.Sorted(maps.Keys(urls))...)
	}
	if in.rarely("bad auth method") {
		p.AuthMethod = "basic"
	}
	return p
}

func (in inputs) newModel() registry.ModelInput {
	m := registry.ModelInput{
		ProviderID: in.provider(), ModelID: in.name(), Description: in.prose(), Rates: in.rates(),
		ContextWindow: in.window("context window"), MaxOutputTokens: in.window("output tokens"),
		SupportsImages: in.bool("images"), SupportsAudio: in.bool("audio"), SupportsTools: in.bool("tools"),
		SupportsStructuredOutput: in.bool("structured"), CanReason: in.bool("reason"), CanStream: in.bool("stream"),
	}
	if in.bool("named") {
		m.Name, m.PriceSource = in.name(), in.text()
	}
	if in.bool("of a family") {
		m.FamilyID = in.family(m.ProviderID)
	}
	return m
}

// family returns a family, rarely one of another provider.
func (in inputs) family(providerID uuid.UUID) uuid.UUID {
	other := in.rarely("family of another provider")
	var ids []uuid.UUID
	for _, f := range in.world.families {
		if (f.ProviderID == providerID) != other {
			ids = append(ids, f.ID)
		}
	}
	if len(ids) == 0 {
		return uuid.Nil
	}
	return in.id("family", ids)
}

func (in inputs) window(label string) int64 {
	if in.rarely("bad window") {
		return draw[int64](in.T, label, -1, 1_000_000_000_001)
	}
	return draw[int64](in.T, label, 0, 4096, 200_000, 1_000_000_000_000)
}

func (in inputs) rates() money.Rates {
	rates := money.Rates{}
	switch draw(in.T, "kind of rates", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) {
	case 10, 11:
		return nil
	case 12:
		return rates
	case 13: // a dollar a token
		return money.Rates{"input": 1_000_000_000_000_000, "output": 0}
	case 14:
		if !in.bool("bad rates") {
			break
		}
		return draw(in.T, "bad rates", money.Rates{"input": -1}, money.Rates{"output": 1_000_000_000_000_001},
			money.Rates{"images": 1}, money.Rates{"": 1})
	}
	for i, name := range meter.Names() {
		if i < 2 && !in.rarely("no rate of "+name) || i >= 2 && in.bool("rate of "+name) && in.bool("really") {
			rates[name] = draw[money.USD](in.T, name, 0, 1, 3, 499_999, 500_000, 500_001, 30_000_000_000, 75_000_000,
				9_007_199_254_741)
		}
	}
	return rates
}

func (in inputs) tier() string {
	if in.rarely("bad tier") {
		return draw(in.T, "tier", invalidTexts...)
	}
	return draw(in.T, "tier", "", "", "standard", "batch", "Batch")
}

func (in inputs) secret() string {
	if in.rarely("bad key") {
		return draw(in.T, "key", "sk 1234", strings.Repeat("x", 4097), "sk-0123456789 abcdef",
			"sk-0123456789\x00abcdef", "sk-0123456789éabcdef")
	}
	return draw(in.T, "key", "", secret(0), secret(1), secret(2), secret(3), strings.Repeat("x", 16),
		strings.Repeat("~", 4096), "x", "sk-1234")
}
