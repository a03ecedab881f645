package meter

import (
	"bytes"
	"errors"
	"fmt"
)

// Format is the shape of a provider's responses: which API they come from, and with that what
// its usage numbers include. The same field name means different things in different formats,
// and the numbers rarely tell which, so the format is the caller's to know.
type Format string

// The formats that [Extract] and [Stream] read. Counts are tokens; "in" and "beside" say whether
// a count is part of the one named before it or comes on top.
//
// A count that is absent or null is zero where the provider leaves it out for a feature that was
// not used (caches, reasoning, tools), and [ErrNoUsage] otherwise.
const (
	// OpenAIChat is POST /v1/chat/completions of OpenAI and of the many that follow it.
	//
	//	prompt_tokens                                all input
	//	prompt_tokens_details.cached_tokens          in it: cache_read
	//	prompt_tokens_details.cache_write_tokens     in it: cache_write
	//	completion_tokens                            all output
	//	completion_tokens_details.reasoning_tokens   in it: reasoning
	//
	// A stream has usage if it was asked for with stream_options.include_usage.
	//
	// Two deviations are followed, each where its numbers prove it. reasoning_tokens are beside
	// completion_tokens (xAI) if total_tokens is the sum of all three. prompt_cache_hit_tokens
	// (DeepSeek) are in prompt_tokens and cache_read if they and prompt_cache_miss_tokens add up
	// to it and there are no cached_tokens. A total_tokens that neither reading explains counts
	// tokens that no field accounts for, which is [ErrBadUsage].
	//
	// Sources: OpenAI API reference, "The chat completion object" and "The chat completion chunk
	// object"; OpenAI guide "Prompt caching"; DeepSeek API reference, "Create Chat Completion";
	// xAI docs, "Consumption and Rate Limits".
	OpenAIChat Format = "openai-chat"

	// OpenAIResponses is POST /v1/responses of OpenAI.
	//
	//	input_tokens                              all input
	//	input_tokens_details.cached_tokens        in it: cache_read
	//	input_tokens_details.cache_write_tokens   in it: cache_write
	//	output_tokens                             all output
	//	output_tokens_details.reasoning_tokens    in it: reasoning
	//
	// A stream has the usage in response.completed, response.incomplete or response.failed. What
	// [OpenAIChat] says of total_tokens holds here too.
	//
	// Source: OpenAI API reference, "The response object" and "Streaming events".
	OpenAIResponses Format = "openai-responses"

	// AnthropicMessages is POST /v1/messages of Anthropic.
	//
	//	input_tokens                            input
	//	cache_read_input_tokens                 beside it: cache_read
	//	cache_creation_input_tokens             beside both: cache_write
	//	cache_creation.ephemeral_*_input_tokens in that, by how long the cache lives
	//	output_tokens                           all output
	//	output_tokens_details.thinking_tokens   in it: reasoning; none told apart if absent
	//	iterations, those of type "compaction"  beside all of them, with the same fields
	//
	// In a stream message_start has all input and a first count of output; the counts of
	// message_delta are cumulative and replace them. An input side of message_delta that is zero
	// throughout says nothing, as no request has no input. A stream that ended before its
	// message_delta is [ErrPartial].
	//
	// Tokens of an advisor or a fallback model, which are in iterations too, are not counted:
	// they have another model's price.
	//
	// Sources: Claude API reference, "Create a Message"; Claude docs, "Prompt caching", "Streaming
	// Messages" and "Compaction".
	AnthropicMessages Format = "anthropic-messages"

	// GeminiGenerateContent is generateContent and streamGenerateContent of Google, in the
	// Gemini API and in Vertex AI; a stream may be an SSE body (alt=sse) or a JSON array.
	//
	//	promptTokenCount          input, with what is cached
	//	cachedContentTokenCount   in it: cache_read
	//	toolUsePromptTokenCount   beside both: input
	//	candidatesTokenCount      output; if absent, totalTokenCount must prove it to be zero
	//	thoughtsTokenCount        beside it: reasoning
	//	totalTokenCount           the sum of the four that are not in another
	//
	// A total that is not this sum is [ErrBadUsage]. In a stream the counts are cumulative, and
	// the last ones are final once a finishReason or a blockReason was seen; before, they are
	// [ErrPartial].
	//
	// Sources: Gemini API reference, "UsageMetadata"; Vertex AI reference,
	// "GenerateContentResponse".
	GeminiGenerateContent Format = "gemini-generate-content"

	// BedrockConverse is Converse and ConverseStream of Amazon Bedrock.
	//
	//	inputTokens             input
	//	cacheReadInputTokens    beside it: cache_read
	//	cacheWriteInputTokens   beside both: cache_write
	//	outputTokens            output; reasoning is in it and not told apart
	//
	// A stream has the usage in its metadata event. AWS frames events in a binary encoding that
	// is not read here: decode it, and give each event's payload to [Stream.Event].
	//
	// Sources: Amazon Bedrock API reference, "TokenUsage" and "ConverseStreamMetadataEvent";
	// Amazon Bedrock user guide, "Prompt caching".
	BedrockConverse Format = "bedrock-converse"
)

var (
	// ErrUnknownFormat is returned for a [Format] that is not one of the constants.
	ErrUnknownFormat = errors.New("meter: unknown format")

	// ErrNoUsage is returned when a response does not say what it used: an error, a stream
	// without usage, one that was cut off before it, or a usage that lacks a count.
	ErrNoUsage = errors.New("meter: response without usage")

	// ErrPartial is returned together with tokens: those that a stream had reported when it was
	// cut off. The response used them, and output on top of them that nobody counted.
	ErrPartial = errors.New("meter: usage of an unfinished stream")

	// ErrBadUsage is returned when the usage cannot be true: a count that is no whole number
	// within 0 and [MaxTokens], a part larger than its whole, a total that does not add up, or
	// no JSON at all.
	ErrBadUsage = errors.New("meter: bad usage")
)

// Extract returns the tokens that a provider's response reports. The body is a whole response
// as JSON, of any length, or all of a stream as server-sent events.
//
// The errors are [ErrUnknownFormat], [ErrNoUsage], [ErrBadUsage] and [ErrPartial]. Only with
// ErrPartial are there tokens. What a response does not say is never taken for zero.
func Extract(f Format, body []byte) (Tokens, error) {
	s := NewStream(f)
	if start := bytes.TrimLeft(body, preamble); isJSON(start) {
		s.body(start)
		return s.result(f)
	}
	s.write(body)
	return s.Tokens()
}

// badUsage wraps ErrBadUsage.
func badUsage(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBadUsage, fmt.Errorf(format, args...))
}
