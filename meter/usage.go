package meter

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// formats maps each format to how its events are read, and to the strings one of which is in
// every event that matters.
var formats = map[Format]struct {
	read  func(s *state, data []byte, whole bool) error
	marks [][]byte
}{
	OpenAIChat:            {readOpenAIChat, marks("usage")},
	OpenAIResponses:       {readOpenAIResponses, marks("usage")},
	AnthropicMessages:     {readAnthropicMessages, marks("usage", "message_stop")},
	GeminiGenerateContent: {readGemini, marks("usageMetadata", "finishReason", "blockReason")},
	BedrockConverse:       {readBedrock, marks("usage")},
}

func marks(words ...string) [][]byte {
	var all [][]byte
	for _, word := range words {
		all = append(all, []byte(`"`+word+`"`))
	}
	return all
}

// count is a number of tokens as it stands in a response, which may not be a number at all.
type count struct {
	n    int64
	said bool
	bad  string // the JSON that is not a count
}

// UnmarshalJSON takes what is there; null says nothing. It does not fail, as an event that comes
// later may replace a bad count.
func (c *count) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	*c = count{said: true}
	whole, fraction, _ := strings.Cut(string(data), ".")
	n, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || n > MaxTokens || strings.Trim(fraction, "0") != "" {
		c.bad = strings.ToValidUTF8(string(data[:min(len(data), 40)]), "")
	} else {
		c.n = int64(n)
	}
	return nil
}

func (c *count) zero() bool { return c.n == 0 && c.bad == "" }

func (c *count) replace(later count) {
	if later.said {
		*c = later
	}
}

// counts gets the numbers out of counts and gathers what is wrong with them.
type counts struct{ missing, bad []error }

func (cs *counts) need(name string, c count) int64 {
	if !c.said {
		cs.missing = append(cs.missing, fmt.Errorf("no %s", name))
	}
	return cs.may(name, c)
}

func (cs *counts) may(name string, c count) int64 {
	if c.bad != "" {
		cs.bad = append(cs.bad, fmt.Errorf("%s %s: not a whole number within 0 and %d", name, c.bad, int64(MaxTokens)))
	}
	return c.n
}

func (cs *counts) err() error {
	switch {
	case len(cs.bad) > 0:
		return badUsage("%w", errors.Join(cs.bad...))
	case len(cs.missing) > 0:
		return fmt.Errorf("%w: %w", ErrNoUsage, errors.Join(cs.missing...))
	}
	return nil
}

// checked returns the tokens unless a sum of counts is out of bounds.
func checked(t Tokens) (Tokens, error) {
	if err := t.Validate(); err != nil {
		return Tokens{}, badUsage("%w", err)
	}
	return t, nil
}

