// Package catalog reads catalogues of providers, models and prices into one form. It knows
// formats and no database.
package catalog

import (
	"regexp"
	"strings"

	"github.com/jeffersonwarrior/modelscan/money"
)

// Snapshot is a catalogue as its source had it.
type Snapshot struct {
	Source    string // where it comes from, such as catwalk; prices are marked with it
	Providers []Provider
	Notes     []Note // what was repaired, left out or unknown
}

// Provider is a provider and its models.
type Provider struct {
	Name        string // slug
	DisplayName string
	BaseURL     string // http(s); empty: not known
	AuthMethod  string // how a request carries the key: bearer, header, query, oauth, aws_sigv4 or none
	Models      []Model
}

// Model is what a catalogue says of a model. Unknown values are empty, 0 or nil.
type Model struct {
	ModelID         string // the provider's own name for it
	Name            string
	Family          string      // such as claude-3
	Rates           money.Rates // USD per one million tokens by meter name; nil: not known
	ContextWindow   int64       // tokens
	MaxOutputTokens int64       // tokens
	SupportsImages  *bool
	SupportsTools   *bool
	CanReason       *bool
	CanStream       *bool
}

// Note is something about a catalogue that its user should know.
type Note struct {
	Provider string
	Model    string // empty: about the provider
	Text     string
}

// Models returns the number of models.
func (s Snapshot) Models() int {
	n := 0
	for _, p := range s.Providers {
		n += len(p.Models)
	}
	return n
}

var (
	vendors = regexp.MustCompile(`^(?:[a-z]+\.)+([a-z].*)$`)
	version = regexp.MustCompile(`^([a-z]*\d+o?)(?:[.p]\d+)*[a-z]?$`)
	dated   = regexp.MustCompile(`^(?:0\d|\d{4,8})$`)
	sized   = regexp.MustCompile(`^[a-z]?\d+(?:\.\d+)?(?:x\d+(?:\.\d+)?)?[bm]$`)
	variant = regexp.MustCompile(`^(?:latest|preview|beta|free)$`)
)

// Family derives a family from a provider's name for a model, for catalogues that have none:
// the first two words at most, up to and including the first version, cut to its major number.
// Vendor prefixes do not count, and a variant, a date or a size ends the name:
//
//	anthropic/claude-opus-4.5      claude-opus-4
//	us.anthropic.claude-3-5-haiku  claude-3
//	Qwen/Qwen3-32B:free            qwen3
//	openai/gpt-oss-120b            gpt-oss
//	mistral-large-latest           mistral-large
//
// It is a guess, meant to group models as people would. A name without any word gives "".
func Family(modelID string) string {
	s := strings.ToLower(modelID)
	s = s[strings.LastIndexByte(s, '/')+1:]
	s, _, _ = strings.Cut(s, ":")
	s, _, _ = strings.Cut(s, "@")
	if m := vendors.FindStringSubmatch(s); m != nil {
		s = m[1]
	}
	var words []string
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return r == '-' || r == '_' || r == ' ' }) {
		ends := dated.MatchString(word) || sized.MatchString(word) || variant.MatchString(word)
		if ends && len(words) > 0 {
			break
		}
		if v := version.FindStringSubmatch(word); v != nil && !ends {
			words = append(words, v[1])
			break
		}
		if len(words) == 2 {
			break
		}
		words = append(words, word)
	}
	return strings.Join(words, "-")
}