type openAIChatUsage struct {
	Prompt        count `json:"prompt_tokens"`
	Completion    count `json:"completion_tokens"`
	Total         count `json:"total_tokens"`
	PromptDetails struct {
		Cached  count `json:"cached_tokens"`
		Written count `json:"cache_write_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionDetails struct {
		Reasoning count `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
	CacheHit  count `json:"prompt_cache_hit_tokens"`  // DeepSeek
	CacheMiss count `json:"prompt_cache_miss_tokens"` // DeepSeek
}

func readOpenAIChat(s *state, data []byte, whole bool) error {
	type response struct {
		Usage   openAIChatUsage `json:"usage"`
		Choices []struct {
			FinishReason any `json:"finish_reason"`
		} `json:"choices"`
	}
	var event response
	if err := json.Unmarshal(data, &event); err != nil {
		return err
	}
	// The chunk for the usage has no choices. Where each chunk has usage, or the last one with
	// choices has it, that one finishes them.
	final := true
	for _, choice := range event.Choices {
		final = final && choice.FinishReason != nil
	}
	s.set(event.Usage, whole || final)
	return nil
}

func (u openAIChatUsage) said() bool { return u.Prompt.said || u.Completion.said }

func (u openAIChatUsage) tokens() (Tokens, error) {
	var cs counts
	input, cached := cs.need("prompt_tokens", u.Prompt), cs.may("cached_tokens", u.PromptDetails.Cached)
	hit, miss := cs.may("prompt_cache_hit_tokens", u.CacheHit), cs.may("prompt_cache_miss_tokens", u.CacheMiss)
	if hit > 0 && !u.PromptDetails.Cached.said {
		if hit+miss != input {
			err := fmt.Errorf("cache hits %d and misses %d do not add up to prompt_tokens %d", hit, miss, input)
			cs.bad = append(cs.bad, err)
		}
		cached = hit
	}
	return openAI{
		input: input, output: cs.need("completion_tokens", u.Completion),
		cached: cached, written: cs.may("cache_write_tokens", u.PromptDetails.Written),
		reasoning: cs.may("reasoning_tokens", u.CompletionDetails.Reasoning),
		total:     cs.may("total_tokens", u.Total), hasTotal: u.Total.said,
	}.tokens(cs)
}

type openAIResponsesUsage struct {
	Input        count `json:"input_tokens"`
	Output       count `json:"output_tokens"`
	Total        count `json:"total_tokens"`
	InputDetails struct {
		Cached  count `json:"cached_tokens"`
		Written count `json:"cache_write_tokens"`
	} `json:"input_tokens_details"`
	OutputDetails struct {
		Reasoning count `json:"reasoning_tokens"`
	} `json:"output_tokens_details"`
}

func readOpenAIResponses(s *state, data []byte, _ bool) error {
	type response struct {
		Type     string               `json:"type"`
		Object   string               `json:"object"`
		Usage    openAIResponsesUsage `json:"usage"`
		Response struct {
			Usage openAIResponsesUsage `json:"usage"`
		} `json:"response"`
	}
	var event response
	if err := json.Unmarshal(data, &event); err != nil {
		return err
	}
	switch {
	case event.Object == "response": // a whole response
		s.set(event.Usage, true)
	case event.Type == "response.completed", event.Type == "response.incomplete", event.Type == "response.failed":
		s.set(event.Response.Usage, true)
	}
	return nil
}

func (u openAIResponsesUsage) said() bool { return u.Input.said || u.Output.said }

func (u openAIResponsesUsage) tokens() (Tokens, error) {
	var cs counts
	return openAI{
		input: cs.need("input_tokens", u.Input), output: cs.need("output_tokens", u.Output),
		cached:    cs.may("cached_tokens", u.InputDetails.Cached),
		written:   cs.may("cache_write_tokens", u.InputDetails.Written),
		reasoning: cs.may("reasoning_tokens", u.OutputDetails.Reasoning),
		total:     cs.may("total_tokens", u.Total), hasTotal: u.Total.said,
	}.tokens(cs)
}

// openAI is the convention that both of OpenAI's formats share.
type openAI struct {
	input, cached, written, output, reasoning, total int64
	hasTotal                                         bool
}

func (u openAI) tokens(cs counts) (Tokens, error) {
	if err := cs.err(); err != nil {
		return Tokens{}, err
	}
	if u.cached+u.written > u.input {
		return Tokens{}, badUsage("%d cached and %d written of %d input tokens", u.cached, u.written, u.input)
	}
	if sum := u.input + u.output; u.hasTotal && u.total != sum {
		if u.total != sum+u.reasoning {
			return Tokens{}, badUsage("total_tokens %d: not the sum of input %d and output %d, nor with reasoning %d",
				u.total, u.input, u.output, u.reasoning)
		}
		u.output += u.reasoning // as xAI counts
	}
	if u.reasoning > u.output {
		return Tokens{}, badUsage("%d reasoning of %d output tokens", u.reasoning, u.output)
	}
	return checked(Tokens{
		InputTokens:      u.input - u.cached - u.written,
		OutputTokens:     u.output - u.reasoning,
		CacheReadTokens:  u.cached,
		CacheWriteTokens: u.written,
		ReasoningTokens:  u.reasoning,
	})
}

type anthropicUsage struct {
	anthropicCounts
	Iterations []struct {
		Type string `json:"type"`
		anthropicCounts
	} `json:"iterations"`
}

type anthropicCounts struct {
	Input        count `json:"input_tokens"`
	CacheRead    count `json:"cache_read_input_tokens"`
	CacheWrite   count `json:"cache_creation_input_tokens"`
	CacheWriteBy struct {
		FiveMinutes count `json:"ephemeral_5m_input_tokens"`
		OneHour     count `json:"ephemeral_1h_input_tokens"`
	} `json:"cache_creation"`
	Output        count `json:"output_tokens"`
	OutputDetails struct {
		Thinking count `json:"thinking_tokens"`
	} `json:"output_tokens_details"`
}

func readAnthropicMessages(s *state, data []byte, _ bool) error {
	type response struct {
		Type    string         `json:"type"`
		Usage   anthropicUsage `json:"usage"`
		Message struct {
			Usage anthropicUsage `json:"usage"`
		} `json:"message"`
		Delta struct {
			StopReason any `json:"stop_reason"`
		} `json:"delta"`
	}
	var event response
	if err := json.Unmarshal(data, &event); err != nil {
		return err
	}
	switch event.Type {
	case "message": // a whole response
		s.set(event.Usage, true)
	case "message_start":
		s.set(event.Message.Usage, false)
		s.outdated = true
	case "message_delta":
		before, _ := s.usage.(anthropicUsage)
		if event.Usage.Output.said {
			s.set(before.replaced(event.Usage), event.Delta.StopReason != nil)
		}
	case "message_stop":
		s.end()
	}
	return nil
}

func (u anthropicUsage) said() bool { return u.Input.said || u.Output.said }

// replaced returns the usage with what a later event said.
func (u anthropicUsage) replaced(later anthropicUsage) anthropicUsage {
	if !u.Input.said || !later.Input.zero() || !later.CacheRead.zero() || !later.CacheWrite.zero() {
		u.Input.replace(later.Input)
		u.CacheRead.replace(later.CacheRead)
		if later.CacheWrite.said {
			u.CacheWrite, u.CacheWriteBy = later.CacheWrite, later.CacheWriteBy
		}
	}
	u.Output.replace(later.Output)
	u.OutputDetails.Thinking.replace(later.OutputDetails.Thinking)
	if later.Iterations != nil {
		u.Iterations = later.Iterations
	}
	return u
}

func (u anthropicUsage) tokens() (Tokens, error) {
	sum, err := u.anthropicCounts.tokens()
	if err != nil {
		return Tokens{}, err
	}
	for _, iteration := range u.Iterations {
		if iteration.Type != "compaction" {
			continue // in the counts, or another model's
		}
		t, err := iteration.tokens()
		if err != nil {
			return Tokens{}, fmt.Errorf("compaction: %w", err)
		}
		sum.InputTokens += t.InputTokens
		sum.OutputTokens += t.OutputTokens
		sum.CacheReadTokens += t.CacheReadTokens
		sum.CacheWriteTokens += t.CacheWriteTokens
		sum.ReasoningTokens += t.ReasoningTokens
		if sum, err = checked(sum); err != nil {
			return Tokens{}, err
		}
	}
	return sum, nil
}

func (u anthropicCounts) tokens() (Tokens, error) {
	var cs counts
	input, read := cs.need("input_tokens", u.Input), cs.may("cache_read_input_tokens", u.CacheRead)
	written := cs.may("cache_creation_input_tokens", u.CacheWrite)
	by := cs.may("ephemeral_5m_input_tokens", u.CacheWriteBy.FiveMinutes) +
		cs.may("ephemeral_1h_input_tokens", u.CacheWriteBy.OneHour)
	output, thinking := cs.need("output_tokens", u.Output), cs.may("thinking_tokens", u.OutputDetails.Thinking)
	if err := cs.err(); err != nil {
		return Tokens{}, err
	}
	switch {
	case !u.CacheWrite.said:
		written = by
	case by > 0 && by != written:
		return Tokens{}, badUsage("cache_creation_input_tokens %d: not the %d of cache_creation", written, by)
	}
	if thinking > output {
		return Tokens{}, badUsage("%d thinking of %d output tokens", thinking, output)
	}
	return checked(Tokens{
		InputTokens: input, CacheReadTokens: read, CacheWriteTokens: written,
		OutputTokens: output - thinking, ReasoningTokens: thinking,
	})
}
